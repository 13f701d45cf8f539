#!/usr/bin/env python3
"""Pack the Grafana stand-in as a Debian package: package.py OUTDIR writes the .deb and prints its path.

The build is reproducible: the same files give the same package.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "12.2.0~standin2"
HERE = Path(__file__).resolve().parent
PARTS = HERE / "package"
PROGRAM = HERE / "grafana_stand_in"
_EPOCH = 1_750_000_000  # the modification time of every file

# Target: file in package/, mode.
FILES = {
    "etc/default/grafana-server": ("grafana-server.default", 0o644),
    "usr/lib/systemd/system/grafana-server.service": ("grafana-server.service", 0o644),
    "usr/sbin/grafana-cli": ("grafana.sh", 0o755),
    "usr/sbin/grafana-server": ("grafana.sh", 0o755),
    "usr/share/grafana/bin/grafana": ("launcher.py", 0o755),
    "usr/share/grafana/conf/defaults.ini": ("defaults.ini", 0o644),
    "usr/share/grafana/conf/ldap.toml": ("ldap.toml", 0o644),
    "usr/share/grafana/conf/sample.ini": ("sample.ini", 0o644),
    "usr/share/grafana/conf/provisioning/sample.yaml": ("sample.yaml", 0o644),
}
CONFFILES = ["/etc/default/grafana-server", "/usr/lib/systemd/system/grafana-server.service"]


def _put(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def lay_out(root: Path) -> None:
    """Write the tree of the package, without its control files."""
    for name, (source, mode) in FILES.items():
        _put(PARTS / source, root / name, mode)
    for module in sorted(PROGRAM.glob("*.py")):
        _put(module, root / "usr/share/grafana/stand-in/grafana_stand_in" / module.name, 0o644)
    for name in ("etc/grafana", "usr/share/grafana/public"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "usr/share/grafana/VERSION").write_text(VERSION + "\n")


def build(directory: Path) -> Path:
    """Write the package to the directory and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    package = directory / f"grafana_{VERSION}_all.deb"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        lay_out(root)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024 + 1
        control = (PARTS / "control").read_text().replace("@VERSION@", VERSION).replace("@SIZE@", str(size))
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(control)
        (root / "DEBIAN/conffiles").write_text("\n".join(CONFFILES) + "\n")
        for name in ("postinst", "prerm"):
            _put(PARTS / name, root / "DEBIAN" / name, 0o755)
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
            elif "DEBIAN" in path.parts and path.name in ("control", "conffiles"):
                path.chmod(0o644)
            os.utime(path, (_EPOCH, _EPOCH))
        unfinished = directory / f".{package.name}.part"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(unfinished)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH)},
        )
        unfinished.replace(package)
    return package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outdir", type=Path, help="directory for the package")
    if shutil.which("dpkg-deb") is None:
        sys.exit("dpkg-deb is missing: apt-get install dpkg")
    print(build(parser.parse_args().outdir))


if __name__ == "__main__":
    main()
