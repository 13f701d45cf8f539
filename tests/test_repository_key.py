"""The key of an apt repository: used for its fingerprint alone, fetched once."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from conftest import REPOSITORY


def gpg(home, *arguments, text=""):
    command = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys: {fingerprint: armoured block}, as gpg says it."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    for name, kind in (("one", "rsa2048"), ("other", "ed25519")):
        gpg(home, "--quick-generate-key", name, kind, "sign", "1d")
    lines = gpg(home, "--list-keys", "--with-colons").splitlines()
    primary = [lines[number + 1].split(":")[9] for number, line in enumerate(lines) if line.startswith("pub:")]
    yield {name: gpg(home, "--armor", "--export", name) for name in primary}, gpg(home, "--armor", "--export")
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture
def lookup(tmp_path, monkeypatch):
    monkeypatch.setenv("TIG_PI_CACHE", str(tmp_path / "cache"))

    def run(key, fingerprint, check=False):
        loader = DataLoader()
        plugin = lookup_loader.get(
            "tig_pi.stack.repository_key", loader=loader, templar=Templar(loader=loader, variables={})
        )
        [found] = plugin.run(
            [key], {"ansible_check_mode": check}, fingerprint=fingerprint, variable="x_repository_fingerprint"
        )
        return found

    return run


@pytest.fixture
def server(keys):
    """Serves both keys in one file, and counts how often it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            Handler.asked += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(keys[1].encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}/key.asc", Handler
        http_server.shutdown()
        thread.join()


def test_only_the_recorded_key_of_a_file_is_used(keys, lookup, tmp_path):
    single, both = keys
    for fingerprint in single:
        found = lookup(both, fingerprint)
        home = tmp_path / fingerprint
        home.mkdir(mode=0o700)
        shown = gpg(home, "--show-keys", "--with-colons", text=found)
        assert [line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")] == [fingerprint]


@pytest.mark.parametrize("between", ["", "\n", "another line\n"])
def test_a_file_may_hold_several_blocks(keys, lookup, between):
    single, _ = keys
    text = between.join(single.values())
    for fingerprint, block in single.items():
        assert lookup(text, fingerprint) == lookup(block, fingerprint)
    with pytest.raises(AnsibleError, match=" and ".join(single)):
        lookup(text, "A" * 40)


def test_a_truncated_block_is_not_a_key(keys, lookup):
    first, other = keys[0].items()
    with pytest.raises(AnsibleFilterError, match="not an ASCII-armoured OpenPGP public key"):
        lookup(first[1] + other[1].partition("-----END")[0], first[0])


def test_the_vendors_keys_are_recorded_once():
    """The feed trusts the keys that the roles trust, whose defaults are verified ones."""
    vendors = json.loads((REPOSITORY / "packaging/vendors.json").read_text())
    for role, label in (("influxdb", "InfluxData"), ("telegraf", "InfluxData"), ("grafana", "Grafana Labs")):
        defaults = yaml.safe_load((REPOSITORY / f"roles/{role}/defaults/main.yml").read_text())
        for name in ("fingerprint", "key", "uri", "suites", "components"):
            assert defaults[f"{role}_repository"][name] == vendors[label][name], (role, name)
        assert re.fullmatch("[0-9A-F]{40}", vendors[label]["fingerprint"])


def test_blanks_and_case_of_a_fingerprint_do_not_matter(keys, lookup):
    [fingerprint, _] = keys[0]
    spaced = " ".join(fingerprint[at : at + 4] for at in range(0, 40, 4)).lower()
    assert lookup(keys[1], spaced) == lookup(keys[1], fingerprint)


def test_a_missing_fingerprint_is_requested(keys, lookup):
    with pytest.raises(AnsibleError, match="x_repository_fingerprint is not set") as error:
        lookup(keys[1], "")
    assert all(fingerprint in str(error.value) for fingerprint in keys[0])


def test_another_key_is_refused(keys, lookup):
    with pytest.raises(AnsibleError, match="do not continue"):
        lookup(keys[1], "A" * 40)


def test_a_key_is_fetched_once(keys, lookup, server):
    url, handler = server
    [fingerprint, _] = keys[0]
    first = lookup(url, fingerprint)
    assert lookup(url, fingerprint) == first
    assert handler.asked == 1


def test_check_mode_writes_nothing(keys, lookup, server, tmp_path):
    lookup(server[0], next(iter(keys[0])), check=True)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_copy_is_detected(keys, lookup, server, tmp_path):
    fingerprint, other = keys[0]
    lookup(server[0], fingerprint)
    (tmp_path / f"cache/keys/{fingerprint}.asc").write_text(keys[0][other])
    with pytest.raises(AnsibleError, match=other):
        lookup(server[0], fingerprint)


def test_a_file_that_is_not_a_key_is_reported(lookup):
    with pytest.raises(AnsibleFilterError, match="not an ASCII-armoured OpenPGP public key"):
        lookup("<html>not found</html>", "A" * 40)


def test_a_server_out_of_reach_is_reported(lookup):
    with pytest.raises(AnsibleError, match=r"cannot be downloaded from http://127\.0\.0\.1:9/"):
        lookup("http://127.0.0.1:9/key.asc", "A" * 40)
