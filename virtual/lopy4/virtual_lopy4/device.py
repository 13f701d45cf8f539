"""The LoPy4 on its expansion board: power, resets, and the loop that looks after everything except MicroPython itself.

One thread runs it, around one select().
"""

import contextlib
import hashlib
import os
import select
import threading
import time

from . import child as child_codes
from . import shared
from .control import Listener, execute
from .flash import Flash
from .hardware import Hardware
from .interpreter import Interpreter
from .pic import Pic
from .port import Port
from .requests import BLOCK, Requests
from .resets import BANNERS, NO_FIRMWARE, boot_banner, download_banner, repl_banner, rom_banner
from .rom import RomLoader
from .status import status
from .uart import Uart

EPOCH_2000 = 946684800  # seconds since 1970

SETTINGS = {
    "mac": "the chip's MAC; default: made from the name",
    "name": "what the default MAC is made from; default: the name of the directory",
    "release": "version of the firmware on a new board",
    "file_system": "of a new board with Pycom's firmware: fat or littlefs",
    "wifi_ssid": "name of the network in reach; empty: any",
    "wifi_password": "its password; empty: any",
    "wifi_join_ms": "how long joining takes",
    "ntp_port": "UDP port that `ntp down` silences",
    "wiring": "which sensor is connected to which GPIO; see hardware.py",
    "block_write_ms": "how long the flash takes to erase and write a block; default 0, a real one about 50",
    "speed": "device seconds per second; 0: sleeping takes no time at all",
    "heap": "bytes of MicroPython's heap",
}


