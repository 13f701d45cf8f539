"""What may be wrong with the sensors that are declared for a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.drivers import COMMON, Driver, fits
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.text import TEXT, byte_size, perhaps

PINS = {f"P{number}" for number in range(24)}
INPUTS = {f"P{number}" for number in range(13, 19)}  # GPIO 34 to 39 have no output
ANALOGUE = {f"P{number}" for number in range(13, 21)}  # ADC1; the other converter does not work beside Wi-Fi
TAKEN = {"P0": "the serial port", "P1": "the serial port", "P2": "the LED", "P12": "the choice of the aerial"}
NAME_BYTES = CONTRACT["settings"]["name"]["largest"]
RESERVED = set(CONTRACT["reserved_fields"])  # in a reading already
I2C_BUSES = 2  # controllers of the ESP32


def sensor_problems(sensors: list, catalogue: Mapping[str, Driver]) -> Iterator[str]:
    """Each entry by itself, and whether two of them want the same pin or fill the same field."""
    used: dict[str, str] = {}
    fields: dict[str, str] = {}
    if not sensors:
        yield "lopy4_sensors is empty: list what is wired to the device."
    for place, sensor in enumerate(sensors, start=1):
        driver = sensor.get("driver")
        where = f"lopy4_sensors, entry {place} ({driver})"
        if driver not in catalogue:
            yield f"{where}: there is no such driver. Available: {', '.join(sorted(catalogue))}.{perhaps(driver, catalogue)}"
            continue
        for quantity, field in (sensor.get("fields") or {}).items():
            if quantity not in catalogue[driver].quantities:
                yield f"{where}: it does not measure {quantity}; it measures {', '.join(catalogue[driver].quantities)}."
            if not byte_size(field) or field in RESERVED:
                yield f"{where}: {field!r} can't be the name of a field."
            if field in fields:
                yield f"{where}: {field} is filled by {fields[field]} already."
            fields[field] = driver
        if "name" in sensor and not 1 <= (byte_size(sensor["name"]) or 0) <= NAME_BYTES:
            yield f"{where}: name is {sensor['name']!r}; it has to be a text of {NAME_BYTES} bytes at the most."
        if not sensor.get("fields"):
            yield f"{where}: fields is missing: which quantity fills which field."
        yield from _wiring(where, sensor, catalogue[driver], used)
        yield from _keys(where, sensor, catalogue[driver])
        yield from _values(where, sensor, catalogue[driver])


def _wiring(where: str, sensor: Mapping, driver: Driver, used: dict[str, str]) -> Iterator[str]:
    entry = driver.complete(sensor)
    for key, setting in driver.settings.items():
        pin = entry.get(key)
        if setting["kind"] != "pin" or pin is None:
            continue
        if pin not in PINS:
            yield f"{where}: {key} is {pin!r}; pins are P0 to P23."
        elif pin in TAKEN:
            yield f"{where}: {key}: {pin} is used by {TAKEN[pin]}."
        elif setting.get("direction") in ("output", "both") and pin in INPUTS:
            yield f"{where}: {key}: {pin} is an input only; take a pin that can also be an output."
        elif setting.get("direction") == "analogue" and pin not in ANALOGUE:
            yield f"{where}: {key}: {pin} has no analogue converter that works beside Wi-Fi; take P13 to P20."
        # Several sensors may share a bus; everything else has its pin for itself.
        use = f"{setting['bus']} {key}" if "bus" in setting else where
        if pin in used and used[pin] != use:
            yield f"{where}: {key}: {pin} is used by another sensor."
        used[pin] = use


def bus_problems(sensors: list, catalogue: Mapping[str, Driver]) -> Iterator[str]:
    """I2C: a pair of pins is a bus, on which each sensor has an address of its own; the chip has two controllers."""
    found: dict[tuple, dict[object, int]] = {}
    for place, sensor in enumerate(sensors, start=1):
        driver = catalogue.get(sensor.get("driver"))
        if not driver or "i2c" not in [setting.get("bus") for setting in driver.settings.values()]:
            continue
        entry = driver.complete(sensor)
        where, pair = f"lopy4_sensors, entry {place} ({sensor['driver']})", (entry.get("sda"), entry.get("scl"))
        address = entry.get("address", driver.address)
        other = found.get(pair, {}).get(address)
        if other:
            choice = "another address, or other pins" if "address" in driver.settings else "other pins"
            yield f"{where}: entry {other} is on {pair[0]} and {pair[1]}, too, and has the same I2C address; take {choice}."
        elif any(pair != bus and set(pair) & set(bus) for bus in found):
            yield f"{where}: {pair[0]} or {pair[1]} belongs to the I2C bus of another sensor; take two other pins."
        found.setdefault(pair, {}).setdefault(address, place)
    if len(found) > I2C_BUSES:
        yield f"lopy4_sensors: {len(found)} pairs of sda and scl, and the chip has {I2C_BUSES} I2C controllers."


def _keys(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    takes = COMMON | set(driver.settings)
    for key in sorted(driver.needs() - {key for key, value in sensor.items() if value is not None}):
        yield f"{where}: {key} is missing."
    for key in sorted(set(sensor) - takes):
        yield f"{where}: there is no key {key}; there are {', '.join(sorted(takes))}.{perhaps(key, takes)}"


def _range(setting: Mapping) -> str:
    if "choices" in setting:
        return " or ".join(
            hex(choice) if setting["kind"] == "integer" else str(choice) for choice in setting["choices"]
        )
    if "smallest" in setting:
        return f"{setting['smallest']} to {setting['largest']}"
    return {"integer": "a whole number", "number": "a number", "text": TEXT}[setting["kind"]]


def _values(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    good = {}
    for key, setting in driver.settings.items():
        if key not in sensor:
            continue
        if not fits(sensor[key], setting):
            yield f"{where}: {key} is {sensor[key]!r}; it is {setting.get('about', key)}, {_range(setting)}."
        else:
            good[key] = sensor[key]
    for key, value in good.items():
        for other, least in driver.settings[key].get("apart", {}).items():
            if other in good and abs(value - good[other]) < least:
                yield f"{where}: {key} and {other} are (nearly) the same; measure both again."
