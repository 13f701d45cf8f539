"""What the role lopy4 works out on the controller: settings, addresses, zones, hosts.yml, and the declared interpreter."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible.module_utils.testing import patch_module_args
from ansible_collections.tig_pi.stack.plugins.action.lopy4_program import PAIR
from ansible_collections.tig_pi.stack.plugins.filter import lopy4 as filters
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4 import image, ports, transport
from ansible_collections.tig_pi.stack.plugins.modules import lopy4_interpreter, lopy4_ports, lopy4_program
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4 import inventory, network
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.drivers import drivers
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.program import tree
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.shelf import Shelf
from lopy4_bench import FIRMWARE, REPOSITORY, ROLE
from virtual_lopy4 import flash

SETTINGS = {
    "name": "greenhouse",
    "port": "/dev/ttyACM0",
    "mac": "",
    "topic": "tig/greenhouse",
    "interval": 15,
    "send_delay": 30,
    "ring": 500,
    "watchdog": 120,
    "wifi_ssid": "my-network",
    "wifi_password": "eight-or-more",
    "broker_host": "192.168.1.4",
    "broker_port": 1883,
    "broker_password": "secret",
    "broker_keepalive": 60,
    "time_server": "192.168.1.4",
    "timezone": "Europe/Stockholm",
    "sensors": [
        {"driver": "dht11", "pin": "P11", "fields": {"temperature": "outsidetemp"}},
        {"driver": "bmp180", "fields": {"pressure": "airpressure"}},
        {"driver": "soil", "pin": "P17", "power": "P8", "dry_mv": 2800, "wet_mv": 1200, "fields": {"moisture": "soil"}},
    ],
}


def problems(**changes):
    return filters.lopy4_problems(SETTINGS | changes, str(FIRMWARE))


def sensor(place: int, **changes) -> list[dict]:
    sensors = [dict(one) for one in SETTINGS["sensors"]]
    sensors[place] = {key: value for key, value in (sensors[place] | changes).items() if value is not None}
    return sensors


def buses(*pairs: tuple[str, str]) -> list[dict]:
    """A BMP180 on each pair of pins."""
    return [
        {"driver": "bmp180", "sda": sda, "scl": scl, "fields": {"pressure": f"pressure{place}"}}
        for place, (sda, scl) in enumerate(pairs)
    ]


def chips(*entries: tuple[str, dict]) -> list[dict]:
    """I2C sensors, each with more settings, on the bus that is their default."""
    return [
        {"driver": driver, "fields": {"temperature": f"temperature{place}"}, **more}
        for place, (driver, more) in enumerate(entries)
    ]


def test_good_settings_are_good():
    assert problems() == []
    assert problems(sensors=buses(("P6", "P7"), ("P9", "P10"))) == []
    shared = chips(("bme280", {}), ("bme280", {"address": 0x77}), ("sht31", {}), ("sht31", {"address": 0x45}))
    assert problems(sensors=shared) == []
    assert problems(sensors=sensor(1, oversampling=0, sealevel=1013.25)) == []
    assert problems(sensors=sensor(2, samples=1, settle_ms=0), interval=2) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"port": ""}, "lopy4_port and lopy4_mac are both missing"),
        ({"mac": "24:0a:c4"}, "is not a MAC address"),
        ({"interval": 1}, "lopy4_interval: 1 is not a number from 2 to 86400"),
        ({"watchdog": 60}, "lopy4_watchdog: 60 is not a number from 90 to 3600"),
        ({"watchdog": "long"}, "lopy4_watchdog: 'long' is not a number"),
        ({"topic": "tig/#"}, "is not a topic to publish to"),
        ({"wifi_ssid": "n" * 33}, "lopy4_wifi_ssid must be a text (quote a number)"),
        ({"topic": "tig/" + "ü" * 99}, "lopy4_topic is 202 bytes long; 200 is the most"),
        ({"topic": "tig/\0"}, "is not a topic to publish to"),
        ({"broker_password": "x" * 257}, "lopy4_broker_password must be a text"),
        ({"broker_password": "two\nlines"}, "lopy4_broker_password must be a text"),
        ({"broker_host": "n" * 254}, "neither an IPv4 address nor a name"),
        ({"sensors": sensor(0, fields={"temperature": "time"})}, "'time' can't be the name of a field"),
        ({"sensors": sensor(0, fields={"temperature": 5})}, "5 can't be the name of a field"),
        ({"sensors": sensor(0, name="")}, "name is ''"),
        ({"sensors": sensor(0, name=5)}, "name is 5"),
        ({"wifi_password": 12345678}, "quote a number"),
        ({"broker_password": ""}, "lopy4_broker_password is missing"),
        ({"broker_host": "127.0.0.1"}, "is the device itself"),
        ({"time_server": "localhost"}, "lopy4_time_server: localhost is the device itself"),
        ({"broker_host": "::2"}, "is IPv6"),
        ({"broker_host": "no such host"}, "neither an IPv4 address nor a name"),
        ({"broker_host": "nobody-has-this-name.local"}, "devices can't resolve .local names"),
        ({"timezone": "Europe/Stokholm"}, "there is no time zone"),
        ({"sensors": []}, "lopy4_sensors is empty"),
        ({"sensors": sensor(0, driver="dht12")}, "Did you mean dht11?"),
        ({"sensors": sensor(0, pin=None)}, "pin is missing"),
        ({"sensors": sensor(0, pin="P13")}, "is an input only"),
        ({"sensors": sensor(0, pin="P1")}, "is used by the serial port"),
        ({"sensors": sensor(0, pin="P8")}, "is used by another sensor"),
        ({"sensors": sensor(0, pin="G17")}, "pins are P0 to P23"),
        ({"sensors": sensor(0, fields={"humidty": "x"})}, "does not measure humidty"),
        ({"sensors": sensor(0, fields=None)}, "fields is missing"),
        ({"sensors": sensor(1, fields={"pressure": "outsidetemp"})}, "is filled by dht11 already"),
        ({"sensors": sensor(2, dry_mV=3)}, "there is no key dry_mV"),
        ({"sensors": sensor(2, dry_mv=1210)}, "(nearly) the same"),
        ({"sensors": sensor(2, wet_mv="wet")}, "wet_mv is 'wet'"),
        ({"sensors": sensor(2, pin="P9")}, "take P13 to P20"),
        (
            {"sensors": sensor(2, wet_mv=90)},
            "entry 3 (soil): wet_mv is 90; it is its reading in a glass of water in mV, 100 to 3100",
        ),
        ({"sensors": sensor(2, dry_mv=3200)}, "dry_mv is 3200"),
        (
            {"sensors": sensor(2, samples=0)},
            "entry 3 (soil): samples is 0; it is how many readings the median is of, 1 to 200",
        ),
        ({"sensors": sensor(2, settle_ms=200000)}, "settle_ms is 200000"),
        ({"sensors": sensor(1, oversampling=5)}, "entry 2 (bmp180): oversampling is 5; it is the data sheet's setting"),
        ({"sensors": sensor(1, oversampling=1.5)}, "oversampling is 1.5"),
        ({"sensors": sensor(1, sealevel=0)}, "sealevel is 0; it is the pressure at sea level in hPa, 800 to 1100"),
        ({"sensors": sensor(1, sealevel=True)}, "sealevel is True"),
        ({"sensors": sensor(2, settle_ms=10000), "interval": 10}, "takes 10.2 s, and lopy4_interval is 10"),
        ({"sensors": buses(("P6", "P7"), ("P6", "P7"))}, "entry 2 (bmp180): entry 1 is on P6 and P7, too"),
        (
            {"sensors": chips(("bme280", {}), ("bme280", {}))},
            "the same address; take another address, or other pins",
        ),
        (
            {"sensors": chips(("bmp180", {}), ("bme280", {"address": 0x77}))},
            "entry 2 (bme280): entry 1 is on P6 and P7",
        ),
        ({"sensors": chips(("sht31", {"address": 0x46}))}, "address is 70; it is its I2C address, 0x44 or 0x45"),
        ({"sensors": chips(("sht31", {"address": "0x45"}))}, "address is '0x45'"),
        ({"sensors": chips(("bme280", {"sda": "P13"}))}, "sda: P13 is an input only"),
        ({"sensors": chips(("bme280", {"oversampling": 1}))}, "there is no key oversampling"),
        ({"sensors": chips(("sht31", {"address": None}))}, "address is None"),
        ({"sensors": [{"driver": "dht11", "pin": None, "fields": {"humidity": "h"}}]}, "pin is missing"),
        ({"sensors": buses(("P6", "P7"), ("P6", "P9"))}, "P6 or P9 belongs to the bus of another sensor"),
        ({"sensors": buses(("P6", "P7"), ("P9", "P10"), ("P3", "P4"))}, "3 pairs of sda and scl"),
    ],
)
def test_bad_settings_are_named(changes, sentence):
    found = problems(**changes)
    assert len(found) == 1, found
    assert sentence in found[0]
    assert "secret" not in found[0]
    assert "eight-or-more" not in found[0]


def wire(*addresses: object, **more) -> list[dict]:
    """DS18B20 on one wire."""
    return [
        {"driver": "ds18b20", "pin": "P10", "fields": {"temperature": f"t{place}"}, **more}
        | ({"address": address} if address else {})
        for place, address in enumerate(addresses)
    ]


ADDRESSES = ("28ff641e84160333", "28ff641e841604b0")


def test_several_sensors_share_a_wire_by_their_addresses():
    assert problems(sensors=wire(None)) == []
    assert problems(sensors=wire(*ADDRESSES)) == []


@pytest.mark.parametrize(
    ("sensors", "sentence"),
    [
        (wire(None, None), "entry 2 (ds18b20): entry 1 is on P10, too; give each of them its address."),
        (wire(ADDRESSES[0], None), "entry 2 (ds18b20): entry 1 is on P10, too; give each of them its address."),
        (wire(None, ADDRESSES[0]), "entry 2 (ds18b20): entry 1 is on P10, too; give each of them its address."),
        (wire(ADDRESSES[0], ADDRESSES[0]), "and has the same address; take another address, or another pin."),
        (wire(2812345678901234), "its address, 28 and 14 more hexadecimal digits in quotes."),
        (wire("28FF641E84160333"), "its address, 28 and 14 more hexadecimal digits in quotes."),
        (wire(None, pin="P13"), "pin: P13 is an input only"),
        ([*wire(None), *buses(("P9", "P10"))], "scl: P10 is used by another sensor"),
    ],
)
def test_bad_wires_are_named(sensors, sentence):
    found = problems(sensors=sensors)
    assert len(found) == 1, found
    assert sentence in found[0]


def soil_probes(count: int, **more) -> list[dict]:
    return [
        {
            "driver": "soil",
            "pin": f"P{13 + place}",
            "power": f"P{3 + place}",
            "dry_mv": 2800,
            "wet_mv": 1200,
            "fields": {"moisture": f"soil{place}"},
            **more,
        }
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("key", "least"),
    [("broker_keepalive", 66), ("watchdog", 131)],  # 60.7 s for the probes; what is set to the second is enough
)
def test_a_keep_alive_or_a_watchdog_that_ends_while_the_sensors_are_read_is_refused(key, least):
    sensors, settings = soil_probes(6, settle_ms=10000), {"interval": 90, "broker_keepalive": 90, "watchdog": 150}
    assert problems(sensors=sensors, **settings) == []
    assert problems(sensors=sensors, **settings | {key: least}) == []
    [found] = problems(sensors=sensors, **settings | {key: least - 1})
    assert f"lopy4_{key}: {least - 1} is too short: to read the sensors may take 60.7 s" in found
    assert f"Set it to {least} or more." in found


def test_a_driver_says_how_long_it_takes(tmp_path):
    (tmp_path / "lib/tig/drivers").mkdir(parents=True)
    (tmp_path / "lib/tig/drivers/dust.py").write_text('TAKES_MS = 30000\nQUANTITIES = {"pm25": (0, 999, 0)}\n')
    sensors = [{"driver": "dust", "fields": {"pm25": "dust"}}]
    settings = SETTINGS | {"sensors": sensors, "interval": 60}
    assert filters.lopy4_problems(settings | {"broker_keepalive": 35, "watchdog": 100}, str(tmp_path)) == []
    found = filters.lopy4_problems(settings | {"broker_keepalive": 34, "watchdog": 99}, str(tmp_path))
    assert [problem.split()[1] for problem in found] == ["lopy4_broker_keepalive:", "lopy4_watchdog:"]


def test_a_sites_own_driver_is_checked_and_put_on_the_device(tmp_path):
    own = 'QUANTITIES = {"pm25": (0, 999, 0)}\nSETTINGS = {"pin": {"kind": "pin", "direction": "input", "about": "its output"}}\n'
    (tmp_path / "dust.py").write_text(own)
    dust = {"driver": "dust", "pin": "P13", "fields": {"pm25": "dust"}}
    assert "there is no such driver" in problems(sensors=[dust])[0]

    def found(**changes) -> list[str]:
        return filters.lopy4_problems(SETTINGS | {"sensors": [dust | changes]}, str(FIRMWARE), str(tmp_path))

    assert found() == []
    assert found(pin="P99") == ["greenhouse: lopy4_sensors, entry 1 (dust): pin is 'P99'; pins are P0 to P23."]
    files = tree(FIRMWARE, tmp_path)
    assert files["lib/tig/drivers/dust.py"] == own.encode()
    assert tree(FIRMWARE, tmp_path / "absent") == tree(FIRMWARE)
    (tmp_path / "soil.py").write_text(own)
    assert tree(FIRMWARE, tmp_path)["lib/tig/drivers/soil.py"] == own.encode()


@pytest.mark.parametrize("text", ["def read(:\n", "QUANTITIES = range_of()\n", "QUANTITIES = {}\nTAKES_MS = 'long'\n"])
def test_an_invalid_driver_is_reported(tmp_path, text):
    (tmp_path / "lib/tig/drivers").mkdir(parents=True)
    (tmp_path / "lib/tig/drivers/dust.py").write_text(text)
    with pytest.raises(AnsibleFilterError, match=r"The driver .*/dust\.py.* can't be understood: "):
        filters.lopy4_problems(SETTINGS, str(tmp_path))


def test_a_name_that_leads_back_to_the_controller_is_refused(monkeypatch):
    def resolving(*addresses: str):
        answer = [(None, None, None, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_: answer)

    resolving("127.0.1.1", "192.0.2.7")
    assert filters.lopy4_address("pi.local") == "192.0.2.7"
    for addresses in (("127.0.1.1",), ("127.0.0.1", "0.0.0.0"), ("::1",)):
        resolving(*addresses)
        found = problems(broker_host="pi.local")
        assert len(found) == 1
        assert f"pi.local is {addresses[0]} here, which to the device is the device itself" in found[0]


def test_the_rule_of_a_time_zone():
    assert filters.posix_timezone("Europe/Stockholm") == "CET-1CEST,M3.5.0,M10.5.0/3"
    assert filters.posix_timezone("Asia/Kolkata") == "IST-5:30"
    for zone in ("../../etc/passwd", "", "Europe"):
        with pytest.raises(AnsibleFilterError, match="there is no time zone"):
            filters.posix_timezone(zone)


def test_the_wait_for_a_reading_is_longer_than_the_interval():
    timeout = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["lopy4_reading_timeout"]
    assert [jinja2.Template(str(timeout)).render(lopy4_interval=seconds) for seconds in (15, 600)] == ["120", "660"]


# --- hosts.yml


def test_a_device_is_added_to_the_hosts_that_people_copy():
    text = (REPOSITORY / "inventories/home/hosts.yml").read_text()
    more = filters.lopy4_with_host(text, "greenhouse")
    assert yaml.safe_load(more)["site"]["children"]["devices"]["hosts"].keys() == {"matslopy4", "greenhouse"}
    assert [line for line in more.splitlines() if line not in text.splitlines()] == ["        greenhouse:"]
    assert filters.lopy4_with_host(more, "greenhouse") == more


@pytest.mark.parametrize(
    "text",
    [
        "devices:\n  hosts:\n",
        "devices:\n  hosts: {}\n",
        "all:\n  children:\n    devices:\n      hosts:\n        a: {x: 1}\n\n        # the last one\n        b:\n      vars:\n        y: 1\n    c:\n      hosts: {}\n",
        "devices: # mine\n    hosts:\n        a:",
    ],
)
def test_a_device_is_added_however_the_group_is_indented(text):
    more = filters.lopy4_with_host(text, "new")
    assert "new" in inventory._devices_of(yaml.safe_load(more))["hosts"]


def test_hosts_that_are_not_understood_are_left_alone():
    with pytest.raises(AnsibleFilterError, match="add new to its group devices by hand"):
        filters.lopy4_with_host("all: {children: {devices: {hosts: {a: {}}}}}\n", "new")


# --- the sensors that a description of a new device proposes


def test_every_setting_of_a_driver_is_proposed():
    lines = filters.lopy4_proposal(["soil", "sht31", "ds18b20"], str(FIRMWARE))
    assert yaml.safe_load("\n".join(lines)) == [
        {"driver": "soil", "pin": "P17", "power": "P8", "dry_mv": 2800, "wet_mv": 1200},
        {"driver": "sht31", "sda": "P6", "scl": "P7"},
        {"driver": "ds18b20", "pin": "P10"},
    ]
    assert "  pin: P17 # <-- its output: P13 to P20" in lines
    assert "  power: P8 # its supply: P3 to P11, P19 to P23" in lines
    assert "  # settle_ms: 1000 # how long the probe is powered before it is read, in ms, 0 to 10000" in lines
    assert "  sda: P6 # the bus's data line: P3 to P11, P19 to P23" in lines
    assert "  # address: 0x44 # its I2C address, 0x44 or 0x45" in lines
    assert "  # address: # its address, 28 and 14 more hexadecimal digits in quotes" in lines


@pytest.mark.parametrize("driver", sorted(drivers(str(FIRMWARE))))
def test_what_is_proposed_is_accepted_once_its_fields_are_declared(driver):
    [proposed] = yaml.safe_load("\n".join(filters.lopy4_proposal([driver], str(FIRMWARE))))
    quantity = drivers(str(FIRMWARE))[driver].quantities[0]
    assert problems(sensors=[{**proposed, "fields": {quantity: "field"}}]) == []


def test_the_settings_of_a_sites_own_driver_are_proposed(tmp_path):
    settings = '{"pin": {"kind": "pin", "direction": "input", "about": "its output"}}'
    (tmp_path / "dust.py").write_text(f'QUANTITIES = {{"pm25": (0, 999, 0)}}\nSETTINGS = {settings}\n')
    lines = filters.lopy4_proposal(["dust"], str(FIRMWARE), str(tmp_path))
    assert lines == ["- driver: dust", "  pin: # <-- its output: P3 to P11, P13 to P23"]


def test_a_driver_that_does_not_exist_is_not_proposed():
    with pytest.raises(AnsibleFilterError, match=r"There is no driver ds18b2\. Available: .*Did you mean ds18b20\?"):
        filters.lopy4_proposal(["ds18b2"], str(FIRMWARE))


# --- two hosts for one device


def claimed(one: dict, two: dict, where: str = "pi") -> list[str]:
    hostvars = {"pi": {}, "one": one, "two": two}
    return filters.lopy4_conflicts("one", hostvars, one.get("lopy4_port", ""), one.get("lopy4_mac", ""), where)


PORT = "/dev/serial/by-id/usb-Pycom_Expansion3_Py01-if00"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"lopy4_port": PORT}, {"lopy4_port": PORT}),  # the inventory says of neither where it is plugged in
        ({"lopy4_port": PORT}, {"lopy4_port": PORT, "__lopy4_where": "pi"}),
        ({"lopy4_port": PORT, "lopy4_serial_host": "pi"}, {"lopy4_port": PORT, "lopy4_serial_host": "pi"}),
    ],
)
def test_two_hosts_that_name_the_same_port_are_told_apart_by_nobody(one, two):
    [problem] = claimed(one, two)
    assert problem.startswith(f"one: lopy4_port: two also uses {PORT} on pi.")


def test_the_same_port_of_another_host_is_another_port():
    assert claimed({"lopy4_port": PORT}, {"lopy4_port": PORT, "lopy4_serial_host": "shed"}) == []
    assert claimed({"lopy4_port": PORT}, {"lopy4_port": PORT + "1"}) == []
    assert claimed({"lopy4_mac": "24:0a:c4:00:00:01"}, {}) == []


def test_two_names_of_one_port_of_this_machine_are_one_port(tmp_path):
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyACM0")
    ports = {"lopy4_port": f"{tmp_path}/by-id"}, {"lopy4_port": f"{tmp_path}/ttyACM0"}
    assert len(claimed(*ports, "localhost")) == 1


def test_two_hosts_with_the_same_chip_are_named():
    [problem] = claimed({"lopy4_mac": "24:0a:c4:00:00:01"}, {"lopy4_mac": "240AC4000001"})
    assert "lopy4_mac: two also has the chip 24:0a:c4:00:00:01" in problem


# --- the names of the program's files


@pytest.mark.parametrize(
    "name",
    ["two words.py", "größe.py", "main.py~", ".hidden", "a:b.py", "line\nbreak.py", 'quote".py', "dot.", "x" * 65],
)
def test_a_name_that_a_device_cannot_have_is_refused_here(tmp_path, name):
    program = shutil.copytree(FIRMWARE, tmp_path / "program")
    (program / "lib/tig" / name).touch()
    with pytest.raises(AnsibleActionFail, match=r"a device can't have the file .*Rename it"):
        tree(program)


@pytest.mark.parametrize("name", ["tig/Ring.py", "TIG/more.py"])
def test_names_that_are_one_on_fat_are_refused_here(tmp_path, name):
    program = shutil.copytree(FIRMWARE, tmp_path / "program")
    path = program / "lib" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(AnsibleActionFail, match="differ in upper and lower case only"):
        tree(program)


def test_the_firmware_has_names_that_a_device_can_have():
    assert "lib/tig/program.py" in tree(FIRMWARE)


# --- the summary


def test_the_summary_says_what_was_repaired_and_what_is_waited_for():
    done = {
        "changed": True,
        "version": "2",
        "previous_version": "1",
        "seconds": 4,
        "files": {"sent": ["x"], "copied": []},
    }
    [line] = filters.lopy4_summary(["a"], {"a": {"lopy4_result": done | {"repaired": ["settings.json"]}}}, ["a"])
    assert line.endswith("; repaired what was damaged or missing: settings.json")
    [line] = filters.lopy4_summary(["a"], {"a": {"lopy4_result": done | {"waits": True}}}, ["a"])
    assert line.endswith("; it has not reached the broker yet, and if it does not in ten minutes it goes back to 1")


@pytest.mark.parametrize("failure", [{}, {"flash_failure": "a: no reading arrived"}])
def test_the_summary_says_which_sensors_fail(failure):
    done = {"changed": True, "version": "2", "previous_version": "", "seconds": 4, "files": {"sent": [], "copied": []}}
    result = {"lopy4_result": done | {"sensor_faults": {"ds18b20": "its address is missing; on the wire: 28ff"}}}
    [line] = filters.lopy4_summary(["a"], {"a": result | failure}, ["a"])
    assert line.endswith("; sensor ds18b20 fails: its address is missing; on the wire: 28ff")


def test_the_summary_of_a_failure_names_the_device_once():
    [line] = filters.lopy4_summary(["a"], {"a": {"flash_failure": "a: the port is in use."}}, ["a"])
    assert line == "a: FAILED. the port is in use."


def test_a_connection_that_broke_is_a_failure_with_advice():
    done = {"changed": False, "version": "1.0.0", "seconds": 0.4}
    hostvars = {"a": {"lopy4_result": done}, "b": {"lopy4_serial_host": "pi"}, "c": {}}
    lines = filters.lopy4_summary(["a", "b", "c"], hostvars, ["a", "c"])
    assert lines[0] == "a: version 1.0.0 as declared, nothing written, 0.4 s"
    assert lines[1].startswith("b: FAILED. The connection to pi was lost")
    assert lines[2] == "c: not looked at"


# --- which port


@pytest.fixture
def usb(tmp_path, monkeypatch):
    """A sysfs with a USB device on each tty; usb(name, vendor, product)."""
    monkeypatch.setattr(ports, "SYS", str(tmp_path))
    (tmp_path / "bus/usb/devices").mkdir(parents=True)

    def plug(name: str, vendor: str, product: str, tty: bool = True) -> None:
        device = tmp_path / "devices/usb1" / name
        (device / "interface").mkdir(parents=True)
        (device / "idVendor").write_text(vendor + "\n")
        (device / "idProduct").write_text(product + "\n")
        (tmp_path / "bus/usb/devices" / name).symlink_to(device)
        if tty:
            (tmp_path / "class/tty" / name).mkdir(parents=True)
            (tmp_path / "class/tty" / name / "device").symlink_to(device / "interface")

    return plug


def test_ports_of_other_things_are_not_asked(usb):
    usb("ttyACM0", "04d8", "ef98")
    usb("ttyACM1", "1cf1", "0030")  # a Zigbee stick
    assert ports.foreign("/dev/ttyACM0") == ""
    assert "USB device 1cf1:0030 is not a LoPy4 board: not queried" in ports.foreign("/dev/ttyACM1")
    assert ports.foreign("/dev/pts/0") == ""  # nobody knows: it is asked
    assert ports.waiting() == []


def test_a_board_that_waits_for_its_firmware_is_explained(usb, monkeypatch):
    monkeypatch.setattr(ports, "ports", list)
    usb("1-2", "04d8", "ef99", tty=False)
    assert ports.waiting() == ["1-2"]
    assert "hold S1" in ports.listed()


def test_the_boards_are_those_of_the_udev_rule():
    rules = (ROLE / "files/70-tig-pi-lopy4.rules").read_text()
    found = re.findall(r'idVendor\}=="(\w+)", ATTRS\{idProduct\}=="([\w|]+)"', rules)
    assert {f"{vendor}:{one}" for vendor, products in found for one in products.split("|")} == ports.BOARDS


def test_the_only_new_device_is_chosen_and_several_are_listed():
    one = {"port": "/dev/a", "mac": "24:0a:c4:00:00:01", "firmware": "LoPy4 with ESP32, 1.20.2.r6"}
    two = one | {"port": "/dev/b", "mac": "24:0a:c4:00:00:02"}
    mute = {"port": "/dev/c", "problem": "in use by minicom (process 7)"}
    assert filters.lopy4_choice([one, two, mute], "", [one["mac"]]) == two
    assert filters.lopy4_choice([one, two], "/dev/a", []) == one
    assert "say which one with PORT=" in filters.lopy4_choice([one, two], "", [])["problem"]
    assert "minicom" in filters.lopy4_choice([one, mute], "", [one["mac"]])["problem"]
    assert "There is no port /dev/x" in filters.lopy4_choice([one], "/dev/x", [])["problem"]


# --- settings.json


@pytest.mark.parametrize(
    ("text", "pair"),
    [(json.dumps("🏠"), True), (json.dumps("🏠", ensure_ascii=False), False), (json.dumps("ü \\ud83c"), False)],
)
def test_escapes_that_the_device_would_misread_are_found(text, pair):
    assert bool(PAIR.search(text)) == pair


# --- the declared interpreter


def load(name: str, data: bytes, release: str = "", sha256: str | None = None):
    return image.load(name, data, hashlib.sha256(data).hexdigest() if sha256 is None else sha256, release)


def archive(**changes) -> bytes:
    """The stand-in for Pycom's archive, with files replaced, or left out where None."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(flash.archive())) as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        for entry in old:
            data = old.extractfile(entry).read()
            key = entry.name.replace(".", "_")
            data = changes.get(key, data)
            if data is not None:
                entry.size = len(data)
                new.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_pycoms_archive_and_an_image_are_understood():
    image = load("LoPy4-1.20.2.r6.tar.gz", flash.archive())
    assert (image.platform, image.release) == ("pycom", "1.20.2.r6")
    assert [offset for offset, _ in image.parts] == [0x1000, 0x8000, 0x10000, 0x1FF000]
    image = load("ESP32_GENERIC-SPIRAM-20260406-v1.28.0.bin", flash.mainline_image())
    assert (image.platform, image.release, image.parts[0][0]) == ("mainline", "1.28.0", 0x1000)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("LoPy4-1.20.2.r6.tar.gz", archive(script_8MB=None), "has no script_8MB"),
        ("LoPy4-1.20.2.r6.tar.gz", archive(lopy4_bin=None), "lopy4.bin of its script_8MB is missing"),
        ("LoPy4-1.20.2.r6.tar.gz", archive(lopy4_bin=b"\xe9" + bytes(1000)), "is for another board"),
        ("LoPy4-1.20.2.r6.tar.gz", archive(script_8MB=b"[]"), "can't be understood"),
        ("LoPy4-1.20.2.r6.tar.gz", flash.archive()[:5000], "can't be unpacked"),
        ("LoPy4.tar.gz", flash.archive(), "set lopy4_interpreter_release"),
        (
            "ESP32_GENERIC_S3-v1.28.0.bin",
            b"\xe9" + bytes(11) + b"\x09" + bytes(2000),
            "another chip than the ESP32 .chip id 9",
        ),
        ("notes-v1.28.0.txt", b"hello", "is not firmware for an ESP32"),
        ("app-v1.28.0.bin", flash.stand_in("mainline")["lopy4.bin"], "not a complete image"),
    ],
)
def test_a_wrong_file_is_refused(name, data, sentence):
    with pytest.raises(image.ImageError, match=sentence):
        load(name, data)


