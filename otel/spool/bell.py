"""Waking whoever waits for something to have changed."""

from __future__ import annotations

import threading
import time


class Bell:
    """Counts its rings, so that none is missed between looking and waiting."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    @property
    def rings(self) -> int:
        """How often it rang; read before looking, given to `wait` after it."""
        return self._rings

    def ring(self) -> None:
        """Wake everybody."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, rings: int, timeout_s: float | None = None) -> bool:
        """Return at the first ring after the `rings`-th, whether or not it was before this call; False in time-out."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._condition:
            while self._rings == rings:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._condition.wait(left)
        return True
