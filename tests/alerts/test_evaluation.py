"""Evaluation: each alert fires once and resolves once, whatever the series; times, hysteresis, silences, lost data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from streamlit_extension.alerts.evaluation import (
    Policy,
    breaches,
    clears,
    evaluate,
    evaluate_all,
    threshold_for,
    usable,
)
from streamlit_extension.alerts.model import (
    AlertRule,
    AlertState,
    Cause,
    Comparison,
    NoticeKind,
    Phase,
    Reading,
    Silence,
)

RULE = AlertRule(name="cpu_usage", metric="cpu_usage", threshold=85.0, clear=80.0, for_s=30.0)
LOW = AlertRule(
    name="hits", metric="hits", threshold=10.0, clear=20.0, for_s=0.0, comparison=Comparison.AT_MOST, no_data_s=45.0
)
START = 1_700_000_000.0


@dataclass(frozen=True)
class Step:
    """One evaluation of a series: the time since the one before, and what was read."""

    after_s: float
    reading: Reading | None
    silenced: bool = False


_readings = st.none() | st.builds(
    Reading,
    value=st.none() | st.floats() | st.sampled_from([0.0, 10.0, 15.0, 79.9, 80.0, 82.0, 84.9, 85.0, 85.1, 100.0]),
    samples=st.integers(0, 3),
    age_s=st.sampled_from([0.0, 119.0, 121.0]),
    trace_id=st.none() | st.just("a" * 32),
)
_steps = st.lists(
    st.builds(
        Step, st.sampled_from([-7200.0, 0.0, 1.0, 15.0, 29.9, 30.0, 61.0, 700.0, 4000.0]), _readings, st.booleans()
    ),
    max_size=60,
)


def play(
    rule: AlertRule, steps: list[Step], policy: Policy | None = None
) -> list[tuple[float, NoticeKind, AlertState]]:
    """Evaluate a series; what was told, when, and the state before each notice."""
    state, now, told = AlertState(), START, []
    for step in steps:
        now += step.after_s
        silence = Silence("*", math.inf, "asked for") if step.silenced else None
        outcome = evaluate(rule, state, step.reading, now, key="k", policy=policy, silence=silence)
        if outcome.kind is not None:
            assert outcome.alert is not None and outcome.alert.key == "k"
            told.append((now, outcome.kind, state))
        state = outcome.state
    return told


@pytest.mark.parametrize("rule", [RULE, replace(RULE, for_s=0.0), replace(RULE, clear=None), LOW])
@settings(max_examples=100, deadline=None)
@given(_steps)
def test_any_series_fires_once_and_resolves_once(rule: AlertRule, steps: list[Step]) -> None:
    """Between two firings lies one resolve, no resolve is without its firing, and the rest belongs to a firing."""
    firing = False
    for _, kind, _ in play(rule, steps):
        assert firing is not (kind is NoticeKind.FIRED)
        firing = kind is not NoticeKind.RESOLVED
    state, now = AlertState(), START
    for step in steps:
        now += step.after_s
        state = evaluate(rule, state, step.reading, now).state
    # Whatever came before: a value far on the good side resolves what was told, and nothing more follows.
    good = Reading(0.0 if rule.comparison is Comparison.AT_LEAST else 1e6, samples=1)
    last = evaluate(rule, state, good, now + 1)
    assert (last.kind is NoticeKind.RESOLVED) == (state.told is not None)
    assert evaluate(rule, last.state, good, now + 2).kind is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1.0, 10.0, 29.0, 30.0]), st.floats(0, 100)), max_size=50))
@example([(1.0, 85.0), (30.0, 84.0), (1.0, 85.0), (29.0, 85.0)])
def test_a_full_series_equals_the_plain_words(series: list[tuple[float, float]]) -> None:
    """With data at every step: fired after `for_s` of unbroken breach, resolved at the first value at or below clear."""
    now, began, firing, expected = START, None, False, []
    for after_s, value in series:
        now += after_s
        if firing:
            if value <= 80.0:
                firing, began = False, None
                expected.append((now, NoticeKind.RESOLVED))
            continue
        began = (now if began is None else began) if value >= 85.0 else None
        if began is not None and now - began >= 30.0:
            firing = True
            expected.append((now, NoticeKind.FIRED))
    steps = [Step(after_s, Reading(value)) for after_s, value in series]
    assert [(at, kind) for at, kind, _ in play(RULE, steps, Policy(repeat_s=1e9))] == expected


@given(st.floats(0, 1e6), st.floats(-1e6, 1e6), st.sampled_from(list(Comparison)))
def test_no_value_breaches_and_clears(threshold: float, value: float, comparison: Comparison) -> None:
    """A value can't both hold an alert and end it, also where the threshold is 0."""
    rule = AlertRule(name="x", metric="x", threshold=threshold, comparison=comparison)
    assert not (breaches(rule, value, threshold) and clears(rule, value, threshold))


