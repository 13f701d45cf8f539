"""What may be wrong with the sensors that are declared for a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.drivers import COMMON, Driver, fits
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.text import TEXT, byte_size, perhaps

PINS = {f"P{number}" for number in range(24)}
INPUTS = {f"P{number}" for number in range(13, 19)}  # GPIO 34 to 39 have no output
ANALOGUE = {f"P{number}" for number in range(13, 21)}  # ADC1; the other converter does not work beside Wi-Fi
USABLE = {"output": PINS - INPUTS, "both": PINS - INPUTS, "analogue": ANALOGUE}  # by direction; as an input every pin
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
            yield f"{where}: name is {sensor['name']!r}; it must be a text of at most {NAME_BYTES} bytes."
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
    """A bus is its kind and its pins; each sensor on it has an address of its own. The chip has two I2C controllers."""
    found: dict[str, dict[tuple, dict[object, int]]] = {}  # kind -> pins -> address -> place of the entry
    for place, sensor in enumerate(sensors, start=1):
        driver = catalogue.get(sensor.get("driver"))
        lines = {
            name: setting["bus"] for name, setting in (driver.settings if driver else {}).items() if "bus" in setting
        }
        if not lines:
            continue
        entry = driver.complete(sensor)
        where, pins = f"lopy4_sensors, entry {place} ({sensor['driver']})", tuple(entry.get(name) for name in lines)
        buses = found.setdefault(next(iter(lines.values())), {})
        there, address = buses.setdefault(pins, {}), entry.get("address", driver.address)
        others = "another pin" if len(pins) == 1 else "other pins"
        if there and None in (address, *there):
            yield f"{where}: entry {next(iter(there.values()))} is on {' and '.join(pins)}, too; give each of them its address."
        elif address in there:
            choice = f"another address, or {others}" if "address" in driver.settings else others
            yield f"{where}: entry {there[address]} is on {' and '.join(pins)}, too, and has the same address; take {choice}."
        elif any(pins != other and set(pins) & set(other) for other in buses):
            yield f"{where}: {' or '.join(pins)} belongs to the bus of another sensor; take {others}."
        there.setdefault(address, place)
    if len(found.get("i2c", ())) > I2C_BUSES:
        yield f"lopy4_sensors: {len(found['i2c'])} pairs of sda and scl, and the chip has {I2C_BUSES} I2C controllers."


def _keys(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    takes = COMMON | set(driver.settings)
    for key in sorted(driver.needs() - {key for key, value in sensor.items() if value is not None}):
        yield f"{where}: {key} is missing."
    for key in sorted(set(sensor) - takes):
        yield f"{where}: there is no key {key}; available: {', '.join(sorted(takes))}.{perhaps(key, takes)}"


def pins(direction: str) -> str:
    """The pins that have a direction and are free, such as "P3 to P11, P19 to P23"."""
    numbers = sorted(int(pin[1:]) for pin in USABLE.get(direction, PINS) - set(TAKEN))
    firsts = [number for number in numbers if number - 1 not in numbers]
    lasts = [number for number in numbers if number + 1 not in numbers]
    return ", ".join(f"P{first} to P{last}" for first, last in zip(firsts, lasts, strict=True))


def limits(setting: Mapping) -> str:
    """What its value may be, to follow what it is."""
    if "choices" in setting:
        return ", " + " or ".join(
            hex(choice) if setting["kind"] == "integer" else str(choice) for choice in setting["choices"]
        )
    if "smallest" in setting:
        return f", {setting['smallest']} to {setting['largest']}"
    if "pattern" in setting:
        return ""  # what it is about describes it better than a regular expression does
    return {"integer": ", a whole number", "number": ", a number", "text": f", {TEXT}"}[setting["kind"]]


def _values(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    good = {}
    for key, setting in driver.settings.items():
        if key not in sensor:
            continue
        if not fits(sensor[key], setting):
            yield f"{where}: {key} is {sensor[key]!r}; it is {setting.get('about', key)}{limits(setting)}."
        else:
            good[key] = sensor[key]
    for key, value in good.items():
        for other, least in driver.settings[key].get("apart", {}).items():
            if other in good and abs(value - good[other]) < least:
                yield f"{where}: {key} and {other} are (nearly) the same; measure both again."
