"""Local time from a POSIX TZ string, such as `CET-1CEST,M3.5.0,M10.5.0/3`, worked out on the device.

The format is that of POSIX.1 (Base Definitions 8.3) with RFC 8536's hours of -167 to 167. Offsets are seconds east of
UTC; times are seconds since 1970 in UTC.
"""


def days(year, month, day):
    """Days from 1970-01-01 to a date of the Gregorian calendar."""
    if month <= 2:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


def civil(day):
    """(year, month, day) of a number of days since 1970-01-01."""
    day += 719468
    era = day // 146097
    of_era = day - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return (
        year + era * 400 + (1 if month >= 10 else 0),
        month + 3 if month < 10 else month - 9,
        of_year - (153 * month + 2) // 5 + 1,
    )


def _leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


class Zone:
    def __init__(self, text):
        """Raises ValueError for a string that is not a POSIX TZ."""
        self._text = text
        self._at = 0
        self._name()
        self.standard = -self._time(24)
        self.begin = None  # of summer time; None: there is none
        self.end = None
        if self._at < len(text):
            self._name()
            self.summer = self.standard + 3600
            if self._peek() not in ",":
                self.summer = -self._time(24)
            if self._peek() == "":
                # No rules given: the ones that POSIX implementations fall back to.
                self._text += ",M3.2.0,M11.1.0"
            self.begin = self._rule()
            self.end = self._rule()
        if self._at != len(self._text):
            self._fail()
        del self._text

    def offset(self, utc):
        """Seconds east of UTC at an instant."""
        if not self.begin:
            return self.standard
        year = civil((utc + self.standard) // 86400)[0]
        latest = None
        offset = self.standard
        for y in (year - 1, year, year + 1):
            # The end of summer time is given in summer time, its start in standard time. If one year's end is the next
            # one's start, it is summer time all year.
            for rule, before, after in (
                (self.end, self.summer, self.standard),
                (self.begin, self.standard, self.summer),
            ):
                instant = rule.instant(y) - before
                if instant <= utc and (latest is None or instant >= latest):
                    latest = instant
                    offset = after
        return offset

    def text(self, utc):
        """The tutorial's `sensortime`: local time as "2021 7 12 14 40 39"."""
        local = utc + self.offset(utc)
        second = local % 86400
        year, month, day = civil(local // 86400)
        return "%d %d %d %d %d %d" % (year, month, day, second // 3600, second // 60 % 60, second % 60)

    def _peek(self):
        return self._text[self._at : self._at + 1]

    def _fail(self):
        raise ValueError("not a POSIX time zone at character %d" % (self._at + 1))

    def _name(self):
        start = self._at
        if self._peek() == "<":
            end = self._text.find(">", start)
            if end < 0:
                self._fail()
            self._at = end + 1
            length = end - start - 1
        else:
            while self._peek() and (self._peek().lower() >= "a" and self._peek().lower() <= "z"):
                self._at += 1
            length = self._at - start
        if length < 3:
            self._fail()

    def _number(self, smallest, largest):
        start = self._at
        while self._peek() and self._peek() in "0123456789":
            self._at += 1
        if start == self._at:
            self._fail()
        value = int(self._text[start : self._at])
        if not smallest <= value <= largest:
            self._fail()
        return value

    def _time(self, hours):
        """[+-]hh[:mm[:ss]] in seconds."""
        sign = 1
        if self._peek() and self._peek() in "+-":
            sign = -1 if self._peek() == "-" else 1
            self._at += 1
        seconds = self._number(0, hours) * 3600
        for unit in (60, 1):
            if self._peek() != ":":
                break
            self._at += 1
            seconds += self._number(0, 59) * unit
        return sign * seconds

    def _skip(self, what):
        if self._peek() != what:
            self._fail()
        self._at += 1

    def _rule(self):
        self._skip(",")
        kind = self._peek()
        if kind == "M":
            self._at += 1
            month = self._number(1, 12)
            self._skip(".")
            week = self._number(1, 5)
            self._skip(".")
            rule = _Weekday(month, week, self._number(0, 6))
        elif kind == "J":
            self._at += 1
            rule = _JulianDay(self._number(1, 365))
        else:
            rule = _DayOfYear(self._number(0, 365))
        if self._peek() == "/":
            self._at += 1
            rule.time = self._time(167)
        return rule


class _Rule:
    """When the clock changes. `day(year)` is in days since 1970."""

    time = 7200  # of the day, seconds

    def instant(self, year):
        """Local seconds since 1970."""
        return self.day(year) * 86400 + self.time


class _Weekday(_Rule):
    """Mm.w.d: such as the last Sunday of March."""

    def __init__(self, month, week, weekday):
        self._month = month
        self._week = week
        self._weekday = weekday

    def day(self, year):
        first = days(year, self._month, 1)
        day = first + (self._weekday - (first + 4)) % 7 + 7 * (self._week - 1)
        following = days(year + 1, 1, 1) if self._month == 12 else days(year, self._month + 1, 1)
        while day >= following:
            day -= 7
        return day


class _JulianDay(_Rule):
    """Jn: from 1, and 29 February is never counted."""

    def __init__(self, number):
        self._number = number

    def day(self, year):
        return days(year, 1, 1) + self._number - 1 + (1 if self._number >= 60 and _leap(year) else 0)


class _DayOfYear(_Rule):
    """n: from 0, and 29 February is counted."""

    def __init__(self, number):
        self._number = number

    def day(self, year):
        return days(year, 1, 1) + self._number
