"""The few threads on which the telemetry page is read and rendered."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from opentelemetry import context as context_api

from otel.trace_context import suppressed_context

T = TypeVar("T")

#: So many questions are answered at a time, and so many more may wait.
THREADS, MOST_WAITING = 3, 32
#: A thread that nobody needs for so many seconds ends.
_IDLE_S: Final = 60.0


class Busy(Exception):
    """Too many questions wait already."""


class Threads:
    """Daemon threads, started when they are needed; nothing that they do leaves telemetry."""

    def __init__(self, most: int = THREADS, most_waiting: int = MOST_WAITING, idle_s: float = _IDLE_S) -> None:
        self._most = most
        self._idle_s = idle_s
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(most_waiting)
        self._lock = threading.Lock()
        self._running = 0
        self._idle = 0

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run it soon; raises Busy when too many wait."""
        future: Future[T] = Future()
        try:
            self._jobs.put_nowait((future, job))
        except queue.Full:
            raise Busy from None
        with self._lock:
            if self._idle < self._jobs.qsize() and self._running < self._most:
                self._running += 1
                name = f"stx-viewer-{self._running}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def _work(self) -> None:
        context_api.attach(suppressed_context())
        while True:
            item = self._next()
            if item is None:
                return
            future, job = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:
                    future.set_exception(error)
            del item, future, job

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            self._idle += 1
        try:
            item = self._jobs.get(timeout=self._idle_s)
        except queue.Empty:
            item = None
        with self._lock:
            self._idle -= 1
            if item is None:
                if not self._jobs.empty():  # came just now
                    try:
                        item = self._jobs.get_nowait()
                    except queue.Empty:
                        item = None
                if item is None:
                    self._running -= 1
        return item

    def close(self) -> None:
        """End the threads that wait for work; the others end when theirs is done."""
        with self._lock:
            waiting = self._idle
        for _ in range(waiting):
            try:
                self._jobs.put_nowait(None)
            except queue.Full:
                return
