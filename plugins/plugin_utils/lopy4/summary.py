"""How a run went, device by device."""

from __future__ import annotations

from collections.abc import Mapping


def lopy4_summary(hosts: list[str], hostvars: Mapping, left: list[str]) -> list[str]:
    """One line a device: what was done to it, or what went wrong and what to try.

    Args:
        hosts: all devices of the play.
        hostvars: their variables.
        left: those that are in the play still; the others have become unreachable.
    """
    lines = []
    for host in hosts:
        done, failure = hostvars[host].get("lopy4_result") or {}, hostvars[host].get("flash_failure")
        if failure:
            sentences = " ".join(failure) if isinstance(failure, list) else str(failure)
            sentences = sentences.removeprefix(host + ": ")
            lines.append(f"{host}: FAILED. {sentences.strip()}" + _faults(done))
        elif done.get("changed") and "files" in done:
            before = done["previous_version"]
            lines.append(
                f"{host}: version {done['version']}{f' in place of {before}' if before else ''}, {len(done['files']['sent'])} files "
                f"sent and {len(done['files']['copied'])} copied on the device, {done['seconds']} s"
                + (
                    f"; repaired what was damaged or missing: {', '.join(done['repaired'])}"
                    if done.get("repaired")
                    else ""
                )
                + ("; it has not reached the broker yet" if done.get("waits") else "")
                + (
                    f", and if it does not in ten minutes it goes back to {before}"
                    if done.get("waits") and before
                    else ""
                )
                + _faults(done)
            )
        elif "version" in done:
            lines.append(f"{host}: version {done['version']} as declared, nothing written, {done['seconds']} s")
        elif host not in left:
            lines.append(
                f"{host}: FAILED. The connection to {hostvars[host].get('lopy4_serial_host', 'its serial host')} was lost during the run. "
                "Check its power and network, and run again. A complete program starts on the device in any case."
            )
        else:
            lines.append(f"{host}: not looked at")
    return lines


def _faults(done: Mapping) -> str:
    return "".join(f"; sensor {name} fails: {fault}" for name, fault in (done.get("sensor_faults") or {}).items())
