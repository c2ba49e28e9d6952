"""The last minutes of runs and requests: counts, failures and quantiles, in memory that does not grow with them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from streamlit_extension.monitoring.sketch import bucket_of, quantiles

#: Length of the window and of the slots that fall out of it one by one, in seconds.
WINDOW_S: Final = 300.0
SLOT_S: Final = 10.0


class Example(msgspec.Struct, frozen=True):
    """A trace (32 hex digits) that stands for others, and its duration in seconds."""

    trace_id: str | None = None
    duration_s: float = 0.0


class WindowStatistics(msgspec.Struct, frozen=True):
    """What a window holds now; durations are in seconds, None while it is empty.

    `window_s` is the time that it covers: less than its length in the first minutes. `newest_s` is the age of the
    newest sample. `slowest` and `failed` are examples: the slowest sample, and the newest one that failed.
    """

    count: int = 0
    failures: int = 0
    window_s: float = 0.0
    mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None
    newest_s: float | None = None
    slowest: Example = Example()
    failed: Example = Example()

    @property
    def error_percent(self) -> float | None:
        """Share of failures, 0-100; None while the window is empty."""
        return 100.0 * self.failures / self.count if self.count else None

    @property
    def rate_per_s(self) -> float:
        """Samples a second over the time that the window covers."""
        return self.count / self.window_s if self.window_s > 0 else 0.0


class _Slot(msgspec.Struct):
    """What came in one slot's time."""

    number: int
    count: int = 0
    failures: int = 0
    sum_s: float = 0.0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    slowest: Example = Example()
    failed: Example | None = None


class SlidingWindow:
    """Samples of the last `window_s` seconds, forgotten in steps of `slot_s`; safe to call from any thread.

    Quantiles are within 1 % of the exact ones. The window covers at least `window_s - slot_s` seconds.

    Arguments:
        clock: monotonic seconds.
    """

    def __init__(
        self, window_s: float = WINDOW_S, slot_s: float = SLOT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slot_s = slot_s
        self._slots_kept = max(1, round(window_s / slot_s))
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: deque[_Slot] = deque()
        self._totals: dict[int, int] = {}
        self._began_s = clock()
        self._newest_s: float | None = None

    def add(self, duration_s: float, *, failed: bool = False, trace_id: str | None = None) -> None:
        """Take one sample of so many seconds."""
        bucket = bucket_of(duration_s)
        now_s = self._clock()
        with self._lock:
            slot = self._current(now_s)
            slot.count += 1
            slot.sum_s += duration_s
            slot.buckets[bucket] = slot.buckets.get(bucket, 0) + 1
            self._totals[bucket] = self._totals.get(bucket, 0) + 1
            self._newest_s = now_s
            if duration_s >= slot.slowest.duration_s:
                slot.slowest = Example(trace_id, duration_s)
            if failed:
                slot.failures += 1
                slot.failed = Example(trace_id, duration_s)

    def statistics(self) -> WindowStatistics:
        """What the window holds now."""
        now_s = self._clock()
        with self._lock:
            self._drop_old(self._number(now_s))
            slots = list(self._slots)
            totals = dict(self._totals)
            newest_s = self._newest_s
            covered_s = self._covered_s(now_s)
            count = sum(slot.count for slot in slots)
            failures = sum(slot.failures for slot in slots)
            sum_s = sum(slot.sum_s for slot in slots)
            slowest = max((slot.slowest for slot in slots), key=lambda each: each.duration_s, default=Example())
            failed = next((slot.failed for slot in reversed(slots) if slot.failed is not None), Example())
        if not count or newest_s is None:
            return WindowStatistics(window_s=covered_s)
        p50, p95, p99 = quantiles(totals, (0.5, 0.95, 0.99))
        return WindowStatistics(
            count, failures, covered_s, sum_s / count, p50, p95, p99, slowest.duration_s, now_s - newest_s, slowest,
            failed,
        )  # fmt: skip

    def _covered_s(self, now_s: float) -> float:
        number = self._number(now_s)
        whole = (self._slots_kept - 1) * self._slot_s + (now_s - number * self._slot_s)
        return max(0.0, min(now_s - self._began_s, whole))

    def _number(self, now_s: float) -> int:
        return int(now_s // self._slot_s)

    def _current(self, now_s: float) -> _Slot:
        number = self._number(now_s)
        newest = self._slots[-1] if self._slots else None
        if newest is not None and newest.number >= number:
            return newest
        self._drop_old(number)
        slot = _Slot(number)
        self._slots.append(slot)
        return slot

    def _drop_old(self, number: int) -> None:
        while self._slots and self._slots[0].number <= number - self._slots_kept:
            for bucket, count in self._slots.popleft().buckets.items():
                left = self._totals[bucket] - count
                if left:
                    self._totals[bucket] = left
                else:
                    del self._totals[bucket]
