"""Ask every sensor of the settings, and let nothing through that is not a value the sensor can truly say."""

from tig import log
from tig.drivers import SensorError
from tig.settings import SettingsError


class Sampler:
    def __init__(self, board, sensors):
        """sensors: the list in settings.json. Raises SettingsError for a driver or quantity that does not exist."""
        self._board = board
        self._sensors = []
        self.fields = []  # names, in the order of the values
        self.formats = []  # how to print each
        self.failed = []  # names of the sensors whose last reading failed
        for config in sensors:
            self._add(config)

    def _add(self, config):
        driver_name = config["driver"]
        try:
            driver = __import__("tig.drivers." + driver_name, None, None, ("Sensor",))
        except ImportError:
            raise SettingsError("settings.json: there is no driver " + driver_name)
        name = config.get("name", driver_name)
        number = 2
        while name in [sensor[0] for sensor in self._sensors]:
            name = "%s-%d" % (driver_name, number)
            number += 1
        wanted = []
        for quantity in sorted(config["fields"]):
            if quantity not in driver.QUANTITIES:
                raise SettingsError("settings.json: driver %s has no quantity %s" % (driver_name, quantity))
            decimals = driver.QUANTITIES[quantity][2]
            field = config["fields"][quantity]
            if field in self.fields:
                raise SettingsError("settings.json: field %s is measured twice" % field)
            wanted.append((quantity, len(self.fields)))
            self.fields.append(field)
            self.formats.append("%%.%df" % decimals)
        self._sensors.append([name, driver, config, None, wanted, None])

    def sample(self):
        """A list with one value per field, None where there is none."""
        values = [None] * len(self.fields)
        failed = []
        for sensor in self._sensors:
            fault = self._read(sensor, values)
            if fault:
                failed.append(sensor[0])
            if fault != sensor[5]:
                sensor[5] = fault
                log.say("sensor %s: %s" % (sensor[0], fault or "working"))
        self.failed = failed
        return values

    def _read(self, sensor, values):
        name, driver, config, instance, wanted, _ = sensor
        try:
            if instance is None:
                instance = driver.Sensor(self._board, config)
                sensor[3] = instance
            measured = instance.read()
        except MemoryError:
            raise
        except Exception as e:  # whatever ails one driver, the others go on
            sensor[3] = None
            return str(e) if isinstance(e, SensorError) else "%s %s" % (type(e).__name__, e)
        # A sensor that says one thing it cannot say is not believed in the others either.
        for quantity in measured:
            smallest, largest, _ = driver.QUANTITIES[quantity]
            if not smallest <= measured[quantity] <= largest:
                return quantity + " out of range"
        fault = None
        for quantity, index in wanted:
            if quantity in measured:
                values[index] = measured[quantity]
            else:
                fault = "no " + quantity
        return fault
