"""Keeps the own logs of the export path down to one line a minute each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 60.0
#: Different messages that are told apart; above it the oldest is forgotten.
MAX_KINDS: Final = 256


class OncePerMinute(logging.Filter):
    """Lets the same message of the same level through once a minute; a `Filter` for a logger.

    "The same" is the message before its arguments are put in, so that a changing number makes no new one.
    """

    def __init__(self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._due: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        kind = (record.name, record.levelno, str(record.msg))
        now = self._clock()
        if now < self._due.get(kind, now):
            return False
        if len(self._due) >= MAX_KINDS:
            self._due.pop(next(iter(self._due)), None)
        self._due.pop(kind, None)
        self._due[kind] = now + self._interval_s
        return True
