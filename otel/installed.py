"""The telemetry that is in place in this process, and what becomes of it in a forked child."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from otel.forks import watch_forks

if TYPE_CHECKING:
    from otel.providers import Telemetry

_logger = logging.getLogger("otel.export.providers")

_current: Telemetry | None = None


def current() -> Telemetry | None:
    """What `otel.providers.install` has put in place; None before it and after its end."""
    return _current


def put(telemetry: Telemetry | None) -> None:
    """Remember what is in place, and watch for forks from now on."""
    global _current  # noqa: PLW0603 - one telemetry for the process, as its providers are
    _current = telemetry
    watch_forks(_begin_in_child, _flush_in_child, _end_in_child)


def _begin_in_child() -> None:
    if _current is None:
        return
    try:
        _current.begin_in_child()
    except Exception as error:
        _logger.warning(
            "telemetry does not work in a forked child: %s",
            type(error).__name__,
            extra={"event": "telemetry.internal_error"},
        )


def _flush_in_child(timeout_s: float) -> None:
    if _current is not None:
        _current.flush(timeout_s)


def _end_in_child(timeout_s: float) -> None:
    """What a child has made is committed, and sent if that is quick; else its parent takes it over."""
    if _current is not None:
        _current.shutdown(timeout_s)
