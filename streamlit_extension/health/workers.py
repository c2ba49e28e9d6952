"""Threads for the checks: one that hangs holds up nobody but itself."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable


class Workers:
    """Daemon threads, `kept` of them for the next jobs; each hanging job keeps the one that it has."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._idle: list[queue.SimpleQueue[Callable[[], None] | None]] = []
        self._lock = threading.Lock()
        self._number = itertools.count(1)
        self._closed = False

    def submit(self, function: Callable[[], None]) -> None:
        """Run it on a thread of its own; raises RuntimeError when the system gives no more threads."""
        with self._lock:
            box = self._idle.pop() if self._idle else None
        if box is None:
            box = queue.SimpleQueue()
            name = f"stx-check-{next(self._number)}"
            threading.Thread(target=self._work, args=(box,), name=name, daemon=True).start()
        box.put(function)

    def _work(self, box: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while (function := box.get()) is not None:
            function()
            function = None  # keeps nothing of the job alive while waiting
            with self._lock:
                if self._closed or len(self._idle) >= self._kept:
                    return
                self._idle.append(box)

    def close(self) -> None:
        """End the threads that wait for work; the others end when theirs is done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for box in idle:
            box.put(None)

    def reopen(self) -> None:
        """Keep threads again."""
        with self._lock:
            self._closed = False
