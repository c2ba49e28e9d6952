"""Structured logging: one line a record, with the ids of the trace that it belongs to."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from opentelemetry import trace

from streamlit_extension.logs.formats import LogFormat
from streamlit_extension.logs.setup import LoggingConfiguration, configure_logging

__all__ = ["LogFormat", "LogLevel", "LoggingConfiguration", "StructuredLogger", "configure_logging"]


class LogLevel(StrEnum):
    """Severity of a log line."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class StructuredLogger:
    """Writes lines with fields.

    Arguments:
        name: the logger's name.
        logger: takes the records; by default the standard logger of that name.

    Inside a span a line carries its ids; outside it opens a correlation of its own.
    """

    def __init__(self, *, name: str = "app", logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(name)

    def log_with_correlation(self, level: LogLevel | str, message: str, **fields: Any) -> str:
        """Write one line; returns its trace id (32 hex digits).

        Raises:
            ValueError: `level` is none of `LogLevel`.
        """
        return self._write(LogLevel(str(level).upper()), message, None, fields)

    def log_performance(self, operation: str, duration_ms: float, **fields: Any) -> str:
        """Write how long an operation took, in milliseconds."""
        named = {"operation": operation, "duration_ms": duration_ms, **fields}
        return self._write(LogLevel.INFO, f"{operation} took {duration_ms:g} ms", "performance", named)

    def log_security_event(self, event: str, **fields: Any) -> str:
        """Write a security event by its name in the OWASP logging vocabulary (`authn_login_fail`, …)."""
        return self._write(LogLevel.WARNING, event, event, fields)

    def log_business_event(self, event: str, **fields: Any) -> str:
        """Write a business event (`client.created`, …)."""
        return self._write(LogLevel.INFO, event, event, fields)

    def _write(self, level: LogLevel, message: str, event: str | None, fields: Mapping[str, Any]) -> str:
        context = trace.get_current_span().get_span_context()
        trace_id = format(context.trace_id, "032x") if context.is_valid else secrets.token_hex(16)
        span_id = format(context.span_id, "016x") if context.is_valid else secrets.token_hex(8)
        extra = {"trace_id": trace_id, "span_id": span_id, "event": event}
        taken = vars(logging.makeLogRecord({})).keys() | extra.keys() | {"message", "asctime"}
        extra |= {f"field.{key}" if key in taken else key: value for key, value in fields.items()}
        self._logger.log(logging.getLevelName(level.value), message, extra=extra)
        return trace_id
