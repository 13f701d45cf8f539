"""The LED shows what the device waits for: one dim colour per word of the status."""

COLOURS = {
    "wifi": 0x000014,  # blue
    "broker": 0x140014,  # violet
    "time": 0x141000,  # yellow
    "sensor": 0x140000,  # red
    "none": 0x000800,  # green
}


class Led:
    def __init__(self, board):
        self._show = board.led
        self._word = None

    def say(self, word):
        if word != self._word:
            self._word = word
            try:
                self._show(COLOURS.get(word, 0))
            except (OSError, ImportError, ValueError):
                pass  # a device without an LED still measures
