# The modules' way to the simulated hardware.
import json

_call = None
clock = None  # clock(operation, value): see child.py
_reply = bytearray(32768)


def connect(native_call, native_clock):
    global _call, clock
    _call = native_call
    clock = native_clock


def call(function, *arguments):
    """Ask the hardware; raises OSError with its text or number where it says so."""
    length = _call(json.dumps([function, arguments]), _reply)
    answer = json.loads(memoryview(_reply)[:length])
    error = answer.get("error")
    if error is not None:
        raise OSError(error)
    return answer["value"]
