"""docs/scale.md: what is calculated there follows from what was measured."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[1] / "docs/scale.md").read_text(encoding="utf-8")
RERUNS_A_MINUTE = 6


def number(text: str) -> float:
    """A number with its commas."""
    return float(text.replace(",", ""))


def measured(pattern: str) -> float:
    """The one number that stands there."""
    (found,) = re.findall(pattern, TEXT)
    return number(found)


def about(one: float, other: float) -> bool:
    """The same, as far as it was written down."""
    return abs(one - other) <= 0.1 * other


def test_the_table_follows_from_the_measurement() -> None:
    """Spans and bytes for each number of sessions, and what one user costs."""
    spans, size = measured(r"traces \| ([\d.]+) spans a rerun"), measured(r"\| ([\d,]+) a rerun \|")
    assert about(measured(r"costs ([\d,]+) bytes of traces a second"), size * RERUNS_A_MINUTE / 60)
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.,]+) GB \|", TEXT, re.MULTILINE)
    assert [each[0] for each in rows] == ["10", "1,000", "100,000"]
    for sessions, reruns, spans_s, gigabytes in ([number(each) for each in row] for row in rows):
        assert reruns == sessions * RERUNS_A_MINUTE / 60
        assert about(spans_s, reruns * spans)
        assert about(gigabytes, reruns * size * 86_400 / 1e9)


def test_the_sampler_s_memory_follows_from_the_measurement() -> None:
    """What one span takes, as measured, times those that are held at the largest size."""
    spans, grown = measured(r"Measured: ([\d,]+)\n? *spans"), measured(r"grew by ([\d,]+) MiB")
    (each,) = re.findall(r"decision wait × ([\d.]+) KiB", TEXT)
    assert about(float(each), grown * 1024 / spans)
    rate, wait, megabytes = (
        number(part) for part in re.findall(r"KiB; ([\d,]+) spans/s and (\d+) s are (\d+) MB", TEXT)[0]
    )
    assert about(megabytes, rate * wait * float(each) * 1024 / 1e6)
