"""What happens to the config block (LoRa MAC, Sigfox keys) when interpreters are installed, at whatever moment the cable is pulled.

A flash in memory stands for the chip behind esptool; the scenario has esptool itself, against the virtual LoPy4's ROM loader.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from types import SimpleNamespace

import pytest
from ansible_collections.tig_pi.stack.plugins.action import lopy4_interpreter as plugin
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4 import rom_loader
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import (
    CONFIG,
    FILE_SYSTEM,
    FLASH_SIZE,
    PARTITIONS,
    SECTOR,
    layout,
)
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.image import load
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.rom_loader import Loader as RomLoader
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError
from ansible_collections.tig_pi.stack.plugins.modules import lopy4_interpreter as library
from virtual_lopy4 import flash

BLANK = b"\xff" * SECTOR
MAC = "24:0a:c4:00:00:01"
BLOCK = flash.config_block(bytes.fromhex(MAC.replace(":", "")))
FILES = {
    "pycom": ("LoPy4-1.20.2.r6.tar.gz", flash.archive()),
    "mainline": ("ESP32_GENERIC-SPIRAM-20260406-v1.28.0.bin", flash.mainline_image()),
}


class Pulled(DeviceError):
    """Somebody pulled the cable."""


class Chip:
    """8 MB of flash, and after how many pieces of work its cable is pulled."""

    def __init__(self, platform: str, config: bytes) -> None:
        self.data = bytearray(b"\xff" * FLASH_SIZE)
        self.data[0x8000:0x8C00] = flash.partition_table(platform)
        offset, size = FILE_SYSTEM[platform]
        self.data[offset : offset + size] = b"F" * size
        self.data[CONFIG : CONFIG + SECTOR] = config
        self.work, self.pulled_at = 0, None
        self.written: list[int] = []

    @property
    def config(self) -> bytes:
        return bytes(self.data[CONFIG : CONFIG + SECTOR])

    def put(self, offset: int, data: bytes) -> None:
        step = 0x40000
        for at in range(0, len(data), step):
            self.work += 1
            if self.work == self.pulled_at:
                raise Pulled("The line broke.")
            self.data[offset + at : offset + at + len(data[at : at + step])] = data[at : at + step]


class Loader(RomLoader):
    """As the chip's ROM loader, through esptool: erases what is to be written, then writes it part by part."""

    chip: Chip

    def __enter__(self):
        self.layout = layout(self.read_once(PARTITIONS, 0xC00))
        return self

    def __exit__(self, *_):
        pass

    def read_once(self, offset, size):
        self.mac = MAC
        return bytes(self.chip.data[offset : offset + size])

    def run(self, command, *arguments, **_):
        if command == "erase-region":
            self.chip.put(int(arguments[0], 16), b"\xff" * int(arguments[1], 16))
        else:
            places = arguments[arguments.index("detect") + 1 :]
            for offset, file in zip(places[::2], places[1::2], strict=True):
                self.chip.written.append(int(offset, 16))
                with open(file, "rb") as opened:
                    data = opened.read()
                self.chip.put(int(offset, 16), b"\xff" * (-(-len(data) // SECTOR) * SECTOR))
                self.chip.put(int(offset, 16), data)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench(chip, platform): install that platform's interpreter as the action plugin does; bench.format(chip)."""
    backups = tmp_path / "backups"

    def action(chip, platform):
        name, data = FILES[platform]
        (tmp_path / name).write_bytes(data)
        image = load(name, data, hashlib.sha256(data).hexdigest(), "")
        monkeypatch.setattr(library, "Loader", type("OfChip", (Loader,), {"chip": chip}))
        runs = {"platform": image.platform, "release": image.release.removeprefix("v")}
        monkeypatch.setattr(library, "wait_for", getattr(install, "answers", lambda *_: runs))
        made = object.__new__(plugin.ActionModule)
        made._task = SimpleNamespace(check_mode=False)
        made._connection = SimpleNamespace(_shell=SimpleNamespace(join_path=os.path.join, tmpdir=str(tmp_path)))
        made._make_tmp_path = lambda: str(tmp_path)
        made._transfer_file = lambda source, target: shutil.copyfile(source, target)
        made._fixup_perms2 = lambda _: None
        made.args = {"name": "greenhouse", "port": "x", "mac": MAC, "esptool": "", "baud": 1, "block": None}
        made.file_system = getattr(install, "file_system", "fat")
        made.args.update(declared_release=image.release, sha256=hashlib.sha256(data).hexdigest())

        def step(which, **more):
            module = SimpleNamespace(params={**made.args, **more}, check_mode=False)
            return getattr(library.Interpreter(module, lambda *_: None), which)()

        made._step = step
        return made, tmp_path / name, image

    def install(chip, platform):
        made, path, image = action(chip, platform)
        return made._make(path, image, True, backups)

    install.format = lambda chip: action(chip, "pycom")[0]._format(backups)
    install.kept = lambda: [path.read_bytes() for path in sorted(backups.glob("*"))]
    return install


def test_the_copy_in_the_feed_is_used_if_the_file_itself_is_gone(tmp_path):
    own = tmp_path / "downloads/LoPy4 [1].tar.gz"
    present = plugin.ActionModule._present
    assert present(own, None) == own
    assert present(own, str(tmp_path / "feed")) == own  # which is reported as missing
    for place in ("feed/interpreters", "feed/trixie-arm64/interpreters"):
        copy = tmp_path / place / own.name
        copy.parent.mkdir(parents=True)
        copy.write_text("copy")
        assert present(own, str(tmp_path / "feed")) == copy
        copy.unlink()
    copy.write_text("copy")
    own.parent.mkdir()
    own.write_text("own")
    assert present(own, str(tmp_path / "feed")) == own


@pytest.mark.parametrize("pulled_at", range(1, 60))
@pytest.mark.parametrize("then", ["pycom", "mainline"])
def test_the_block_survives_the_way_to_micropython_wherever_it_breaks_off(bench, pulled_at, then):
    chip = Chip("pycom", BLOCK)
    chip.pulled_at = pulled_at
    try:
        bench(chip, "mainline")
    except Pulled:
        chip.pulled_at = None
        bench(chip, then)
    chip.pulled_at = None
    bench(chip, "pycom")
    assert chip.config == BLOCK
    assert bench.kept() == [BLOCK]


@pytest.mark.parametrize("pulled_at", range(1, 60))
def test_the_block_is_back_on_the_way_back_wherever_it_breaks_off(bench, pulled_at):
    chip = Chip("pycom", BLOCK)
    bench(chip, "mainline")
    chip.data[CONFIG : CONFIG + SECTOR] = b"F" * SECTOR  # MicroPython's file system has come to it
    chip.work, chip.pulled_at = 0, pulled_at
    try:
        bench(chip, "pycom")
    except Pulled:
        chip.pulled_at = None
        if layout(bytes(chip.data[0x8000:0x8C00])) == "pycom":  # it may start like this
            assert chip.config == BLOCK
        bench(chip, "pycom")
    assert chip.config == BLOCK
    assert bench.kept() == [BLOCK]


def test_bytes_of_a_file_system_are_not_taken_for_keys(bench):
    chip = Chip("mainline", b"F" * SECTOR)
    said = bench(chip, "pycom")
    assert chip.config == BLANK
    assert bench.kept() == []
    assert "could not be restored" in said["warnings"][0]


def test_a_block_without_an_identity_is_restored_from_the_backup(bench):
    chip = Chip("pycom", BLOCK)
    bench(chip, "pycom")
    assert CONFIG not in chip.written  # it was right
    setup = bytearray(BLANK)
    setup[53], setup[533] = 0x7E, 1  # wifi_on_boot, LittleFS
    chip.data[CONFIG : CONFIG + SECTOR] = setup
    bench(chip, "pycom")
    assert chip.config == BLOCK[:53] + bytes(setup[53:])
    assert bench.kept() == [BLOCK]


def test_a_board_that_does_not_restart_its_chip_is_explained(bench):
    chip = Chip("pycom", BLOCK)
    bench.answers = lambda *_: {}
    with pytest.raises(
        DeviceError, match=r"written and verified.*remove the jumper from G23, press reset, and run again"
    ):
        bench(chip, "pycom")
    with pytest.raises(DeviceError, match=r"was erased.*remove the jumper from G23"):
        bench.format(chip)


LITTLE = BLOCK[:533] + b"\x01" + BLOCK[534:]


@pytest.mark.parametrize("pulled_at", range(1, 24))
def test_formatting_makes_littlefs_and_keeps_the_identity_wherever_it_breaks_off(bench, pulled_at):
    bench.file_system = "littlefs"
    chip = Chip("pycom", BLOCK)
    chip.pulled_at = pulled_at
    try:
        bench.format(chip)
    except Pulled:
        chip.pulled_at = None
        bench.format(chip)
    chip.pulled_at = None
    assert chip.config == LITTLE
    assert BLOCK in bench.kept()
    chip.written.clear()
    bench.format(chip)
    assert chip.written == []  # the block is right


def test_formatting_as_fat(bench):
    chip = Chip("pycom", LITTLE)
    bench.format(chip)
    assert chip.config == BLOCK


def test_formatting_a_board_that_nobody_has_set_writes_no_block(bench):
    bench.file_system = "littlefs"
    chip = Chip("pycom", BLANK)  # Pycom's firmware takes that for LittleFS
    bench.format(chip)
    assert chip.config == BLANK
    assert chip.written == []


@pytest.mark.parametrize("platform", ["pycom", "mainline"])
def test_formatting_keeps_the_block_and_leaves_it_alone(bench, platform):
    chip = Chip(platform, BLOCK)
    assert bench.format(chip)["changed"]
    assert chip.config == BLOCK
    assert bench.kept() == ([BLOCK] if platform == "pycom" else [])
    offset, size = FILE_SYSTEM[platform]
    assert b"F" not in chip.data[offset : offset + size].replace(BLOCK, b"")


def test_an_esptool_that_says_nothing_is_ended(tmp_path, monkeypatch):
    esptool = tmp_path / "esptool"
    esptool.write_text("#!/bin/sh\necho Connecting\nexec sleep 60\n")
    esptool.chmod(0o755)
    monkeypatch.setattr(rom_loader, "SILENCE", 0.5)
    with pytest.raises(DeviceError, match="esptool has said nothing"):
        RomLoader("/dev/null", str(esptool), "greenhouse").run("read-flash")