class Device:
    """A virtual LoPy4 whose state lives in the directory `directory` (made when missing).

    profile: firmware on a new board, "pycom" or "mainline"; later what is in the flash counts. paced: the serial line
    takes its time. link: symbolic link to the port's pseudo-terminal. settings: see SETTINGS.
    """

    def __init__(self, directory, profile="pycom", paced=True, baud=115200, link=None, micropython=None, **settings):
        unknown = sorted(set(settings) - set(SETTINGS))
        if unknown:
            raise ValueError(f"there is no setting '{unknown[0]}'; available: {', '.join(SETTINGS)}")
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        self.baud, self.settings = baud, settings
        self.serial = Port(self.directory, link)
        self.interpreter = Interpreter(micropython)
        mac = settings.get("mac")
        if mac:
            self.mac = bytes.fromhex(mac.replace(":", ""))
        else:
            name = settings.get("name") or os.path.basename(self.directory)
            self.mac = b"\x24\x0a\xc4" + hashlib.sha256(name.encode()).digest()[:3]
        self.flash = Flash(
            os.path.join(self.directory, "flash.bin"),
            profile,
            self.mac,
            settings.get("release"),
            settings.get("file_system"),
        )
        self.page_path = os.path.join(self.directory, "shared")
        self.page = shared.create(self.page_path)
        self.page.world_offset_us = time.time_ns() // 1000 - self.page.now_us()
        if "speed" in settings:
            self.page.set_speed(float(settings["speed"]))
        self.hardware = Hardware(self.page, self.flash, self.mac, settings)
        self.pic = Pic(self.pic_changed)
        self.uart = Uart(self, baud, paced)
        self.requests = Requests(self)
        self.state = "off"
        self.installed = None
        self.reset_kind = "power_on"
        self.resets = {}
        self.safe_boot = False
        self.raw = False
        self.main_script = "main.py"
        self.rom = None
        self.dead_until = None
        self.wake_at_us = None
        self.jobs = []
        self.lock = threading.RLock()
        self.running = self.alive = False
        self.thread = None
        self.ready = threading.Event()
        self.error = None
        self.log = None

    # --- life of the supervisor

    def start(self):
        """Plug the device in, in a thread of its own; returns when its port is there."""
        self.thread = threading.Thread(target=self.run, name="virtual-lopy4", daemon=True)
        self.thread.start()
        self.ready.wait()
        if self.error is not None:
            self.thread.join(10)
            raise self.error
        return self

    def stop(self):
        self.submit(self.quit)
        if self.thread and self.thread is not threading.current_thread():
            self.thread.join(10)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_error):
        self.stop()

    def quit(self):
        self.running = False

    def submit(self, function, *arguments):
        """Run a function in the device's thread and return what it returns."""
        if threading.current_thread() is self.thread:
            return function(*arguments)
        done, out = threading.Event(), []

        def job():
            try:
                out.append((True, function(*arguments)))
            except Exception as error:
                out.append((False, error))
            done.set()

        with self.lock:
            if self.alive:
                self.jobs.append(job)
                os.write(self.wake_w, b"!")
            else:
                job()
        done.wait()
        good, value = out[0]
        if not good:
            raise value
        return value

    def run(self):
        """The device's loop; returns after stop()."""
        if threading.current_thread() is threading.main_thread():
            self.thread = threading.current_thread()
        self.running = True
        try:
            # Whatever fails here or at the end, the other steps are done, and nobody waits for this thread for ever.
            with contextlib.ExitStack() as ending:
                ending.callback(self.flash.close)
                self.wake_r, self.wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                ending.callback(self.close_pipe)
                self.interpreter.open(4096 if self.uart.paced else 65536)
                ending.callback(self.interpreter.close)
                self.control = Listener(self.directory, lambda do, arguments: self.ctl(do, **arguments))
                ending.callback(self.control.close)
                with self.lock:
                    self.alive = True
                ending.callback(self.finish_jobs)
                ending.callback(self.close_port)
                ending.callback(self.power_off)
                self.plug()
                self.ready.set()
                while self.running:
                    self.turn()
        except Exception as error:
            self.error = error
            raise
        finally:
            self.ready.set()

    def close_pipe(self):
        os.close(self.wake_r)
        os.close(self.wake_w)

    def finish_jobs(self):
        """Later jobs are done in the threads that submit them."""
        with self.lock:
            self.running = self.alive = False
            jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    def turn(self):
        reads = [self.wake_r, self.interpreter.rpc, *self.control.sources]
        if self.serial.in_use and not self.uart.blocked():
            reads.append(self.serial.fd)
        if self.uart.room():
            reads.append(self.interpreter.out_r)
        readable, _, _ = select.select(reads, [], [], self.patience())
        for source in readable:
            if source == self.wake_r:
                os.read(self.wake_r, 4096)
            elif source == self.interpreter.rpc:
                self.requests.serve()
            elif source == self.interpreter.out_r:
                self.uart.collect()
            elif source == self.serial.fd:
                self.uart.receive()
            elif source in self.control.sources:
                self.control.serve(source)
        with self.lock:
            jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        if self.serial.fd is not None and not self.serial.in_use:
            self.serial.look()
        self.uart.deliver()
        self.uart.emit()
        self.look_after_child()
        self.hardware.step()

    def patience(self):
        """Seconds until the device may need attention without an event."""
        waits = [1.0, *self.uart.waits()]
        if self.serial.fd is not None and not self.serial.in_use:
            waits.append(0.02)
        speed = self.page.speed or 1.0
        deadlines = [self.wake_at_us, self.hardware.ntp_due, self.hardware.wifi.gives_up_at]
        if self.page.watchdog_us:
            deadlines.append(self.page.watchdog_deadline)
        if self.hardware.wifi.wanted and not self.page.wifi:
            deadlines.append(self.hardware.wifi.joins_at)
        now = self.page.now_us()
        for deadline in deadlines:
            if deadline is not None:
                waits.append(max(0.001, (deadline - now) / 1e6 / speed))
        if self.interpreter.running:
            waits.append(0.05 if self.uart.paced else 0.02)
        if self.dead_until is not None:
            waits.append(max(0.0, self.dead_until - time.monotonic()))
        return min(waits)

    # --- power

    @property
    def port(self):
        """Path of the pseudo-terminal, or None while the cable is out."""
        return self.serial.path

    def plug(self):
        """Connect the cable: the port appears, and the device has power."""
        self.serial.open()
        if self.state == "off":
            self.pic.power_on()
            self.page.cut_at_write = 0
            self.hardware.power_on()
            self.boot("power_on")

    def unplug(self):
        """Pull the cable: the port goes away, and the power with it."""
        self.uart.unplug_after = None
        self.close_port()
        self.power_off()

    def close_port(self):
        self.serial.close()
        self.uart.clear()

    def power_off(self):
        self.kill()
        self.state = "off"
        self.hardware.wifi.off()
        self.page.watchdog_us = 0
        self.rom = None
        self.wake_at_us = self.dead_until = None

    def pic_changed(self, held, _download):
        if self.pic.held and not held:
            self.power_off()
            self.state = "held"
        elif held and not self.pic.held:
            self.boot("hard")

    # --- resets

    def kill(self):
        self.interpreter.kill()
        self.page.interrupt_char = shared.NO_INTERRUPT
        self.uart.pending.clear()

    def boot(self, kind, safe=False):
        """A hardware reset: the ROM reads the straps and goes on to the loader, or to the firmware in the flash."""
        self.kill()
        if kind != "deepsleep":
            self.uart.to_host.put(self.interpreter.read_all())
        self.page.watchdog_us = 0
        self.page.bitten = self.page.cut = self.page.hash_busy = 0
        self.wake_at_us = self.dead_until = None
        self.rom = None
        self.uart.set_baud(self.baud)
        self.reset_kind = kind
        self.resets[kind] = self.resets.get(kind, 0) + 1
        self.safe_boot, self.raw = safe, False
        self.main_script = "main.py"
        self.hardware.reset()
        self.page.boot_us = self.page.now_us()
        self.installed = self.flash.installed()
        profile = self.installed and self.installed["profile"]
        pycom = profile == "pycom"
        if kind == "power_on" or (pycom and kind != "deepsleep"):
            self.page.rtc_offset_us = -self.page.now_us() + (0 if pycom else EPOCH_2000 * 1000000)
        if self.pic.download:
            self.state = "download"
            self.rom = RomLoader(self.flash, self.mac, self.uart.to_host.put, self.uart.set_baud)
            self.uart.say(download_banner())
            return
        self.uart.say(boot_banner(profile, kind))
        if self.installed is None:
            self.state = "dead"
            self.uart.say(NO_FIRMWARE * 3)
            self.dead_until = time.monotonic() + 1.0
            return
        self.uart.say(BANNERS[profile])
        self.state = "running"
        if pycom and self.hardware.setting("wdt_on_boot"):
            timeout = self.hardware.setting("wdt_on_boot_timeout") or 5000
            self.page.watchdog_us = timeout * 1000
            self.page.watchdog_deadline = self.page.now_us() + timeout * 1000
        if pycom and self.hardware.setting("wifi_on_boot"):
            self.hardware.wifi.mode = 2
        self.start_interpreter()

    def soft_reset(self, raw):
        self.reset_kind = "soft"
        self.resets["soft"] = self.resets.get("soft", 0) + 1
        self.raw = raw
        self.main_script = "main.py"
        self.hardware.reset(soft=True)
        self.start_interpreter()

    def sleep(self, milliseconds):
        """Deep sleep: a reset ends it, after the time or from outside (0)."""
        self.kill()
        self.state = "asleep"
        self.hardware.wifi.off()
        self.page.watchdog_us = 0
        self.wake_at_us = self.page.now_us() + milliseconds * 1000 if milliseconds else None

    def start_interpreter(self):
        found = self.installed
        self.page.interrupt_char = shared.NO_INTERRUPT
        self.log = self.log or open(os.path.join(self.directory, "log"), "ab")  # noqa: SIM115 - as long as the device
        self.interpreter.start(
            {
                "shared": self.page_path,
                "flash": self.flash.path,
                "profile": found["profile"],
                "raw": self.raw,
                "safe_boot": self.safe_boot,
                "banner": {"banner": repl_banner(found)},
                "heap": self.settings.get("heap", 5 * 1024 * 1024),
                "fs_offset": found["fs_offset"],
                "block_size": BLOCK,
                "block_write_us": int(self.settings.get("block_write_ms", 0) * 1000),
            },
            self.log,
        )

    def look_after_child(self):
        page = self.page
        if self.state == "dead" and self.dead_until is not None and time.monotonic() >= self.dead_until:
            self.uart.say(rom_banner("0x10 (RTCWDT_RTC_RESET)", "0x13 (SPI_FAST_FLASH_BOOT)") + NO_FIRMWARE)
            self.dead_until = time.monotonic() + 1.0
        if self.wake_at_us is not None and page.now_us() >= self.wake_at_us:
            self.boot("deepsleep")
        if page.cut:
            page.cut = 0
            self.unplug()
            return
        if page.watchdog_us and (page.bitten or page.now_us() >= page.watchdog_deadline):
            self.boot("watchdog")
            return
        code = self.interpreter.ended()
        if code is None:
            return
        self.uart.to_host.put(self.interpreter.read_all())
        if code in (child_codes.SOFT_RESET_FRIENDLY, child_codes.SOFT_RESET_RAW):
            self.soft_reset(code == child_codes.SOFT_RESET_RAW)
        elif page.cut:
            page.cut = 0
            self.unplug()
        else:
            self.uart.say(f"Guru Meditation Error: Core  1 panic'ed (MicroPython ended with {code})\r\n")
            self.boot("watchdog")

    # --- from outside

    def ctl(self, do, **arguments):
        """One command, as `lopy4.py ctl` sends it; see COMMANDS in control.py. Raises ValueError with a sentence."""
        return self.submit(execute, self, do, arguments)

    def cut(self):
        """Cut the power now; plug() brings it back."""
        self.submit(self.unplug)

    def wait_for(self, text, patience=10.0):
        """Wait until the device has said `text` (bytes) since its last reset; False when it does not in time."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            said = self.output()
            if text in said[max(0, said.rfind(b"ets Jun")) :]:
                return True
            time.sleep(0.005)
        return False

    def output(self):
        """The last 64 kB that the device said on its line."""
        return self.submit(lambda: bytes(self.uart.tail))

    def status(self):
        return status(self)
