"""The board's peripherals: what the platform's modules (../modules) ask for by name."""

import random

from .sensors import CHIPS, Dht11, Environment

# By name: `chip`, where that is not its name, and what the chip's class takes beside that.
DEFAULT_WIRING = {
    "dht11": {"gpio": 22},
    "bmp180": {"sda": 27, "scl": 19},
    "soil": {"gpio": 35, "power": 2, "dry_mv": 2800, "wet_mv": 1200},
}

# What a call takes on a board, in us: a call of a pin, and what a sleep takes longer than it says. README.md says where that is from.
PIN_US = (2, 6)
SLEEP_US = (2, 14)
# How often an interrupt delays such a call, unless interrupts are off, and for how long.
INTERRUPTED = 0.02
INTERRUPT_US = (10, 200)


class Wifi:
    """The access point in reach, and the station. Times on the device's clock."""

    def __init__(self, page, ssid="", password="", join_ms=700):
        self.page = page
        self.ssid, self.password = ssid, password  # empty: any will do
        self.hidden = False
        self.up = True
        self.join_us = join_ms * 1000
        self.off()

    def off(self):
        """The radio after a reset."""
        self.mode = 0
        self.wanted = None
        self.joins_at = self.gives_up_at = None
        self.gave_up = False
        self.reason = None
        self.page.wifi = 0

    def connect(self, ssid, password, timeout_ms=None):
        now = self.page.now_us()
        self.wanted = (ssid, password or "")
        self.gave_up = False
        self.joins_at = now + self.join_us
        self.gives_up_at = None if timeout_ms is None else now + timeout_ms * 1000
        self.page.wifi = 0

    def disconnect(self):
        self.wanted = self.joins_at = self.gives_up_at = None
        self.page.wifi = 0

    def problem(self):
        """Why the station cannot join now (ESP32's reason), or None."""
        if not self.up:
            return "no AP found"
        if self.ssid and self.wanted[0] != self.ssid:
            return "no AP found"
        if self.password and self.wanted[1] != self.password:
            return "wrong password"
        return None

    def step(self):
        """Update the state to the present time."""
        now = self.page.now_us()
        if self.wanted is None:
            return
        if self.page.wifi:
            if not self.up:
                self.page.wifi = 0
                self.joins_at = now + self.join_us
            return
        self.reason = self.problem()
        if self.reason is None:
            if now >= self.joins_at:
                self.page.wifi = 1
                self.gives_up_at = None
        else:
            self.joins_at = now + self.join_us
        if not self.page.wifi and self.gives_up_at is not None and now >= self.gives_up_at:
            self.gave_up = True
            self.wanted = self.gives_up_at = None


