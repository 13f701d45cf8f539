"""What `ctl status` says of a device."""


def colour(rgb):
    """The word for what the eye sees of 0xRRGGBB."""
    parts = (rgb >> 16, rgb >> 8 & 0xFF, rgb & 0xFF)
    bright = "".join("1" if part and 2 * part >= max(parts) else "0" for part in parts)
    words = "off", "blue", "green", "cyan", "red", "violet", "yellow", "white"
    return words[int(bright, 2)]


def status(device):
    page, hardware, uart = device.page, device.hardware, device.uart
    return {
        "state": device.state,
        "port": device.port,
        "host_open": device.serial.in_use,
        "mac": ":".join(f"{byte:02x}" for byte in device.mac),
        "profile": device.installed and device.installed["profile"],
        "release": device.installed and device.installed["release"],
        "file_system": device.installed and device.installed["file_system"],
        "safe_boot": device.safe_boot,
        "reset": device.reset_kind,
        "resets": device.resets,
        "uptime": round((page.now_us() - page.boot_us) / 1e6, 3),
        "speed": page.speed,
        "bytes_received": uart.received,
        "bytes_sent": uart.sent,
        "bytes_overflowed": uart.overflowed,
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
        "sensors": {
            name: {"fault": sensor.fault, "violations": list(sensor.violations)}
            for name, sensor in hardware.sensors.items()
        },
        "values": hardware.environment.all(),
    }
