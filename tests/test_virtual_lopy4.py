"""The LoPy4 made of software, met as a tool meets a real one: over its serial port."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
import serial
from virtual_lopy4 import Control, Device, cells
from virtual_lopy4_host import REPOSITORY, Host

PROGRAM = REPOSITORY / "virtual/lopy4/lopy4.py"


@pytest.fixture
def make(tmp_path):
    devices = []

    def start(name="device", **options):
        options.setdefault("paced", False)
        device = Device(tmp_path / name, **options).start()
        devices.append(device)
        assert device.wait_for(b">>> ")
        return device

    yield start
    for device in devices:
        device.stop()


@pytest.fixture(params=["pycom", "mainline"])
def profile(request):
    return request.param


ROOT = {"pycom": "/flash/", "mainline": "/"}


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_fails_lets_nobody_wait(make, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no more files")

    device = make()
    with monkeypatch.context() as broken:
        broken.setattr(device, "power_off", fail)
        broken.setattr(device, "turn", fail)
        device.thread.join(10)
        device.stop()
    assert not (tmp_path / "device/control").exists()
    with monkeypatch.context() as broken:
        broken.setattr("virtual_lopy4.device.Listener", fail)
        with pytest.raises(OSError, match="no more files"):
            Device(tmp_path / "other", paced=False).start()


def test_boots_with_the_banner_of_the_platform(make):
    device = make()
    with Host(device.port) as host:
        device.ctl("reset")
        said = host.prompt().decode()
    assert said.startswith(
        "ets Jun  8 2016 00:22:57\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    )
    assert said.endswith(
        "Pycom MicroPython 1.20.2.r6 [v1.11-c5a0a97] on 2021-10-28; LoPy4 with ESP32\r\n"
        'Type "help()" for more information.\r\n>>> '
    )


def test_friendly_repl(make, profile):
    with Host(make(profile=profile).port) as host:
        host.write(b"1 + 1\r")
        assert host.prompt() == b"1 + 1\r\n2\r\n>>> "
        host.write(b"\x05print(6 *\r7)\x04")
        assert host.prompt().endswith(b"42\r\n>>> ")


def test_raw_paste_only_on_mainline(make):
    with Host(make("new", profile="mainline").port) as host:
        host.raw()
        host.write(b"\x05A\x01")
        assert host.until(b"\x80\x00\x01") == b"R\x01\x80\x00\x01"
        host.write(b"print(7)\x04")
        assert host.until(b">") == b"\x047\r\n\x04\x04>"
    with Host(make("old").port) as host:
        host.raw()
        host.write(b"\x05A\x01")
        assert host.until(b">") == b"raw REPL; CTRL-B to exit\r\n>"
        assert host.ask("print(8)") == "8"


def test_files_survive_resets_and_power(make, profile):
    device = make(profile=profile)
    path = ROOT[profile] + "kept.txt"
    with Host(device.port) as host:
        host.raw()
        host.ask(f"f = open('{path}', 'w'); f.write('here'); f.close()")
        host.write(b"\x04")
        assert host.until(b"exit\r\n>").startswith(b"OK\r\n")
        assert host.ask(f"print(open('{path}').read())") == "here"
    device.cut()
    assert device.status()["state"] == "off"
    device.ctl("plug")
    with Host(device.port) as host:
        host.raw()
        assert host.ask(f"print(open('{path}').read())") == "here"


def test_the_hosts_files_are_out_of_reach(make, profile):
    with Host(make(profile=profile).port) as host:
        host.raw()
        listed = host.ask("import os; print(os.listdir('/'), os.getcwd())")
        assert listed == ("['flash'] /flash" if profile == "pycom" else "['boot.py'] /")
        assert "OSError" in host.send("open('/etc/hostname')")[1]
        assert "OSError" in host.send("open('/_/boot.py')")[1]


def test_runs_boot_and_main_and_stops_at_ctrl_c(make, profile):
    device = make(profile=profile)
    with Host(device.port) as host:
        host.raw()
        host.ask("f = open('boot.py', 'w'); f.write('print(\"BOOT\")\\n'); f.close()")
        host.ask(
            "f = open('main.py', 'w'); f.write('print(\"MAIN\")\\nimport time\\nwhile 1: time.sleep(1)\\n'); f.close()"
        )
        host.write(b"\x04")  # a soft reset from the raw REPL runs boot.py, not main.py
        said = host.until(b"exit\r\n>")
        assert b"BOOT" in said
        assert b"MAIN" not in said
        host.write(b"\x02")
        host.prompt()
        host.write(b"\x04")
        said = host.until(b"MAIN\r\n")
        assert (b"PYB: soft reboot\r\n" if profile == "pycom" else b"MPY: soft reboot\r\n") in said
        host.write(b"\x03")
        said = host.prompt()
        assert b"KeyboardInterrupt: " in said
        assert b'File "main.py", line 3' in said
        host.write(b"while 1: pass\r\r\r")
        host.quiet(0.2)
        host.write(b"\x03")
        assert b"KeyboardInterrupt" in host.prompt()


def test_ctrl_c_before_boot_py_interrupts_nothing(make, profile):
    with Host(make(profile=profile).port) as host:
        for _ in range(3):
            host.raw()
            host.write(b"\x02")
            host.prompt()
            host.write(b"\x04")  # a soft reset
            for _ in range(200):
                host.write(b"\x03")
                time.sleep(0.002)
            host.raw()
            assert host.ask("import machine\nprint(hasattr(machine, 'WDT'))") == "True"


def test_ctrl_f_is_a_hard_reset_into_safe_boot_on_pycom(make):
    device = make()
    with Host(device.port) as host:
        host.raw()
        host.ask("f = open('main.py', 'w'); f.write('print(\"MAIN\")\\nwhile 1: pass\\n'); f.close()")
        device.ctl("reset")
        host.until(b"MAIN\r\n")
        host.write(b"\x06")
        said = host.prompt()
        assert b"rst:0x7 (TG0WDT_SYS_RESET)" in said
        assert b"MAIN" not in said
        assert device.status()["safe_boot"]
        host.write(b"\x04")  # stays in safe boot
        assert b"MAIN" not in host.prompt()
        device.ctl("reset")
        host.until(b"MAIN\r\n")


def test_ctrl_f_is_a_character_on_mainline(make):
    with Host(make(profile="mainline").port) as host:
        host.raw()
        assert host.ask("print(len('\x06'))") == "1"


def test_names_of_the_platform(make, profile):
    with Host(make(profile=profile).port) as host:
        host.raw()
        said = host.ask("import os, sys, time; print(os.uname()[0], os.uname()[2], sys.platform, time.gmtime(0)[0])")
        assert said == {"pycom": "LoPy4 1.20.2.r6 LoPy4 1970", "mainline": "esp32 1.28.0 esp32 2000"}[profile]


LACKING = {
    "pycom": ["asyncio", "deflate", "random", "dht", "neopixel", "ntptime", "esp32", "vfs"],
    "mainline": ["pycom", "uzlib", "termios"],
}
HAVING = {
    "pycom": ["pycom", "uzlib", "ustruct", "ubinascii", "_thread", "ujson", "usocket", "ussl"],
    "mainline": ["dht", "neopixel", "ntptime", "deflate", "asyncio", "random", "vfs", "network"],
}


def test_modules_of_the_platform_and_no_others(make, profile):
    with Host(make(profile=profile).port) as host:
        host.raw()
        for name in LACKING[profile]:
            assert f"no module named '{name}'" in host.send(f"import {name}")[1], name
        for name in HAVING[profile]:
            host.ask(f"import {name}")


def test_oddities_of_pycom(make):
    device = make()
    with Host(device.port) as host:
        host.raw()
        assert host.ask("import sys; print(hasattr(sys.stdin, 'buffer'))") == "False"
        assert host.ask("import ubinascii; print(hasattr(ubinascii, 'crc32'))") == "False"
        # One hash at a time; one that was never digested blocks them until a hard reset.
        host.ask("import uhashlib; h = uhashlib.sha256(b'a'); h.digest(); h = uhashlib.sha256(b'a')")
        assert "OSError: only one active hash operation" in host.send("uhashlib.sha256()")[1]
        host.write(b"\x04")
        host.until(b"exit\r\n>")
        assert "OSError: only one active hash operation" in host.send("import uhashlib; uhashlib.sha256()")[1]
        device.ctl("reset")
        host.prompt()
        host.raw()
        host.ask("import uhashlib; uhashlib.sha256().digest()")
        # isconnected() raises once after a time-out.
        device.ctl("wifi", state="down")
        host.ask(
            "from network import WLAN; w = WLAN(mode=WLAN.STA); w.connect('x', auth=(WLAN.WPA2, 'y'), timeout=200)"
        )
        host.ask("import time; time.sleep_ms(300)")
        error = host.send("w.isconnected()")[1]
        assert "TimeoutError: Connection to AP Timeout!" in error
        assert host.ask("print(w.isconnected())") == "False"
        assert (
            host.ask("import socket\ntry:\n raise socket.timeout\nexcept OSError:\n print('an OSError')")
            == "an OSError"
        )
        # Ticks are the wall clock's: they jump when NTP sets it.
        device.ctl("wifi", state="up")
        host.ask("w.connect('x', auth=(WLAN.WPA2, 'y'))\nwhile not w.isconnected(): time.sleep_ms(50)")
        host.ask("t = time.ticks_ms(); c = time.ticks_cpu(); from machine import RTC; RTC().ntp_sync('server')")
        host.ask("while not RTC().synced(): time.sleep_ms(50)")
        assert abs(int(host.ask("print(time.ticks_diff(time.ticks_ms(), t))"))) > 60000
        assert int(host.ask("print(time.ticks_diff(time.ticks_cpu(), c))")) < 5000000


@pytest.mark.parametrize(("profile", "ring"), [("pycom", 4096), ("mainline", 260)])
def test_receive_ring_overflows(make, profile, ring):
    device = make(profile=profile, paced=True)
    with Host(device.port) as host:
        host.raw()
        host.write(b"import time; time.sleep(1.5)\x04")
        host.until(b"OK")
        host.write(b"x" * 5000)
        host.until(b"\x04\x04>")
        assert device.status()["bytes_overflowed"] == 5000 - ring


def test_line_is_paced_in_both_directions(make):
    with Host(make(paced=True).port) as host:
        host.raw()
        start = time.monotonic()
        host.ask("x = '" + "a" * 5760 + "'")
        there = time.monotonic() - start
        start = time.monotonic()
        host.ask("print(x)")
        back = time.monotonic() - start
    assert 0.5 <= there < 3
    assert 0.5 <= back < 3


def test_watchdog_survives_a_soft_reset_and_bites(make, profile):
    device = make(profile=profile)
    with Host(device.port) as host:
        host.raw()
        host.ask("from machine import WDT; w = WDT(timeout=1200)")
        host.write(b"\x04")
        host.until(b"exit\r\n>")
        said = host.prompt()
        assert b"rst:0x7 (TG0WDT_SYS_RESET)" in said
        host.raw()
        host.ask("import machine; assert machine.reset_cause() == machine.WDT_RESET")
        host.ask("w = machine.WDT(timeout=1000)\nimport time\nfor n in range(8): time.sleep_ms(150); w.feed()")
        assert device.status()["resets"]["watchdog"] == 1


def test_machine_reset_says_what_the_platform_says(make, profile):
    device = make(profile=profile)
    with Host(device.port) as host:
        host.raw()
        host.write(b"import machine; machine.reset()\x04")
        said = host.prompt()
        host.raw()
        cause = host.ask(
            "import machine; print(machine.reset_cause() == machine.%s_RESET)"
            % ("WDT" if profile == "pycom" else "SOFT")
        )
        assert cause == "True"
    # Pycom's machine.reset() is the watchdog.
    assert (b"rst:0x7 (TG0WDT_SYS_RESET)" if profile == "pycom" else b"rst:0xc (SW_CPU_RESET)") in said


def test_deepsleep_wakes_and_keeps_the_time(make, profile):
    device = make(profile=profile)
    with Host(device.port) as host:
        host.raw()
        host.write(b"import machine; machine.deepsleep(400)\x04")
        said = host.prompt()
        assert b"rst:0x5 (DEEPSLEEP_RESET)" in said
        host.raw()
        host.ask("import machine; assert machine.reset_cause() == machine.DEEPSLEEP_RESET")


def test_unplugging_takes_the_port_away_at_any_byte(make, tmp_path):
    link = tmp_path / "by-id/usb-Pycom_Expansion3_x-if00"
    device = make(link=str(link))
    assert link.is_char_device()
    with Host(str(link)) as host:
        host.raw()
        device.ctl("unplug", after_bytes=10)
        host.write(b"print('12345678901234567890')\x04")
        end = time.monotonic() + 2
        with contextlib.suppress(serial.SerialException, OSError):
            while time.monotonic() < end:
                host.serial.read(10)
                host.serial.write(b"x")
        assert time.monotonic() < end
    received = device.status()["bytes_received"]
    assert not link.is_symlink()
    device.ctl("plug")
    with Host(str(link)) as host:
        host.raw()
        assert host.ask("print(1)") == "1"
    assert device.status()["resets"]["power_on"] == 2
    assert device.status()["bytes_received"] > received


def test_power_fails_at_a_block_write(make, profile):
    device = make(profile=profile)
    code = "f = open('big', 'w')\nfor n in range(40):\n f.write('%04d' % n * 512)\nf.close()\nprint('done')"
    with Host(device.port) as host:
        host.raw()
        before = device.status()["block_writes"]
        host.ask(code)
        writes = device.status()["block_writes"] - before
        assert writes >= 20
        device.ctl("power-cut", at_block_write=writes // 2)
        host.write(code.encode() + b"\x04")
        end = time.monotonic() + 5
        while device.status()["state"] != "off":
            assert time.monotonic() < end
            time.sleep(0.01)
    assert device.status()["block_writes"] == before + writes + writes // 2
    device.ctl("plug")
    with Host(device.port) as host:
        host.raw()
        host.ask("import os; print(os.listdir())")


def test_cells_are_erased_to_ones_and_programmed_to_zeros():
    assert cells.changed(cells.ERASE, b"\x00\x12", b"") == b"\xff\xff"
    assert cells.changed(cells.PROGRAM, b"\xff\x0f\xf0", b"\x12\xff\xff") == b"\x12\x0f\xf0"
    assert cells.changed(cells.WRITE, b"\x00\x00", b"\x12\xff") == b"\x12\xff"


def test_a_cut_leaves_a_block_as_it_was_half_done_erased_or_anything():
    old, new = bytes(8), bytes(range(1, 9))
    left = [cells.torn(cells.WRITE, old, new, how) for how in range(len(cells.TORN))]
    assert left[:3] == [old, new[:4] + b"\xff" * 4, b"\xff" * 8]  # a block that is written was erased before
    assert left[3] not in left[:3]
    assert cells.torn(cells.ERASE, old, b"\xff" * 8, cells.TORN.index("half")) == b"\xff" * 4 + old[4:]


@pytest.mark.parametrize(("file_system", "neighbours"), [("fat", True), ("littlefs", False)])
def test_a_cut_while_a_block_of_fat_is_erased_takes_the_neighbours_along(make, file_system, neighbours):
    """Pycom's FAT has clusters of a quarter of a block, and writes what it changes in place."""
    device = make(profile="pycom", file_system=file_system)
    with Host(device.port) as host:
        host.raw()
        # As many small files as share a block with the one that is written when the power fails.
        host.ask(
            "for n in range(12):\n f = open('old%d' % n, 'w')\n f.write('whole' * 100)\n f.close()\n"
            "f = open('old5', 'r+b')\nf.seek(0)"
        )
        device.ctl("power-cut", at_block_write=1, torn="erased")
        host.write(b"f.write(b'x' * 700)\nf.flush()\x04")
        end = time.monotonic() + 5
        while device.status()["state"] != "off":
            assert time.monotonic() < end
            time.sleep(0.01)
    device.ctl("plug")
    with Host(device.port) as host:
        host.raw()
        lost = host.ask("print([n for n in range(12) if n != 5 and open('old%d' % n, 'rb').read() != b'whole' * 100])")
    assert (len(json.loads(lost)) > 0) is neighbours


