"""A log record as one line: JSON, GELF 1.1 or plain text; whatever the record holds, it stays one line."""

from __future__ import annotations

import logging
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from opentelemetry import trace

from otel.guard import redact_fields, redact_text


class LogFormat(StrEnum):
    """How a log line looks."""

    JSON = "json"
    GELF = "gelf"
    PLAIN_TEXT = "plain_text"


#: A field's text longer than this many characters is cut, and says so.
MAX_TEXT = 8192
#: What a record has of its own; everything else in it is a field (`extra=`).
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_RESERVED = frozenset({"timestamp", "level", "logger", "message", "event", "trace_id", "span_id", "service"})
#: Control characters, line separators and direction marks: none may reach a terminal or start a new line.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_GELF_NAME = re.compile(r"[^\w.\-]")
_SYSLOG = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_COLOURS = {"CRITICAL": "35", "ERROR": "31", "WARNING": "33", "INFO": "32", "DEBUG": "36"}


def facts_of(record: logging.LogRecord, service: str) -> dict[str, Any]:
    """The record as the fields of a line, redacted, in their order."""
    facts: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        "level": record.levelname,
        "logger": record.name,
        "message": _cut(redact_text(_message(record))),
    }
    own = record.__dict__
    if own.get("event"):
        facts["event"] = _cut(str(own["event"]))
    context = trace.get_current_span().get_span_context()
    if own.get("trace_id"):
        facts["trace_id"], facts["span_id"] = str(own["trace_id"]), str(own.get("span_id") or "")
    elif context.is_valid:
        facts["trace_id"], facts["span_id"] = format(context.trace_id, "032x"), format(context.span_id, "016x")
    facts["service"] = service
    extra = {
        key: value for key, value in own.items() if key not in _STANDARD and key not in ("event", "trace_id", "span_id")
    }
    for key, value in redact_fields(extra).items():
        facts[f"field.{key}" if key in _RESERVED else key] = value
    if record.exc_info and record.exc_info[1] is not None:
        facts |= _exception(record.exc_info[1])
    return facts


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a format that doesn't fit its arguments: logging itself would print a traceback
        return f"{record.msg} {_plain(record.args)}"


def _exception(error: BaseException) -> dict[str, str]:
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:
        stack = type(error).__name__
    return {
        "exception.type": type(error).__qualname__,
        "exception.message": _cut(redact_text(_plain(error))),
        "exception.stacktrace": redact_text(stack)[-4 * MAX_TEXT :],
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def _plain(value: Any) -> str:
    """Any value as text, also one whose own text can't be made."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _encodable(value: Any) -> Any:
    return _cut(redact_text(_plain(value)))


_encoder = msgspec.json.Encoder(enc_hook=_encodable)


def encode(facts: Mapping[str, Any]) -> str:
    """JSON on one line; what JSON can't say is said as text."""
    try:
        text = _encoder.encode(facts).decode()
    except Exception:
        text = _encoder.encode({str(key): _encodable(value) for key, value in facts.items()}).decode("utf-8", "replace")
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_line(record: logging.LogRecord, service: str) -> str:
    """The JSON format."""
    return encode(facts_of(record, service))


def gelf_line(record: logging.LogRecord, service: str) -> str:
    """GELF 1.1: numbers and strings only, additional fields with an underscore."""
    facts = facts_of(record, service)
    message = str(facts.pop("message"))
    line: dict[str, Any] = {
        "version": "1.1",
        "host": socket.gethostname(),
        "short_message": message.partition("\n")[0] or "-",
        "timestamp": round(record.created, 6),
        "level": _SYSLOG.get(str(facts.pop("level")), 6),
    }
    if "\n" in message:
        line["full_message"] = message
    facts.pop("timestamp")
    for key, value in facts.items():
        name = "_" + _GELF_NAME.sub("_", key)
        line[name if name != "_id" else "_field_id"] = (
            value
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
            else encode({"v": value})[5:-1]
        )
    return encode(line)


def plain_line(record: logging.LogRecord, service: str, colour: bool = False) -> str:
    """For people: time, level, logger, message, then the fields."""
    facts = facts_of(record, service)
    level = f"{facts['level']:8}"
    if colour:
        level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
    named = [
        f"{key}={_one_line(value)}"
        for key, value in facts.items()
        if key not in ("timestamp", "level", "logger", "message", "service")
    ]
    return " ".join([facts["timestamp"], level, facts["logger"], _one_line(facts["message"]), *named])


def _one_line(value: Any) -> str:
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], _plain(value))


class LineFormatter(logging.Formatter):
    """A `logging.Formatter` for one of the formats."""

    def __init__(self, log_format: LogFormat | str, service: str, stream: Any = None) -> None:
        super().__init__()
        self._service = service
        colour = bool(stream is not None and getattr(stream, "isatty", lambda: False)())
        lines: dict[LogFormat, Callable[[logging.LogRecord, str], str]] = {
            LogFormat.JSON: json_line,
            LogFormat.GELF: gelf_line,
            LogFormat.PLAIN_TEXT: lambda record, name: plain_line(record, name, colour),
        }
        self._line = lines[LogFormat(log_format)]

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return self._line(record, self._service)


def default_stream() -> Any:
    """Standard output, as it is at the moment."""
    return sys.stdout
