"""One record as plain, redacted data: what every format and the OTLP record are made from."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel.guard import MAX_TEXT, clean_text, redact_fields, redact_text
from otel.log_bridge import DONE
from otel.plain import text_of, tidy
from otel.records import LogFact
from streamlit_extension.logs.correlation import NO_IDS, Ids, current_ids
from streamlit_extension.logs.levels import Level, level_of

#: Attributes under which a `StructuredLogger` hands its fields and ids through logging.
FIELDS: Final = "_stx_fields"
IDS: Final = "_stx_ids"
#: Every line has these keys first; a field of such a name is written as `field.NAME`.
RESERVED: Final = frozenset({"timestamp", "level", "logger", "message", "event", "trace_id", "span_id", "service"})
#: What a record has of its own; everything else in it is a field (`extra=`). The stock logging instrumentation's four
#: say what `trace_id`, `span_id` and `service` say already.
_STANDARD: Final = (
    frozenset(vars(logging.makeLogRecord({})))
    | {"message", "asctime", "taskName", "color_message", "event", "trace_id", "span_id", FIELDS, IDS, DONE}
    | {"otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"}
)
_BARE: Final = len(vars(logging.makeLogRecord({})))
_MAX_NAME: Final = 256


class Entry(msgspec.Struct):
    """One record, redacted. `fields` are plain data; `code` says where it was made, for OTLP alone."""

    timestamp_ns: int
    level: Level
    logger: str
    message: str
    event: str | None
    ids: Ids
    fields: Mapping[str, Any]
    exportable: bool = True
    code: Mapping[str, Any] | None = None

    def fact(self) -> LogFact:
        """The record for OTLP."""
        ids = self.ids
        attributes = {**self.fields, **self.code} if self.code else self.fields
        return LogFact(
            self.timestamp_ns,
            self.level.severity,
            self.level.name,
            self.message,
            attributes,
            self.event,
            ids.trace_id,
            ids.span_id,
            ids.flags,
            self.logger,
        )


def clean_fields(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Fields as they may leave, none of them under a name that every line has."""
    found = redact_fields(fields)
    return {f"field.{key}" if key in RESERVED else key: value for key, value in found.items()}


def make_entry(
    timestamp_ns: int,
    level: Level,
    logger: str,
    message: Any,
    event: str | None,
    ids: Ids,
    fields: Mapping[Any, Any],
    error: BaseException | None = None,
    exportable: bool = True,
) -> Entry:
    """An entry of whatever it is given."""
    text = message if type(message) is str else text_of(message)
    named = None if event is None else clean_text(event if type(event) is str else text_of(event), _MAX_NAME)
    cleaned = clean_fields(fields)
    if error is not None:
        cleaned |= exception_fields(error)
    return Entry(timestamp_ns, level, tidy(logger), clean_text(text), named, ids, cleaned, exportable)


def entry_of(record: logging.LogRecord) -> Entry:
    """An entry of a record of standard logging."""
    own = record.__dict__
    ids, suppressed = current_ids()
    ids = own.get(IDS) or _written_ids(own) or ids or NO_IDS
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    entry = make_entry(
        int(record.created * 1e9),
        level_of(record.levelno, clean_text(str(record.levelname), 64)),
        str(record.name),
        _message(record),
        own.get("event") or None,
        ids,
        _fields(own),
        error,
        not suppressed,
    )
    entry.code = {
        "code.file.path": tidy(record.pathname),
        "code.line.number": record.lineno,
        "code.function.name": tidy(record.funcName or ""),
    }
    return entry


def _fields(own: Mapping[str, Any]) -> Mapping[Any, Any]:
    given = own.get(FIELDS)
    if given is not None:
        return given  # type: ignore[no-any-return]
    if len(own) == _BARE:
        return {}
    return {key: value for key, value in own.items() if key not in _STANDARD}


def _written_ids(own: Mapping[str, Any]) -> Ids | None:
    """Ids that somebody gave by `extra=`: hex digits, else they are none."""
    trace, span = own.get("trace_id"), own.get("span_id") or ""
    if not isinstance(trace, str) or not isinstance(span, str):
        return None
    try:
        numbers = int(trace, 16), int(span or "0", 16)
    except ValueError:
        return None
    if len(trace) != 32 or len(span) not in (0, 16):
        return None
    return Ids(*numbers, 0, trace, span, "")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a format that doesn't fit its arguments: logging itself would print a traceback
        return f"{text_of(record.msg)} {text_of(record.args)}"


def exception_fields(error: BaseException) -> dict[str, str]:
    """An exception with its causes, contexts and groups, under the names of the semantic conventions."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    try:
        stack = redact_text(tidy("".join(traceback.format_exception(error))))
    except Exception:
        stack = kind.__qualname__
    limit = 4 * MAX_TEXT
    if len(stack) > limit:  # the beginning tells where, the end tells what
        stack = f"{stack[:MAX_TEXT]}… ({len(stack)} characters) …{stack[MAX_TEXT - limit :]}"
    return {
        "exception.type": tidy(f"{module}{kind.__qualname__}"),
        "exception.message": clean_text(text_of(error)),
        "exception.stacktrace": stack,
    }
