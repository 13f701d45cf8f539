"""What runs on the device during an upload: MicroPython 1.11, sent once, compacted.

Nothing here prints but through `print`, and nothing that it needs outlives the reset at the end.
"""

# Sent first, and for an unchanged program all that is sent.
LOOK = """
import sys, os, gc, hashlib, json, machine
from binascii import hexlify, a2b_base64
try:
    from io import BytesIO
except ImportError:
    from uio import BytesIO
# Whatever watchdog the program armed would bite during the upload; and should we be left alone, this one ends it.
watchdog = machine.WDT(timeout=300000)
root = os.getcwd().rstrip("/")
buf = bytearray(2048)
view = memoryview(buf)

def inflate(data, bits):
    # Raw deflate: 1.11 takes the window of a zlib stream for much smaller than it is.
    try:
        import deflate
        return deflate.DeflateIO(BytesIO(data), deflate.RAW, bits)
    except ImportError:
        import uzlib
        return uzlib.DecompIO(BytesIO(data), -bits)

def digest(path):
    try:
        f = open(root + "/" + path, "rb")
    except OSError:
        return ""
    h = hashlib.sha256()
    try:
        while True:
            n = f.readinto(buf)
            if not n:
                break
            h.update(view[:n])
    finally:
        # Pycom's hashing is blocked for good by a hash that is never asked for its digest.
        d = h.digest()
        f.close()
    return hexlify(d).decode()

def head(path, n):
    try:
        with open(root + "/" + path, "rb") as f:
            return f.read(n)
    except OSError:
        return b""

def manifest(path):
    try:
        with open(root + "/" + path) as f:
            m = json.load(f)
        return m["version"], m["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}

def wrong(slot, name):
    files = manifest(slot + "/" + name)[1]
    return [n for n in files if digest(slot + "/" + n) != files[n][1]]

def is_directory(path):
    try:
        return os.stat(root + "/" + path)[0] & 0x4000 != 0
    except OSError:
        return False

def look(wanted):
    slots = {}
    for s in ("a", "b"):
        d = digest(s + "/manifest.json")
        slots[s] = (d, wrong(s, "manifest.json") if d == wanted else None, manifest(s + "/manifest.json")[0], is_directory(s))
    v = os.statvfs(root or "/")
    return (root, tuple(os.uname())[:5], sys.platform, hexlify(machine.unique_id()).decode(), [head("slot.%d" % i, 80) for i in (0, 1)],
        {n: (digest(n), head(n, 48)) for n in ("boot.py", "main.py")}, slots, v[0], v[3], gc.mem_free())
"""

