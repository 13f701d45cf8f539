"""Sensor drivers. A further driver is one file here.

A module `tig.drivers.<name>` has

    QUANTITIES = {"temperature": (-40, 85, 1), ...}
        what it measures: name -> (smallest, largest value that the sensor can truly say, decimals that are sent)
    SETTINGS = {"pin": {"kind": "pin", "direction": "both", "about": "its data line"}, ...}
        what its entry in settings.json may have beside driver, fields and name, see below; the controller checks the entries
        by it, and fills nothing in.
    TAKES_MS = 1500
        the longest time that a reading may take, all attempts included; may be left out if that is next to nothing. The
        controller refuses a keep-alive and a watchdog that are too short for it.
    ADDRESS = 0x77
        its address on its bus, where that is fixed; where it is not, it is the setting `address`.
    class Sensor:
        def __init__(self, board, config)
            `board` is tig.board's platform module, `config` the sensor's entry in settings.json with all defaults. Called
            again after every failure, for a sensor that was unplugged. Raises SensorError or OSError if it is absent.
        def read(self)
            -> {quantity: number}, leaving out what is not known. Raises SensorError or OSError; never makes a value up.

A setting is a dictionary:

    kind        pin, integer, number or text
    about       what it is, in a few words
    default     its value if it is not given; a setting without one must be given, unless it is
    optional    True: it may be absent
    example     the value that `make device` proposes for a setting without a default
    direction   of a pin: input, output, both or analogue (an input of the converter that works beside Wi-Fi)
    bus         of a pin: the kind of bus that it belongs to, such as i2c, which several sensors may share if each has another
                `address`; any other pin belongs to one sensor
    smallest, largest, choices    of a number
    pattern     of a text: the regular expression that it matches, checked by the controller
    apart       {"other": 50}: how much it has to differ from another setting
    takes_ms    how much longer a reading takes for each unit of it; with: another setting, without which it has no effect

SETTINGS, QUANTITIES, TAKES_MS and ADDRESS are literals: the controller reads them without running the file.

What the settings ask for and a value's range are checked by tig.sampling, for every driver alike: a value that is out of
range is left out, and the sensor's others are sent. Where one is worked out from another, leave it out, too. Whatever else a
driver raises or returns, its import included, fails its own sensor alone.
"""


class SensorError(Exception):
    """What is wrong with the sensor, in a word or two."""
