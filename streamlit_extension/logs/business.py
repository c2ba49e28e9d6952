"""Business events: a metric with a bounded number of names, and their pace over the last hour."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from opentelemetry import metrics

from otel.names import Attribute, Metric
from otel.trace_context import is_suppressed

#: Names that are told apart; further ones are counted together as `other`.
MAX_NAMES: Final = 100
OTHER: Final = "other"
#: Events are counted by the minute and forgotten after an hour.
SLOT_S: Final = 60.0
SLOTS: Final = 60


class EventPace:
    """How many events of each name there were, since the start and in the last hour; safe from any thread.

    Arguments:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}
        self._slots: deque[tuple[int, dict[str, int]]] = deque(maxlen=SLOTS)

    def add(self, name: str, times: int = 1) -> None:
        """Count one, or some."""
        number = int(self._clock() // SLOT_S)
        with self._lock:
            self._totals[name] = self._totals.get(name, 0) + times
            if not self._slots or self._slots[-1][0] != number:
                self._slots.append((number, {}))
            counts = self._slots[-1][1]
            counts[name] = counts.get(name, 0) + times

    def read(self) -> Mapping[str, tuple[int, float]]:
        """Name → how many there were, and how many an hour at the last hour's pace (of what there is of it)."""
        now_s = self._clock()
        oldest = int(now_s // SLOT_S) - SLOTS
        with self._lock:
            totals = dict(self._totals)
            recent = [counts for number, counts in self._slots if number > oldest]
            lately = {name: sum(counts.get(name, 0) for counts in recent) for name in totals}
        hours = max(SLOT_S, min(now_s - self._began_s, SLOTS * SLOT_S)) / 3600.0
        return {name: (total, lately[name] / hours) for name, total in totals.items()}


class BusinessEvents:
    """Counts `business.events` by name.

    Arguments:
        meter: makes the counter; by default the API's, which follows whichever provider is installed, also later.
        max_names: names that are told apart.
        pace: is told of every event too.
    """

    def __init__(
        self, *, meter: metrics.Meter | None = None, max_names: int = MAX_NAMES, pace: EventPace | None = None
    ) -> None:
        self._counter = (meter or metrics.get_meter("streamlit_extension")).create_counter(
            Metric.BUSINESS_EVENTS, unit="{event}", description="Business events by name"
        )
        self._max_names = max_names
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self.pace = pace or EventPace()

    def count(self, name: str, times: int = 1) -> bool:
        """Count an event `times` times; False for the first that is counted as `other`, which is worth a warning.

        What code does that shall leave no telemetry (the health canary's runs) is not counted.
        """
        if is_suppressed():
            return True
        with self._lock:
            known = name in self._names
            first_other = False
            if not known and len(self._names) < self._max_names:
                self._names.add(name)
                known = True
            elif not known and OTHER not in self._names:
                self._names.add(OTHER)
                first_other = True
        counted = name if known else OTHER
        self._counter.add(times, {Attribute.BUSINESS_EVENT_NAME.value: counted})
        self.pace.add(counted, times)
        return not first_other


@cache
def business_events() -> BusinessEvents:
    """The process's counter: the bound on names holds for all loggers and tracked models together."""
    return BusinessEvents()
