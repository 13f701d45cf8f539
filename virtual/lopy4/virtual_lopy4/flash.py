"""The 8 MB of flash: an image file with the parts that a LoPy4 has, and what the bootloader makes of them.

Layouts: Pycom's `esp32/lib/partitions_8MB.csv`; MicroPython's ESP32 port (app below 0x200000, file system above).
"""

import hashlib
import io
import json
import os
import re
import struct
import tarfile
import zlib

SIZE = 0x800000
SECTOR = 0x1000
BOOTLOADER, PARTITIONS, NVS, NVS_SIZE, APP = 0x1000, 0x8000, 0x9000, 0x7000, 0x10000
OTADATA, CONFIG = 0x1FF000, 0x3FF000
FILE_SYSTEMS = {"pycom": ("/flash", 0x400000, 0x400000), "mainline": ("/", 0x200000, 0x600000)}
RELEASES = {"pycom": "1.20.2.r6", "mainline": "1.28.0"}
VERSIONS = {"pycom": "v1.11-c5a0a97 on 2021-10-28", "mainline": "v1.28.0 on 2026-04-06"}

PARTITION_TABLES = {
    "pycom": [
        ("nvs", 1, 2, 0x9000, 0x7000),
        ("factory", 0, 0, 0x10000, 0x1EF000),
        ("otadata", 1, 0, 0x1FF000, 0x1000),
        ("ota_0", 0, 0x10, 0x210000, 0x1EF000),
        ("config", 1, 0xFE, 0x3FF000, 0x1000),
    ],
    "mainline": [
        ("nvs", 1, 2, 0x9000, 0x6000),
        ("phy_init", 1, 1, 0xF000, 0x1000),
        ("factory", 0, 0, 0x10000, 0x1F0000),
        ("vfs", 1, 0x81, 0x200000, 0x600000),
    ],
}


def partition_table(profile):
    """A partition table as ESP-IDF's gen_esp32part.py writes it: 32-byte records, MD5, padded with FF to 0xC00."""
    table = b""
    for name, kind, subtype, offset, size in PARTITION_TABLES[profile]:
        table += struct.pack("<HBBII16sI", 0x50AA, kind, subtype, offset, size, name.encode(), 0)
    table += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()
    return table.ljust(0xC00, b"\xff")


