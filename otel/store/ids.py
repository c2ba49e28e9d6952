"""Ids as the store keeps them: numbers in SQLite's signed range that keep the order of the hexadecimal digits."""

from __future__ import annotations

import re
from typing import Final

_MOVE: Final = 1 << 63
_MASK: Final = (1 << 64) - 1

#: Bits of a row's id below its milliseconds.
SEQUENCE_BITS: Final = 12
_MAX_MS: Final = (1 << 50) - 1
_MAX_STRAYS: Final = 4096
_SEQUENCE: Final = (1 << SEQUENCE_BITS) - 1


def half(number: int) -> int:
    """64 bits as a signed number of the same order."""
    return (number & _MASK) - _MOVE


def span_hex(signed: int | None) -> str:
    """The 16 digits of a span's id, "" for none."""
    return "" if signed is None else format(signed + _MOVE, "016x")


def trace_hex(hi: int | None, lo: int | None) -> str:
    """The 32 digits of a trace's id, "" for none."""
    return "" if hi is None or lo is None else format(hi + _MOVE, "016x") + format(lo + _MOVE, "016x")


def trace_halves(trace_id: str) -> tuple[int, int] | None:
    """Both halves of a trace's id of 32 digits; None for anything else."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", trace_id, re.ASCII) is None:
        return None
    return int(trace_id[:16], 16) - _MOVE, int(trace_id[16:], 16) - _MOVE


def prefix_ranges(prefix: str) -> tuple[int, int, int, int] | None:
    """First and last upper half, first and last lower half of the traces whose id begins with `prefix`.

    None where it is no beginning of an id.
    """
    if re.fullmatch(r"[0-9a-fA-F]{1,32}", prefix, re.ASCII) is None:
        return None
    low, high = prefix.ljust(32, "0"), prefix.ljust(32, "f")
    return half(int(low[:16], 16)), half(int(high[:16], 16)), half(int(low[16:], 16)), half(int(high[16:], 16))


def row_id(time_ns: int, sequence: int = 0) -> int:
    """The id of a row of that moment."""
    return (min(max(time_ns // 1_000_000, 0), _MAX_MS) << SEQUENCE_BITS) | (sequence & _SEQUENCE)


class Numbers:
    """Numbers the rows of one table by time, each number once, as far as it knows.

    Arguments:
        slack_ms: rows at most so late come after those that were numbered before them, so that whoever follows the
            table by its ids misses none; 0 keeps each at its own time.

    `horizon` is the highest id that a clock can have told in earnest; rows above it have no followers.
    """

    def __init__(self, slack_ms: int = 0) -> None:
        self._slack = slack_ms << SEQUENCE_BITS
        self._last = 0
        self._sequence = 0
        self._strays: dict[int, int] = {}  # moment → the last number of a row that came too late for it
        self.horizon = 1 << 62

    def __call__(self, time_ns: int) -> int:
        """The next number for a row of that moment."""
        wanted = row_id(time_ns)
        behind = self._last - wanted
        if behind < 0 and wanted <= self.horizon:
            self._last = wanted
            return wanted
        if 0 <= behind <= self._slack:
            self._last += 1
            return self._last
        self._sequence = (self._sequence + 1) & _SEQUENCE
        number = self._strays.get(wanted, wanted | self._sequence) + 1
        if len(self._strays) >= _MAX_STRAYS:
            self._strays.clear()
        self._strays[wanted] = number
        return number
