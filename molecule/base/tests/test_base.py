"""Role base: time, journal, and the check that services can run on the host."""

from __future__ import annotations

import socket
import struct
import time

import pytest

NTP_EPOCH = 2_208_988_800  # seconds from 1900 (RFC 5905) to 1970


def ask_for_the_time(pi, seconds: float = 5) -> tuple[int, int, float]:
    """One NTP request (RFC 5905): mode and stratum of the answer, and its time in seconds since 1970."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        client.connect((pi.address, pi.port("123/udp")))
        client.send(bytes([0x23]) + bytes(47))  # version 4, mode 3 (client)
        answer = client.recv(512)
    whole, fraction = struct.unpack("!II", answer[40:48])
    return answer[0] & 7, answer[1], whole - NTP_EPOCH + fraction / 2**32


def test_the_time_is_served_to_the_nodes_of_the_site(pi):
    mode, stratum, now = ask_for_the_time(pi)
    assert (mode, stratum) == (4, 10)
    assert abs(now - time.time()) < 1


def test_the_time_zone_is_set(host):
    assert host.run("date --date=2026-07-01T12:00Z +%z").stdout.strip() == "+0200"


def test_the_journal_is_in_memory(host):
    written = host.run("find /proc/$(pidof systemd-journald)/fd -lname '*.journal' -printf '%l\\n'").stdout.split()
    assert written
    assert all(path.startswith("/run/log/journal/") for path in written), written


def test_no_unit_failed(host):
    assert host.run("systemctl --failed --quiet --no-legend").stdout == ""


def test_everything_runs_after_a_reboot(host, pi):
    pi.reboot()
    assert ask_for_the_time(pi)[:2] == (4, 10)


def test_a_full_card_is_refused(converge):
    run = converge(base_minimum_disk_mb=10**9)
    assert run.returncode != 0
    assert "make room" in run.stdout
    assert "1000000000 MB" in run.stdout


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
def test_a_port_in_use_is_reported_with_its_process(host, converge, address):
    host.run_expect([0], f"systemd-run --unit=squatter python3 -m http.server --bind {address} 1883")
    try:
        ours = {"port": 123, "protocol": "udp", "unit": "chrony.service"}
        run = converge(base_ports=[{"port": 1883, "unit": "mosquitto.service"}, ours])
        assert run.returncode != 0
        assert "Port 1883/tcp is needed by mosquitto.service, but used by python3" in " ".join(run.stdout.split())
        assert "Port 123" not in run.stdout
    finally:
        host.run("systemctl stop squatter")


LOCK = "import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); time.sleep(60)"


def test_the_lock_of_apt_is_waited_for_and_then_reported(host, converge):
    host.run_expect([0], "systemd-run --property=RuntimeMaxSec=20 --unit=holds-the-lock python3 -c %s", LOCK)
    run = converge()
    assert run.returncode == 0, run.stdout
    assert "FAILED - RETRYING" in run.stdout
    host.run_expect([0], "systemctl reset-failed; systemd-run --unit=holds-the-lock python3 -c %s", LOCK)
    try:
        run = converge(base_wait_timeout=5)
        assert run.returncode != 0
        assert "sudo fuser -v /var/lib/dpkg/lock-frontend" in run.stdout
    finally:
        host.run("systemctl stop holds-the-lock")


def test_a_wrong_system_is_refused(host, converge):
    host.run_expect(
        [0], "cp --dereference /etc/os-release /root/os-release && sed -i s/trixie/buster/ /usr/lib/os-release"
    )
    try:
        run = converge()
        assert run.returncode != 0
        assert "the stack runs on Raspberry Pi OS and Debian" in " ".join(run.stdout.split())
    finally:
        host.run("cp /root/os-release /usr/lib/")


def test_a_service_that_does_not_stay_up_fails_the_role(fails_to_start):
    fails_to_start("chrony")
