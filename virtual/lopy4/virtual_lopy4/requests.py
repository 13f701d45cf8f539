"""What MicroPython's modules ask of the device itself; everything else they ask of its hardware."""

from .hardware import HardwareError
from .resets import reset_cause

BLOCK = 4096
CONFIG, FILE_SYSTEM = 0x3FF000, 533  # Pycom's config block, and the byte in it that names the file system


class Requests:
    def __init__(self, device):
        self.device = device

    def serve(self):
        """Carry out one request and answer it; a reset has no answer."""
        request = self.device.interpreter.request()
        if request is None:
            return
        name, arguments = request
        if name in ("reset", "deepsleep"):
            getattr(self, name)(*arguments)
            return
        try:
            own = getattr(self, "do_" + name, None) or getattr(self.device.hardware, "do_" + name)
            answer = {"value": own(*arguments)}
        except HardwareError as error:
            answer = {"error": error.args[0]}
        self.device.interpreter.answer(answer)

    def reset(self):
        self.device.boot("watchdog" if self.device.installed["profile"] == "pycom" else "software")

    def deepsleep(self, milliseconds):
        self.device.sleep(milliseconds)

    def do_configuration(self):
        found = dict(self.device.installed)
        found["blocks"] = found["fs_size"] // BLOCK
        found["block_size"] = BLOCK
        return found

    def do_reset_cause(self):
        return reset_cause(self.device.installed["profile"], self.device.reset_kind)

    def do_main(self, script):
        self.device.main_script = script

    def do_main_script(self):
        return self.device.main_script

    def do_file_system(self):
        return {"fat": "FAT", "littlefs": "LittleFS"}[self.device.installed["file_system"]]

    def do_bootmgr(self, file_system, reset):
        if file_system is not None:
            block = bytearray(self.device.flash.read(CONFIG, BLOCK))
            block[FILE_SYSTEM] = file_system
            self.device.flash.write(CONFIG, bytes(block))
        if reset:
            self.device.boot("watchdog")
