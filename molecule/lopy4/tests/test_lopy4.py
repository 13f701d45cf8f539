"""The role lopy4 from outside: what is on the devices after the playbook ran, and what it says when something is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from conftest import EPHEMERAL, PROJECT

sys.path.insert(0, str(PROJECT / "virtual/lopy4"))
from virtual_lopy4 import flash

testinfra_hosts = ["ansible://pi"]
DEVICES = ("greenhouse", "cellar")
FIRMWARE = PROJECT / "firmware"


@pytest.fixture
def control(host):
    """A command to a device made of software: control("greenhouse", "status")."""

    def run(device: str, *command: str):
        with host.sudo():
            result = host.run("/opt/virtual-lopy4/lopy4.py ctl /var/lib/virtual-lopy4/%s " + " ".join(command), device)
        assert result.rc == 0, result.stdout + result.stderr
        return json.loads(result.stdout) if result.stdout.strip().startswith(("{", "[", '"')) else result.stdout

    return run


@pytest.fixture
def program(tmp_path):
    """A copy of the program that a test may change."""
    return shutil.copytree(FIRMWARE, tmp_path / "firmware")


def wait_for(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(1)


# Block writes of a program that is interrupted, and keeps its readings in the flash; an upload has hundreds.
KEEPS = 30


def writes(control, device) -> int:
    return control(device, "status")["block_writes"]


def said(result) -> str:
    """Everything that the run printed, as one line: Ansible folds what is long."""
    return re.sub(r"\s+", " ", result.stdout)


def changed(result, device: str) -> int:
    return int(re.search(rf"^{device} .*changed=(\d+)", result.stdout, re.M)[1])


def test_the_host_is_ready(host):
    assert host.package("python3-serial").is_installed
    assert "dialout" in host.user("pi").groups
    rules = host.file("/etc/udev/rules.d/70-tig-pi-lopy4.rules")
    assert 'ENV{ID_MM_DEVICE_IGNORE}="1"' in rules.content_string


def test_nothing_is_written_where_nothing_has_changed(converge, control):
    before = [writes(control, device) for device in DEVICES]
    result = converge()
    assert result.returncode == 0, result.stdout
    assert [changed(result, device) for device in DEVICES] == [0, 0]
    assert all(writes(control, device) - count < KEEPS for device, count in zip(DEVICES, before, strict=True))


def test_a_changed_setting_reaches_the_device_and_no_secret_the_screen(converge):
    assert changed(converge("--check", "--diff", lopy4_interval=20), "cellar") == 1
    result = converge("--diff", lopy4_interval=20)
    assert result.returncode == 0, result.stdout
    assert changed(result, "greenhouse") == 1
    assert "settings.json" in result.stdout
    assert "eight-or-more" not in result.stdout
    again = converge(lopy4_interval=20)
    assert again.returncode == 0, again.stdout
    assert [changed(again, device) for device in DEVICES] == [0, 0]


def test_a_program_that_reaches_no_broker_hands_back_to_the_one_before(converge, control):
    assert converge().returncode == 0
    result = converge("--limit=greenhouse", lopy4_broker_host="192.0.2.1", lopy4_reading_timeout=3)
    assert result.returncode != 0
    assert "greenhouse runs the program, but none of its readings arrived at the broker within 3 s" in said(result)
    assert (
        "If it does not reach the broker within ten minutes of its start, the device returns to the previous program"
        in said(result)
    )
    wait_for(lambda: "reached no broker, back to slot" in control("greenhouse", "output"))
    result = converge()
    assert result.returncode == 0, result.stdout
    assert changed(result, "greenhouse") == 0


def test_a_changed_file_and_a_removed_one(converge, program):
    (program / "lib/tig/drivers/extra.py").write_text('QUANTITIES = {"nothing": (0, 1, 0)}\n')
    assert converge(lopy4_program_directory=str(program)).returncode == 0
    (program / "lib/tig/drivers/extra.py").unlink()
    (program / "lib/tig/log.py").write_text((program / "lib/tig/log.py").read_text() + "# changed\n")
    result = converge("--diff", lopy4_program_directory=str(program))
    assert result.returncode == 0, result.stdout
    assert "+# changed" in result.stdout
    assert "drivers/extra.py" in result.stdout
    assert converge().returncode == 0


def test_a_broken_program_hands_back_and_the_other_device_is_served(converge, program, control):
    (program / "lib/tig/program.py").write_text("import nonsense\n")
    result = converge("--limit=greenhouse", lopy4_program_directory=str(program))
    assert result.returncode != 0
    assert "The program does not start on greenhouse. The device returns to version" in said(result), result.stdout
    assert "ImportError: no module named" in said(result), result.stdout  # quotes are doubled in YAML
    assert converge().returncode == 0


def test_one_device_that_is_unplugged_does_not_stop_the_other(converge, control):
    control("greenhouse", "unplug")
    try:
        result = converge(lopy4_interval=25)
    finally:
        control("greenhouse", "plug")
    assert result.returncode != 0
    assert "There is no port /dev/serial/by-id/usb-Pycom_Expansion3_greenhouse-if00." in said(result), result.stdout
    assert "usb-Pycom_Expansion3_cellar-if00" in said(result), result.stdout
    assert changed(result, "cellar") == 1
    assert converge().returncode == 0


def test_swapped_cables_are_noticed_before_a_byte_is_written(converge, control):
    before = writes(control, "greenhouse")
    result = converge("--limit=greenhouse", chip="24:0a:c4:12:34:56", lopy4_interval=33)
    assert result.returncode != 0
    assert "are two cables swapped?" in said(result), result.stdout
    assert writes(control, "greenhouse") - before < KEEPS


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"lopy4_broker_host": "localhost"}, "lopy4_broker_host: localhost is the device itself"),
        ({"lopy4_timezone": "Europe/Stokholm"}, "there is no time zone 'Europe/Stokholm'"),
        ({"lopy4_wifi_password": "short"}, "lopy4_wifi_password must be a text"),
        ({"lopy4_sensors": [{"driver": "dht22", "pin": "P11", "fields": {"a": "b"}}]}, "Did you mean dht11?"),
        ({"lopy4_interval": 0}, "lopy4_interval: 0 is not a number from 2 to 86400"),
    ],
)
def test_settings_that_make_no_sense_are_refused(converge, control, variables, sentence):
    before = writes(control, "greenhouse")
    result = converge("--limit=greenhouse", **variables)
    assert result.returncode != 0
    assert sentence in said(result), result.stdout
    assert writes(control, "greenhouse") == before


def test_the_interpreter_is_replaced_and_the_config_block_kept(converge, host, control, tmp_path):
    """Pycom's firmware, a later one, MicroPython, and back; the block with the LoRa keys is there again at the end."""

    feed = tmp_path / "feed/trixie-amd64/interpreters"
    feed.mkdir(parents=True)

    def interpreter(name: str, data: bytes, place: Path = tmp_path, **more):
        (place / name).write_bytes(data)
        return converge(
            "--limit=greenhouse",
            lopy4_interpreter=str(tmp_path / name),
            lopy4_interpreter_sha256=hashlib.sha256(data).hexdigest(),
            lopy4_interpreter_feed=str(tmp_path / "feed"),
            lopy4_backup_directory=str(tmp_path / "backups"),
            **more,
        )

    def block() -> str:
        with host.sudo():
            return host.check_output(
                "dd if=/var/lib/virtual-lopy4/greenhouse/flash.bin bs=4096 skip=1023 count=1 status=none | sha256sum"
            )

    before = block()
    wrong = converge(
        "--limit=greenhouse", lopy4_interpreter=str(tmp_path / "none.tar.gz"), lopy4_interpreter_sha256="00"
    )
    assert "No such file" in said(wrong), wrong.stdout
    same = interpreter("LoPy4-1.20.2.r6.tar.gz", flash.archive())
    assert same.returncode == 0, same.stdout
    assert changed(same, "greenhouse") == 0
    later = interpreter("LoPy4-1.20.3.b3.tar.gz", flash.archive("1.20.3.b3"), feed)  # the user's own file is gone
    assert later.returncode == 0, later.stdout
    assert block() == before
    refused = interpreter("ESP32_GENERIC-SPIRAM-20260406-v1.28.0.bin", flash.mainline_image())
    assert "Set lopy4_erase_fs: true to allow that" in said(refused), refused.stdout
    assert block() == before
    other = interpreter("ESP32_GENERIC-SPIRAM-20260406-v1.28.0.bin", flash.mainline_image(), lopy4_erase_fs=True)
    assert other.returncode == 0, other.stdout
    assert block() == before  # erasing leaves it out; in time MicroPython's file system takes its place
    with host.sudo():
        host.check_output(
            "dd if=/dev/urandom of=/var/lib/virtual-lopy4/greenhouse/flash.bin bs=4096 seek=1023 count=1 conv=notrunc"
        )
    assert block() != before
    kept = list((tmp_path / "backups").glob("*.config.bin"))
    assert len(kept) == 1
    assert kept[0].stat().st_mode & 0o777 == 0o600
    back = interpreter("LoPy4-1.20.2.r6.tar.gz", flash.archive(), lopy4_erase_fs=True)
    assert back.returncode == 0, back.stdout
    assert block() == before
    assert str(EPHEMERAL) != str(tmp_path)
