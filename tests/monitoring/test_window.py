"""The sliding window: quantiles, failures and rates of the last minutes in memory that does not grow."""

from __future__ import annotations

import math
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlit_extension.monitoring.sketch import MAX_BUCKETS, bucket_of, quantiles, value_of
from streamlit_extension.monitoring.window import SlidingWindow

SHARES = (0.5, 0.95, 0.99)
DURATIONS = st.floats(min_value=1e-5, max_value=1e5)


def exact(values: list[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@given(values=st.lists(DURATIONS, min_size=1, max_size=400))
def test_quantiles_are_within_one_per_cent_of_the_exact_ones(values: list[float]) -> None:
    """For any durations."""
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    for share, found in zip(SHARES, quantiles(counts, SHARES), strict=True):
        assert found == pytest.approx(exact(values, share), rel=0.01)


@settings(max_examples=60)
@given(samples=st.lists(st.tuples(st.floats(0, 40), DURATIONS, st.booleans()), max_size=120))
def test_a_window_holds_what_came_in_its_time_and_nothing_else(samples: list[tuple[float, float, bool]]) -> None:
    """For any series: counts, failures and quantiles are those of the samples in the slots that are left."""
    now = 1000.0
    window = SlidingWindow(100.0, 10.0, clock=lambda: now)
    kept: list[tuple[float, float, bool]] = []
    for pause_s, duration_s, failed in samples:
        now += pause_s
        window.add(duration_s, failed=failed, trace_id=f"{len(kept):032x}")
        kept.append((now, duration_s, failed))
        found = window.statistics()
        oldest = (now // 10.0 - 9) * 10.0
        alive = [each for each in kept if each[0] >= oldest]
        durations = [each[1] for each in alive]
        assert (found.count, found.failures) == (len(alive), sum(each[2] for each in alive))
        assert found.p95_s == pytest.approx(exact(durations, 0.95), rel=0.01)
        assert found.max_s == max(durations)
        assert found.mean_s == pytest.approx(sum(durations) / len(durations))
        assert found.newest_s == 0
        if found.failures:
            last = max(index for index, each in enumerate(kept) if each[2])
            assert found.failed.trace_id == f"{last:032x}"


def test_nothing_is_left_of_what_is_old() -> None:
    """After the window's length it is empty again, the examples too."""
    now = 0.0
    window = SlidingWindow(clock=lambda: now)
    window.add(3.0, failed=True, trace_id="a" * 32)
    now = 299.0
    assert window.statistics().failed.trace_id == "a" * 32
    now = 310.0
    found = window.statistics()
    assert (found.count, found.p95_s, found.error_percent, found.failed.trace_id) == (0, None, None, None)


def test_memory_does_not_grow_with_the_samples() -> None:
    """A hundred thousand samples of every size and over an hour hold no more than buckets and slots allow."""
    now = 0.0
    window = SlidingWindow(clock=lambda: now)
    for number in range(100_000):
        now = number * 0.036
        window.add(1e-6 * 1.0003**number)
    held = sum(len(slot.buckets) for slot in window._slots) + len(window._totals)
    assert len(window._slots) <= 30
    assert held <= 31 * MAX_BUCKETS
    assert sys.getsizeof(window._totals) < 500_000


def test_strange_durations_count_as_the_nearest_bound() -> None:
    """Nothing, less than nothing, no number and infinity."""
    window = SlidingWindow()
    for value in (0.0, -1.0, float("inf"), float("nan")):
        window.add(value)
    assert window.statistics().count == 4
    assert value_of(bucket_of(float("inf"))) == pytest.approx(1e6, rel=0.01)


def test_threads_lose_no_sample() -> None:
    """Script threads add at the same time."""
    window = SlidingWindow()

    def add() -> None:
        for _ in range(2000):
            window.add(0.1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert window.statistics().count == 8000
