"""The real esptool, through the expansion board's PIC, on the virtual LoPy4's flash."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import serial
from virtual_lopy4 import Device, flash
from virtual_lopy4_host import Host, esptool

pytestmark = pytest.mark.slow

RESET = ["028E00DF0000", "020E00DF0000", 0.2, "020E00FF2000", 0.1, "028E00FF2000"]
ENTER = ["028C00DF0000", "020C00DF0000", "028E00FE0000", "020E00FE0000", *RESET]
EXIT = ["028C00DF0000", "020C00FF2000", "028E00FF0100", *RESET]
FLAGS = ["-fm", "dio", "-ff", "80m", "-fs", "detect"]


@pytest.fixture(scope="session")
def program() -> Path:
    return esptool()


@pytest.fixture
def device(tmp_path):
    with Device(tmp_path / "device", paced=False) as device:
        assert device.wait_for(b">>> ")
        yield device


def pic(port, commands):
    """What Pycom's updater sends: the port is opened with five data bits."""
    with serial.Serial(port, 115200, bytesize=5, timeout=0.25) as line:
        for command in commands:
            if isinstance(command, float):
                time.sleep(command)
            else:
                line.write(bytes.fromhex(command))
                time.sleep(0.005)
        return line.read(10)


@pytest.fixture
def run(device, program):
    def run(*words, good=0):
        command = [program, "--chip", "esp32", "-p", device.port, "-b", "921600", "--no-stub"]
        command += ["--before", "no-reset", "--after", "no-reset", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == good, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_the_pic_says_who_it_is(device):
    with serial.Serial(device.port, 115200, bytesize=5, timeout=0.5) as line:
        for command, answer in ((b"\x10", b"\x03\x00"), (b"\x11", b"\x0b\x00"), (b"\x12", b"\x98\xef")):
            line.write(command)
            assert line.read(2) == answer
        line.write(b"\x00\x8c\x00")
        assert line.read(2) == b"\xff\x00"


def test_esptool_reads_writes_and_verifies(device, run, tmp_path):
    pic(device.port, ENTER)
    assert device.status()["state"] == "download"
    mac = ":".join(f"{byte:02x}" for byte in device.mac)
    assert f"MAC:                {mac}" in run("read-mac")
    assert "Detected flash size: 8MB" in run("flash-id")

    block = tmp_path / "config.bin"
    run("read-flash", "0x3ff000", "0x1000", block)
    assert block.read_bytes() == flash.config_block(device.mac)

    writes = list(FLAGS)
    for offset, name in ((0x1000, "bootloader.bin"), (0x8000, "partitions_8MB.bin"), (0x10000, "lopy4.bin")):
        (tmp_path / name).write_bytes(flash.stand_in("pycom", "1.20.2.r4")[name])
        writes += [hex(offset), str(tmp_path / name)]
    assert "Hash of data verified" in run("write-flash", *writes)
    run("verify-flash", *writes)
    assert run("write-flash", "--skip-flashed", *writes).count("already in flash, skipping write") == 3
    (tmp_path / "other").write_bytes(b"something else")
    run("verify-flash", "0x10000", tmp_path / "other", good=2)
    run("erase-region", "0x1FF000", "0x1000")
    assert device.flash.read(0x1FF000, 0x1000) == b"\xff" * 0x1000
    assert device.flash.read(0x3FF000, 0x1000) == flash.config_block(device.mac)

    pic(device.port, EXIT)
    assert device.wait_for(b"Pycom MicroPython 1.20.2.r4")
    assert device.status()["release"] == "1.20.2.r4"


def test_to_mainline_and_back(device, run, tmp_path):
    block = device.flash.read(0x3FF000, 0x1000)
    image = tmp_path / "mainline.bin"
    image.write_bytes(flash.mainline_image())
    pic(device.port, ENTER)
    run("write-flash", *FLAGS, "0x1000", image)
    pic(device.port, EXIT)
    assert device.wait_for(b"MicroPython v1.28.0 on 2026-04-06; Generic ESP32 module with SPIRAM with ESP32")
    assert device.wait_for(b">>> ")
    with Host(device.port) as host:
        host.raw()
        host.ask(
            "f = open('x', 'w')\nfor n in range(600): f.write('y' * 4096)\nf.close()"
        )  # mainline's file system reaches over it
    assert device.flash.read(0x3FF000, 0x1000) != block

    restored = tmp_path / "config.bin"
    restored.write_bytes(block)
    writes = list(FLAGS)
    for offset, name in ((0x1000, "bootloader.bin"), (0x8000, "partitions_8MB.bin"), (0x10000, "lopy4.bin")):
        (tmp_path / name).write_bytes(flash.stand_in("pycom")[name])
        writes += [hex(offset), str(tmp_path / name)]
    pic(device.port, ENTER)
    run("write-flash", *writes)
    run("erase-region", "0x1FF000", "0x1000")
    run("write-flash", "0x3ff000", restored)
    pic(device.port, EXIT)
    assert device.wait_for(b"Pycom MicroPython 1.20.2.r6")
    assert device.wait_for(b">>> ")
    assert device.flash.read(0x3FF000, 0x1000) == block


def test_erasing_the_file_system_makes_a_fresh_one(device, run):
    with Host(device.port) as host:
        host.raw()
        host.ask("f = open('/flash/mine', 'w'); f.write('x'); f.close()")
    pic(device.port, ENTER)
    run("erase-region", "0x400000", "0x400000")
    pic(device.port, EXIT)
    assert device.wait_for(b">>> ")
    with Host(device.port) as host:
        host.raw()
        assert host.ask("import os; print(os.listdir())") == "['sys', 'lib', 'cert', 'boot.py', 'main.py']"


def test_an_empty_flash_does_not_boot(device, run):
    pic(device.port, ENTER)
    run("erase-region", "0x1000", "0x7000")
    pic(device.port, EXIT)
    assert device.wait_for(b"invalid header: 0xffffffff")
    assert device.status()["state"] == "dead"


def test_pic_bytes_within_other_data_are_data(device):
    with Host(device.port) as host:
        host.raw()
        host.write(b"import sys; print(len(sys.stdin.read(10)))\x04")
        host.until(b"OK")
        host.write(b"ab\x02\x0c\x00\xdf"[:5] + b"cdef\x10")
        assert host.until(b">") == b"10\r\n\x04\x04>"


def test_the_archive_is_what_pycoms_updater_expects(tmp_path):
    import io
    import json
    import tarfile

    data = flash.archive("1.20.2.r6")
    assert data == flash.archive("1.20.2.r6")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = set(archive.getnames())
        script = json.load(archive.extractfile("script_8MB"))
    assert names == {"bootloader.bin", "partitions_8MB.bin", "lopy4.bin", "script", "script2", "script_8MB"}
    assert script["script"][2] == ["w", "factory", "lopy4.bin"]
