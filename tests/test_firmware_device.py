"""The program on the virtual LoPy4, put there by the uploader, in both of its firmwares: sensors, Wi-Fi, lamp, watchdog."""

from __future__ import annotations

import itertools
import json

import pytest
from chain import free_port
from firmware.network import NAME, SECRETS, Broker, Listener, TimeServer, until
from lopy4_bench import LOADER, Visit, execute, firmware
from test_firmware_wifi import GOOD, render
from virtual_lopy4 import Device

pytestmark = pytest.mark.slow

SENSORS = [
    {"driver": "dht11", "pin": "P11", "fields": {"humidity": "outsidehumidity", "temperature": "outsidetemp"}},
    {"driver": "bmp180", "sda": "P6", "scl": "P7", "fields": {"pressure": "airpressure", "temperature": "insidetemp"}},
    {
        "driver": "soil",
        "pin": "P17",
        "power": "P8",
        "dry_mv": 2800,
        "wet_mv": 1200,
        "fields": {"moisture": "soilhumidity"},
    },
]
# a driver that no longer returns from its fourth reading on
HANGING = b"""
QUANTITIES = {"number": (0, 100, 0)}
class Sensor:
    number = 0
    def __init__(self, board, config):
        pass
    def read(self):
        Sensor.number += 1
        while Sensor.number > 3:
            pass
        return {"number": Sensor.number}
"""


class Site:
    def __init__(self, folder, profile, wifi=("home", SECRETS[0]), **options):
        self.profile = profile
        self.broker, self.time = Broker(folder / "broker"), TimeServer()
        self.broker.start()
        self.listener = Listener(self.broker)
        self.device = Device(
            folder / "device",
            profile=profile,
            paced=False,
            wifi_ssid=wifi[0],
            wifi_password=wifi[1],
            **options,
        ).start()
        assert self.device.wait_for(b">>> ")

    def upload(self, sensors=SENSORS, port: int | None = None, wifi=None, **files) -> Visit:
        settings = {
            "name": NAME,
            "topic": f"tig/{NAME}",
            "interval": 15,
            "send_delay": 0,
            "wifi": wifi or {"ssid": "home", "password": SECRETS[0]},
            "broker": {"host": "127.0.0.1", "port": port or self.broker.port, "user": NAME, "password": SECRETS[1]},
            "time": {"server": "127.0.0.1", "port": self.time.port, "zone": "CET-1CEST,M3.5.0,M10.5.0/3"},
            "sensors": sensors,
        }
        program = firmware() | {"settings.json": json.dumps(settings, ensure_ascii=False).encode()}
        program |= {name.replace("__", "/"): text for name, text in files.items()}
        visit = Visit(self.device, program, "1.0.0", root=LOADER, patience=90)
        self.device.ctl("speed", factor=10)
        return visit

    def console(self) -> str:
        return self.device.ctl("output")

    def stop(self):
        try:
            assert all(secret not in self.console() for secret in SECRETS)
        finally:
            self.device.stop()
            self.listener.close()
            self.broker.stop()
            self.time.close()