def test_an_archive_of_another_board_is_refused():
    script = json.loads(next(data for data in [tar_member("script_8MB")]))
    script["script"][2][2] = "fipy.bin"
    with pytest.raises(image.ImageError, match=r"fipy\.bin"):
        load("LoPy4-1.20.2.r6.tar.gz", archive(script_8MB=json.dumps(script).encode()))


def tar_member(name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(flash.archive())) as tar:
        return tar.extractfile(name).read()


def test_a_hash_that_is_missing_or_wrong_is_refused():
    data = flash.archive()
    with pytest.raises(image.ImageError, match=hashlib.sha256(data).hexdigest()):
        load("LoPy4-1.20.2.r6.tar.gz", data, sha256="")
    with pytest.raises(image.ImageError, match="another file, or damaged"):
        load("LoPy4-1.20.2.r6.tar.gz", data, sha256="0" * 64)


# --- the config blocks that are kept


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "backups", "24:0a:c4:00:00:01")


def test_a_config_block_is_kept_and_never_written_over(shelf):
    first, second, blank = b"\1" * 4096, b"\2" * 4096, b"\xff" * 4096
    for block in (first, first, blank, second, blank):
        shelf.keep(block)
    assert shelf.block() == second
    assert sorted(path.read_bytes() for path in shelf.path.parent.iterdir()) == [first, second]
    assert {path.stat().st_mode & 0o777 for path in shelf.path.parent.iterdir()} == {0o600}


# --- pyserial


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (lopy4_interpreter, {"name": "a", "port": "/dev/x", "step": "compare", "esptool": "/x/esptool"}),
        (lopy4_ports, {}),
        (lopy4_program, {"name": "a", "port": "/dev/x", "packed": "", "format_command": "format"}),
    ],
)
def test_a_missing_pyserial_fails_a_module_but_not_in_check_mode(module, arguments, monkeypatch, capsys):
    """A check on a blank host goes on: the run would install it first."""
    monkeypatch.setattr(transport, "PYSERIAL", False)
    results = []
    for check in (False, True):
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["failed"]
    assert "pyserial (Debian: python3-serial)" in results[0]["msg"]
    assert "failed" not in results[1]
    assert results[1]["msg"].startswith("python3-serial is not installed yet")
