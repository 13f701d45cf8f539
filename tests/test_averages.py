"""The averages beside the readings: what follows from the list of a site."""

from __future__ import annotations

import math
import re

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import averages
from chain import ADDRESSES, SITE, TEMPLATES, render

LEVELS = [{"interval": "5m", "retention": "104w"}, {"interval": "1h", "retention": "0s"}]


def test_each_interval_has_a_policy_and_a_query_that_writes_to_it():
    assert averages.averages_policies(LEVELS) == [
        {"name": "averages_5m", "duration": "104w"},
        {"name": "averages_1h", "duration": "0s"},
    ]
    queries = averages.averages_continuous_queries(averages.averages_queries(LEVELS, "iot", "m", "probe"))
    assert [query["name"] for query in queries] == ["averages_5m", "averages_1h"]
    assert queries[1] == {
        "name": "averages_1h",
        "query": 'SELECT mean(*), min(*), max(*), count(*) INTO "iot"."averages_1h".:MEASUREMENT '
        'FROM "iot"."autogen"."m" WHERE "device" != \'probe\' GROUP BY time(1h), *',
        "resample": "EVERY 3600s FOR 7200s",
        "backfill": True,
    }


@pytest.mark.parametrize("interval", ["1s", "1m", "5m", "7m", "29m", "30m", "31m", "45m", "1h", "1d", "1w"])
def test_a_reading_that_is_not_late_is_in_the_average_of_its_interval(interval):
    """A run includes the whole intervals before it, as far as it looks back."""
    (query,) = averages.averages_queries([{"interval": interval, "retention": "0s"}], "iot", "m", "probe")
    length = averages._seconds({"interval": interval})
    every, look_back = map(int, re.fullmatch(r"EVERY (\d+)s FOR (\d+)s", query["resample"]).groups())
    assert every % length == look_back % length == 0
    assert every <= max(1800, length)
    for made in (0, length - 1, every - 1, 5 * length, 7 * every + 1):
        stored = made + query["late"] + 30
        run = math.ceil(stored / every) * every  # the next one at which its interval is over
        assert run - look_back <= made // length * length, (made, run)


@pytest.mark.parametrize(
    ("intervals", "span"),
    [(["5m", "1h"], 86400), (["7m"], 86520), (["1h", "1w"], 604800), (["50m", "1h"], 90000), ([], 86400)],
)
def test_a_span_has_whole_intervals_of_each_length(intervals, span):
    assert averages.averages_span([{"interval": interval, "retention": "0s"} for interval in intervals]) == span


def test_a_site_without_averages_has_nothing_computed():
    text = render(TEMPLATES / "averages.conf.j2", {**SITE, **ADDRESSES, "site_averages_queries": []})
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]