@pytest.fixture(params=["pycom", "mainline"], scope="module")
def site(request, tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"), request.param)
    site.upload()
    yield site
    site.stop()


@pytest.fixture
def healthy(site):
    """All is well before and after a test."""
    until(lambda: site.listener.status.get("waiting_for") == "none", 30, "all is well before the test")
    yield site
    for sensor in ("dht11", "bmp180", "soil"):
        site.device.ctl("sensor", name=sensor, fault="none")
    site.device.ctl("wifi", state="up")


def lamp(site) -> str:
    return site.device.ctl("status")["led"]


def test_reading_and_status(healthy):
    site = healthy
    site.device.ctl("set", outsidetemp=25, outsidehumidity=53, airpressure=1018.61, soilhumidity=0.7)
    reading = until(lambda: [r for r in site.listener.readings if r.get("outsidetemp") == 25])[-1]
    assert reading["outsidehumidity"] == 53
    assert reading["airpressure"] == pytest.approx(1018.61, abs=0.3)
    assert reading["soilhumidity"] == pytest.approx(0.7, abs=0.05)
    assert site.listener.status["failed"] == []
    assert lamp(site) == "#000800"


def test_nothing_is_open(healthy):
    status = healthy.device.ctl("status")
    if healthy.profile == "pycom":
        assert status["servers"] is False
        assert status["wifi"]["on_boot"] is False
    assert status["wifi"]["mode"] == 1  # a station, no access point
    assert status["heartbeat"] is False


@pytest.mark.parametrize(
    ("sensor", "fault", "fields"),
    [
        *[
            ("dht11", f, {"outsidehumidity", "outsidetemp"})
            for f in ("silent", "checksum", "short", "low", "range", "zero")
        ],
        *[("bmp180", f, {"airpressure", "insidetemp"}) for f in ("silent", "bus", "zero", "chip")],
        ("bmp180", "range", {"airpressure"}),
        *[("soil", f, {"soilhumidity"}) for f in ("open", "saturated", "noise")],
    ],
)
def test_a_sensor_that_lies_is_left_out_and_named(healthy, sensor, fault, fields):
    site = healthy
    site.device.ctl("sensor", name=sensor, fault=fault)
    until(lambda: site.listener.status.get("failed") == [sensor], 20, f"{sensor} {fault}\n{site.console()[-500:]}")
    had = len(site.listener.readings)
    until(lambda: len(site.listener.readings) > had + 1)
    assert not fields & set(site.listener.readings[-1])
    assert len(site.listener.readings[-1]) == 3 + 5 - len(fields)  # device, sensortime, time and the other sensors
    until(lambda: site.listener.status.get("waiting_for") == "sensor", 20)
    until(lambda: lamp(site) == "#140000", 20)
    site.device.ctl("sensor", name=sensor, fault="none")
    until(lambda: site.listener.status.get("failed") == [], 20)


def test_wifi_is_lost_renamed_password_wrong_hidden_and_comes_back(healthy):
    site = healthy
    had = len(site.listener.readings)
    site.device.ctl("wifi", state="down")
    until(lambda: lamp(site) == "#000014", 20, "the lamp is blue")
    site.device.ctl("wifi", state="up", password="another")
    until(lambda: site.console().count("wifi: no connection") >= 1, 30)
    site.device.ctl("wifi", password=SECRETS[0], hidden="on")
    until(lambda: len(site.listener.readings) > had + 5, 60, "the backlog")
    times = sorted({r["time"] for r in site.listener.readings[had - 1 :]})
    # None is missing, and none has the time of its arrival; a busy machine may delay one, as its clock runs fast.
    assert all(abs(b - a - 15) < 10 for a, b in itertools.pairwise(times))
    site.device.ctl("wifi", hidden="off")


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_wifi_with_emoji_in_its_name_and_password_is_joined(ansible_playbook, tmp_path, profile):
    """From an inventory to the access point, which takes no other name and password."""
    wifi = GOOD["32 bytes of emoji"]
    [rendered] = render(ansible_playbook, tmp_path, [wifi])
    site = Site(tmp_path, profile, wifi)
    try:
        site.upload(wifi=json.loads(rendered)["wifi"])
        until(lambda: site.listener.readings, 30, site.console())
    finally:
        site.stop()


def test_time_server_silent_at_start(healthy):
    site = healthy
    had = len(site.listener.readings)
    site.device.ctl("ntp", state="down")
    site.time.mode = "silent"
    site.device.ctl("reset")
    until(lambda: site.listener.status.get("waiting_for") == "time", 30)
    until(lambda: len(site.listener.readings) > had + 1, 40)
    assert "time" not in site.listener.readings[-1]
    site.time.mode = "ok"
    site.device.ctl("ntp", state="up")
    until(lambda: "time" in site.listener.readings[-1], 40)


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_program_that_hangs_is_reset_by_the_watchdog_and_says_so(tmp_path, profile):
    site = Site(tmp_path, profile)
    try:
        site.upload([{"driver": "hang", "fields": {"number": "number"}}], **{"lib/tig/drivers/hang.py": HANGING})
        until(lambda: len(site.listener.readings) >= 3, 30)
        assert {s["reset"] for s in site.listener.of("status")} == {"hard" if profile == "pycom" else "soft"}
        until(lambda: site.listener.status.get("reset") == "watchdog", 60, site.console()[-800:])
        until(lambda: len(site.listener.readings) >= 4, 30)
    finally:
        site.stop()


HANGS_AT_START = b"""
def run(path, confirm):
    while True:
        pass
"""


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_good_program_that_hangs_at_start_goes_back_after_three_watchdog_resets(tmp_path, profile):
    site = Site(tmp_path, profile)
    try:
        site.upload()
        site.upload(lib__tig__more=b"# version 2")
        # The program that the loader has accepted hangs from now on.
        root = "/flash" if profile == "pycom" else ""
        execute(
            site.device,
            f"f = open('{root}/b/lib/tig/program.py', 'wb')\nf.write({HANGS_AT_START!r})\nf.close()",
        )
        site.device.ctl("speed", factor=100)
        had = site.device.ctl("status")["resets"].get("watchdog", 0)
        assert site.device.wait_for(b"slot a works", 40), site.console()[-800:]
        # One more on Pycom, where the reset that was asked for is the watchdog's, too.
        assert site.device.ctl("status")["resets"]["watchdog"] - had in (3, 4)
        assert site.console().count("slot b did not start, back to slot a") == 1
    finally:
        site.stop()


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_trial_that_reaches_no_broker_goes_back_and_its_readings_arrive(tmp_path, profile):
    site = Site(tmp_path, profile)
    try:
        assert site.upload().works
        until(lambda: site.listener.readings)
        site.time.mode = "silent"
        visit = site.upload(port=free_port())
        assert (visit.start.works, visit.start.waits) == (True, True)
        had = len(site.listener.readings)
        site.device.ctl("speed", factor=30)
        assert site.device.wait_for(b"slot b reached no broker, back to slot a", 60), site.console()[-800:]
        site.time.mode = "ok"
        site.device.ctl("speed", factor=10)
        until(lambda: len(site.listener.readings) >= had + 42, 60, site.console()[-800:])
        # None of the ten minutes is missing, and each has its own time, though nobody told it during the trial.
        times = [r["time"] for r in site.listener.readings[had:]]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert sorted(gaps)[-2] <= 20, gaps  # the largest is the way back
        assert sum(gaps[:40]) == pytest.approx(600, abs=20)
        assert site.listener.status["dropped"] == 0
        assert site.listener.status["slot"] == "a"
    finally:
        site.stop()
