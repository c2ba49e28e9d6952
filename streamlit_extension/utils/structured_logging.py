"""Structured logging: one line a record, with the ids of the trace that it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager
from typing import Any

from otel.plain import text_of, tidy
from streamlit_extension.logs import owasp
from streamlit_extension.logs import setup as _setup
from streamlit_extension.logs.business import BusinessEvents, business_events
from streamlit_extension.logs.correlation import correlation, current_ids, new_ids
from streamlit_extension.logs.entry import FIELDS, IDS, make_entry
from streamlit_extension.logs.formats import LogFormat
from streamlit_extension.logs.handler import LineHandler, StreamOutlet, exports, learn_names
from streamlit_extension.logs.levels import NAMED, Level, LogLevel, find_level
from streamlit_extension.logs.setup import LoggingConfiguration, configure_logging, default_handler

__all__ = ["LogFormat", "LogLevel", "LoggingConfiguration", "StructuredLogger", "configure_logging"]

_TELL_S = 60.0
_MAX_TOLD = 100


class StructuredLogger:
    """Writes lines with fields, and never raises.

    Arguments:
        name: the logger's name.
        logger: the standard logger that decides on levels and whose other handlers get the records too; by default
            the one of that name.
        handler: writes the lines; by default the process's (`configure_logging`), and where there is none, or
            `log_format`, `service` or `stream` is given, one of its own: JSON on standard output.
        log_format, service, stream: of a handler of its own.
        level: the least level that is written while nothing is configured.
        business_events: counts them; by default the metric `business.events` of the API's meter.

    Inside a span a record carries its ids; outside it opens a correlation of its own, or that of `correlation()`.
    """

    def __init__(
        self,
        *,
        name: str = "app",
        logger: logging.Logger | None = None,
        handler: LineHandler | None = None,
        log_format: LogFormat | str | None = None,
        service: str | None = None,
        stream: Any = None,
        level: LogLevel | str = LogLevel.INFO,
        business_events: BusinessEvents | None = None,
    ) -> None:
        self._logger = logger or logging.getLogger(name)
        if handler is None and (log_format is not None or service is not None or stream is not None):
            handler = LineHandler(log_format or LogFormat.JSON, service or "streamlit-app", StreamOutlet(stream))
        self._name = tidy(self._logger.name)
        self._exports = exports(self._name)
        self._handler = handler
        self._threshold = (find_level(level) or _INFO).number
        self._business = business_events
        self._told: set[str] = set()
        self._failed_at_s = float("-inf")

    def log_with_correlation(self, level: LogLevel | str | int, message: str, **fields: Any) -> str:
        """Write one line; returns its trace id (32 hex digits).

        `exc_info` among the fields is an exception, or True for the one that is being handled. An unknown level counts
        as WARNING, and is told once.
        """
        return self._write(level, message, None, fields)

    def log_performance(self, operation: str, duration_ms: float, **fields: Any) -> str:
        """Write how long an operation took, in milliseconds."""
        try:
            message = f"{operation} took {duration_ms:g} ms"
        except Exception:
            message = f"{text_of(operation)} took {text_of(duration_ms)} ms"
        return self._write(
            "INFO", message, "performance", {"operation": operation, "duration_ms": duration_ms} | fields
        )

    def log_security_event(self, event: str, **fields: Any) -> str:
        """Write a security event by its name in the OWASP logging vocabulary, at the level given there.

        Details may follow the name as the vocabulary writes them (`authz_fail:ada,reports`). A name that it doesn't
        have is written all the same, as WARNING, and told once with the nearest name: a slip costs no audit line.
        """
        text = text_of(event)
        name = owasp.name_of(text)
        level = owasp.level_of_event(name)
        if level is None:
            near = owasp.nearest(name)
            hint = f"; did you mean {near}?" if near else ""
            self._tell_once("security_event.unknown", f"{name[:80]!r} is not in the OWASP logging vocabulary{hint}")
        return self._write(level or LogLevel.WARNING, text, name, fields)

    def log_business_event(self, event: str, **fields: Any) -> str:
        """Write a business event (`client.created`, …) and count it in the metric `business.events`."""
        name = text_of(event)[:128]
        try:
            if self._business is None:
                self._business = business_events()
            if not self._business.count(name):
                self._tell_once("business_event.too_many", "further names of business events are counted as 'other'")
        except Exception as error:
            self._contain(error)
        return self._write("INFO", name, name, fields)

    def correlation(self) -> AbstractContextManager[str]:
        """Inside, records that belong to no span share one trace id, which is given."""
        return correlation()

    def _write(self, level: Any, message: Any, event: str | None, fields: dict[str, Any]) -> str:
        ids, suppressed = current_ids()
        if ids is None:
            ids = new_ids()
        try:
            known = NAMED.get(level) if level.__class__ in _HASHED else None
            if known is None and (known := find_level(level)) is None:
                self._tell_once("log.unknown_level", f"{text_of(level)[:80]!r} is no level; allowed: {_LEVELS}")
                known = _WARNING
            handler = self._handler or _setup.active_handler
            if not self._logger.isEnabledFor(known.number):
                if handler is not None and self._handler is None:
                    return ids.trace
                if known.number < self._threshold or self._logger.manager.disable >= known.number:
                    return ids.trace
            handler = handler or default_handler()
            if not self._only(handler):
                self._write_through_logging(handler, known, message, event, ids, fields)
            elif (
                message.__class__ is not str
                or "exc_info" in fields
                or not handler.deliver_plain(
                    time.time_ns(), known, self._name, message, event, ids, fields, not suppressed and self._exports
                )
            ):
                now = time.time_ns()
                error = _error(fields.pop("exc_info", None))
                handler.deliver(make_entry(now, known, self._name, message, event, ids, fields, error, not suppressed))
                learn_names(fields if event is None else (*fields, event))
        except Exception as error:
            self._contain(error)
        return ids.trace

    def _only(self, handler: LineHandler) -> bool:
        """Whether nobody but our handler gets what this logger logs, and nobody has a say in it."""
        logger = self._logger
        if handler.level or handler.filters or logger.filters or logging._logRecordFactory is not _RECORD:  # type: ignore[attr-defined]
            return False
        each: logging.Logger | None = logger
        while each is not None:
            if (handlers := each.handlers) and (handlers[0] is not handler or len(handlers) > 1):
                return False
            each = each.parent if each.propagate else None
        return True

    def _write_through_logging(
        self, handler: LineHandler, level: Level, message: Any, event: str | None, ids: Any, fields: dict[str, Any]
    ) -> None:
        """As a record of logging: filters decide, our handler writes, every other handler gets it too."""
        error = _error(fields.pop("exc_info", None))
        found = sys._getframe(3)
        code = found.f_code
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        record = self._logger.makeRecord(
            self._logger.name, level.number, code.co_filename, found.f_lineno, message, (), exc_info, code.co_name
        )
        own = record.__dict__
        for key, value in fields.items():
            own.setdefault(key, value)
        own |= {FIELDS: fields, IDS: ids, "event": event, "trace_id": ids.trace, "span_id": ids.span}
        if not self._logger.filter(record):
            return
        if level.number >= handler.level:
            handler.handle(record)
        if self._logger.isEnabledFor(level.number):
            self._logger.callHandlers(record)

    def _tell_once(self, event: str, text: str) -> None:
        if text not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(text)
            self._write("WARNING", text, event, {})

    def _contain(self, error: Exception) -> None:
        """Telemetry never breaks its host: what fails is told once a minute, by its type alone."""
        now = time.monotonic()
        if now - self._failed_at_s < _TELL_S:
            return
        self._failed_at_s = now
        try:
            _internal.warning(
                "a log call failed: %s", type(error).__name__, extra={"event": "telemetry.internal_error"}
            )
        except Exception:
            self._failed_at_s = now  # there is nobody to tell


_LEVELS = ", ".join(LogLevel)
_HASHED = (str, LogLevel)
_INFO, _WARNING = NAMED["INFO"], NAMED["WARNING"]
_RECORD = logging.LogRecord
_internal = logging.getLogger("streamlit_extension.logs")


def _error(given: Any) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if len(given) == 3 and isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None
