"""Puts evaluation, state and delivery together for one process; decides nothing itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from streamlit_extension.alerts.delivery import Delivery, SinkCounts
from streamlit_extension.alerts.evaluation import Policy, evaluate_all, orphans
from streamlit_extension.alerts.given import Given, ReadHere, readings_of
from streamlit_extension.alerts.model import (
    Alert,
    AlertRule,
    AlertState,
    Cause,
    Metric,
    Notice,
    NoticeKind,
    Phase,
    Silence,
    Snapshot,
)
from streamlit_extension.alerts.rules import POOL_SHARE, THRESHOLDS, default_rules
from streamlit_extension.alerts.sinks.log import LogSink
from streamlit_extension.alerts.state import AlertFile, SilenceFile

_log = logging.getLogger("streamlit_extension.alerts")


class Action(Protocol):
    """Does something about alerts: opens a circuit, adds replicas."""

    def consider(self, firing: Sequence[AlertRule], fired: Sequence[AlertRule], /) -> None:
        """Take note of all rules that fire now and of those that fired just now; never blocks."""


class Identity(msgspec.Struct, frozen=True):
    """Whose alerts they are: the service, and the process among its replicas."""

    service: str = "streamlit-app"
    instance: str = ""

    def key(self, rule: str) -> str:
        """Return the key under which everything about one rule of this process is told."""
        return "/".join(part for part in (self.service, self.instance, rule) if part)


class SteadyClock:
    """Wall time that never goes back: the wall clock at the start, and since then the monotonic one."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._start + time.monotonic()


class AlertManager:
    """Watches thresholds, and tells of each breach once and of its end once.

    Arguments:
        rules: by default those of THRESHOLDS.
        delivery: the sinks; by default each notice is logged, on the thread that sends it.
        read: returns the readings of now; by default this process and its machine are read.
        file: keeps alerts over a restart; by default nothing is kept.
        silences: what operators silenced.
        actions: what is done about alerts.
        identity: whose alerts they are.
        policy: the repeat interval, and the gap in the data that a pending breach outlives.
        clock: gives seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        rules: Iterable[AlertRule] | None = None,
        delivery: Delivery | None = None,
        read: Callable[[], Given] | None = None,
        file: AlertFile | None = None,
        silences: SilenceFile | None = None,
        actions: Sequence[Action] = (),
        identity: Identity | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._rules = tuple(rules) if rules is not None else default_rules()
        self._delivery = delivery or Delivery()
        self._log = LogSink() if delivery is None else None
        self._read = read or ReadHere()
        self._file = file or AlertFile(None)
        self._silences = silences or SilenceFile(None)
        self._actions = tuple(actions)
        self._identity = identity or Identity()
        self._policy = policy or Policy()
        self._clock = clock or SteadyClock()
        self._lock = threading.Lock()
        self._own_silences: tuple[Silence, ...] = ()
        saved = self._file.load(self._clock())
        self._states: dict[str, AlertState] = dict(saved.states)
        self._delivery.restore(saved.outbox)

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """The rules that are evaluated."""
        return self._rules

    def define_thresholds(
        self, thresholds: Mapping[str, float] | None = None, *, for_s: float = 30.0
    ) -> tuple[AlertRule, ...]:
        """Evaluate one critical rule for each threshold from now on; by default those of THRESHOLDS.

        Arguments:
            thresholds: metric → value, in per cent, milliseconds for `response_time`; others keep their default. A
                number for `database_connections` takes the place of the share of the pool's own maximum. A metric of
                another name is one that you give to `check_alerts` yourself.
            for_s: how long a breach lasts before its alert fires.

        Raises:
            ValueError: a threshold is no number.
        """
        chosen = thresholds or {}
        share = None if Metric.DATABASE_CONNECTIONS in chosen else POOL_SHARE
        rules = default_rules({**THRESHOLDS, **chosen}, for_s=for_s, share_of_pool=share)
        with self._lock:
            self._rules = rules
        return rules

    def check_alerts(self, snapshot: Given | None = None, *, now: float | None = None) -> tuple[Notice, ...]:
        """Evaluate every rule once and return what is to be told; `send_notifications` tells it.

        Arguments:
            snapshot: metric → its reading or plain value, or what `SystemMonitor.collect_metrics` returned; a metric
                that is absent has no data. By default what is read now.
            now: seconds since the Unix epoch, by default the clock's.

        Raises:
            TypeError: a value is no number.
        """
        found = readings_of(self._read() if snapshot is None else snapshot)
        now = self._clock() if now is None else now
        silences = (*self._own_silences, *self._silences.current(now))
        with self._lock:
            rules, before = self._rules, self._states
            keys = {rule.name: self._identity.key(rule.name) for rule in rules}
            after, told = evaluate_all(rules, before, found, now, key_of=keys, policy=self._policy, silences=silences)
            for name, state in orphans(rules, before).items():
                told.setdefault(NoticeKind.RESOLVED, []).append(self._orphan(name, state, now))
            self._states = after
        self._act(rules, before, after, silences, now)
        kinds = [kind for kind in NoticeKind if kind in told]
        return tuple(
            Notice(kind, tuple(told[kind]), now, self._identity.service, self._identity.instance) for kind in kinds
        )

    def send_notifications(self, notices: Sequence[Notice]) -> None:
        """Queue notices for every sink, and keep the state they follow from; returns at once."""
        if self._log is not None:
            for notice in notices:
                self._log.send(notice)
        self._delivery.put(notices)
        self.save()

    def save(self) -> None:
        """Keep states and undelivered notices in the data folder, when they changed."""
        with self._lock:
            states = {name: state for name, state in self._states.items() if state.phase is not Phase.OK}
        self._file.save(states, self._delivery.outbox())

    def firing(self) -> tuple[str, ...]:
        """Return the names of the rules that fire, silenced ones too."""
        return tuple(name for name, state in self._states.items() if state.phase is Phase.FIRING)

    def states(self) -> Mapping[str, AlertState]:
        """Return the state of every rule."""
        return dict(self._states)

    def counts(self) -> Mapping[str, SinkCounts]:
        """Return by sink what became of the notices."""
        return self._delivery.counts()

    def silence(self, rule: str = "*", *, until: float, reason: str) -> None:
        """Tell nobody of a rule's alerts before `until`; what this process itself knows of (maintenance) calls it.

        A silence for the same rule replaces the one before, and one whose end has passed ends it.
        """
        kept = tuple(each for each in self._own_silences if each.rule != rule)
        self._own_silences = (*kept, Silence(rule, until, reason, self._clock()))

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Deliver what can be within `timeout_s`, keep the rest; False when a sink still hangs."""
        ended = self._delivery.stop(timeout_s)
        self.save()
        self._file.close()
        return ended

    def _act(
        self,
        rules: Sequence[AlertRule],
        before: Mapping[str, AlertState],
        after: Mapping[str, AlertState],
        silences: Sequence[Silence],
        now: float,
    ) -> None:
        """Silenced alerts lead to no action: an operator has taken over."""
        firing = [
            rule
            for rule in rules
            if after[rule.name].phase is Phase.FIRING and not any(each.covers(rule.name, now) for each in silences)
        ]
        old = AlertState()
        fired = [rule for rule in firing if before.get(rule.name, old).phase is not Phase.FIRING]
        for action in self._actions:
            try:
                action.consider(firing, fired)
            except Exception as error:
                fields = {"event": "alerts.action_failed", "action": type(action).__name__}
                _log.warning("an action on alerts failed: %s", type(error).__name__, extra=fields)

    def _orphan(self, name: str, state: AlertState, now: float) -> Alert:
        rule = AlertRule(name=name, metric=name, threshold=state.threshold)
        return replace(
            Alert(
                rule,
                state.key or self._identity.key(name),
                state.value,
                state.threshold,
                state.since,
                now,
                state.trace_id,
            ),
            cause=Cause.RULE_REMOVED,
        )


