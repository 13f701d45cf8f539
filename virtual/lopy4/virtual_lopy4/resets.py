"""Why a device starts, and what its ROM and its bootloader say about it."""

CAUSES = {
    "pycom": ("PWRON", "HARD", "WDT", "DEEPSLEEP", "SOFT", "BROWN_OUT"),
    "mainline": (None, "PWRON", "HARD", "WDT", "DEEPSLEEP", "SOFT"),
}
KINDS = {  # the reset -> what machine.reset_cause() calls it
    "power_on": "PWRON",
    "hard": "PWRON",
    "watchdog": "WDT",
    "deepsleep": "DEEPSLEEP",
    "soft": "SOFT",
    "software": "SOFT",
}
ROM = "ets Jun  8 2016 00:22:57\r\n\r\n"
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
NO_FIRMWARE = "invalid header: 0xffffffff\r\n"


def reset_cause(profile, kind):
    """The number of a reset in `machine.reset_cause()`."""
    return CAUSES[profile].index(KINDS[kind])


def rom_banner(reset, boot):
    return f"{ROM}rst:{reset},boot:{boot}\r\n"


def boot_banner(profile, kind):
    """What is said before the firmware in the flash starts."""
    return rom_banner(RESETS[kind], f"{'0x13' if profile == 'pycom' else '0x17'} (SPI_FAST_FLASH_BOOT)")


def download_banner():
    boot = "0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))"
    return rom_banner(RESETS["hard"], boot) + "waiting for download\r\n"


def repl_banner(installed):
    """The first line of the friendly REPL."""
    if installed["profile"] == "mainline":
        return "MicroPython {}; Generic ESP32 module with SPIRAM with ESP32".format(installed["version"])
    version, _, date = installed["version"].partition(" on ")
    return "Pycom MicroPython {} [{}] on {}; LoPy4 with ESP32".format(installed["release"], version, date)
