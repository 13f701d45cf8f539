"""Where a slot's program starts: `run(path, confirm)`, called by the loader."""

import gc
import json
import sys
import time

from tig import VERSION, crash, handover, log, settings
from tig.board import board
from tig.clock import Clock
from tig.led import Led
from tig.link import Link
from tig.pages import Pages
from tig.ring import Ring
from tig.sampling import Sampler
from tig.status import Status
from tig.watchdog import Watchdog
from tig.wifi import Wifi
from tig.zone import Zone

RING = "ring.bin"  # in the root of the file system: the readings that waited when a program ended
AMPLE_MS = 60000  # room for whatever the link wants to start
SETTLED_S = 60  # after this time without a crash it works, even if it reaches no broker
TRIAL_S = 600  # but a program on trial, with another one to go back to, has to reach the broker within this time
PAUSE_S = 5  # of the loader before the reset, when it goes back
GAP_S = 5  # readings are missing where two are further apart than two intervals and this
LOSS_S = 600  # readings that are older than this are in the flash
INTERRUPTS = 5  # in a row: the uploader sends two at a time
TALK_MS = 250  # at least this long between two readings, so that the link can send


class Encoder:
    """Encodes readings as the tutorial's JSON message, with `time`. Not with json.dumps, so that each number has its own decimals."""

    def __init__(self, name, fields, formats, zone):
        self._head = '{"device": ' + json.dumps(name)
        self._fields = [(", " + json.dumps(field) + ": ", form) for field, form in zip(fields, formats)]
        self._zone = zone

    def __call__(self, values, utc):
        """values: one per field, NaN for what is missing; utc: seconds since 1970, 0 for unknown."""
        text = self._head
        for (key, form), value in zip(self._fields, values):
            if value == value:
                number = form % value
                if "." in number:
                    number = number.rstrip("0").rstrip(".")
                text += key + number
        if utc:
            text += ', "sensortime": "%s", "time": %d' % (self._zone.text(utc), utc)
        return (text + "}").encode()


def _pages(fields, capacity, gap):
    """The readings in the flash; None if they can be in memory only."""
    if not board.power_safe():
        log.say("readings are kept in memory only: the file system is a FAT")
        return None
    try:
        return Pages(fields, capacity, gap)
    except (OSError, ValueError) as e:
        log.say("readings are kept in memory only: %s" % e)


class NoBroker(Exception):
    """A program on trial does not reach the broker."""