class AlertLoop:
    """Evaluates at every interval on the thread `stx-alerts`.

    Arguments:
        manager: evaluates and tells.
        read: returns the readings of now.
        interval_s: seconds between two evaluations.

    A reading that fails counts as no data, so that an alert whose source died does not fire for ever.
    """

    def __init__(self, manager: AlertManager, read: Callable[[], Snapshot], *, interval_s: float = 15.0) -> None:
        self._manager = manager
        self._read = read
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_failure = False

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stx-alerts", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread and the deliveries within `timeout_s`; False when something still hangs."""
        deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline_s - time.monotonic()))
        ended = self._thread is None or not self._thread.is_alive()
        return self._manager.stop(max(0.0, deadline_s - time.monotonic())) and ended

    def evaluate(self) -> None:
        """Evaluate once; never raises."""
        try:
            snapshot = self._read()
            self._told_failure = False
        except Exception as error:
            snapshot = {}
            if not self._told_failure:
                self._told_failure = True
                fields = {"event": "alerts.no_readings", "error_type": type(error).__name__}
                _log.warning("there are no readings to evaluate", extra=fields)
        try:
            self._manager.send_notifications(self._manager.check_alerts(snapshot))
        except Exception as error:
            fields = {"event": "telemetry.internal_error", "error_type": type(error).__name__}
            _log.warning("alerts could not be evaluated", extra=fields)

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stop.is_set():
            self.evaluate()
            due_s = max(due_s + self._interval_s, time.monotonic())
            self._stop.wait(max(0.0, due_s - time.monotonic()))
