"""The averages beside the readings: what follows from the list of a site."""

from __future__ import annotations

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
        "resample": "FOR 7200s",
        "backfill": True,
    }


@pytest.mark.parametrize(
    ("intervals", "span"),
    [(["5m", "1h"], 86400), (["7m"], 86520), (["1h", "1w"], 604800), (["50m", "1h"], 90000), ([], 86400)],
)
def test_a_span_has_whole_intervals_of_each_length(intervals, span):
    assert averages.averages_span([{"interval": interval, "retention": "0s"} for interval in intervals]) == span


def test_a_site_without_averages_has_nothing_computed():
    text = render(TEMPLATES / "averages.conf.j2", {**SITE, **ADDRESSES, "site_averages_queries": []})
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]
