"""What becomes of a message, tried with the real broker, the real Telegraf and the real database."""

from __future__ import annotations

import datetime
import json
import time
from zoneinfo import ZoneInfo

import paho.mqtt.client as mqtt
import pytest
from chain import ADDRESSES, SITE, TEMPLATES, Chain, render, running, wait_until
from messages import TABLE, payload_of

STOCKHOLM = ZoneInfo("Europe/Stockholm")


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Chain:
    with running(tmp_path_factory.mktemp("chain") / "chain") as chain:
        yield chain


@pytest.fixture
def publish(chain):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", chain.mqtt_port)
    client.loop_start()

    def publish(topic: str, *payloads: str | bytes) -> None:
        for message in [client.publish(topic, payload, qos=1) for payload in payloads]:
            message.wait_for_publish(30)

    yield publish
    client.disconnect()
    client.loop_stop()


def points(chain: Chain, measurement: str = "mqtt_consumer", device: str | None = None) -> list[dict]:
    """All points as {time, device, fields}; a device that a point has none of is None."""
    found = []
    where = f"WHERE device = '{device}' " if device else ""
    for series in chain.query(f"SELECT * FROM {measurement} {where}GROUP BY *"):
        for row in series["values"]:
            point = {name: value for name, value in zip(series["columns"], row, strict=True) if value is not None}
            tags = {key: value for key, value in series.get("tags", {}).items() if value}
            found.append({"time": point.pop("time"), "tags": tags, "fields": point})
    return found


def nanoseconds(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)


@pytest.mark.parametrize("row", TABLE, ids=[row["name"] for row in TABLE])
def test_what_happens_to_a_message(chain, publish, row):
    chain.query("DROP MEASUREMENT mqtt_consumer")
    counted = wait_until(chain.counters, "the counters are written")
    before = time.time_ns()
    # What follows in the same queue tells when this one has been dealt with.
    payload = payload_of(row)
    publish(row["topic"], payload)
    publish("tig/marker/reading", '{"marker": 1, "time": 1600000000}')
    wait_until(lambda: points(chain, device="marker"), "the marker is stored")
    measurement = row.get("measurement", "mqtt_consumer")

    def others() -> list[dict]:
        return [point for point in points(chain, f'"{measurement}"') if point["tags"] != {"device": "marker"}]

    if "point" not in row:
        assert others() == []
    else:
        wanted = row["point"]
        # The database writes the shards of a batch side by side, the marker's perhaps first.
        [point] = wait_until(others, "the message is stored")
        assert point["tags"] == ({"device": wanted["device"]} if wanted["device"] else {})
        assert point["fields"] == wanted["fields"]
        if wanted["time"] == "arrival":
            assert before < point["time"] < time.time_ns()
        elif wanted["time"] == "ahead":
            assert point["time"] == json.loads(payload)["time"] * 10**9
        else:
            assert point["time"] == nanoseconds(wanted["time"])

    def grown() -> dict:
        now = chain.counters()
        return {reason: now[reason] - counted.get(reason, 0) for reason in now if now[reason] != counted.get(reason, 0)}

    wait_until(lambda: grown() == row["counted"], f"counted {row['counted']}, not {grown()}", 5)


def test_fields_are_floats(chain, publish):
    publish("tig/types/reading", '{"outsidetemp": 25, "soilhumidity": 0.7, "time": 1700000000}')
    wait_until(lambda: points(chain, device="types"), "the reading is stored")
    kinds = {row[1] for series in chain.query("SHOW FIELD KEYS FROM mqtt_consumer") for row in series["values"]}
    assert kinds == {"float"}


@pytest.mark.parametrize("how", ["time", "sensortime", "both"])
@pytest.mark.parametrize("change", ["2021-03-28T01:00:00+00:00", "2021-10-31T01:00:00+00:00"], ids=["spring", "autumn"])
def test_a_thousand_readings_during_a_clock_change(chain, publish, how, change):
    """Every 15 seconds, two hours before and after; each local time of the autumn's hour comes twice."""
    start = int(datetime.datetime.fromisoformat(change).timestamp()) - 500 * 15
    moments = [start + 15 * number for number in range(1000)]
    device = f"change-{how}-{change[5:7]}"
    payloads = []
    for moment in moments:
        local = datetime.datetime.fromtimestamp(moment, STOCKHOLM)
        reading: dict = {"device": device, "outsidetemp": 25}
        if how != "sensortime":
            reading["time"] = moment
        if how != "time":
            reading["sensortime"] = " ".join(
                str(part) for part in (local.year, local.month, local.day, local.hour, local.minute, local.second)
            )
        payloads.append(json.dumps(reading))
    publish("mats/test", *payloads)
    wait_until(lambda: len(points(chain, device=device)) >= 1000, "all are stored", 30)
    assert [point["time"] for point in points(chain, device=device)] == [moment * 10**9 for moment in moments]


