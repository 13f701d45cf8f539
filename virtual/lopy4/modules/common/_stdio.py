# sys.stdin and sys.stdout of a board (MicroPython's sys_stdio_mphal.c): text with \r read as \n; .buffer only where the port has it.
import io


class Stdin(io.IOBase):
    def __init__(self, real, with_buffer):
        self._raw = real.buffer if hasattr(real, "buffer") else real
        self._one = bytearray(1)
        if with_buffer:
            self.buffer = self._raw

    def readinto(self, buffer):
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            done += self._raw.readinto(view[done:])
        for i in range(done):
            if view[i] == 13:
                view[i] = 10
        return done

    def read(self, size=-1):
        if size < 0:
            out = bytearray()
            while True:
                out += self.read(1).encode()
        out = bytearray()
        left = size
        while left > 0:
            chunk = bytearray(left)
            self.readinto(chunk)
            out += chunk
            # count characters: a UTF-8 continuation byte does not begin one, and the last one must be whole
            characters = 0
            for byte in out:
                if byte & 0xC0 != 0x80:
                    characters += 1
            missing = 0
            for back in range(1, min(4, len(out)) + 1):
                byte = out[-back]
                if byte & 0xC0 != 0x80:
                    need = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                    missing = max(0, need - back)
                    break
            left = missing if characters >= size else size - characters + missing
        return str(out, "utf-8")

    def readline(self, size=-1):
        out = ""
        while size < 0 or len(out) < size:
            char = self.read(1)
            out += char
            if char == "\n":
                break
        return out

    def close(self):
        pass

    def ioctl(self, request, argument):
        if request == 3:
            import select

            poll = select.poll()
            poll.register(self._raw, argument)
            for _stream, event in poll.poll(0):
                return event
            return 0
        return -1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Stdout(io.IOBase):
    # Pycom's: no flush, no buffer
    def __init__(self, real):
        self._real = real

    def write(self, data):
        return self._real.write(data)

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
