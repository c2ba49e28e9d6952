"""Whether memory that grows is a leak, a cache on its way to being full, or more users: pure functions of samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec

#: Growth below these, as a share and in bytes, is none.
LEAST_SHARE: Final = 0.10
LEAST_BYTES: Final = 8 * 1024 * 1024
#: Fewer samples than this are no history.
MIN_SAMPLES: Final = 16
#: A leak's last part grows at least so much as its earlier ones do on average.
SUSTAINED: Final = 0.5
#: What has grown by less than this share of all its growth in the last part has come to rest.
AT_REST: Final = 0.05
_PARTS: Final = 4


class Growth(StrEnum):
    """What a history of memory looks like."""

    UNKNOWN = "unknown"  # too few samples
    STEADY = "steady"  # no growth to speak of
    FILLING = "filling"  # grows, but slower and slower: a cache that is not full yet
    FULL = "full"  # has grown and come to rest: a full cache
    LOAD = "load"  # grows as the number of sessions does
    LEAK = "leak"  # grows on and on


class MemoryPoint(msgspec.Struct, frozen=True):
    """What was held at a time: seconds, bytes, and the sessions that there were."""

    at_s: float
    bytes: float
    sessions: int = 0


class GrowthVerdict(msgspec.Struct, frozen=True):
    """The judgement, and the rate of growth in bytes a second over the history's last half (0 unless it is a leak)."""

    growth: Growth
    rate_bytes_per_s: float = 0.0


def judge(points: Sequence[MemoryPoint], *, least_bytes: float = LEAST_BYTES) -> GrowthVerdict:
    """Judge a history, oldest first.

    The history is cut into four parts of equal time, and of each the floor counts: what is held even when caches have
    just been cleared and garbage has been collected. A leak's floor rises in every part, and in the last one about as
    much as before; a cache's rises less and less.
    """
    parts = _parts(points)
    if len(points) < MIN_SAMPLES or any(not part for part in parts):
        return GrowthVerdict(Growth.UNKNOWN)
    floors = [min(each.bytes for each in part) for part in parts]
    grown = floors[-1] - floors[0]
    if grown < max(least_bytes, LEAST_SHARE * floors[0]):
        return GrowthVerdict(Growth.STEADY)
    steps = [after - before for before, after in pairwise(floors)]
    if min(steps[-1], _last_step(parts[-1])) <= AT_REST * grown:
        return GrowthVerdict(Growth.FULL)
    if min(steps) <= 0 or steps[-1] < SUSTAINED * (steps[0] + steps[1]) / 2:
        return GrowthVerdict(Growth.FILLING)
    if _follows_sessions(parts[0], parts[-1]):
        return GrowthVerdict(Growth.LOAD)
    span_s = points[-1].at_s - points[0].at_s
    return GrowthVerdict(Growth.LEAK, (floors[-1] - floors[1]) / (span_s * (_PARTS - 2) / _PARTS))


def _parts(points: Sequence[MemoryPoint]) -> list[list[MemoryPoint]]:
    parts: list[list[MemoryPoint]] = [[] for _ in range(_PARTS)]
    if len(points) < 2 or points[-1].at_s <= points[0].at_s:
        return parts
    began_s, span_s = points[0].at_s, points[-1].at_s - points[0].at_s
    for each in points:
        parts[min(_PARTS - 1, int(_PARTS * (each.at_s - began_s) / span_s))].append(each)
    return parts


def _last_step(part: Sequence[MemoryPoint]) -> float:
    """How much the floor of a part's second half lies above that of its first."""
    middle = len(part) // 2
    if not middle:
        return 0.0
    return min(each.bytes for each in part[middle:]) - min(each.bytes for each in part[:middle])


def _follows_sessions(first: Sequence[MemoryPoint], last: Sequence[MemoryPoint]) -> bool:
    """Whether there are more sessions than at the beginning, and each holds as much as then."""
    if max(each.sessions for each in last) <= max(each.sessions for each in first):
        return False
    before, after = (min(each.bytes / max(1, each.sessions) for each in part) for part in (first, last))
    return after <= (1 + LEAST_SHARE) * before


@dataclass(slots=True)
class History:
    """The last `kept` points of one holder of memory, not closer together than `spacing_s` seconds."""

    kept: int = 120
    spacing_s: float = 30.0
    _points: deque[MemoryPoint] = field(init=False)

    def __post_init__(self) -> None:
        self._points = deque(maxlen=self.kept)

    def add(self, point: MemoryPoint) -> None:
        """Take one more, unless it comes too soon."""
        if not self._points or point.at_s - self._points[-1].at_s >= 0.9 * self.spacing_s:
            self._points.append(point)

    def verdict(self) -> GrowthVerdict:
        """Judge what is there."""
        return judge(tuple(self._points))
