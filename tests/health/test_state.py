"""Decisions of health as pure functions: aggregation, hysteresis, staleness, formats."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.health.model import CheckResult, CheckSpec, CheckState, HealthStatus, Outcome, ServicePhase
from streamlit_extension.health.report import format_milliseconds, format_percent, format_uptime
from streamlit_extension.health.state import Entry, Snapshot, is_stale, next_state, not_ready_because, status_of

WALL = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
RANK = {HealthStatus.HEALTHY: 0, HealthStatus.DEGRADED: 1, HealthStatus.UNHEALTHY: 2}


def ok() -> CheckResult:
    return CheckResult(Outcome.OK)


def entry(outcome: Outcome, critical: bool) -> Entry:
    """A check whose first result was this."""
    spec = CheckSpec("x", ok, critical=critical)
    return Entry(spec, next_state(CheckState(), spec, CheckResult(outcome), 0.0, WALL))


entries = st.builds(entry, st.sampled_from(list(Outcome)), st.booleans())


@given(st.lists(entries), st.randoms(use_true_random=False))
def test_aggregation_does_not_depend_on_the_order(some: list[Entry], chance: object) -> None:
    """However the checks are ordered, the status is the same."""
    shuffled = list(some)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert status_of(some, None, 1.0) is status_of(shuffled, None, 1.0)


@given(st.lists(entries), entries)
def test_one_more_check_never_makes_it_better(some: list[Entry], more: Entry) -> None:
    """Aggregation is monotone."""
    assert RANK[status_of([*some, more], None, 1.0)] >= RANK[status_of(some, None, 1.0)]


@given(st.integers(1, 5), st.integers(1, 60), st.booleans())
def test_alternating_results_never_flip_readiness_from_two_failures_on(
    to_trip: int, length: int, good_first: bool
) -> None:
    """Good and bad in turn leave readiness as the first good result made it; only one failure to trip counts each."""
    spec = CheckSpec("database", ok, critical=True, failures_to_trip=to_trip)
    state = next_state(CheckState(), spec, ok(), 0.0, WALL)
    downs = [False]
    for number in range(length):
        outcome = Outcome.OK if (number % 2 == 0) is good_first else Outcome.FAILED
        state = next_state(state, spec, CheckResult(outcome), float(number), WALL)
        snapshot = Snapshot("1", 0.0, ServicePhase.SERVING, {"database": Entry(spec, state)})
        downs.append(to_trip == 1 and outcome is Outcome.FAILED)
        assert not_ready_because(snapshot, float(number), WALL) == ("database" if downs[-1] else None)
    assert state.transitions == sum(before is not after for before, after in pairwise(downs))


@given(st.integers(1, 6), st.integers(1, 6))
def test_hysteresis_counts_both_ways(to_trip: int, to_recover: int) -> None:
    """It takes exactly `failures_to_trip` failures to fall and `successes_to_recover` successes to rise."""
    spec = CheckSpec("x", ok, failures_to_trip=to_trip, successes_to_recover=to_recover)
    state = next_state(CheckState(), spec, ok(), 0.0, WALL)
    for number in range(1, to_trip + 1):
        state = next_state(state, spec, CheckResult(Outcome.FAILED), 0.0, WALL)
        assert (state.status is HealthStatus.UNHEALTHY) is (number == to_trip)
    for number in range(1, to_recover + 1):
        state = next_state(state, spec, ok(), 0.0, WALL)
        assert (state.status is HealthStatus.HEALTHY) is (number == to_recover)
    assert state.transitions == 2


def test_a_stale_result_is_never_green() -> None:
    """A critical check whose result is too old makes the service not ready and unhealthy."""
    spec = CheckSpec("database", ok, critical=True, max_age_s=30)
    state = next_state(CheckState(), spec, ok(), 100.0, WALL)
    snapshot = Snapshot("1", 0.0, ServicePhase.SERVING, {"database": Entry(spec, state)})
    assert not is_stale(spec, state, 130.0)
    assert not_ready_because(snapshot, 130.0, WALL) is None
    assert is_stale(spec, state, 130.1)
    assert not_ready_because(snapshot, 130.1, WALL) == "database"
    assert status_of(snapshot.checks.values(), None, 130.1) is HealthStatus.UNHEALTHY


@given(st.floats(0, 1e9))
def test_uptime_reads_back(seconds: float) -> None:
    """Hours, minutes and seconds give the whole seconds back; minutes and seconds have two digits."""
    hours, minutes, rest = format_uptime(seconds).split(":")
    assert int(hours) * 3600 + int(minutes) * 60 + int(rest) == int(seconds)
    assert len(hours) >= 2
    assert len(minutes) == len(rest) == 2


@given(st.floats(0, 100), st.floats(0, 1e4))
def test_percentages_and_milliseconds_are_whole(percent: float, seconds: float) -> None:
    """`25%` and `2ms`, nothing else."""
    assert abs(int(format_percent(percent).removesuffix("%")) - percent) <= 0.5
    assert abs(int(format_milliseconds(seconds).removesuffix("ms")) - 1000 * seconds) <= 0.51