def app_image(payload, entry=0x40080000, size=0):
    """An ESP32 firmware image (esptool's format): header, one segment, checksum, SHA-256."""
    payload = payload.ljust(max(size, -(-len(payload) // 4) * 4), b"\0")
    image = struct.pack("<BBBBI", 0xE9, 1, 2, 0x0F, entry) + struct.pack("<B3BHB8sB", 0xEE, 0, 0, 0, 0, 0, bytes(8), 1)
    image += struct.pack("<II", 0x3F400020, len(payload)) + payload
    checksum = 0xEF
    for byte in payload:
        checksum ^= byte
    image = image.ljust(len(image) + 15 - len(image) % 16, b"\0") + bytes([checksum])
    return image + hashlib.sha256(image).digest()


def stand_in(profile, release=None):
    """Files of a placeholder for a firmware release: name -> bytes.

    It carries the names and versions that the real one carries, and no code: the virtual device runs its own
    MicroPython with the profile and release that it reads in them.
    """
    release = release or RELEASES[profile]
    version = VERSIONS[profile] if release == RELEASES[profile] else f"{release} on 2021-10-28"
    if profile == "pycom":
        words = b"tig-pi virtual LoPy4\0LoPy4 with ESP32\0%s\0[%s]\0" % (release.encode(), version.encode())
    else:
        words = b"tig-pi virtual LoPy4\0micropython\0ESP32_GENERIC-SPIRAM\0v%s\0[%s]\0" % (
            release.encode(),
            version.encode(),
        )
    # As large as a real one compresses badly: 256 kB of digest output.
    noise = b"".join(hashlib.sha256(b"%s %d" % (words, n)).digest() for n in range(8192))
    boot = app_image(b"bootloader\0" + words, 0x4009F000, 0x5000)
    return {
        "bootloader.bin": boot,
        "partitions_8MB.bin": partition_table(profile),
        "lopy4.bin": app_image(words + noise),
    }


def archive(release=None):
    """Pycom's release archive (LoPy4-<release>.tar.gz), filled with the placeholder; the same bytes every time."""
    files = stand_in("pycom", release)
    script = {
        "version": "2.1",
        "partitions": {
            "factory": ["0x10000", "0x1EF000"],
            "ota_0": ["0x210000", "0x1EF000"],
            "otadata": ["0x1FF000", "0x1000"],
        },
        "script": [
            ["w", "bootloader", "bootloader.bin"],
            ["w", "partitions", "partitions_8MB.bin"],
            ["w", "factory", "lopy4.bin"],
        ],
    }
    legacy = [["e", hex(0x1000 + n * 0x40000), "0x40000"] for n in range(8)] + [
        ["w", "0x1000", "bootloader.bin"],
        ["w", "0x8000", "partitions_8MB.bin"],
        ["w", "0x10000", "lopy4.bin"],
    ]
    files["script_8MB"] = json.dumps(script).encode()
    files["script"] = json.dumps(legacy).encode()
    files["script2"] = json.dumps(legacy).replace("lopy4.bin", "fipy.bin").encode()  # as in r6: upstream's mistake
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(files[name]), 0o644
            tar.addfile(info, io.BytesIO(files[name]))
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + _deflated(out.getvalue())


def _deflated(data):
    press = zlib.compressobj(6, zlib.DEFLATED, -15)
    return press.compress(data) + press.flush() + struct.pack("<II", zlib.crc32(data), len(data))


def mainline_image(release=None):
    """A MicroPython image as published, to be written at 0x1000: bootloader, partition table, app."""
    files = stand_in("mainline", release)
    image = files["bootloader.bin"].ljust(PARTITIONS - BOOTLOADER, b"\xff")
    image = (image + files["partitions_8MB.bin"]).ljust(APP - BOOTLOADER, b"\xff")
    return image + files["lopy4.bin"]


def config_block(mac, file_system="fat"):
    """Pycom's config block: LoRa MAC, Sigfox identity and keys (made from the MAC), file system type."""
    seed = hashlib.sha512(b"tig-pi config " + mac).digest()
    block = bytearray(b"\xff" * SECTOR)
    block[0:8] = mac[:3] + b"\xff\xfe" + mac[3:]
    block[8:12], block[12:20], block[20:36], block[36:52] = seed[0:4], seed[4:12], seed[12:28], seed[28:44]
    block[52], block[53] = 5, 0
    block[498] = 0
    block[533] = {"fat": 0, "littlefs": 1}[file_system]
    return bytes(block)


def otadata(image_size):
    """Pycom's boot information after flashing: factory image, no safe boot."""
    data = struct.pack("<5I16s", 0, 1, 0, image_size, 0, b"\xff" * 16)
    return (data + struct.pack("<I", zlib.crc32(b"\xff\xff\xff\xff" + data))).ljust(SECTOR, b"\xff")


class Flash:
    """The image file. All offsets and sizes in bytes."""

    def __init__(self, path, profile, mac, release=None, file_system=None):
        self.path = path
        if not os.path.exists(path):
            with open(path + ".new", "wb") as file:
                for _ in range(SIZE >> 16):
                    file.write(b"\xff" * 0x10000)
                files = stand_in(profile, release)
                for offset, name in (
                    (BOOTLOADER, "bootloader.bin"),
                    (PARTITIONS, "partitions_8MB.bin"),
                    (APP, "lopy4.bin"),
                ):
                    file.seek(offset)
                    file.write(files[name])
                if profile == "pycom":
                    file.seek(OTADATA)
                    file.write(otadata(len(files["lopy4.bin"])))
                    file.seek(CONFIG)
                    file.write(config_block(mac, file_system or "fat"))
            os.rename(path + ".new", path)
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self):
        os.close(self.fd)

    def read(self, offset, size):
        return os.pread(self.fd, size, offset)

    def write(self, offset, data):
        os.pwrite(self.fd, data, offset)

    def erase(self, offset, size):
        self.write(offset, b"\xff" * size)

    def md5(self, offset, size):
        digest = hashlib.md5()
        while size > 0:
            chunk = self.read(offset, min(size, 0x10000))
            digest.update(chunk)
            offset, size = offset + len(chunk), size - len(chunk)
        return digest.hexdigest()

    def partitions(self):
        found = {}
        table = self.read(PARTITIONS, 0xC00)
        for at in range(0, len(table), 32):
            magic, kind, subtype, offset, size, name, _flags = struct.unpack_from("<HBBII16sI", table, at)
            if magic != 0x50AA:
                break
            found[name.rstrip(b"\0").decode("latin-1")] = (kind, subtype, offset, size)
        return found

    def installed(self):
        """What the bootloader starts: {profile, release, version, root, fs_offset, fs_size, file_system}, or None."""
        if self.read(BOOTLOADER, 1) != b"\xe9":
            return None
        partitions = self.partitions()
        if "factory" not in partitions:
            return None
        app = self.read(partitions["factory"][2], min(partitions["factory"][3], 0x1F0000))
        if app[:1] != b"\xe9":
            return None
        if b"LoPy4 with ESP32" in app:
            profile, pattern = "pycom", rb"(?<![\d.])(1\.\d+\.\d+\.(?:r|rc|b)\d+(?:\.\d+)?)(?![\d.\w])"
        elif b"icro" in app and re.search(rb"ESP32", app):
            profile, pattern = "mainline", rb"\bv(1\.\d+(?:\.\d+)?(?:-preview)?)"
        else:
            return None
        match = re.search(pattern, app)
        release = match.group(1).decode() if match else RELEASES[profile]
        words = re.search(rb"\[(v?[\w.-]+ on \d{4}-\d\d-\d\d)\]", app)
        root, offset, size = FILE_SYSTEMS[profile]
        kind = "littlefs"
        if profile == "pycom" and self.read(CONFIG + 533, 1) == b"\0":
            kind = "fat"
        return {
            "profile": profile,
            "release": release,
            "version": words.group(1).decode() if words else VERSIONS[profile],
            "root": root,
            "fs_offset": offset,
            "fs_size": size,
            "file_system": kind,
        }

    def load_nvs(self):
        """Non-volatile storage, as JSON in its partition (not Espressif's format)."""
        head = self.read(NVS, 8)
        if head[:4] != b"tNVS":
            return {}
        try:
            return json.loads(self.read(NVS + 8, struct.unpack("<I", head[4:])[0]))
        except ValueError:
            return {}

    def save_nvs(self, values):
        data = json.dumps(values).encode()
        if len(data) + 8 > 0x6000:
            return False
        self.write(NVS, b"tNVS" + struct.pack("<I", len(data)) + data)
        return True
