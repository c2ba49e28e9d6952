"""Telemetry never breaks its host."""

from __future__ import annotations

import logging
from types import TracebackType

_logger = logging.getLogger("otel")


def log_contained(message: str, error: Exception) -> None:
    """What `contained` does with an error: for `except Exception` where every run passes, which costs nothing."""
    _logger.warning("%s: %s", message, type(error).__name__, extra={"event": "telemetry.internal_error"})


class contained:  # noqa: N801 - reads as what it does: `with contained("…")`
    """What fails inside is logged, by its type and without its text, and goes no further.

    A class, and not a generator: it stands on the path of every script run and costs a third of one.
    """

    __slots__ = ("_message",)

    def __init__(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        log_contained(self._message, error)
        return True
