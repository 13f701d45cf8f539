"""Times as the API writes them."""

import datetime


def written(at: float, precision: str = "seconds") -> str:
    """Seconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
