"""The five bytes of a DHT11 from the lengths of its pulses, for a platform that records pulses (Pycom's RMT).

After the host lets go, the line is high for 20 to 40 us, the sensor pulls it low for 80 us and high for 80 us, then sends
40 bits: 50 us low and 26 to 28 us (0) or 70 us (1) high.
"""

from tig.drivers import SensorError

SHORTEST = 10  # us; a glitch below
LONGEST = 100  # us; not a bit above
THRESHOLD = 48  # us; the mainline driver's too


def decode(pulses):
    """Bytes of a frame from [(level, us), ...]; raises SensorError."""
    highs = [us for level, us in pulses if level and SHORTEST < us < LONGEST]
    if not highs:
        raise SensorError("no answer")
    # 40 bits, before them the response (80 us) and what was left of the host's release
    if not 40 <= len(highs) <= 42:
        raise SensorError("%d of 40 bits" % max(0, len(highs) - 2))
    frame = bytearray(5)
    for i, us in enumerate(highs[-40:]):
        if us > THRESHOLD:
            frame[i // 8] |= 0x80 >> i % 8
    return frame
