"""What users did in the last hour: sessions that ran something, how often and how long, and which pages."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from streamlit_extension.monitoring.model import Engagement

WINDOW_S: Final = 3600.0
SLOT_S: Final = 60.0
#: Sessions and pages that are told apart; of more, those seen last.
MAX_SESSIONS: Final = 10_000
MAX_PAGES: Final = 100


class _Visit(msgspec.Struct):
    """One session's runs, and when the first and the last of them ended."""

    runs: int
    first_s: float
    last_s: float


class Visits:
    """Takes each finished run; safe to call from any thread.

    Arguments:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: The session seen longest ago comes first.
        self._visits: dict[str, _Visit] = {}
        self._pages: deque[tuple[int, Counter[str]]] = deque()

    def add(self, session_id: str, page: str, duration_s: float = 0.0) -> None:
        """Take one run of so many seconds that has just ended."""
        now_s = self._clock()
        with self._lock:
            visit = self._visits.pop(session_id, None)
            if visit is not None and now_s - visit.last_s > WINDOW_S:
                visit = None
            if visit is None:
                visit = _Visit(0, now_s - duration_s, now_s)
            visit.runs += 1
            visit.last_s = now_s
            self._visits[session_id] = visit
            if len(self._visits) > MAX_SESSIONS:
                del self._visits[next(iter(self._visits))]
            number = int(now_s // SLOT_S)
            if not self._pages or self._pages[-1][0] != number:
                self._pages.append((number, Counter()))
            counts = self._pages[-1][1]
            if page in counts or len(counts) < MAX_PAGES:
                counts[page] += 1
            self._forget(now_s)

    def read(self) -> Engagement:
        """What the last hour was like."""
        from streamlit_extension.monitoring.model import Engagement

        now_s = self._clock()
        with self._lock:
            self._forget(now_s)
            visits = list(self._visits.values())
            pages: Counter[str] = Counter()
            for _, counts in self._pages:
                pages.update(counts)
            count = len(visits)
            runs = sum(each.runs for each in visits)
            length_s = sum(each.last_s - each.first_s for each in visits)
        if not count:
            return Engagement()
        return Engagement(count, runs / count, length_s / count, dict(pages.most_common(MAX_PAGES)))

    def _forget(self, now_s: float) -> None:
        while self._visits:
            oldest = next(iter(self._visits))
            if now_s - self._visits[oldest].last_s <= WINDOW_S:
                break
            del self._visits[oldest]
        while self._pages and self._pages[0][0] <= (now_s - WINDOW_S) // SLOT_S:
            self._pages.popleft()
