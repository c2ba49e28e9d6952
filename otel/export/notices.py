"""The own logs of what sends telemetry: one line a minute for each kind, never a payload, a header or a credential."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

INTERVAL_S: Final = 60.0


class Notices:
    """Logs through `logger`, and holds back what repeats.

    Loggers below `otel.export` and `otel.spool` are never exported themselves: else the trouble of sending a record
    would make the next record.
    """

    def __init__(self, logger: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logging.getLogger(logger)
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def say(self, kind: str, message: str, level: int = logging.WARNING, **fields: Any) -> None:
        """Log one line of this kind, unless there was one within the last minute; then the next one tells how many."""
        now = self._clock()
        with self._lock:
            if now < self._due.get(kind, now):
                self._held_back[kind] = self._held_back.get(kind, 0) + 1
                return
            self._due[kind] = now + INTERVAL_S
            repeated = self._held_back.pop(kind, 0)
        if repeated:
            fields["repeated"] = repeated
        self._logger.log(level, message, extra={"event": kind, **fields})

    def begin_in_child(self) -> None:
        """In a forked child: whoever holds the lock does not live here."""
        self._lock = threading.Lock()
