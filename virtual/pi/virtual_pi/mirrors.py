"""How this machine reaches packages, which the image takes over: its mirror of Debian, its apt settings, its private CAs."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import ssl
import subprocess


def apt_targets() -> str:
    """The sources of the host's own apt: lines of `URI|suite|origin`."""
    if not shutil.which("apt-get"):
        return ""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(ORIGIN)", "Created-By: Packages"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def mirrors(release: str, targets: str, explicit: str = "") -> list[str]:
    """sources.list lines for `release` on an explicitly named mirror, else on the one that the host's own apt uses.

    `targets` as apt_targets() returns them. Empty if no mirror of Debian is among them: mmdebstrap has a default.
    """
    if explicit:
        return [f"deb {explicit} {release} main"]
    lines = []
    for target in targets.splitlines():
        uri, suite, origin = target.split("|")
        # If the host has never fetched its lists, it knows the addresses, but not the origins.
        debian = origin == "Debian" or (not origin and "debian" in uri)
        if debian and (match := re.fullmatch(r"[a-z]+(-updates|-security)?", suite)):
            lines.append(f"deb {uri} {release}{match[1] or ''} main")
    return sorted(set(lines), key=lambda line: (line.split()[2], line))


def apt_transport_options() -> list[str]:
    """How the host's apt reaches its mirrors: its own Acquire::http and Acquire::https settings (proxies, CAs)."""
    if not shutil.which("apt-config"):
        return []
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return re.findall(r"^(Acquire::https?::\S+ \"[^\"]+\";)$", dump, re.MULTILINE)


def private_certificates() -> list[str]:
    """The certificates (PEM) in the host's bundle that are not the distribution's."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    shipped = {c for path in pathlib.Path("/usr/share/ca-certificates").rglob("*.crt") for c in pem_blocks(path)}
    return sorted(pem_blocks(pathlib.Path(bundle)) - shipped) if shipped else []


def pem_blocks(path: pathlib.Path) -> set[str]:
    """The certificates in a PEM file; none if the file cannot be read."""
    with contextlib.suppress(OSError):
        return set(re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", path.read_text(), re.DOTALL))
    return set()
