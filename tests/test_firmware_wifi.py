"""What the Wi-Fi is called and its password, from the inventory through settings.json to the call of the device's WLAN.

Each is sent to the byte, or is refused on the controller by the name of its variable.
"""

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import lopy4 as filters
from conftest import REPOSITORY
from lopy4_bench import ROLE

from firmware import evaluate

GOOD = {  # (name, password)
    "plain": ("home", "eight-or-more"),
    "emoji": ("🏠 at home 🏡", "pass 🔑 word"),
    "umlauts": ("Häuschen", "Grüße aus Køge"),
    "quotes and backslashes": ("\"Fritz's\" \\ 'box'", 'a"b\\c\'d\\n\\"e'),
    "blanks at the ends": (" home ", "  eight or more  "),
    "what YAML and JSON take for something else": ("no: [yes]", "null, #true {~}"),
    "32 bytes of ASCII": ("n" * 32, "p" * 63),
    "32 bytes of umlauts": ("ü" * 16, "ü" * 31 + "x"),
    "32 bytes of emoji": ("🏠" * 8, "🔑" * 15 + "xyz"),
    "a key": ("home", "0123456789abcdefABCDEF0123456789" * 2),
    "eight digits": ("12345678", "12345678"),
    "open": ("café", ""),
}
BAD = {  # (name, password): the variable that is named
    ("", "eight-or-more"): "lopy4_wifi_ssid",
    ("n" * 33, "eight-or-more"): "lopy4_wifi_ssid",
    ("ü" * 17, "eight-or-more"): "lopy4_wifi_ssid",
    ("🏠" * 9, "eight-or-more"): "lopy4_wifi_ssid",
    ("home\n", "eight-or-more"): "lopy4_wifi_ssid",
    ("ho\0me", "eight-or-more"): "lopy4_wifi_ssid",
    ("\ud83c\udfe0", "eight-or-more"): "lopy4_wifi_ssid",  # a pair of escapes, as some editors write an emoji
    (12345678, "eight-or-more"): "lopy4_wifi_ssid",
    (None, "eight-or-more"): "lopy4_wifi_ssid",
    ("home", "seven77"): "lopy4_wifi_password",
    ("home", "p" * 64): "lopy4_wifi_password",  # 64 are a key, in hexadecimal digits
    ("home", "0" * 65): "lopy4_wifi_password",
    ("home", "ü" * 32): "lopy4_wifi_password",
    ("home", "eight-or-more\r"): "lopy4_wifi_password",  # a file of Windows'
    ("home", "eight\0or-more"): "lopy4_wifi_password",
    ("home", "eight-\udfe0-more"): "lopy4_wifi_password",
    ("home", 12345678): "lopy4_wifi_password",
    ("home", None): "lopy4_wifi_password",
}
RENDER = {
    "hosts": "all",
    "gather_facts": False,
    "vars": {"role_path": str(ROLE)},
    "roles": ["tig_pi.stack.lopy4"],  # for its variables; its tasks are not among those that are run
    "tasks": [
        {
            "name": "Render the settings as the role does",
            "ansible.builtin.copy": {
                "content": None,
                "dest": "{{ rendered }}/{{ inventory_hostname }}",
                "mode": "0600",
            },
            "tags": ["render"],
        }
    ],
}
CONNECT = """
from tig import settings
from tig.board import board
from tig.program import Encoder

class Wlan:
    # What is called on the platform, a text as its bytes.
    def status(self):
        return 0
    def connect(self, *texts, auth=None, timeout=None):
        self.called = [list(text.encode()) for text in texts + ((auth[1],) if auth else ())]

result = []
board._wlan = Wlan()
for text in data:
    with open("settings.json", "wb") as f:
        f.write(bytes(text))
    conf = settings.load("settings.json")
    board.wifi_connect(conf["wifi"]["ssid"], conf["wifi"]["password"], 1000)
    encode = Encoder(conf["name"], list(conf["sensors"][0]["fields"].values()), ["%.0f"], None)
    result.append([board._wlan.called, list(conf["broker"]["password"].encode()), list(encode([53], 0))])
"""
BROKER_PASSWORD = "geheim-🔑"


def problems(ssid, password):
    settings = {
        "name": "greenhouse",
        "port": "/dev/ttyACM0",
        "mac": "",
        "topic": "tig/greenhouse",
        "interval": 15,
        "send_delay": 30,
        "ring": 500,
        "watchdog": 120,
        "wifi_ssid": ssid,
        "wifi_password": password,
        "broker_host": "192.0.2.4",
        "broker_port": 1883,
        "broker_password": "secret",
        "broker_keepalive": 60,
        "time_server": "192.0.2.4",
        "timezone": "Etc/UTC",
        "sensors": [{"driver": "dht11", "pin": "P11", "fields": {"humidity": "h"}}],
    }
    return filters.lopy4_problems(settings, str(REPOSITORY / "firmware"))


@pytest.mark.parametrize("ssid_and_password", BAD, ids=ascii)
def test_what_cannot_work_is_refused_by_its_variable(ssid_and_password):
    ssid, password = ssid_and_password
    [found] = problems(ssid, password)
    assert found.startswith(f"greenhouse: {BAD[ssid_and_password]} must be a text")
    found.encode()  # it can be printed
    for secret in (ssid, password):
        assert not isinstance(secret, str) or len(secret) < 7 or secret not in found


def render(ansible_playbook, folder, cases) -> list[bytes]:
    """settings.json for a device of each name and password, as the role renders it from an inventory."""
    [task] = yaml.safe_load((ROLE / "tasks/program.yml").read_text())
    RENDER["tasks"][0]["ansible.builtin.copy"]["content"] = task["tig_pi.stack.lopy4_program"]["settings"]
    hosts = {
        f"device{number}": {
            "ansible_connection": "local",
            "lopy4_wifi_ssid": ssid,
            "lopy4_wifi_password": password,
            "lopy4_broker_host": "192.0.2.4",
            "lopy4_broker_password": BROKER_PASSWORD,
            "lopy4_sensors": [{"driver": "dht11", "pin": "P11", "fields": {"humidity": "luftfeuchte_🏠"}}],
        }
        for number, (ssid, password) in enumerate(cases)
    }
    (folder / "inventory").mkdir()
    (folder / "inventory/hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}, allow_unicode=True))
    options = ("--tags=render", "--skip-tags=always", f"--extra-vars=rendered={folder}")
    ran = ansible_playbook(yaml.safe_dump([RENDER]), *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [(folder / host).read_bytes() for host in hosts]


def test_what_works_reaches_the_device_to_the_byte(ansible_playbook, tmp_path):
    assert all(problems(*case) == [] for case in GOOD.values())
    files = render(ansible_playbook, tmp_path, GOOD.values())
    for profile in ("pycom", "mainline"):
        answers = evaluate(CONNECT, [list(file) for file in files], profile)
        for (name, (ssid, password)), (called, broker, reading) in zip(GOOD.items(), answers, strict=True):
            key = [] if profile == "pycom" and not password else [list(password.encode())]
            assert called == [list(ssid.encode()), *key], name
            assert bytes(broker).decode() == BROKER_PASSWORD
            assert json.loads(bytes(reading)) == {
                "device": "device" + str(list(GOOD).index(name)),
                "luftfeuchte_🏠": 53,
            }
