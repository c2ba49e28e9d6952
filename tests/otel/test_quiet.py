"""The export path's own lines don't repeat more than once a minute."""

from __future__ import annotations

import logging

from otel.quiet import MAX_KINDS, OncePerMinute


def record(message: str, *values: object, level: int = logging.WARNING, name: str = "x") -> logging.LogRecord:
    """A log record."""
    return logging.LogRecord(name, level, "file.py", 1, message, values, None)


def test_the_same_message_passes_once_a_minute() -> None:
    """Whatever number is put into it; another message, level or logger is another line."""
    now = [0.0]
    quiet = OncePerMinute(60.0, lambda: now[0])
    assert quiet.filter(record("lost %d", 1))
    assert not quiet.filter(record("lost %d", 2))
    assert quiet.filter(record("found %d", 2))
    assert quiet.filter(record("lost %d", 2, level=logging.ERROR))
    assert quiet.filter(record("lost %d", 2, name="y"))
    now[0] = 59.9
    assert not quiet.filter(record("lost %d", 3))
    now[0] = 60.0
    assert quiet.filter(record("lost %d", 4))
    assert not quiet.filter(record("lost %d", 5))


def test_it_does_not_grow() -> None:
    """A message that is different every time is told every time, and memory stays."""
    quiet = OncePerMinute()
    assert all(quiet.filter(record(f"line {number}")) for number in range(5 * MAX_KINDS))
    assert len(quiet._due) == MAX_KINDS
