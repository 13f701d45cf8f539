"""InfluxDB 1.x from its Go module, packed as its vendor packs it."""

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
# Hash of the module as `go mod download -json` gives it; the module's own go.sum pins everything below it.
SUM = "h1:jwauUMQzyQIOfqZr90qsmlxVw/0MliHv3L7rsnUWsfo="
# The tilde sorts our build before the vendor's package of the same version, which may then take its place.
DEBIAN_VERSION = f"{VERSION}~tigpi1"
PROGRAMS = ("influxd", "influx", "influx_inspect")
# The query language Flux is partly in Rust: the oldest version that its libflux/flux/Cargo.toml allows.
RUST_VERSION = (1, 83)

# Where the module has what the vendor's package holds, and its place there.
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
    """What keeps this machine from building the package, or nothing."""
    try:
        rust_programs(arch)
    except CannotBuild as error:
        return str(error)
    return ""


def make(arch: str, cache: Path, output: Path) -> Package:
    """InfluxDB in the layout of the vendor's package: unit, start script, configuration and maintainer scripts are the ones
    of the module itself.
    """
    rust = rust_programs(arch)
    go = toolchain(cache) / "go/bin/go"
    log = cache / f"feed/logs/influxdb-{arch}.log"
    log.unlink(missing_ok=True)
    environment = go_environment(cache)
    module = f"github.com/influxdata/influxdb@v{VERSION}"
    source = go_module(go, module, SUM, environment, output)

    # Go asks pkg-config for Flux, and InfluxData's own pkg-config builds it with cargo.
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
        "CARGO_TARGET_DIR": "target",  # where pkg-config looks for it
        "PATH": f"{rust}:{environment['PATH']}",
    }
    tree = output / "influxdb"
    for folder in ("DEBIAN", "usr/bin", "var/lib/influxdb", "var/log/influxdb"):
        (tree / folder).mkdir(parents=True)
    # The vendor's tags, but for static_build, which needs Rust's musl.
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
    """The oldest version of the C library with which a package runs; "" for any."""
    command = ["dpkg-deb", "--field", package.path, "Depends"]
    found = re.search(
        r"\blibc6 \(>= ([0-9.]+)\)", subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return found[1] if found else ""


def _glibc_of(programs: list[Path]) -> str:
    """The newest version of the C library whose symbols a program asks for."""
    names = [name for program in programs for name in re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=\0)", program.read_bytes())]
    return ".".join(map(str, max(tuple(map(int, name)) for name in names)))


def rust_programs(arch: str) -> Path:
    """Folder of this machine's own cargo and rustc, once it is known that the package can be built here. What rustup has on
    the PATH in their place would look for the very version that is recorded with Flux.
    """

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    own = said("dpkg", "--print-architecture")
    if arch != own:
        raise CannotBuild(f"InfluxDB is built for this machine's own architecture only, which is {own}")
    try:
        version = said("rustc", "--version").split()[1].split("-")[0]
        folder = Path(said("rustc", "--print", "sysroot"), "bin")
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuild("there is no Rust here (rustc, cargo)") from error
    if tuple(map(int, version.split("."))) < RUST_VERSION:
        raise CannotBuild(f"it needs Rust {'.'.join(map(str, RUST_VERSION))}, and here is {version}")
    for program in (folder / "cargo", "gcc", "cc"):
        if not shutil.which(program):
            raise CannotBuild(f"{Path(program).name} is missing here")
    return folder


def _cargo_home(cache: Path) -> Path:
    """Crates go into the cache; what the user has set for cargo (a proxy, a mirror) counts nevertheless."""
    home = cache / "cargo"
    home.mkdir(exist_ok=True)
    user_home = Path(os.environ.get("CARGO_HOME") or Path("~/.cargo").expanduser())
    for name in ("config.toml", "credentials.toml"):
        (home / name).unlink(missing_ok=True)
        if (user_home / name).exists():
            (home / name).symlink_to(user_home / name)
    return home
