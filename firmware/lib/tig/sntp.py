"""Ask a time server (RFC 5905, client mode 3), and accept only a valid answer.

The platforms' own clients accept the answer of a server that has no time itself, such as a Pi that has just booted
without a network. This one refuses: leap indicator 3, stratum 0 or above 15, a foreign or an old answer, a transmit
time of 0, which says that there is none, and any date outside 2024 to 2100.
"""

import os
import socket
import struct
import time

EPOCH = 2208988800  # 1900 to 1970, seconds
ERA = 4294967296  # one NTP era, seconds
EARLIEST = 1704067200  # 2024-01-01
LATEST = 4133980800  # 2101-01-01


class NoTime(Exception):
    pass


def decode(answer, cookie):
    """(seconds since 1970, milliseconds) from a 48-byte answer to the request that carried `cookie` (8 bytes)."""
    if len(answer) < 48:
        raise NoTime("short answer")
    if answer[0] & 7 != 4:
        raise NoTime("not a server's answer")
    if answer[24:32] != cookie:
        raise NoTime("answer to another question")
    if answer[0] >> 6 == 3 or not 1 <= answer[1] <= 15:
        raise NoTime("server has no time itself")
    seconds, fraction = struct.unpack(">II", answer[40:48])
    if not seconds and not fraction:
        raise NoTime("server has no time itself")
    if seconds < 0x80000000:
        seconds += ERA  # after 7 February 2036
    seconds -= EPOCH
    if not EARLIEST <= seconds < LATEST:
        raise NoTime("server's time is not of 2024 to 2100")
    return seconds, (fraction >> 16) * 1000 >> 16


def ask(address, timeout_ms, clock):
    """Set `clock` from the server at an address of getaddrinfo's; returns the step in seconds, None the first time.

    Raises NoTime or OSError; takes no longer than the timeout.
    """
    cookie = os.urandom(8)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(timeout_ms / 1000)
        sent = time.ticks_ms()
        sock.sendto(b"\x23" + bytes(39) + cookie, address)
        try:
            answer = sock.recv(64)
        except OSError:
            raise NoTime("no answer")
        delay = time.ticks_diff(time.ticks_ms(), sent) // 2
    finally:
        sock.close()
    seconds, ms = decode(answer, cookie)
    ms += delay
    return clock.set(seconds + ms // 1000, ms % 1000)