class Hardware:
    """Methods named `do_…` are requests of the MicroPython modules; the device answers what is asked about itself."""

    def __init__(self, page, flash, mac, settings):
        self.page, self.flash, self.mac, self.settings = page, flash, mac, settings
        self.environment = Environment(lambda: (page.now_us() + page.world_offset_us) / 1e6)
        self.sensors = {}
        for name, wires in {**DEFAULT_WIRING, **settings.get("wiring", {})}.items():
            chip = CHIPS[wires.get("chip", name)]
            wires = {key: value for key, value in wires.items() if key != "chip"}
            self.sensors[name] = chip(self.environment, page.now_us, **wires)
        self.wifi = Wifi(
            page, settings.get("wifi_ssid", ""), settings.get("wifi_password", ""), settings.get("wifi_join_ms", 700)
        )
        self.page.ntp_port = settings.get("ntp_port", 123)
        self.nvs = flash.load_nvs()
        self.pins = {}
        self.pin_us = 0.0  # the time at the pins, which advances with what the program does with them
        self.power_on()

    def power_on(self):
        for sensor in self.sensors.values():
            sensor.power_on()
        self.reset()

    def reset(self, soft=False):
        """The chip's peripherals after a reset. A soft one leaves Wi-Fi, RTC and watchdog as they are."""
        for gpio in self.pins:
            self.drive(gpio, None)
        self.pins = {}
        self.nvs = self.flash.load_nvs()
        self.heartbeat = bool(self.setting("heartbeat_on_boot"))
        self.led = 0
        if soft:
            return
        self.wifi.off()
        self.servers = True
        self.page.synced = 0
        self.ntp_due = None

    def step(self):
        self.wifi.step()
        if self.ntp_due is not None and self.page.now_us() >= self.ntp_due and self.page.wifi:
            if self.page.ntp_down:
                self.ntp_due += 15000000  # lwIP's SNTP tries again every 15 s
            else:
                self.ntp_due = None
                self.page.rtc_offset_us = self.page.world_offset_us
                self.page.synced = 1

    def setting(self, name):
        defaults = {"wifi_on_boot": True, "heartbeat_on_boot": True, "pybytes_on_boot": False, "wdt_on_boot": False}
        return self.nvs.get("_" + name, defaults.get(name))

    # --- time

    def do_ntp_sync(self):
        self.page.synced = 0
        self.ntp_due = self.page.now_us() + 150000

    def do_ntp_synced(self):
        self.step()
        return self.page.synced

    def do_ntp_now(self):
        """Mainline's blocking ntptime: microseconds since 1970, or an error."""
        if not self.page.wifi:
            raise HardwareError(-202)
        if self.page.ntp_down:
            raise HardwareError(110)
        return self.page.world_offset_us + self.page.now_us()

    # --- pins and what is connected to them

    def do_pin(self, gpio, mode, value, pull, passed):
        """mode: 0 input, 1 output, 2 open drain. passed: see modules/common/_bitbang.py."""
        self.pass_time(*passed)
        self.configure(gpio, mode, value, pull)

    def configure(self, gpio, mode, value, pull=None):
        self.pins[gpio] = (mode, value, pull)
        self.drive(gpio, value if mode == 1 else 0 if mode == 2 and not value else None)

    def drive(self, gpio, level):
        for sensor in self.sensors.values():
            sensor.pin(gpio, level, self.pin_us)

    def do_pin_read(self, gpio, passed):
        self.pass_time(*passed)
        mode, value, pull = self.pins.get(gpio, (0, 0, None))
        if mode == 1 or (mode == 2 and not value):
            return value
        levels = [sensor.level(gpio, self.pin_us) for sensor in self.sensors.values()]
        return min((level for level in levels if level is not None), default=1 if pull == 0 else 0)

    def pass_time(self, sleeps, slept, masked):
        """Before this call of a pin the program called sleep `sleeps` times, for `slept` us in all; masked: interrupts are off."""
        calls = [random.uniform(*PIN_US), *(random.uniform(*SLEEP_US) for _ in range(sleeps))]
        interrupts = [] if masked else [random.uniform(*INTERRUPT_US) for _ in calls if random.random() < INTERRUPTED]
        self.pin_us += slept + sum(calls) + sum(interrupts)

    def patience(self):
        """How late, in device microseconds, a reader may come that was held up on the host."""
        return int(100000 * max(1.0, self.page.speed))

    def do_pulses_get(self, gpio, timeout_ms):
        sensor = self.dht11(gpio)
        if sensor is None:
            return []
        self.configure(gpio, 0, 0)  # the RMT peripheral takes the pin, as an input
        return sensor.pulses(self.patience())

    def do_dht_readinto(self, gpio):
        """Mainline's C driver: start pulse and answer in one; five bytes, or None (a timeout)."""
        sensor = self.dht11(gpio)
        if sensor is None:
            return None
        sensor.respond_until = self.page.now_us() + 50000
        pulses = sensor.pulses(self.patience())
        highs = [us for level, us in pulses if level and us]
        if len(highs) < 41:
            return None
        bits = "".join("1" if us > 48 else "0" for us in highs[1:41])
        return [int(bits[n : n + 8], 2) for n in range(0, 40, 8)]

    def dht11(self, gpio):
        return next((s for s in self.sensors.values() if isinstance(s, Dht11) and s.gpio == gpio), None)

    def bus(self, pins):
        """The chips on a bus by their address."""
        chips = (sensor for sensor in self.sensors.values() if getattr(sensor, "bus", None) == tuple(pins))
        return {chip.address: chip for chip in chips}

    def do_i2c(self, pins, address, out, count):
        chip = self.bus(pins).get(address)
        answer = chip and chip.transfer(bytes(out), count)
        return None if answer is None else list(answer)

    def do_adc(self, gpio, attenuation):
        """[raw 12 bits, calibrated millivolts]"""
        found = [sensor.analogue(gpio) for sensor in self.sensors.values()]
        millivolts = next((millivolts for millivolts in found if millivolts is not None), None)
        if millivolts is None:
            millivolts = self.environment.value("battery") / 2 if gpio == 39 else max(0, random.gauss(60, 30))
        full = (1100, 1500, 2200, 3300)[attenuation]
        raw = min(4095, max(0, round((millivolts - 60) / full * 4095)))
        return [raw, round(min(millivolts, {1100: 950, 1500: 1250, 2200: 1750, 3300: 3150}[full])) if raw else 0]

    # --- LED

    def do_heartbeat(self, on=None):
        if on is None:
            return self.heartbeat
        self.heartbeat = on
        self.led = 0

    def do_rgbled(self, color=None):
        if color is None:
            return self.led
        if self.heartbeat:
            raise HardwareError("the requested operation is not possible")
        self.led = color

    def do_neopixel(self, gpio, color):
        if gpio == 0:
            self.heartbeat = False
            self.led = color

    # --- non-volatile storage and settings

    def save_nvs(self):
        if not self.flash.save_nvs(self.nvs):
            raise HardwareError("No free space available")

    def do_nvs_set(self, key, value):
        self.nvs[key] = value
        self.save_nvs()

    def do_nvs_get(self, key):
        return self.nvs.get(key)

    def do_nvs_erase(self, key):
        found = self.nvs.pop(key, None) is not None
        self.save_nvs()
        return found

    def do_setting(self, name, value=None):
        if value is None:
            return self.setting(name)
        self.nvs["_" + name] = value
        self.save_nvs()

    def do_server(self, on=None):
        if on is not None:
            self.servers = on
        return self.servers

    # --- Wi-Fi

    def do_wlan_mode(self, mode=None):
        if mode is None:
            return self.wifi.mode
        self.wifi.mode = mode
        if not mode & 1:
            self.wifi.disconnect()

    def do_wlan_connect(self, ssid, key, timeout_ms=None):
        self.wifi.connect(ssid, key, timeout_ms)

    def do_wlan_disconnect(self):
        self.wifi.disconnect()

    def do_wlan_connected(self):
        self.wifi.step()
        if self.page.wifi:
            return True
        if self.wifi.gave_up:
            self.wifi.gave_up = False
            return "timeout"
        return False

    def do_wlan_status(self):
        """Mainline's status(): (connected, reason, joining)"""
        self.wifi.step()
        return [bool(self.page.wifi), self.wifi.reason, self.wifi.wanted is not None]

    def do_wlan_ifconfig(self):
        if not self.page.wifi:
            return ["0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0"]
        return ["192.168.4.20", "255.255.255.0", "192.168.4.1", "192.168.4.1"]

    # --- the rest

    def do_mac(self):
        return self.mac.hex()


class HardwareError(Exception):
    """Becomes an OSError with this text or number on the device."""