def test_fast_clock(make, profile):
    device = make(profile=profile, speed=100)
    with Host(device.port) as host:
        host.raw()
        start = time.monotonic()
        assert 59 <= int(host.ask("import time; t = time.time(); time.sleep(60); print(time.time() - t)")) < 300
        assert time.monotonic() - start < 3
        device.ctl("speed", factor=0)
        host.ask("for n in range(50000): time.sleep(15)")
        assert int(host.ask("print(time.time() - t)")) > 750000
        assert time.monotonic() - start < 30


def test_wifi_taken_away_and_given_back(make, profile):
    device = make(profile=profile, wifi_ssid="home", wifi_password="right", wifi_join_ms=50)
    if profile == "pycom":
        connect = "w.connect('home', auth=(WLAN.WPA2, '%s'))"
        begin = "from network import WLAN; w = WLAN(mode=WLAN.STA)"
    else:
        connect = "w.connect('home', '%s')"
        begin = "import network; w = network.WLAN(network.STA_IF); w.active(True)"
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with Host(device.port) as host:
        host.raw()
        host.ask(begin + "\nimport time, socket\n" + connect % "wrong")
        assert host.ask("time.sleep_ms(300); print(w.isconnected())") == "False"
        host.ask("w.disconnect(); " + connect % "right" + "; time.sleep_ms(300)")
        assert host.ask("print(w.isconnected())") == "True"
        host.ask(
            "s = socket.socket(); s.settimeout(1)\n"
            f"s.connect(socket.getaddrinfo('127.0.0.1', {port})[0][-1]); s.send(b'one')"
        )
        peer, _ = listener.accept()
        assert peer.recv(10) == b"one"
        device.ctl("wifi", state="down")
        assert host.ask("time.sleep_ms(100); print(w.isconnected())") == "False"
        assert "OSError" in host.send(f"t = socket.socket(); t.connect(('127.0.0.1', {port}))")[1]
        host.ask("s.send(b'two')")
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(10)
        peer.send(b"back")
        error = host.send("s.recv(4)")[1]
        assert ("TimeoutError" if profile == "pycom" else "ETIMEDOUT") in error
        device.ctl("wifi", state="up")
        assert host.ask("time.sleep_ms(300); print(s.recv(4))") == "b'back'"
        peer.settimeout(2)
        assert peer.recv(10) == b"two"


