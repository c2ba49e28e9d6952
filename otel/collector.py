"""The clock of metrics: collects every interval on a thread of its own, or at once when asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from opentelemetry import context as context_api

from otel.pipeline import Bell
from otel.quiet import OncePerMinute
from otel.trace_context import suppressed_context

_logger = logging.getLogger("otel.export.metrics")
_logger.addFilter(OncePerMinute())

THREAD_NAME: Final = "stx-metrics"
#: How long the first interval holds, in seconds.
FIRST_FOR_S: Final = 600.0


class Collector:
    """Calls `collect` with a time limit in seconds.

    Arguments:
        collect: reads the instruments and hands on what it read; callbacks that hang hold up this thread alone.
        interval_s: time between two collections.
        timeout_s: limit of one collection.
        first_s: the same in the first ten minutes where it is shorter, None for no difference.
    """

    def __init__(
        self,
        collect: Callable[[float], None],
        *,
        interval_s: float,
        timeout_s: float,
        first_s: float | None = None,
    ) -> None:
        self._collect = collect
        self._interval_s = interval_s
        self._first_s = first_s
        self._timeout_s = timeout_s
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._bell = Bell()
        self._waiters: list[threading.Event] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Collect from now on."""
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def begin_in_child(self) -> None:
        """In a forked child: a thread of its own, where the parent had one."""
        running = self._thread is not None and not self._stopping
        self._begin()
        if running:
            self.start()

    def collect_now(self, timeout_s: float) -> bool:
        """Collect once more and wait for it; False when it was not done in `timeout_s` seconds."""
        done = threading.Event()
        with self._lock:
            if self._thread is None or self._stopping:
                return False
            self._waiters.append(done)
        self._bell.ring()
        return done.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it hangs in a callback for longer than `timeout_s` seconds."""
        with self._lock:
            thread, self._stopping = self._thread, True
        if thread is None:
            return True
        self._bell.ring()
        thread.join(timeout_s)
        return not thread.is_alive()

    def next_after(self, age_s: float) -> float:
        """Seconds to the next collection, so many seconds after the start."""
        return (
            self._interval_s if self._first_s is None or age_s >= FIRST_FOR_S else min(self._first_s, self._interval_s)
        )

    def _run(self) -> None:
        context_api.attach(suppressed_context())
        began_s = time.monotonic()
        due_s = began_s + self.next_after(0.0)
        while True:
            self._bell.wait(max(0.0, due_s - time.monotonic()))
            with self._lock:
                waiters, self._waiters = self._waiters, []
                stopping = self._stopping
            if waiters or (not stopping and time.monotonic() >= due_s):
                self._once()
                due_s = time.monotonic() + self.next_after(time.monotonic() - began_s)
            for waiter in waiters:
                waiter.set()
            if stopping:
                return

    def _once(self) -> None:
        try:
            self._collect(self._timeout_s)
        except Exception as error:
            _logger.warning(
                "metrics could not be collected: %s", type(error).__name__, extra={"event": "telemetry.internal_error"}
            )
