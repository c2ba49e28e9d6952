"""Telemetry as text: nothing invisible, nothing endless, figures as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.viewer import text

DECEIVING = "\x1b\x00\x07\u202e\u2066\u200b\u061c\ufeff\x9b\U000e0041"


@given(st.text(alphabet=st.characters(), max_size=300), st.integers(1, 200))
def test_no_sign_that_deceives_is_left(words: str, most: int) -> None:
    """Whatever comes, what is shown can be encoded, is bounded and holds no control but line ends and tabs."""
    shown = text.clean(words + DECEIVING, most)
    assert not any(each in shown for each in DECEIVING)
    assert len(shown) <= 12 * most + 1
    shown.encode("utf-8")
    assert "\n" not in text.one_line(words)


def test_what_is_invisible_is_named() -> None:
    """An escape sequence and a sign that turns the direction of reading are seen for what they are."""
    assert text.clean("\x1b[31mred") == "␛[31mred"
    assert text.clean("user\u202egnp.exe") == "user⟨U+202E⟩gnp.exe"
    assert text.clean("a" * 10, 4) == "aaaa…"
    assert text.clean("\ud800") == "\ufffd"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0 µs"),
        (0.00042, "420 µs"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (1.236, "1.24 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11040, "3 h 04 min"),
        (183600, "2 d 3 h"),
        (-0.5, "−500 ms"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    """A duration has three digits that count and a unit."""
    assert text.duration(seconds) == said


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_float_is_written(value: float) -> None:
    """No figure of a stranger's breaks a page."""
    for write in (text.duration, text.size, text.number, text.percent):
        assert write(value)
    assert text.with_unit(value, "{request}")
    text.moment(value)


def test_figures_with_units() -> None:
    """UCUM's units as people write them."""
    assert text.with_unit(0.25, "1") == "25 %"
    assert text.with_unit(1536, "By") == "1.5 KiB"
    assert text.with_unit(3, "{session}") == "3 session"
    assert text.with_unit(0.02, "s") == "20.0 ms"
    assert text.number(1234567) == "1,234,567"


def test_moments_from_an_address() -> None:
    """`15m`, an ISO time with and without a zone, and nonsense."""
    hour = 3600 * 10**9
    assert text.since_ns("15m", hour) == hour - 900 * 10**9
    assert text.since_ns("1970-01-01T00:00:01Z", hour) == 10**9
    assert text.since_ns("1970-01-01T02:00:01+02:00", hour) == 10**9
    assert text.since_ns("1970-01-01T00:00:01", hour) == 10**9
    for nonsense in ("", "yesterday", "999999999d", "9999-99-99", "-5m"):
        assert text.since_ns(nonsense, hour) is None
    last = (1 << 63) - 1
    assert [text.since_ns(far, hour) for far in ("999999d", "0001-01-01", "9999-12-31")] == [0, 0, last]
    assert text.ago(0) == "just now"
    assert text.ago(200) == "3 min ago"
