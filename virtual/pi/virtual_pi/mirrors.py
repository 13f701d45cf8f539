"""How this machine reaches Debian's packages: mirror, apt settings, private CAs. The image gets the same settings."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import ssl
import subprocess


def apt_targets() -> str:
    """The sources of this machine's apt: lines of `URI|suite|origin`."""
    if not shutil.which("apt-get"):
        return ""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(ORIGIN)", "Created-By: Packages"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def mirrors(release: str, targets: str, explicit: str = "") -> list[str]:
    """Lines of sources.list for `release` on the mirror `explicit`, else on the mirrors in `targets` (see apt_targets()).

    Empty if there is no mirror of Debian among them; mmdebstrap then uses its default.
    """
    if explicit:
        return [f"deb {explicit} {release} main"]
    lines = []
    for target in targets.splitlines():
        uri, suite, origin = target.split("|")
        # Before its first `apt-get update`, a machine knows only the addresses, not the origins.
        debian = origin == "Debian" or (not origin and "debian" in uri)
        if debian and (match := re.fullmatch(r"[a-z]+(-updates|-security)?", suite)):
            lines.append(f"deb {uri} {release}{match[1] or ''} main")
    return sorted(set(lines), key=lambda line: (line.split()[2], line))


def apt_transport_options() -> list[str]:
    """The Acquire::http and Acquire::https settings of this machine's apt (proxies, CAs)."""
    if not shutil.which("apt-config"):
        return []
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return re.findall(r"^(Acquire::https?::\S+ \"[^\"]+\";)$", dump, re.MULTILINE)


def private_certificates() -> list[str]:
    """The certificates (PEM) in this machine's bundle that are not part of the distribution."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    shipped = {c for path in pathlib.Path("/usr/share/ca-certificates").rglob("*.crt") for c in pem_blocks(path)}
    return sorted(pem_blocks(pathlib.Path(bundle)) - shipped) if shipped else []


def pem_blocks(path: pathlib.Path) -> set[str]:
    """The certificates in a PEM file; none if the file cannot be read."""
    with contextlib.suppress(OSError):
        return set(re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", path.read_text(), re.DOTALL))
    return set()