def test_time_server_taken_away(make, profile):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(0.3)
    port = server.getsockname()[1]
    device = make(profile=profile, ntp_port=port, wifi_join_ms=1)
    asks = f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'time?', ('127.0.0.1', {port}))"
    if profile == "pycom":
        own = "machine.RTC().ntp_sync('server'); time.sleep_ms(400); print(machine.RTC().synced())"
        join = "w = network.WLAN(mode=network.WLAN.STA); w.connect('x', auth=(3, 'y'))"
    else:
        own = "import ntptime\ntry: ntptime.settime(); print(True)\nexcept OSError: print(False)"
        join = "w = network.WLAN(network.STA_IF); w.active(True); w.connect('x', 'y')"
    with Host(device.port) as host:
        host.raw()
        host.ask(f"import machine, network, socket, time; {join}\nwhile not w.isconnected(): time.sleep_ms(20)")
        device.ctl("ntp", state="down")
        host.ask(asks)
        with pytest.raises(TimeoutError):
            server.recv(10)
        assert host.ask(own) == "False"
        device.ctl("ntp", state="up")
        host.ask(asks)
        assert server.recv(10) == b"time?"
        assert host.ask(own) == "True"
    assert abs(device.status()["rtc"] - time.time()) < 60
    server.close()


def test_a_program_that_waits_for_the_network_can_be_interrupted(make, profile):
    device = make(profile=profile, wifi_join_ms=1)
    with Host(device.port) as host, socket.create_server(("127.0.0.1", 0)) as server:
        host.raw()
        if profile == "pycom":
            host.ask("import network; w = network.WLAN(mode=1); w.connect('x')")
        else:
            host.ask("import network; w = network.WLAN(0); w.active(True); w.connect('x')")
        host.ask("import time\nwhile not w.isconnected(): time.sleep_ms(20)")
        code = f"import socket; s = socket.socket(); s.connect(('127.0.0.1', {server.getsockname()[1]})); s.recv(1)"
        host.write(code.encode() + b"\x04")
        peer, _ = server.accept()
        time.sleep(0.2)
        host.write(b"\x03")
        assert b"KeyboardInterrupt" in host.until(b"\x04>")
        peer.close()