def test_hysteresis_keeps_an_alert_between_its_two_thresholds() -> None:
    """What flaps around the threshold is one alert, not many."""
    flapping = [Step(15.0, Reading(value)) for value in (90, 90, 90, 84, 86, 81, 90, 84, 80)]
    assert [kind for _, kind, _ in play(RULE, flapping)] == [NoticeKind.FIRED, NoticeKind.RESOLVED]


def test_a_pause_in_the_breach_starts_the_clock_anew() -> None:
    """One value below the threshold, and `for_s` counts from the next breach."""
    steps = [Step(20.0, Reading(value)) for value in (90, 90, 84, 90, 90, 90)]
    assert [at - START for at, kind, _ in play(RULE, steps)] == [120.0]


def test_a_short_gap_in_the_data_does_not_start_the_clock_anew() -> None:
    """A missed reading is bridged, but no longer than the policy's gap."""
    short = [Step(0, Reading(90)), Step(20, None), Step(20, Reading(90))]
    long = [Step(0, Reading(90)), Step(61, Reading(90)), Step(1, Reading(90))]
    assert [kind for _, kind, _ in play(RULE, short)] == [NoticeKind.FIRED]
    assert play(RULE, long) == []
    assert play(RULE, [Step(0, Reading(90)), Step(61, None), Step(29, Reading(90)), Step(29, Reading(90))]) == []


def test_firing_outlives_its_data_for_a_while_and_then_says_why() -> None:
    """An alert without data stays until `no_data_s` is over, and its resolve says that nothing was seen."""
    fired = evaluate(LOW, AlertState(), Reading(5.0), START)
    held = evaluate(LOW, fired.state, None, START + 45)
    assert fired.kind is NoticeKind.FIRED and held.kind is None and held.state.phase is Phase.FIRING
    ended = evaluate(LOW, held.state, Reading(math.nan), START + 46)
    assert ended.kind is NoticeKind.RESOLVED and ended.alert is not None and ended.alert.cause is Cause.NO_DATA
    assert ended.alert.value == 5.0


@pytest.mark.parametrize(
    "reading",
    [
        None,
        Reading(None),
        Reading(math.nan),
        Reading(math.inf),
        Reading(99.0, samples=19),
        Reading(99.0, 20, age_s=121),
        Reading(99.0, 20, age_s=math.nan),
    ],
)
def test_what_counts_as_no_data(reading: Reading | None) -> None:
    """Missing, not a number, of too few samples or too old: nothing is concluded from it."""
    rule = replace(RULE, min_samples=20, for_s=0.0)
    assert usable(rule, reading) is None
    assert evaluate(rule, AlertState(), reading, START).kind is None
    assert evaluate(rule, AlertState(), Reading(99.0, samples=20), START).kind is NoticeKind.FIRED


def test_it_is_told_again_after_the_interval() -> None:
    """A firing alert is repeated every `repeat_s`, with the worst that was seen last."""
    steps = [
        Step(0, Reading(90)),
        Step(30, Reading(91)),
        Step(3599, Reading(92)),
        Step(1, Reading(93)),
        Step(3600, Reading(94)),
    ]
    told = play(RULE, steps)
    assert [kind for _, kind, _ in told] == [NoticeKind.FIRED, NoticeKind.REPEATED, NoticeKind.REPEATED]


