"""Between log facts and OpenTelemetry's logs API, both ways."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context

from otel.containment import contained
from otel.guard import clean_text, redact_fields
from otel.plain import text_of, tidy
from otel.records import LogFact, LogSink

#: Set on a record of standard logging that has become a fact, so that it becomes one once.
DONE: Final = "_stx_done"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}


class FactLoggerProvider(LoggerProvider):
    """A logger provider whose records become facts: for users who log by OpenTelemetry's API."""

    def __init__(self, put: LogSink) -> None:
        self._put = put

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> Logger:
        """A logger."""
        return _FactLogger(name, version, schema_url, attributes, put=self._put)


class _FactLogger(Logger):
    def __init__(self, *words: Any, put: LogSink) -> None:
        super().__init__(*words)
        self._put = put

    def enabled(self, **_: Any) -> bool:
        return True

    def emit(self, record: LogRecord | None = None, **fields: Any) -> None:
        """Take a record; what can't be read of it is left out, and nothing of it reaches the caller."""
        with contained("a log record could not be taken"):
            self._emit(record, **fields)

    def _emit(self, record: LogRecord | None, **fields: Any) -> None:
        found = record if record is not None else LogRecord(**fields)
        body = found.body
        number = found.severity_number
        attributes = dict(found.attributes or {})
        if found.exception is not None:
            attributes = {**_exception_attributes(found.exception), **attributes}
        self._put(
            LogFact(
                timestamp_ns=found.timestamp or found.observed_timestamp or time.time_ns(),
                severity_number=0 if number is None else number.value,
                severity_text=found.severity_text or ("" if number is None else number.name),
                body="" if body is None else clean_text(body if isinstance(body, str) else text_of(body)),
                attributes=redact_fields(attributes),
                event_name=found.event_name,
                trace_id=found.trace_id or 0,
                span_id=found.span_id or 0,
                trace_flags=int(found.trace_flags or 0),
                scope=self._name,
            )
        )


class FactHandler(logging.Handler):
    """A handler of standard logging whose records become facts, unless a handler of the process makes them already."""

    def __init__(self, put: LogSink) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, with the ids of the span that is current."""
        if DONE in vars(record) or any(getattr(each, "makes_facts", False) for each in logging.getLogger().handlers):
            return
        with contained("a log record could not be taken"):
            self._put(_fact_of(record))

    @contextmanager
    def on_root(self) -> Iterator[None]:
        """Inside, it gets what reaches the root logger."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)


def _code_of(record: logging.LogRecord) -> dict[str, Any]:
    """Where a record was made."""
    return {
        "code.file.path": tidy(record.pathname),
        "code.line.number": record.lineno,
        "code.function.name": tidy(record.funcName or ""),
    }


def _fact_of(record: logging.LogRecord) -> LogFact:
    attributes = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        attributes |= _exception_attributes(record.exc_info[1])
    about = get_current_span().get_span_context()
    return LogFact(
        timestamp_ns=int(record.created * 1e9),
        severity_number=min(21, 1 + 4 * (max(record.levelno, 0) // 10)),
        severity_text=record.levelname,
        body=clean_text(record.getMessage()),
        attributes={**redact_fields(attributes), **_code_of(record)},
        event_name=vars(record).get("event"),
        trace_id=about.trace_id,
        span_id=about.span_id,
        trace_flags=int(about.trace_flags),
        scope=record.name,
    )


def _exception_attributes(error: BaseException) -> dict[str, str]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    found = {"exception.type": name, "exception.message": text_of(error)}
    with contained("an exception could not be described"):
        found["exception.stacktrace"] = "".join(traceback.format_exception(error))
    return found


def sink_into(provider: LoggerProvider) -> LogSink:
    """A sink that hands facts to a logger provider that somebody else has set up."""
    loggers: dict[str, Logger] = {}

    def put(fact: LogFact) -> None:
        logger = loggers.get(fact.scope)
        if logger is None:
            logger = loggers[fact.scope] = provider.get_logger(fact.scope)
        logger.emit(
            LogRecord(
                timestamp=fact.timestamp_ns,
                observed_timestamp=fact.timestamp_ns,
                context=_context_of(fact),
                severity_number=SeverityNumber(fact.severity_number),
                severity_text=fact.severity_text,
                body=fact.body,
                attributes=dict(fact.attributes),
                event_name=fact.event_name,
            )
        )

    return put


def _context_of(fact: LogFact) -> Context:
    """A context in which the fact's span is the current one; the caller may be outside it by now."""
    context = SpanContext(fact.trace_id, fact.span_id, is_remote=False, trace_flags=TraceFlags(fact.trace_flags))
    return set_span_in_context(NonRecordingSpan(context), Context())