def test_littlefs_by_the_config_block(make):
    device = make(file_system="littlefs")
    with Host(device.port) as host:
        host.raw()
        host.ask("f = open('/flash/lib/mine.py', 'w'); f.write('x = 5'); f.close()")
        assert host.ask("import mine; print(mine.x)") == "5"
        assert device.status()["file_system"] == "littlefs"
        assert device.flash.read(0x400000, 0x2000).find(b"littlefs") >= 0


def test_a_setting_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="there is no setting 'wifi'; available: mac, name"):
        Device(tmp_path, wifi="home")


def test_led(make, profile):
    device = make(profile=profile)
    with Host(device.port) as host:
        host.raw()
        if profile == "pycom":
            assert "OSError" in host.send("import pycom; pycom.rgbled(1)")[1]  # the heartbeat has it
            host.ask("pycom.heartbeat(False); pycom.rgbled(0x00FF10)")
        else:
            host.ask(
                "import neopixel, machine; n = neopixel.NeoPixel(machine.Pin(0), 1); n[0] = (0, 255, 16); n.write()"
            )
    assert device.status()["led"] == "#00ff10"
    assert device.status()["led_colour"] == "green"


def test_two_host_programs_one_after_the_other(make):
    """What one program left unread does not greet the next one."""
    device = make()
    with Host(device.port) as host:
        host.raw()
        host.write(b"print('stale')\x04")
    time.sleep(0.1)
    with Host(device.port) as host:
        assert host.quiet(0.2) == b""


