"""What runs and requests there were lately, and how memory grows: kept in memory that does not grow with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from otel.instrumentation.streamlit import STREAMLIT, WATCHER, MemorySample, RunOutcome, RunWatcher, ScriptRun
from streamlit_extension.monitoring.engagement import Visits
from streamlit_extension.monitoring.growth import Growth, GrowthVerdict, History, MemoryPoint
from streamlit_extension.monitoring.ticks import Holder
from streamlit_extension.monitoring.window import SlidingWindow

_logger = logging.getLogger("streamlit_extension.monitoring")

_FAILED: Final = (RunOutcome.ERROR, RunOutcome.COMPILE_ERROR)


class Activity:
    """Listens to script runs and is told of requests.

    Arguments:
        watcher: tells of runs.
        runs, requests: the windows of both.
    """

    def __init__(
        self,
        watcher: RunWatcher = WATCHER,
        *,
        runs: SlidingWindow | None = None,
        requests: SlidingWindow | None = None,
        visits: Visits | None = None,
    ) -> None:
        self._watcher = watcher
        self.runs = runs or SlidingWindow()
        self.requests = requests or SlidingWindow()
        self.visits = visits or Visits()

    def listen(self) -> Callable[[], None]:
        """Take every run from now on; returns what ends it. Listening twice counts nothing twice."""
        self._watcher.add_listener(self.on_run)
        return lambda: self._watcher.remove_listener(self.on_run)

    def on_run(self, run: ScriptRun) -> None:
        """Take one finished run; those of nobody's sessions (the canary's) are left out."""
        if self._watcher.is_hidden(run.session_id):
            return
        self.runs.add(run.duration_s, failed=run.outcome in _FAILED, trace_id=run.trace_id)
        self.visits.add(run.session_id, run.screen, run.duration_s)

    def on_request(self, duration_s: float, failed: bool, trace_id: str | None) -> None:
        """Take one request that has ended."""
        self.requests.add(duration_s, failed=failed, trace_id=trace_id)


class MemoryGrowth:
    """Judges how each holder of memory grows, from samples that somebody else takes; a leak is logged once.

    Arguments:
        sample: returns the newest sample.
    """

    def __init__(self, sample: Callable[[], MemorySample]) -> None:
        self._sample = sample
        self._lock = threading.Lock()
        self._histories = {holder: History() for holder in Holder}
        self._verdicts: dict[Holder, GrowthVerdict] = {holder: GrowthVerdict(Growth.UNKNOWN) for holder in Holder}
        self._seen_s = 0.0
        self._told: set[Holder] = set()

    @property
    def sample(self) -> MemorySample:
        """The newest sample."""
        return self._sample()

    def read(self) -> Mapping[Holder, GrowthVerdict]:
        """Take the newest sample, unless it was seen before, and return every holder's verdict."""
        sample = self._sample()
        with self._lock:
            if sample.taken_s != self._seen_s:
                self._seen_s = sample.taken_s
                for holder, history in self._histories.items():
                    held = getattr(sample, holder.value)
                    if held is not None:
                        history.add(MemoryPoint(sample.taken_s, held, len(sample.sessions)))
                self._verdicts = {holder: history.verdict() for holder, history in self._histories.items()}
            verdicts = dict(self._verdicts)
            leaking = {holder for holder, each in verdicts.items() if each.growth is Growth.LEAK}
            new, self._told = leaking - self._told, leaking
        for holder in sorted(new):
            _logger.warning(
                "memory of %s grows on and on",
                holder.value,
                extra={
                    "event": "memory.leak",
                    "holder": holder.value,
                    "bytes_per_hour": round(3600 * verdicts[holder].rate_bytes_per_s),
                },
            )
        return verdicts


@cache
def activity() -> Activity:
    """The process's: the application's runs are told to it from its start on."""
    return Activity()


def _newest_sample() -> MemorySample:
    return STREAMLIT.memory


@cache
def memory_growth() -> MemoryGrowth:
    """The process's judge of Streamlit's own memory."""
    return MemoryGrowth(_newest_sample)
