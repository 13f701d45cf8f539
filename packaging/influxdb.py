"""Build InfluxDB 1.x from its Go module and pack it as its vendor does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import deb
from deb import Package
from tools import CannotBuild, go_environment, go_module, nice, run, toolchain

HERE = Path(__file__).resolve().parent

VERSION = "1.13.2"
# Hash of the module as printed by `go mod download -json`; the module's own go.sum pins its dependencies.
SUM = "h1:jwauUMQzyQIOfqZr90qsmlxVw/0MliHv3L7rsnUWsfo="
# The tilde sorts our build before the vendor's package of the same version, so that the vendor's replaces it.
DEBIAN_VERSION = f"{VERSION}~tigpi1"
PROGRAMS = ("influxd", "influx", "influx_inspect")
# The query language Flux is partly written in Rust. This is the minimum version in its libflux/flux/Cargo.toml.
RUST_VERSION = (1, 83)

# The files that the vendor's package takes from the module: source, target, mode.
PACKAGING = ".circleci/packages/influxdb"
SCRIPTS = "usr/lib/influxdb/scripts"
FILES = (
    ("etc/config.sample.toml", "etc/influxdb/influxdb.conf", 0o644),
    (f"{PACKAGING}/fs/lib/systemd/system/influxdb.service", "lib/systemd/system/influxdb.service", 0o644),
    (f"{PACKAGING}/fs/{SCRIPTS}/influxd-systemd-start.sh", f"{SCRIPTS}/influxd-systemd-start.sh", 0o755),
    (f"{PACKAGING}/fs/{SCRIPTS}/init.sh", f"{SCRIPTS}/init.sh", 0o755),
    (f"{PACKAGING}/control/pre-install", "DEBIAN/preinst", 0o755),
    (f"{PACKAGING}/control/post-install", "DEBIAN/postinst", 0o755),
    (f"{PACKAGING}/control/post-uninstall", "DEBIAN/postrm", 0o755),
    ("LICENSE", "usr/share/doc/influxdb/copyright", 0o644),
)


def inputs() -> list[Path]:
    return [HERE / name for name in ("influxdb.py", "tools.py", "deb.py", "requirements.txt")]


def obstacle(arch: str) -> str:
    """Why this machine cannot build the package; "" if it can."""
    try:
        rust_programs(arch)
    except CannotBuild as error:
        return str(error)
    return ""


def make(arch: str, cache: Path, output: Path) -> Package:
    """Build the package in the vendor's layout; unit, start script, configuration and maintainer scripts are in the module."""
    rust = rust_programs(arch)
    go = toolchain(cache) / "go/bin/go"
    log = cache / f"feed/logs/influxdb-{arch}.log"
    log.unlink(missing_ok=True)
    environment = go_environment(cache)
    module = f"github.com/influxdata/influxdb@v{VERSION}"
    source = go_module(go, module, SUM, environment, output)

    # Go asks pkg-config for Flux; InfluxData's own pkg-config builds it with cargo.
    pkg_config = output / "pkg-config"
    run([go, "build", "-o", pkg_config, "github.com/influxdata/pkg-config"], log, env=environment, cwd=source)
    cargo = output / "cargo"
    cargo.write_text(f'#!/bin/sh\nexec {shlex.quote(str(rust / "cargo"))} --locked "$@"\n')
    cargo.chmod(0o755)
    environment |= {
        "CGO_ENABLED": "1",
        "GO": str(go),
        "PKG_CONFIG": str(pkg_config),
        "CARGO": str(cargo),
        "CARGO_HOME": str(_cargo_home(cache)),
        "CARGO_TARGET_DIR": "target",  # where pkg-config expects the library
        "PATH": f"{rust}:{environment['PATH']}",
    }
    tree = output / "influxdb"
    for folder in ("DEBIAN", "usr/bin", "var/lib/influxdb", "var/log/influxdb"):
        (tree / folder).mkdir(parents=True)
    # The vendor's build tags except static_build, which needs Rust's musl target.
    command = [go, "build", "-tags", "netgo,osusergo", "-ldflags", f"-s -w -X main.version={VERSION}"]
    command += ["-o", f"{tree}/usr/bin/", *(f"./cmd/{name}" for name in PROGRAMS)]
    run(nice(command), log, env=environment, cwd=source)

    deb.copy_into(tree, source, FILES)
    (tree / "DEBIAN/conffiles").write_text("/etc/influxdb/influxdb.conf\n")
    control = {
        "Package": "influxdb",
        "Version": DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Depends": f"libc6 (>= {_glibc_of(sorted((tree / 'usr/bin').iterdir()))}), libgcc-s1",
        "Recommends": "influxdata-archive-keyring",
        "Section": "default",
        "Priority": "extra",
        "Homepage": "https://influxdata.com",
        "Description": "Distributed time-series database.",
    }
    return deb.built(tree, control, output, f"Go module {module} {SUM}")


def glibc(package: Package) -> str:
    """The minimum version of the C library that a package depends on; "" if it declares none."""
    command = ["dpkg-deb", "--field", package.path, "Depends"]
    found = re.search(
        r"\blibc6 \(>= ([0-9.]+)\)", subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return found[1] if found else ""


def _glibc_of(programs: list[Path]) -> str:
    """The minimum version of the C library that provides all symbols these programs use."""
    names = [name for program in programs for name in re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=\0)", program.read_bytes())]
    return ".".join(map(str, max(tuple(map(int, name)) for name in names)))


def rust_programs(arch: str) -> Path:
    """The directory of cargo and rustc themselves; CannotBuild if this machine cannot build the package. rustup's proxies on
    the PATH would insist on the exact version that Flux names.
    """

    def output(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    own = output("dpkg", "--print-architecture")
    if arch != own:
        raise CannotBuild(f"InfluxDB can be built only for this machine's own architecture, {own}")
    try:
        version = output("rustc", "--version").split()[1].split("-")[0]
        folder = Path(output("rustc", "--print", "sysroot"), "bin")
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuild("Rust (rustc, cargo) is not installed on this machine") from error
    if tuple(map(int, version.split("."))) < RUST_VERSION:
        needed = ".".join(map(str, RUST_VERSION))
        raise CannotBuild(f"it needs Rust {needed} or newer, and this machine has {version}")
    for program in (folder / "cargo", "gcc", "cc"):
        if not shutil.which(program):
            raise CannotBuild(f"{Path(program).name} is not installed on this machine")
    return folder


def _cargo_home(cache: Path) -> Path:
    """The directory for crates, in the cache. The user's own settings for cargo (a proxy, a mirror) still apply."""
    home = cache / "cargo"
    home.mkdir(exist_ok=True)
    user_home = Path(os.environ.get("CARGO_HOME") or Path("~/.cargo").expanduser())
    for name in ("config.toml", "credentials.toml"):
        (home / name).unlink(missing_ok=True)
        if (user_home / name).exists():
            (home / name).symlink_to(user_home / name)
    return home
