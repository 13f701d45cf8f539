"""Build Telegraf from its Go module and pack it as its vendor does."""

from __future__ import annotations

from pathlib import Path

import deb
from deb import Package
from tools import GO_ARCHITECTURE, go_build, go_environment, go_module, toolchain

HERE = Path(__file__).resolve().parent

VERSION = "1.39.3"
# Hash of the module as printed by `go mod download -json`; the module's own go.sum pins its dependencies.
SUM = "h1:SauZnzw7fZPkMNFq+GxazjPr7MyGl1/saEYxxKKvdyU="
# The tilde sorts our build before the vendor's package of the same version, so that the vendor's replaces it.
DEBIAN_VERSION = f"{VERSION}-1~tigpi2"


def inputs() -> list[Path]:
    return [HERE / name for name in ("telegraf-plugins.txt", "telegraf.py", "tools.py", "deb.py", "requirements.txt")]


def make(arch: str, cache: Path, output: Path) -> Package:
    """Build Telegraf with the plugins of telegraf-plugins.txt in the vendor's layout; files, unit and maintainer scripts are
    in the module.
    """
    go = toolchain(cache) / "go/bin/go"
    log = cache / f"feed/logs/telegraf-{arch}.log"
    log.unlink(missing_ok=True)
    environment = go_environment(cache)
    module = f"github.com/influxdata/telegraf@v{VERSION}"
    source = go_module(go, module, SUM, environment, output)

    lines = (HERE / "telegraf-plugins.txt").read_text().splitlines()
    tags = ",".join(["custom", *(line.strip() for line in lines if line.strip() and not line.startswith("#"))])
    tree = output / "telegraf"
    stamp = f"github.com/influxdata/telegraf/internal.Version={VERSION}"
    program = tree / "usr/bin/telegraf"
    go_build(go, ["./cmd/telegraf"], program, tags, stamp, log, environment | GO_ARCHITECTURE[arch], source)

    for folder in ("DEBIAN", "etc/telegraf/telegraf.d", "var/log/telegraf"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    files = (
        ("cmd/telegraf/agent.conf", "etc/telegraf/telegraf.conf.sample", 0o644),
        ("etc/logrotate.d/telegraf", "etc/logrotate.d/telegraf", 0o644),
        ("scripts/telegraf.service", "usr/lib/telegraf/scripts/telegraf.service", 0o644),
        ("scripts/init.sh", "usr/lib/telegraf/scripts/init.sh", 0o755),
        ("LICENSE", "usr/share/doc/telegraf/copyright", 0o644),
        ("scripts/deb/pre-install.sh", "DEBIAN/preinst", 0o755),
        ("scripts/deb/post-install.sh", "DEBIAN/postinst", 0o755),
        ("scripts/deb/pre-remove.sh", "DEBIAN/prerm", 0o755),
        ("scripts/deb/post-remove.sh", "DEBIAN/postrm", 0o755),
    )
    deb.copy_into(tree, source, files)
    (tree / "DEBIAN/conffiles").write_text("/etc/telegraf/telegraf.conf.sample\n/etc/logrotate.d/telegraf\n")
    control = {
        "Package": "telegraf",
        "Version": DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Section": "net",
        "Recommends": "influxdata-archive-keyring",
        "Priority": "optional",
        "Homepage": "https://github.com/influxdata/telegraf",
        "Description": "Plugin-driven agent for reporting metrics into InfluxDB, with the plugins of tig-pi",
    }
    return deb.built(tree, control, output, f"Go module {module} {SUM}")
