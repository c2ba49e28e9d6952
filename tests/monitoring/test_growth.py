"""A leak is told from a full cache, from a cache that fills, and from more users."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.monitoring.growth import Growth, History, MemoryPoint, judge

MIB = 1024 * 1024
NOISE = st.lists(st.floats(-1, 1), min_size=60, max_size=60)


def history(values: list[float], sessions: list[int] | None = None) -> list[MemoryPoint]:
    held = sessions or [5] * len(values)
    return [MemoryPoint(30.0 * n, value, held[n]) for n, value in enumerate(values)]


@given(base=st.floats(0, 500), slope=st.floats(0.5, 50), noise=NOISE)
def test_what_grows_on_and_on_is_a_leak(base: float, slope: float, noise: list[float]) -> None:
    """A straight line with up to one step of noise, whatever there was before."""
    step = max(slope, base * 0.005, 0.5)
    verdict = judge(history([MIB * (base + step * n + step * noise[n]) for n in range(60)]))
    assert verdict.growth is Growth.LEAK
    assert 0.5 < verdict.rate_bytes_per_s / (MIB * step / 30) < 1.6


@given(size=st.floats(10, 5000), filled=st.floats(0.05, 0.7), noise=NOISE)
def test_a_cache_that_has_filled_is_no_leak(size: float, filled: float, noise: list[float]) -> None:
    """It grows in a straight line and stays, however fast it has filled before the last quarter."""
    values = [MIB * size * min(1.0, n / (60 * filled)) * (1 + 0.01 * noise[n] * (n < 40)) for n in range(60)]
    assert judge(history(values)).growth in (Growth.FULL, Growth.STEADY)


@given(size=st.floats(20, 5000), pace=st.floats(2, 20))
def test_a_cache_that_fills_more_and_more_slowly_is_no_leak(size: float, pace: float) -> None:
    """The fewer keys are new, the slower."""
    values = [MIB * size * (1 - math.exp(-pace * n / 60)) for n in range(60)]
    assert judge(history(values)).growth is not Growth.LEAK


@given(size=st.floats(1, 5000), noise=NOISE)
def test_what_stays_is_steady(size: float, noise: list[float]) -> None:
    """Noise of a few per cent is no growth."""
    assert judge(history([MIB * size * (1 + 0.04 * each) for each in noise])).growth is Growth.STEADY


@given(tooth=st.floats(20, 500), length=st.integers(3, 12))
def test_a_cache_that_is_cleared_again_and_again_is_steady(tooth: float, length: int) -> None:
    """A saw's floor stays where it is."""
    assert judge(history([MIB * (50 + tooth * (n % length)) for n in range(60)])).growth is Growth.STEADY


@given(each=st.floats(1, 50), users=st.integers(3, 40))
def test_memory_that_follows_the_sessions_is_load(each: float, users: int) -> None:
    """Twice the users hold twice as much."""
    sessions = [users + users * n // 10 for n in range(60)]
    assert judge(history([MIB * each * count for count in sessions], sessions)).growth is Growth.LOAD


def test_sessions_that_hold_more_and_more_are_a_leak() -> None:
    """The number of users stays."""
    assert judge(history([MIB * (20 + 4 * n) for n in range(60)])).growth is Growth.LEAK


@given(values=st.lists(st.floats(0, 1e12), max_size=15))
def test_a_short_history_says_nothing(values: list[float]) -> None:
    """Nor does an empty one, or one without time."""
    assert judge(history(values)).growth is Growth.UNKNOWN
    assert judge([MemoryPoint(1.0, value) for value in values] * 4).growth is Growth.UNKNOWN


@given(values=st.lists(st.floats(0, 1e12), min_size=16, max_size=80), factor=st.sampled_from([0.25, 1.0, 8.0]))
def test_the_judgement_does_not_depend_on_the_unit_of_time(values: list[float], factor: float) -> None:
    """Only the rate does."""
    points = history(values)
    stretched = [MemoryPoint(factor * each.at_s, each.bytes, each.sessions) for each in points]
    assert judge(points).growth is judge(stretched).growth


def test_a_history_keeps_its_distance_and_its_length() -> None:
    """Samples that come too soon are passed over, the oldest go."""
    kept = History(kept=20, spacing_s=30.0)
    for second in range(0, 3000, 10):
        kept.add(MemoryPoint(float(second), second * MIB))
    assert len(kept._points) == 20
    assert kept.verdict().growth is Growth.LEAK
