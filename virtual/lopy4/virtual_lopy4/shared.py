"""The page of memory that the supervisor and the process running MicroPython share.

It holds what both need many times a second, so that reading the clock or feeding the watchdog costs no message.
"""

import ctypes
import mmap
import os
import time

NO_INTERRUPT = -1


class Shared(ctypes.Structure):
    """Layout of the page. Times are in microseconds of the device's own clock unless they say otherwise."""

    _fields_ = [
        ("anchor_host_ns", ctypes.c_int64),  # host's CLOCK_MONOTONIC when the speed was last set
        ("anchor_us", ctypes.c_int64),  # the device's clock at that moment
        ("speed", ctypes.c_double),  # device seconds per host second; 0: sleeping takes no time at all
        ("skipped_us", ctypes.c_int64),  # time that sleeps skipped at speed 0
        ("interrupt_char", ctypes.c_int64),  # what the receive interrupt takes for Ctrl-C, or NO_INTERRUPT
        ("block_writes", ctypes.c_int64),  # blocks erased or written since the device was made
        ("cut_at_write", ctypes.c_int64),  # power fails at this block write (0: never)
        ("torn", ctypes.c_int64),  # what that write leaves of the block: a place in cells.TORN
        ("watchdog_us", ctypes.c_int64),  # timeout of the watchdog (0: not armed)
        ("watchdog_deadline", ctypes.c_int64),  # when it bites
        ("rtc_offset_us", ctypes.c_int64),  # RTC (since 1970) minus the device's clock
        ("world_offset_us", ctypes.c_int64),  # the true time (since 1970) minus the device's clock
        ("synced", ctypes.c_int64),  # an NTP answer has set the RTC since the last reset
        ("wifi", ctypes.c_int64),  # the station has an address
        ("cut", ctypes.c_int64),  # the child found that power fails now
        ("bitten", ctypes.c_int64),  # the child slept, at speed 0, into the watchdog
        ("ntp_port", ctypes.c_int64),  # UDP port at which a time server is looked for
        ("ntp_down", ctypes.c_int64),  # and nobody answers there
        ("hash_busy", ctypes.c_int64),  # Pycom: a hash was begun and not digested; only a hardware reset clears it
        ("boot_us", ctypes.c_int64),  # the device's clock at the last hardware reset
    ]

    def now_us(self):
        """The device's clock in microseconds; never runs backwards, survives resets."""
        elapsed = time.monotonic_ns() - self.anchor_host_ns
        return self.anchor_us + int(elapsed * (self.speed or 1.0)) // 1000 + self.skipped_us

    def operate(self, operation, value):
        """What the modules ask of the clock and its neighbours (`_hardware.clock`), by number."""
        if operation == 0:
            return self.now_us()
        if operation == 1:
            return self.now_us() + self.rtc_offset_us
        if operation == 2:
            self.rtc_offset_us = value - self.now_us()
        elif operation == 3:
            self.watchdog_deadline = self.now_us() + value  # first, because the supervisor may look between the two
            self.watchdog_us = value
        elif operation == 4:
            if self.watchdog_us:
                self.watchdog_deadline = self.now_us() + self.watchdog_us
        elif operation == 5:
            return self.wifi
        elif operation == 6:
            return self.synced
        elif operation == 7:
            return self.now_us() - self.boot_us
        elif operation == 9:
            self.hash_busy = value
        elif operation == 10:
            return self.hash_busy
        else:
            return -1
        return 0

    def set_speed(self, speed):
        now = self.now_us() - self.skipped_us
        self.anchor_us, self.anchor_host_ns, self.speed = now, time.monotonic_ns(), speed


def create(path):
    """Make the page at `path` and return it, its clock starting at zero."""
    with open(path, "wb") as file:
        file.write(bytes(4096))
    page = attach(path)
    page.anchor_host_ns = time.monotonic_ns()
    page.speed = 1.0
    page.interrupt_char = NO_INTERRUPT
    return page


def attach(path):
    fd = os.open(path, os.O_RDWR)
    try:
        return Shared.from_buffer(mmap.mmap(fd, 4096))
    finally:
        os.close(fd)
