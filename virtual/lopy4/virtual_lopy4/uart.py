"""The serial line between the host's port and the module's UART: its speed, the receive ring, and what acts on single bytes."""

import time

from .port import Line

RX_RING = {"pycom": 4096, "mainline": 260}  # bytes between the receive interrupt and the program
SAFE_BOOT_CHAR = 0x06
CTRL_C = 3
TAIL = 65536  # bytes of what the device said that are kept


class Uart:
    """What happens to bytes depends on the device: `device` has its port, PIC, ROM loader, interpreter and state."""

    def __init__(self, device, baud, paced):
        self.device = device
        self.paced = paced
        self.to_device, self.to_host = Line(), Line()
        self.unplug_after = None  # bytes from the host
        self.received = self.sent = self.overflowed = self.missed = 0
        self.pending = bytearray()  # come down the line, and not in the ring yet
        self.stalled_since = None
        self.burst = time.monotonic()
        self.pic_session = False
        self.full_since = None
        self.tail = bytearray()
        self.set_baud(baud)

    def set_baud(self, baud):
        self.baud = baud
        rate = baud / 10.0 if self.paced else 0
        for line in (self.to_device, self.to_host):
            line.rate = rate

    def clear(self):
        for line in (self.to_device, self.to_host):
            line.queue.clear()
        self.pending.clear()

    def waits(self):
        """Seconds until the line may need attention."""
        for line in (self.to_device, self.to_host):
            wait = line.wait()
            if wait is not None:
                yield wait if self.full_since is None else 0.002
        if self.pending:
            yield 0.001

    # --- from the host

    def blocked(self):
        """Whether the host's bytes have to wait."""
        if self.to_device.rate:
            return len(self.to_device.queue) > 256
        return bool(self.pending) or len(self.to_device.queue) > 65536

    def receive(self):
        data = self.device.serial.read(256 if self.to_device.rate else 4096)
        if self.unplug_after is not None and len(data) >= self.unplug_after:
            data = data[: self.unplug_after]
            self.take(data)
            self.deliver(everything=True)
            self.device.unplug()
            return
        if self.unplug_after is not None:
            self.unplug_after -= len(data)
        self.take(data)

    def take(self, data):
        """Bytes that the host sent: the PIC's commands go to the PIC, the others down the line to the module."""
        now = time.monotonic()
        quiet, self.burst = now - self.burst > 0.002, now
        rom = self.device.rom
        commands = None
        if (quiet or self.pic_session) and (rom is None or rom.between_frames) and not self.to_device.queue:
            commands = self.device.pic.commands(data)
        self.pic_session = commands is not None
        if commands is not None:
            for command in commands:
                self.to_host.put(self.device.pic.execute(command))
            return
        self.to_device.put(data)

    def deliver(self, everything=False):
        """What has come down the line reaches the UART of the module."""
        device = self.device
        data = bytes(self.to_device.queue) if everything else self.to_device.due()
        if everything:
            self.to_device.queue.clear()
        self.received += len(data)
        if device.rom is not None:
            if data:
                device.rom.receive(data)
            return
        if data:
            self.pending += data
        if not self.pending:
            return
        if device.state != "running":
            self.pending.clear()
            return
        pycom = device.installed["profile"] == "pycom"
        pending, self.pending = self.pending, bytearray()
        while pending:
            stops = [
                at
                for at in (
                    pending.find(SAFE_BOOT_CHAR) if pycom else -1,
                    pending.find(CTRL_C) if device.page.interrupt_char == CTRL_C else -1,
                )
                if at >= 0
            ]
            plain = min(stops) if stops else len(pending)
            if plain:
                room = RX_RING[device.installed["profile"]] - device.interpreter.waiting()
                if room < plain and not self.to_device.rate and not everything and self.may_wait(room):
                    if room > 0:
                        device.interpreter.write(pending[:room])
                    self.pending = pending[max(0, room) :]
                    return
                if room > 0:
                    device.interpreter.write(pending[: min(room, plain)])
                self.overflowed += max(0, plain - max(0, room))
                del pending[:plain]
            if not pending:
                break
            char = pending[0]
            del pending[:1]
            if pycom and char == SAFE_BOOT_CHAR:
                rest, self.pending = bytes(pending), bytearray()
                device.boot("watchdog", safe=True)
                self.pending += rest
                return
            if char == CTRL_C and device.page.interrupt_char == CTRL_C:
                device.interpreter.interrupt()

    def may_wait(self, room):
        """An unpaced line waits for the ring to drain, but not for ever."""
        now = time.monotonic()
        if self.stalled_since is None or room != self.stalled_since[1]:
            self.stalled_since = (now, room)
        if now - self.stalled_since[0] < 5.0:  # a busy machine, not a program that does not read
            return True
        self.stalled_since = None
        return False

    # --- to the host

    def room(self):
        """Whether the module may put out more."""
        return len(self.to_host.queue) < (64 if self.to_host.rate else 65536)

    def collect(self):
        """MicroPython's output goes onto the line."""
        self.to_host.put(self.device.interpreter.read(128 if self.to_host.rate else 65536))

    def say(self, text):
        self.to_host.put(text.encode())

    def emit(self):
        """What has come down the line reaches the host."""
        data = self.to_host.due()
        if not data:
            return
        written = self.device.serial.write(data)
        self.sent += written
        self.tail += data[:written]
        del self.tail[:-TAIL]
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
