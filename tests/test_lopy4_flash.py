"""playbooks/flash.yml and playbooks/device.yml as people run them, on this machine: real Ansible, real Mosquitto, virtual LoPy4s."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from chain import Program, free_port, libraries, program, wait_until
from lopy4_bench import CONFIG, IDENTITY, REPOSITORY, Device, damage_fat
from project import PROBE
from virtual_lopy4_host import esptool

pytestmark = pytest.mark.slow

# Device seconds a second: a program that finds no broker takes a minute until it is taken for good.
FAST = 12

HOSTS = """
site:
  children:
    servers:
      hosts:
        pi:
          ansible_connection: local
          ansible_python_interpreter: {python}
          site_address: 192.0.2.1
          site_published_ports: {{1883: {port}}}
    brokers: {{children: {{servers: {{}}}}}}
    databases: {{children: {{servers: {{}}}}}}
    collectors: {{children: {{servers: {{}}}}}}
    dashboards: {{children: {{servers: {{}}}}}}
    flows: {{children: {{servers: {{}}}}}}
    devices:
      hosts:
        one:
        two:
"""


def reachable(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site(tmp_path):
    """The description of a site with two devices."""
    inventory = tmp_path / "site"
    (inventory / "group_vars/site").mkdir(parents=True)
    (inventory / "host_vars").mkdir()
    for name in ("site.yml", "readings.yml"):
        (inventory / "group_vars/site" / name).write_text(
            (REPOSITORY / "inventories/home/group_vars/site" / name).read_text()
        )
    (inventory / "hosts.yml").write_text(HOSTS.format(python=sys.executable, port=free_port()))
    for name in ("one", "two"):
        (inventory / f"host_vars/{name}.yml").write_text(
            f"lopy4_port: {tmp_path}/{name}\nlopy4_prepare_serial_host: false\nlopy4_reading_timeout: 0\n"
            "lopy4_wifi_ssid: virtual-network\nlopy4_wifi_password: eight-or-more\n"
            "lopy4_sensors: [{driver: dht11, pin: P11}]\n"
        )
    return inventory


@pytest.fixture
def broker(site, tmp_path):
    """A broker that knows device `one`, whose password is the one of the site."""
    port = yaml.safe_load((site / "hosts.yml").read_text())["site"]["children"]["servers"]["hosts"]["pi"][
        "site_published_ports"
    ][1883]
    (site / "secrets/mosquitto").mkdir(parents=True)
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o644)
    for name in ("one", PROBE):
        (site / "secrets/mosquitto" / name).write_text(f"secret-of-{name}\n")
        command = [program("mosquitto_passwd", "mosquitto"), "-b", passwords, name, f"secret-of-{name}"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **libraries(command[0])})
    passwords.chmod(0o644)
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
    )
    broker = Program([program("mosquitto", "mosquitto"), "-c", str(configuration)], tmp_path / "mosquitto.log")
    broker.start()
    try:
        wait_until(lambda: reachable(port), "the broker listens")
        yield port
    finally:
        broker.stop()


def play(playbook: str, site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(site),
        f"playbooks/{playbook}.yml",
        *options,
    ]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def said(result) -> str:
    return re.sub(r"\s+", " ", result.stdout)


def test_one_device_is_flashed_and_the_one_without_an_account_is_named(site, broker, tmp_path):
    one = Device(tmp_path / "state-one", "pycom", paced=False, speed=FAST, link=str(tmp_path / "one"))
    two = Device(tmp_path / "state-two", "mainline", paced=False, speed=FAST, link=str(tmp_path / "two"))
    with one, two:
        result = play("flash", site, "-vvv", "--diff")
        assert result.returncode != 0
        assert re.search(r"one: version \S+, \d+ files sent and 0 copied on the device", said(result)), result.stdout
        assert "two: FAILED. two cannot log in to the broker. Create its account first (`make pi`)" in said(result)
        assert two.uart.received == 0  # not one byte was sent to it
        again = play("flash", site, "--limit=one")
        assert again.returncode == 0, again.stdout
        assert "one: version" in said(again)
        assert "nothing written" in said(again)
        assert not {"secret-of-one", "eight-or-more"} & set(re.findall(r"[\w-]+", result.stdout + again.stdout))


def test_a_host_that_is_not_there_is_named_and_the_other_device_served(site, broker, tmp_path):
    hosts = site / "hosts.yml"
    # Nobody listens on that port.
    away = f"site:\n  hosts:\n    away: {{ansible_host: 127.0.0.1, ansible_port: {free_port()}}}\n"
    hosts.write_text(hosts.read_text().replace("site:\n", away, 1))
    (site / "host_vars/two.yml").write_text((site / "host_vars/two.yml").read_text() + "lopy4_serial_host: away\n")
    with Device(tmp_path / "state-one", "pycom", paced=False, speed=FAST, link=str(tmp_path / "one")):
        result = play("flash", site)
    assert result.returncode != 0
    assert "one: version" in said(result), result.stdout
    assert "two: FAILED. away, the serial host of two, is unreachable" in said(result), result.stdout


def test_two_devices_on_one_port_are_refused_before_a_byte_is_sent(site, broker, tmp_path):
    two = site / "host_vars/two.yml"
    two.write_text(two.read_text().replace(f"{tmp_path}/two", f"{tmp_path}/one"))
    with Device(tmp_path / "state-one", "pycom", paced=False, speed=FAST, link=str(tmp_path / "one")) as one:
        for options in ([], ["--limit=one"]):
            result = play("flash", site, *options)
            assert result.returncode != 0
            assert f"one: FAILED. lopy4_port: two also uses {tmp_path}/one on pi" in said(result), result.stdout
        assert one.uart.received == 0


def test_a_damaged_file_system_is_told_and_formatted_by_the_command_that_the_run_names(site, broker, tmp_path):
    with Device(tmp_path / "state-one", "pycom", paced=False, speed=FAST, link=str(tmp_path / "one")) as one:
        options = ["--limit=one", "-e", f"lopy4_esptool_directory={esptool().parents[1]}"]
        identity = one.flash.read(CONFIG, IDENTITY)
        for interval in (15, 20):  # a program in both slots
            assert play("flash", site, *options, "-e", f"lopy4_interval={interval}").returncode == 0
        damage_fat(one)
        damaged = play("flash", site, *options, "-e", "lopy4_interval=30")
        assert damaged.returncode != 0
        assert "one: FAILED. The file system of the device is damaged" in said(damaged), damaged.stdout
        assert "`make format DEVICE=one` creates a new file system" in said(damaged)
        formatted = play("flash", site, *options, "--tags", "lopy4_erase_fs,lopy4")
        assert formatted.returncode == 0, formatted.stdout
        assert one.installed["file_system"] == "littlefs"
        assert one.flash.read(CONFIG, IDENTITY) == identity
        assert (site / "backups/lopy4").is_dir()
        again = play("flash", site, *options)
        assert "nothing written" in said(again)


def test_a_reading_that_does_not_come_is_a_failure_with_advice(site, broker, tmp_path):
    with Device(tmp_path / "state-one", "pycom", paced=False, speed=FAST, link=str(tmp_path / "one")):
        # Nobody has the address of the broker that the device was given.
        result = play("flash", site, "--limit=one", "-e", "lopy4_reading_timeout=3")
    assert result.returncode != 0
    assert (
        "one runs the program, but none of its readings arrived at the broker within 3 s. It has not been online"
        in said(result)
    )


def test_a_new_device_is_described(site, tmp_path):
    for name in ("one", "two"):
        path = site / f"host_vars/{name}.yml"
        path.write_text(path.read_text().replace("virtual-network", '"Home: 5G är #1"'))
    with Device(tmp_path / "state", "pycom", paced=False) as device:
        options = ["-e", "device_name=greenhouse", "-e", "device_host=localhost", "-e", f"device_port={device.port}"]
        options += ["-e", "device_sensors=ds18b20,soil"]
        result = play("device", site, *options)
        assert result.returncode == 0, result.stdout
        described = yaml.safe_load((site / "host_vars/greenhouse.yml").read_text())
        assert described["lopy4_port"] == device.port
        assert [sensor["driver"] for sensor in described["lopy4_sensors"]] == ["ds18b20", "soil"]
        assert "Its file system is FAT, which a power cut during an upload can damage" in said(result)
        assert "make pi && make format DEVICE=greenhouse" in said(result)
        assert described["lopy4_mac"] == ":".join(f"{byte:02x}" for byte in device.mac)
        assert described["lopy4_wifi_ssid"] == "Home: 5G är #1"  # as the devices that are there have it
        assert described["lopy4_serial_host"] == "localhost"
        assert "greenhouse:" in (site / "hosts.yml").read_text()
        (site / "host_vars/greenhouse.yml").write_text("mine: true\n")
        again = play("device", site, *options)
        assert "existed already and was not changed" in said(again)
        assert (site / "host_vars/greenhouse.yml").read_text() == "mine: true\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-e", "device_name=green_house!"], "Give the device a name that no other host has"),
        (["-e", "device_name=pi"], "Give the device a name that no other host has"),
        (["-e", "device_name=x", "-e", "device_port=/dev/tty-none"], "There is no port /dev/tty-none"),
        (["-e", "device_name=x", "-e", "device_sensors=ds18b2"], "There is no driver ds18b2. Available: "),
    ],
)
def test_what_can_not_be_described_leaves_the_inventory_alone(site, options, sentence):
    before = (site / "hosts.yml").read_text()
    result = play("device", site, "-e", "device_host=localhost", *options)
    assert result.returncode != 0
    assert sentence in said(result)
    assert (site / "hosts.yml").read_text() == before
    assert sorted(path.name for path in (site / "host_vars").iterdir()) == ["one.yml", "two.yml"]