def test_the_status_of_a_device(chain, publish):
    status = {
        "state": "online", "version": "1.0.0", "reset": "power_on", "uptime": 123, "free": 123456,
        "waiting_for": "none", "failed": ["dht11", "soil"], "held": 0, "dropped": 2, "time": 1700000000,
        "kept": 7, "kept_since": 1600000000, "gaps": [[1, 2], "x", [1650000000, 1650000060], [1660000000, 1e300],
                                                      [1670000000, 1670000030.5], [1680000000]],
    }  # fmt: skip
    publish("tig/told/status", json.dumps(status))
    publish("tig/told/status", '{"state": "offline"}')
    online, offline = wait_until(
        lambda: found if len(found := points(chain, "device_status", "told")) == 2 else None, "both are stored"
    )
    assert online["time"] == 1700000000 * 10**9
    assert online["fields"] == {
        "online": 1, "state": "online", "version": "1.0.0", "reset": "power_on", "uptime": 123, "free": 123456,
        "waiting_for": "none", "failed": "dht11,soil", "held": 0, "dropped": 2, "kept": 7, "kept_since": 1600000000,
        "gaps": "1650000000-1650000060,1670000000-1670000030",
    }  # fmt: skip
    assert offline["fields"] == {"online": 0, "state": "offline"}


def test_an_invalid_status_is_counted(chain, publish):
    before = wait_until(lambda: chain.counters().get("bad_status") is not None and chain.counters(), "it is counted")
    publish("tig/bad/status", "junk", '{"state": "asleep"}', b"\xff", "")
    wait_until(lambda: chain.counters()["bad_status"] == before["bad_status"] + 3, "three are counted", 5)
    assert points(chain, "device_status", "bad") == []


def test_a_status_from_the_future_is_stored_at_arrival_time(chain, publish):
    before = wait_until(lambda: "bad_status_clock" in chain.counters() and chain.counters(), "it is counted")
    now = int(time.time())
    publish(
        "tig/fast/status", f'{{"state": "online", "time": {now + 240}}}', f'{{"state": "offline", "time": {now + 360}}}'
    )
    found = wait_until(
        lambda: found if len(found := points(chain, "device_status", "fast")) == 2 else None, "both are stored"
    )
    assert {point["fields"]["state"]: point["time"] // 10**9 - now > 200 for point in found} == {
        "online": True,
        "offline": False,
    }
    wait_until(lambda: chain.counters()["bad_status_clock"] == before["bad_status_clock"] + 1, "one is counted", 5)


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.conf.j2")), ids=lambda path: path.name)
def test_a_changed_title_does_not_restart_telegraf(template):
    """Its files hold what it works with, and not what people call it."""
    renamed = [reading | {"title": f"My {reading['title']}"} for reading in SITE["site_readings"]]
    assert render(template, ADDRESSES | SITE | {"site_readings": renamed}) == render(template, ADDRESSES | SITE)


def test_metrics_of_the_broker(chain, publish):
    publish("tig/greenhouse/reading", '{"outsidetemp": 25}')
    figures = wait_until(lambda: points(chain, "mosquitto"), "the broker's figures are there")[-1]["fields"]
    assert figures["uptime"] > 0
    assert figures["clients_connected"] >= 2
    assert {"publish_messages_received", "publish_messages_dropped", "heap_current"} <= set(figures)


def test_metrics_of_the_pi(chain):
    for measurement, field in (
        ("cpu", "usage_idle"),
        ("mem", "used_percent"),
        ("disk", "used_percent"),
        ("system", "load1"),
    ):
        assert field in wait_until(lambda name=measurement: points(chain, name), f"{measurement} is there")[0]["fields"]


def test_the_log_has_no_sign_of_a_bug(chain):
    log = chain.telegraf.log.read_text(errors="replace")
    assert [line for line in log.splitlines() if "E! " in line] == []
