"""Read every sensor of the settings, and accept only values that the sensor can really measure.

Whatever goes wrong in one driver, the other sensors go on: `failed` names the sensor, and the console has the reason.
"""

from tig import log
from tig.drivers import SensorError
from tig.settings import SettingsError


class _Quantity:
    def __init__(self, smallest, largest, decimals):
        self.smallest = smallest
        self.largest = largest
        self.format = "%%.%df" % decimals


class _Wanted:
    def __init__(self, quantity, place):
        self.quantity = quantity
        self.place = place  # of its field among the values


class _Sensor:
    def __init__(self, name, config):
        self.name = name
        self.config = config
        self.driver = None
        self.quantities = {}  # by name
        self.wanted = []
        self.broken = None  # why the driver cannot be used
        self.instance = None
        self.fault = ""


class Sampler:
    def __init__(self, board, sensors):
        """sensors: the list in settings.json. Raises SettingsError for a quantity that does not exist."""
        self._board = board
        self._sensors = []
        self.fields = []  # names, in the order of the values
        self.formats = []  # how to print each
        self.failed = []  # names of the sensors whose last reading failed
        for config in sensors:
            self._add(config)

    def _add(self, config):
        driver = config["driver"]
        name = config.get("name", driver)
        number = 2
        while name in [sensor.name for sensor in self._sensors]:
            name = "%s-%d" % (driver, number)
            number += 1
        sensor = _Sensor(name, config)
        try:
            sensor.driver = __import__("tig.drivers." + driver, None, None, ("Sensor",))
            for quantity, (smallest, largest, decimals) in sensor.driver.QUANTITIES.items():
                sensor.quantities[quantity] = _Quantity(smallest, largest, int(decimals))
            for setting, rules in getattr(sensor.driver, "SETTINGS", {}).items():
                if "default" in rules:
                    config.setdefault(setting, rules["default"])
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            sensor.broken = _words(e)
        for quantity in sorted(config["fields"]):
            if quantity not in sensor.quantities and not sensor.broken:
                raise SettingsError("settings.json: driver %s has no quantity %s" % (driver, quantity))
            field = config["fields"][quantity]
            if field in self.fields:
                raise SettingsError("settings.json: field %s is measured twice" % field)
            sensor.wanted.append(_Wanted(quantity, len(self.fields)))
            self.fields.append(field)
            self.formats.append(sensor.quantities[quantity].format if quantity in sensor.quantities else "%.0f")
        self._sensors.append(sensor)

    def sample(self):
        """A list with one value per field, None where there is none."""
        values = [None] * len(self.fields)
        failed = []
        for sensor in self._sensors:
            fault = sensor.broken or self._read(sensor, values)
            if fault:
                failed.append(sensor.name)
            if fault != sensor.fault:
                sensor.fault = fault
                log.say("sensor %s: %s" % (sensor.name, fault or "working"))
        self.failed = failed
        return values

    def _read(self, sensor, values):
        """Read one sensor into `values`; returns what is wrong with it."""
        try:
            if sensor.instance is None:
                sensor.instance = sensor.driver.Sensor(self._board, sensor.config)
            return _take(sensor, sensor.instance.read(), values)
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            sensor.instance = None
            return _words(e)


def _take(sensor, measured, values):
    if not isinstance(measured, dict):
        return "says %s instead of its quantities" % type(measured).__name__
    faults = ["undeclared quantity %s" % quantity for quantity in measured if quantity not in sensor.quantities]
    for wanted in sensor.wanted:
        value = measured.get(wanted.quantity)
        limits = sensor.quantities[wanted.quantity]
        if value is None:
            faults.append("no " + wanted.quantity)
        elif type(value) not in (int, float):
            faults.append(wanted.quantity + " is not a number")
        elif not limits.smallest <= value <= limits.largest:
            faults.append(wanted.quantity + " out of range")
        else:
            values[wanted.place] = value
    return ", ".join(faults)


def _words(error):
    if isinstance(error, SensorError) and str(error):
        return str(error)
    return "%s: %s" % (type(error).__name__, error)