class Program:
    def __init__(self, path, confirm):
        conf = settings.load(path + "/settings.json")
        log.say("tig-pi %s, %s, slot %s, reset: %s" % (VERSION, conf["name"], path[-1:], board.reset_cause()))
        try:
            zone = Zone(conf["time"]["zone"])
        except ValueError as e:
            raise settings.SettingsError("settings.json: time.zone is %s" % e)
        self._confirm = confirm
        self._trial = getattr(confirm, "trial", False)  # an older loader passes a function
        self._warned = False
        self._slot = path[-1:]
        self._interval_ms = conf["interval"] * 1000
        board.quiet()
        self._watchdog = Watchdog(board, conf["watchdog"])
        self._led = Led(board)
        self._clock = Clock()
        self._sampler = Sampler(board, conf["sensors"])
        gap = 2 * conf["interval"] + GAP_S
        # Before the ring, which takes the memory that is left.
        self._pages = _pages(self._sampler.fields, conf["ring"], gap)
        self._ring = Ring(conf["ring"], len(self._sampler.fields), gap)
        if self._pages:
            self._ring.attach(self._pages)
        self._stored_at = 0  # uptime of the last attempt
        since = time.ticks_ms() // 1000 - self._clock.uptime()  # the reset, where ticks begin with it
        handover.load(self._ring, RING, self._sampler.fields, since if since < SETTLED_S else None, self._watchdog.feed)
        if self._ring.count:
            log.say("%d readings from before the reset" % self._ring.count)
        self._status = Status(
            path[-1:], board.reset_cause(), self._clock, self._ring, self._sampler, conf["send_delay"]
        )
        self._link = Link(
            conf,
            board,
            Wifi(board, conf["wifi"]["ssid"], conf["wifi"]["password"]),
            self._clock,
            self._ring,
            self._status,
            Encoder(conf["name"], self._sampler.fields, self._sampler.formats, zone),
        )
        self._next = time.ticks_ms()

    def turn(self):
        """Make a reading if it is due, take one step of the link, feed the watchdog. Returns the pause until the next turn in ms."""
        room = time.ticks_diff(self._next, time.ticks_ms())
        measured = room <= 0
        if measured:
            self._measure()
            room = self._schedule()
            self._store()
        # Right after a reading the link may start anything, however little room there is: there will be no better moment.
        pause = self._link.step(AMPLE_MS if measured or self._interval_ms <= 10000 else room)
        self._led.say(self._status.waiting_for)
        room = time.ticks_diff(self._next, time.ticks_ms())
        if self._confirm:
            self._settle()
        self._watchdog.progress(0 if measured else -room)
        return max(0, min(pause, room))

    def _settle(self):
        """Confirm once it works; raises NoBroker if the previous program has to run again."""
        uptime = self._clock.uptime()
        if self._link.delivered or (uptime >= SETTLED_S and (self._link.reached or not self._trial)):
            self._confirm()
            self._confirm = None
        elif uptime >= TRIAL_S:
            raise NoBroker
        elif uptime >= SETTLED_S and not self._warned:
            self._warned = True
            # Whoever uploaded it waits for this.
            log.say("slot %s runs and has not reached the broker, back after %d s" % (self._slot, TRIAL_S))

    def forever(self):
        while True:
            time.sleep_ms(self.turn())

    def crashed(self, error):
        """Keep the readings and the traceback for the next start. If there is no room for one, there may be for the other."""
        log.say("crashed")
        sys.print_exception(error)
        self.keep()
        try:
            crash.save(error, self._clock.now())
        except Exception as e:
            log.say("traceback not kept: %s" % e)

    def keep(self, pause=None):
        """Write the readings to the flash. pause: seconds until the reset, after which the previous program runs; None: this one does."""
        ring, pages, fields, feed = self._ring, self._pages, self._sampler.fields, self._watchdog.feed
        start = 0
        if pages:
            ring.store()
            start = pages.end
        try:
            if pause is None:
                handover.save(ring, RING, fields, None, start, feed)
                return
            reset = self._clock.uptime() + pause
            try:
                # All of them: the previous program may not know of the pages.
                handover.save(ring, RING, fields, reset, 0, feed)
                if pages:
                    pages.delivered()
            except OSError:  # no room
                handover.save(ring, RING, fields, reset, start, feed)
        except Exception as e:
            log.say("readings not kept: %s" % e)

    def interrupted(self):
        """Somebody wants the prompt, and will reset the device. Another Ctrl-C may come meanwhile."""
        for _ in range(INTERRUPTS):
            try:
                return self.keep()
            except KeyboardInterrupt:
                pass

    def _store(self):
        """Add to the flash what would be older than LOSS_S at the next reading."""
        ring, pages, now = self._ring, self._pages, self._clock.uptime()
        if not pages or pages.end >= ring.end or (pages.failed and now - self._stored_at < LOSS_S):
            return
        if now - ring.uptime(max(pages.end, ring.oldest)) + self._interval_ms // 1000 > LOSS_S:
            self._stored_at = now
            ring.store()

    def _measure(self):
        values = self._sampler.sample()
        for value in values:
            if value is not None:
                self._ring.push(self._clock.uptime(), self._clock.now(), values)
                break
        gc.collect()

    def _schedule(self):
        self._next = time.ticks_add(self._next, self._interval_ms)
        room = time.ticks_diff(self._next, time.ticks_ms())
        if room < TALK_MS:
            # Something took an interval or longer: the readings that it missed are skipped.
            self._next = time.ticks_add(time.ticks_ms(), self._interval_ms)
            room = self._interval_ms
        return room


def run(path, confirm):
    """Run the program of a slot forever. Returns after a crash, which it has written down, and when it goes back to the
    previous program; raises what happens before the main loop starts.

    path: the slot's directory. confirm(): called once the program works, so that the loader keeps the slot. confirm.trial:
    whether there is another program to go back to; confirm.back() makes the loader do so.
    """
    program = Program(path, confirm)
    try:
        program.forever()
    except KeyboardInterrupt:
        program.interrupted()
        raise
    except NoBroker:
        program.keep(PAUSE_S)
        confirm.back()
    except Exception as e:
        program.crashed(e)