def test_the_alert_carries_the_breach_and_its_example() -> None:
    """Value, threshold and example trace are those of the newest breach; between the thresholds they are kept."""
    state = evaluate(replace(RULE, for_s=0), AlertState(), Reading(90.0, trace_id="a" * 32), START).state
    state = evaluate(RULE, state, Reading(82.0, trace_id="b" * 32), START + 15).state
    assert (state.value, state.trace_id) == (90.0, "a" * 32)
    state = evaluate(RULE, state, Reading(95.0, trace_id="c" * 32), START + 30).state
    ended = evaluate(RULE, state, Reading(10.0), START + 45).alert
    assert ended is not None and (ended.value, ended.trace_id, ended.fired_at) == (10.0, "c" * 32, START)


def test_silence_hides_a_firing_until_its_end() -> None:
    """What fires under a silence is told when the silence ends, and not at all when it is over before."""
    silence = Silence("cpu_usage", START + 100, "deploying")
    rule = replace(RULE, for_s=0.0)
    hidden = evaluate(rule, AlertState(), Reading(90.0), START, silence=silence)
    assert hidden.kind is None and hidden.state.phase is Phase.FIRING
    assert evaluate(rule, hidden.state, Reading(10.0), START + 10).kind is None
    assert evaluate(rule, hidden.state, Reading(90.0), START + 100).kind is NoticeKind.FIRED


def test_silence_of_a_told_alert_acknowledges_it_and_its_resolve_is_told() -> None:
    """Whoever was called hears that it is being dealt with, and hears of the end even under the silence."""
    rule, silence = replace(RULE, for_s=0.0), Silence("*", START + 1e6, "mine")
    fired = evaluate(rule, AlertState(), Reading(90.0), START)
    taken = evaluate(rule, fired.state, Reading(90.0), START + 15, silence=silence)
    assert taken.kind is NoticeKind.ACKNOWLEDGED and taken.alert is not None and taken.alert.silence == silence
    quiet = evaluate(rule, taken.state, Reading(90.0), START + 9000, silence=silence)
    assert quiet.kind is None
    assert evaluate(rule, quiet.state, Reading(10.0), START + 9015, silence=silence).kind is NoticeKind.RESOLVED


def test_a_share_of_the_readings_own_limit_is_the_threshold() -> None:
    """90 % of the real pool's maximum where it is known, 18 where it is not."""
    rule = AlertRule(name="c", metric="c", threshold=18.0, share_of_limit=0.9, for_s=0.0)
    assert threshold_for(rule, Reading(1.0, limit=20.0)) == 18.0
    assert evaluate(rule, AlertState(), Reading(14.0, limit=15.0), START).kind is NoticeKind.FIRED
    assert evaluate(rule, AlertState(), Reading(13.0, limit=15.0), START).kind is None
    assert evaluate(rule, AlertState(), Reading(18.0), START).kind is NoticeKind.FIRED
    for unknown in (None, 0.0, -1.0, math.nan, math.inf):  # no limit, or none that says anything
        assert threshold_for(rule, Reading(17.0, limit=unknown)) == 18.0


def test_what_fires_together_is_told_together() -> None:
    """One evaluation gives one list for each kind, in the order of the rules."""
    rules = [replace(RULE, name=name, metric=name, for_s=0.0) for name in ("a", "b", "c")]
    states, told = evaluate_all(rules, {}, {"a": Reading(90), "b": Reading(91), "c": Reading(1)}, START)
    assert [alert.rule.name for alert in told[NoticeKind.FIRED]] == ["a", "b"]
    _, told = evaluate_all(rules, states, {"a": Reading(1), "b": Reading(91), "c": Reading(99)}, START + 15)
    assert {kind: [alert.rule.name for alert in held] for kind, held in told.items()} == {
        NoticeKind.RESOLVED: ["a"],
        NoticeKind.FIRED: ["c"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"clear": 86.0},
        {"threshold": math.nan},
        {"for_s": -1.0},
        {"min_samples": 0},
        {"clear": 84.0, "comparison": Comparison.AT_MOST},
    ],
)
def test_a_rule_that_can_not_hold_is_refused(wrong: dict[str, Any]) -> None:
    """A clear threshold beyond the threshold, or a number that is none, is an error at once."""
    with pytest.raises(ValueError, match="cpu_usage"):
        replace(RULE, **wrong)
