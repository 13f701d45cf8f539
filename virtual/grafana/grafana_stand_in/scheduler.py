"""Evaluate the alert rules at their intervals, check the directories of dashboards, and send notifications."""

import threading
import time
import zlib
from typing import Any

from . import rule_states
from .alerting_files import BASE_INTERVAL
from .dashboards import DashboardProvisioner, Library
from .datasources import DataSources
from .log import Logger
from .notifications import Notifier
from .rule_states import RuleStates
from .store import Store

_log = Logger("ngalert.scheduler")


class Scheduler:
    """A thread that runs once a second."""

    def __init__(
        self,
        store: Store,
        library: Library,
        sources: DataSources,
        dashboards: DashboardProvisioner,
        notifier: Notifier,
        alerts: bool = True,
    ) -> None:
        self._store = store
        self._library = library
        self._sources = sources
        self._dashboards = dashboards
        self._notifier = notifier
        self._alerts = alerts
        self._states: dict[str, RuleStates] = {}
        self._fingerprints: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def states(self, uid: str) -> RuleStates:
        with self._lock:
            return self._states.get(uid) or RuleStates()

    def _run(self) -> None:
        last = int(time.time()) // BASE_INTERVAL
        while not self._stop.wait(1.0 - time.time() % 1.0):
            beat = int(time.time()) // BASE_INTERVAL
            try:
                if beat != last and self._alerts:
                    last = beat
                    self._tick(beat)
                self._notifier.tick(time.time())
                self._dashboards.poll(time.monotonic())
            except Exception as error:  # an error in one rule or directory must not stop the others
                _log.error("unexpected error", error=repr(error))

    def _tick(self, beat: int) -> None:
        rules = self._store.all("rule")
        known = {rule["uid"] for rule in rules}
        with self._lock:
            for uid in [uid for uid in self._states if uid not in known]:
                del self._states[uid]
        for rule in rules:
            if self._stop.is_set():
                return
            beats = max(1, rule["interval"] // BASE_INTERVAL)
            offset = zlib.crc32(f"{rule['folderUID']};{rule['ruleGroup']}".encode()) % beats
            if beat % beats == offset and not rule["isPaused"]:
                self._evaluate(rule, float(beat * BASE_INTERVAL))

    def _evaluate(self, rule: dict[str, Any], now: float) -> None:
        fingerprint = str(sorted((key, str(value)) for key, value in rule.items() if key not in ("id", "position")))
        with self._lock:
            # As in Grafana, a changed rule starts over.
            if self._fingerprints.get(rule["uid"]) != fingerprint:
                self._states.pop(rule["uid"], None)
                self._fingerprints[rule["uid"]] = fingerprint
            states = self._states.setdefault(rule["uid"], RuleStates())
        began = time.perf_counter()
        try:
            outcomes = rule_states.evaluate(rule, self._sources, now)
        except Exception as error:  # the health of the rule shows the error
            outcomes = [rule_states.Evaluation("Error", error=str(error) or repr(error))]
        failure = next((outcome.error for outcome in outcomes if outcome.error), "")
        if failure:
            _log.error("Failed to evaluate rule", rule_uid=rule["uid"], org_id=1, error=failure)
        folder = (self._library.folder(rule["folderUID"]) or {"title": ""})["title"]
        with self._lock:
            touched = states.process(rule, folder, outcomes, now)
            states.duration = time.perf_counter() - began
        self._notifier.take(touched, now, rule.get("notification_settings"))