def test_command_line(tmp_path):
    state = tmp_path / "state"
    link = tmp_path / "port"
    process = subprocess.Popen([PROGRAM, "run", "--dir", state, "--link", link, "--unpaced"])
    try:
        end = time.monotonic() + 10
        while not link.exists():
            assert time.monotonic() < end
            time.sleep(0.02)

        def ctl(*words):
            return subprocess.run([PROGRAM, "ctl", state, *words], capture_output=True, text=True, check=False)

        assert ctl("set", "outsidetemp=31").returncode == 0
        assert ctl("sensor", "dht11", "fault=checksum").returncode == 0
        status = Control(str(state))("status")
        assert status["values"]["temperature"] == 31
        assert status["sensors"]["dht11"]["fault"] == "checksum"
        answer = ctl("sensor", "dht12", "fault=checksum")
        assert answer.returncode != 0
        assert answer.stderr == "lopy4.py: there is no sensor 'dht12'; available: bmp180, dht11, soil\n"
        answer = ctl("sensor", "dht11", "fault=late")
        assert re.match("lopy4.py: no fault 'late': one of none, silent,", answer.stderr)
        assert ctl("power-cut").returncode == 0
        assert not link.exists()
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert not Path(link).is_symlink()
    answer = subprocess.run([PROGRAM, "ctl", state, "status"], capture_output=True, text=True, check=False)
    assert answer.stderr == f"lopy4.py: no virtual LoPy4 runs with its state in {state}\n"
