"""What a reading does to an alert: pure functions of rule, state, reading and time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from streamlit_extension.alerts.model import (
    Alert,
    AlertRule,
    AlertState,
    Cause,
    Comparison,
    NoticeKind,
    Phase,
    Reading,
    Silence,
    Snapshot,
)

#: How far back a value must come where a rule doesn't say, as a share of its threshold.
HYSTERESIS: Final = 0.05


class Policy(msgspec.Struct, frozen=True):
    """What holds for all rules: `repeat_s` between reminders, `gap_s` without data that a pending breach outlives."""

    repeat_s: float = 3600.0
    gap_s: float = 60.0


class Evaluation(msgspec.Struct, frozen=True):
    """The outcome for one rule: its next state, and what is to be told, if anything."""

    state: AlertState
    kind: NoticeKind | None = None
    alert: Alert | None = None


def threshold_for(rule: AlertRule, reading: Reading | None) -> float:
    """Return the threshold that holds: a share of the reading's own limit where rule and reading have both."""
    limit = reading.limit if reading is not None else None
    if rule.share_of_limit is not None and limit is not None and 0 < limit < math.inf:
        return rule.share_of_limit * limit
    return rule.threshold


def usable(rule: AlertRule, reading: Reading | None) -> float | None:
    """Return the reading's value, None when it is missing, not a number, too old or of too few samples."""
    if reading is None or reading.value is None or not math.isfinite(reading.value):
        return None
    if reading.samples < rule.min_samples or not reading.age_s <= rule.max_age_s:  # an age that is no number is none
        return None
    return reading.value


def breaches(rule: AlertRule, value: float, threshold: float) -> bool:
    """Whether a value has reached the threshold."""
    return value >= threshold if rule.comparison is Comparison.AT_LEAST else value <= threshold


def clears(rule: AlertRule, value: float, threshold: float) -> bool:
    """Whether a value has come back far enough for a resolve; never true for one that breaches."""
    if rule.clear is not None and threshold == rule.threshold:
        limit = rule.clear
    else:
        sign = -1 if rule.comparison is Comparison.AT_LEAST else 1
        limit = threshold + sign * abs(threshold) * HYSTERESIS
    if breaches(rule, value, threshold):
        return False
    return value <= limit if rule.comparison is Comparison.AT_LEAST else value >= limit


def next_state(rule: AlertRule, state: AlertState, reading: Reading | None, now: float, policy: Policy) -> AlertState:
    """Return the state after one evaluation, without regard to who is told.

    A time that went back counts as no time; a firing alert stays so while its data is away for less than `no_data_s`.
    """
    now = max(now, state.seen, state.since)
    value = usable(rule, reading)
    if value is None:
        return _without_data(rule, state, now, policy)
    threshold = threshold_for(rule, reading)
    trace_id = reading.trace_id if reading is not None else None
    if state.phase is Phase.FIRING:
        if clears(rule, value, threshold):
            return AlertState(phase=Phase.OK, since=now, seen=now)
        worse = breaches(rule, value, threshold)
        return replace(
            state,
            seen=now,
            value=value if worse else state.value,
            threshold=threshold if worse else state.threshold,
            trace_id=(trace_id or state.trace_id) if worse else state.trace_id,
        )
    if not breaches(rule, value, threshold):
        return AlertState(phase=Phase.OK, since=state.since if state.phase is Phase.OK else now, seen=now)
    waiting = state.phase is Phase.PENDING and now - state.seen <= policy.gap_s
    began = state.since if waiting else now
    due = now - began >= rule.for_s
    return AlertState(
        phase=Phase.FIRING if due else Phase.PENDING,
        since=now if due else began,
        seen=now,
        value=value,
        threshold=threshold,
        trace_id=trace_id or (state.trace_id if waiting else None),
    )


def _without_data(rule: AlertRule, state: AlertState, now: float, policy: Policy) -> AlertState:
    away = now - state.seen
    if state.phase is Phase.PENDING and away > policy.gap_s:
        return AlertState(phase=Phase.OK, since=now, seen=state.seen)
    if state.phase is Phase.FIRING and away > rule.no_data_s:
        return AlertState(phase=Phase.OK, since=now, seen=state.seen)
    return state


