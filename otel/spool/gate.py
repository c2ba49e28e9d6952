"""One lock around all use of SQLite in this process, open at every fork.

SQLite's own mutexes, and the C allocator's state behind them, are copied by a fork as they are: a child that is born
while another thread is inside SQLite may wait for ever. So a fork waits for the statement that runs now, but no longer
than `FORK_WAIT_S`: a disk that hangs never holds up a fork (and while SQLite waits for a disk it holds none of the
mutexes that a child needs).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FORK_WAIT_S: Final = 1.0


class Busy(Exception):
    """The gate did not open in time."""


class Gate:
    """The lock. It is not reentrant: what is done inside is short and calls nothing that comes back."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._no_fork = threading.Event()
        self._no_fork.set()
        self._forking: set[int] = set()  # threads that fork now and hold the lock for it

    @contextmanager
    def __call__(self, timeout_s: float = -1) -> Iterator[None]:
        """Hold the gate for the block; raises `Busy` when it can't be had within `timeout_s` (below 0: for ever)."""
        self._no_fork.wait(FORK_WAIT_S)  # a fork that waits comes before everybody who comes later
        lock = self._lock
        if not lock.acquire(timeout=timeout_s if timeout_s >= 0 else -1):
            raise Busy
        try:
            yield
        finally:
            lock.release()

    def before_fork(self) -> None:
        """Wait for the statement that runs now, a second at most."""
        self._no_fork.clear()
        if self._lock.acquire(timeout=FORK_WAIT_S):
            self._forking.add(threading.get_ident())

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if threading.get_ident() in self._forking:
            self._forking.discard(threading.get_ident())
            self._lock.release()
        self._no_fork.set()

    def after_fork_in_child(self) -> None:
        """Begin with a new lock: whoever waits for the old one does not live here."""
        self._begin()


GATE: Final = Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=GATE.before_fork,
        after_in_parent=GATE.after_fork_in_parent,
        after_in_child=GATE.after_fork_in_child,
    )