# Sent when something has to change.
CHANGE = """
def walk(path):
    for e in os.ilistdir(root + "/" + path):
        p = path + "/" + e[0]
        if e[1] & 0x4000:
            for q in walk(p):
                yield q
            yield p + "/"
        else:
            yield p

def number(data):
    return int.from_bytes(data, "little")

def pages(block):
    # Of readings that the program keeps in the flash, the oldest first: number and time of the first one (see firmware/README.md), path, bytes.
    found = []
    if is_directory("readings"):
        for p in walk("readings"):
            if p[-1] != "/":
                n = 2 + number(head(p, 2))
                h = head(p, n + 20)
                found.append((number(h[n : n + 4]), number(h[n + 16 :]), p, -(-os.stat(root + "/" + p)[6] // block) * block))
        found.sort()
    return found

def clear_pages(slot, block, needed):
    # The oldest readings make room for another program; none does if that would not be enough. Returns the time of the first one that
    # is left, or 1 if none is; 0: nothing was removed.
    missing = needed - room(slot, block)
    found = pages(block)
    if sum(p[3] for p in found) < missing:
        return 0
    while missing > 0:
        p = found.pop(0)
        remove(p[2])
        missing -= p[3]
    sync()
    return found[0][1] if found else 1

def room(slot, block):
    used = 0
    if is_directory(slot):
        for p in walk(slot):
            used += block if p[-1] == "/" else -(-os.stat(root + "/" + p)[6] // block) * block
    v = os.statvfs(root or "/")
    return v[0] * v[3] + used

def lost(block):
    # What is taken and belongs to no file: a FAT that was damaged has such clusters. A directory has two blocks on LittleFS.
    try:
        import pycom
        fat = pycom.bootmgr()[1] == "FAT"
    except Exception:
        fat = False
    used = 0
    for p in walk(""):
        if p[-1] == "/":
            used += block if fat else 2 * block
        else:
            used += -(-os.stat(root + p)[6] // block) * block
    v = os.statvfs(root or "/")
    return v[0] * (v[2] - v[3]) - used

def remove(path):
    try:
        os.remove(root + "/" + path)
    except OSError:
        pass

def sync():
    if hasattr(os, "sync"):
        os.sync()

def point(number, record):
    path = root + "/slot.%d" % number
    with open(path, "r+b" if len(head("slot.%d" % number, 80)) == len(record) else "wb") as f:
        f.write(record)
    sync()
    return head("slot.%d" % number, 80) == record

def folders(path):
    at = path.find("/")
    while at > 0:
        try:
            os.mkdir(root + "/" + path[:at])
        except OSError:
            pass
        at = path.find("/", at + 1)

def receive(size, chunk, bits, sha):
    data = bytearray(size)
    v = memoryview(data)
    i = 0
    while i < size:
        i += sys.stdin.readinto(v[i : min(i + chunk - i % chunk, size)])
        if i == size or i % chunk == 0:
            sys.stdout.write(".")
    watchdog.feed()
    data = bytes(v[: size - 1])
    for c in (1, 2, 3, 4, 5, 6, 13, 27):
        data = data.replace(bytes((27, c ^ 64)), bytes((c,)))
    h = hashlib.sha256(data)
    if hexlify(h.digest()).decode() != sha:
        return False
    stream = inflate(data, bits) if bits else BytesIO(data)
    while True:
        # Each file: path, size, content.
        path = stream.readline().decode().strip()
        if not path:
            return True
        left = int(stream.readline())
        folders(path)
        with open(root + "/" + path, "wb") as f:
            while left:
                n = stream.readinto(view[: min(left, len(buf))])
                if not n:
                    return False
                f.write(view[:n])
                left -= n

def inventory(slot):
    if not is_directory(slot):
        return {}
    found = {}
    for p in walk(slot):
        b = p.encode()
        if min(b) < 33 or max(b) > 126:
            # Nothing that we sent has such a name.
            raise OSError(5)
        if p[-1] != "/":
            watchdog.feed()
            found[p[len(slot) + 1 :]] = digest(p)[:16]
    return found

def clear(slot, names):
    for n in names:
        remove(slot + "/" + n)
    # Directories that are empty now; the others refuse.
    for p in list(walk(slot)):
        if p[-1] == "/":
            try:
                os.rmdir(root + "/" + p[:-1])
            except OSError:
                pass

def copy(other, slot, names):
    for n in names:
        folders(slot + "/" + n)
        watchdog.feed()
        with open(root + "/" + other + "/" + n, "rb") as f:
            with open(root + "/" + slot + "/" + n, "wb") as g:
                while True:
                    k = f.readinto(buf)
                    if not k:
                        break
                    g.write(view[:k])

def rename(old, new):
    try:
        os.rename(root + "/" + old, root + "/" + new)
    except OSError:
        # FAT does not rename over a file.
        os.remove(root + "/" + new)
        os.rename(root + "/" + old, root + "/" + new)

def seal(slot, version, wanted):
    # The manifest is made from what is in the flash: if it is the declared one, so is everything.
    entries = []
    for p in sorted(p for p in walk(slot) if p[-1] != "/"):
        watchdog.feed()
        entries.append('"%s":[%d,"%s"]' % (p[len(slot) + 1 :], os.stat(root + "/" + p)[6], digest(p)))
    text = '{"files":{%s},"version":"%s"}' % (",".join(entries), version)
    h = hashlib.sha256(text.encode())
    if hexlify(h.digest()).decode() != wanted:
        return False
    with open(root + "/" + slot + "/manifest.new", "w") as f:
        f.write(text)
    rename(slot + "/manifest.new", slot + "/manifest.json")
    sync()
    return digest(slot + "/manifest.json") == wanted

def replace(name, sha, aside):
    if digest(name + ".new") != sha:
        return False
    if aside:
        os.rename(root + "/" + name, root + "/" + aside)
    rename(name + ".new", name)
    sync()
    return digest(name) == sha

def absent(path):
    try:
        os.stat(root + "/" + path)
    except OSError:
        return True
    return False

def text(path):
    with open(root + "/" + path, "rb") as f:
        return f.read()
"""

# Sent before the file system is erased: which readings the program keeps there (see firmware/README.md).
KEPT = """
import os, struct
root = os.getcwd().rstrip("/") + "/"

def number(data):
    return int.from_bytes(data, "little")

def kept():
    # (how many, times of the first and of the last, how many of them waited to be sent)
    count = since = until = end = waiting = more = 0
    try:
        folders = os.listdir(root + "readings")
    except OSError:
        folders = []
    for d in folders:
        for name in os.listdir(root + "readings/" + d):
            with open(root + "readings/" + d + "/" + name, "rb") as f:
                page = f.read(4096)
            at = 2 + number(page[:2])
            width = 8 + 4 * page[2:at].count(b"\\n")
            while at + 16 <= len(page):
                first, oldest, n = struct.unpack("<IIH", page[at : at + 10])
                if first + n >= end:
                    end, waiting = first + n, oldest
                at += 16
                if not n or at + n * width > len(page):
                    continue
                time, last = number(page[at : at + 4]), number(page[at + (n - 1) * width :][:4])
                count += n
                since, until = min(since or time, time), max(until, last)
                at += n * width
    try:
        with open(root + "ring.bin", "rb") as f:
            names = f.read(256)
        names = names[: names.find(b"\\x00") + 1]
        more = max(0, os.stat(root + "ring.bin")[6] - len(names) - 11) // (12 + 4 * names.count(b"\\n"))
    except OSError:
        pass
    return count + more, since, until, end - waiting + more
"""