def silence_for(rule: str, silences: Iterable[Silence], now: float) -> Silence | None:
    """Return the silence that covers a rule longest, None when there is none."""
    return max((each for each in silences if each.covers(rule, now)), key=lambda each: each.until, default=None)


def evaluate(
    rule: AlertRule,
    state: AlertState,
    reading: Reading | None,
    now: float,
    *,
    key: str = "",
    policy: Policy | None = None,
    silence: Silence | None = None,
) -> Evaluation:
    """Evaluate one rule once.

    It fires once and resolves once: a resolve is told when, and only when, the firing was. What fires under a silence
    is told when the silence ends and it still fires; what was told before a silence is acknowledged by it, once.
    """
    policy = policy or Policy()
    after = next_state(rule, state, reading, now, policy)
    if after.phase is not Phase.FIRING:
        if state.phase is not Phase.FIRING or state.told is None:
            return Evaluation(after)
        value = usable(rule, reading)
        cause = Cause.NO_DATA if value is None else Cause.CLEARED
        told = _alert(rule, key, state, now, cause=cause, value=state.value if value is None else value)
        return Evaluation(after, NoticeKind.RESOLVED, told)
    if silence is not None:
        if after.told is None or after.acknowledged:
            return Evaluation(after)
        after = replace(after, acknowledged=True)
        return Evaluation(after, NoticeKind.ACKNOWLEDGED, _alert(rule, key, after, now, silence=silence))
    if after.told is None:
        after = replace(after, told=now, key=key)
        return Evaluation(after, NoticeKind.FIRED, _alert(rule, key, after, now))
    told_at = min(after.told, now)
    if now - told_at >= policy.repeat_s:
        after = replace(after, told=now, acknowledged=False)
        return Evaluation(after, NoticeKind.REPEATED, _alert(rule, key, after, now))
    return Evaluation(replace(after, told=told_at, acknowledged=False))


def _alert(
    rule: AlertRule,
    key: str,
    state: AlertState,
    now: float,
    *,
    cause: Cause | None = None,
    silence: Silence | None = None,
    value: float | None = None,
) -> Alert:
    return Alert(
        rule=rule,
        key=state.key or key,
        value=state.value if value is None else value,
        threshold=state.threshold,
        fired_at=state.since,
        at=now,
        trace_id=state.trace_id,
        cause=cause,
        silence=silence,
    )


def evaluate_all(
    rules: Iterable[AlertRule],
    states: Mapping[str, AlertState],
    snapshot: Snapshot,
    now: float,
    *,
    key_of: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    silences: Iterable[Silence] = (),
) -> tuple[dict[str, AlertState], dict[NoticeKind, list[Alert]]]:
    """Evaluate every rule; returns the next states and, by kind, what is to be told together.

    A firing alert whose rule is gone is not among the states that return; see `orphans`.
    """
    after: dict[str, AlertState] = {}
    told: dict[NoticeKind, list[Alert]] = {}
    held = list(silences)
    for rule in rules:
        outcome = evaluate(
            rule,
            states.get(rule.name, AlertState()),
            snapshot.get(rule.metric),
            now,
            key=(key_of or {}).get(rule.name, rule.name),
            policy=policy,
            silence=silence_for(rule.name, held, now),
        )
        after[rule.name] = outcome.state
        if outcome.kind is not None and outcome.alert is not None:
            told.setdefault(outcome.kind, []).append(outcome.alert)
    return after, told


def orphans(rules: Iterable[AlertRule], states: Mapping[str, AlertState]) -> dict[str, AlertState]:
    """Return the firing, told states whose rule is not there any more: each is to be resolved once."""
    known = {rule.name for rule in rules}
    return {
        name: state
        for name, state in states.items()
        if name not in known and state.phase is Phase.FIRING and state.told is not None
    }
