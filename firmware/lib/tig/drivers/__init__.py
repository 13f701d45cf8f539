"""Sensor drivers. A further driver is one file here.

A module `tig.drivers.<name>` has

    QUANTITIES = {"temperature": (-40, 85, 1), ...}
        what it measures: name -> (smallest, largest value that the sensor can truly say, decimals that are sent)
    TAKES_MS = 1500
        how long a reading may take at the most, all attempts included; may be left out where that is next to nothing. The
        controller refuses a keep-alive and a watchdog that are too short for it.
    class Sensor:
        def __init__(self, board, config)
            `board` is tig.board's platform module, `config` the sensor's entry in settings.json. Called again after every
            failure, so a sensor that was unplugged is set up anew. Raises SensorError or OSError where it is absent.
        def read(self)
            -> {quantity: number}, leaving out what is not known. Raises SensorError or OSError; never makes a value up.

What the settings ask for and a value's range are checked by tig.sampling, for every driver alike: a value that is out of
range is left out, and the sensor's others are sent. Where one is worked out from another, leave it out, too. Whatever else a
driver raises or returns, its import included, fails its own sensor alone.
"""


class SensorError(Exception):
    """What is wrong with the sensor, in a word or two."""
