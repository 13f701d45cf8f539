"""Build InfluxDB 1.x from its Go module, without its second query language Flux, and pack it as its vendor does."""

from __future__ import annotations

import shutil
from pathlib import Path

import deb
from deb import Package
from tools import GO_ARCHITECTURE, go_build, go_environment, go_module, toolchain

HERE = Path(__file__).resolve().parent
WITHOUT_FLUX = HERE / "influxdb-without-flux"

VERSION = "1.13.2"
# Hash of the module as printed by `go mod download -json`; the module's own go.sum pins its dependencies.
SUM = "h1:jwauUMQzyQIOfqZr90qsmlxVw/0MliHv3L7rsnUWsfo="
# The tilde sorts our build before the vendor's package of the same version, so that the vendor's replaces it.
DEBIAN_VERSION = f"{VERSION}~tigpi2"
# The files in influxdb-without-flux: where they go in the module of InfluxDB, which then contains that of Flux.
REPLACED = {
    "init.go": "flux/init",
    "bigtable.go": "flux/module/dependencies/bigtable",
    "libflux.go": "flux/module/libflux/go/libflux",
    "lookup.go": "flux/module/runtime",
}
PROGRAMS = ("influxd", "influx", "influx_inspect")

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
    names = ("influxdb.py", "tools.py", "deb.py", "requirements.txt")
    return [*(HERE / name for name in names), *WITHOUT_FLUX.iterdir()]


def make(arch: str, cache: Path, output: Path) -> Package:
    """Build the package in the vendor's layout; unit, start script, configuration and maintainer scripts are in the module."""
    go = toolchain(cache) / "go/bin/go"
    log = cache / f"feed/logs/influxdb-{arch}.log"
    log.unlink(missing_ok=True)
    environment = go_environment(cache)
    module = f"github.com/influxdata/influxdb@v{VERSION}"
    source = output / "source"
    # Without the modes of Go's cache, where no file may be written.
    shutil.copytree(go_module(go, module, SUM, environment, output), source, copy_function=shutil.copyfile)
    remove_flux(source, go_module(go, "github.com/influxdata/flux", None, environment, source))

    tree = output / "influxdb"
    for folder in ("DEBIAN", "usr/bin", "var/lib/influxdb", "var/log/influxdb"):
        (tree / folder).mkdir(parents=True)
    packages = [f"./cmd/{name}" for name in PROGRAMS]
    environment |= GO_ARCHITECTURE[arch]
    # The vendor's build tags, except static_build, which is for Flux.
    go_build(go, packages, tree / "usr/bin", "netgo,osusergo", f"main.version={VERSION}", log, environment, source)

    deb.copy_into(tree, source, FILES)
    (tree / "DEBIAN/conffiles").write_text("/etc/influxdb/influxdb.conf\n")
    control = {
        "Package": "influxdb",
        "Version": DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Recommends": "influxdata-archive-keyring",
        "Section": "default",
        "Priority": "extra",
        "Homepage": "https://influxdata.com",
        "Description": "Distributed time-series database.",
    }
    return deb.built(tree, control, output, f"Go module {module} {SUM}")


def remove_flux(source: Path, flux: Path) -> None:
    """Take Flux out of the module in `source`; `flux` is the module of Flux.

    Flux, which is off by default, is half of the packages of InfluxDB and a compiler written in Rust. The types that the rest
    of InfluxDB needs from it become a part of its own module, where Go allows changes.
    """
    own = source / "flux/module"
    left_out = shutil.ignore_patterns("libflux", "bigtable", "*_test.go", "go.mod")
    shutil.copytree(flux, own, ignore=left_out, copy_function=shutil.copyfile)
    for name, folder in REPLACED.items():
        (source / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(WITHOUT_FLUX / name, source / folder / name)
    for path in source.rglob("*.go"):
        text = path.read_text()
        changed = text.replace('"github.com/influxdata/flux', '"github.com/influxdata/influxdb/flux/module')
        if changed != text:
            path.write_text(changed)
