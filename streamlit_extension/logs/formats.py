"""A record as one line: JSON, GELF 1.1 or plain text; whatever the record holds, it stays one line."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from otel.guard import clean_text
from otel.patterns import lazy
from otel.plain import text_of
from streamlit_extension.logs.entry import Entry, entry_of


class LogFormat(StrEnum):
    """How a log line looks."""

    JSON = "json"
    GELF = "gelf"
    PLAIN_TEXT = "plain_text"


#: Control characters, line separators, direction marks and lone surrogates: none may reach a terminal or start a line.
UNSAFE: Final = lazy("[\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_GELF_NAME: Final = lazy(r"[^A-Za-z0-9_.\-]")
_PLAIN_NAME: Final = lazy(r"[^\w.\-]")
#: What a plain line's message or value can hold without quotes and still be told from the fields behind it.
_NEEDS_QUOTES: Final = lazy(r"[=\"]|^\s|\s$|^$")
_COLOURS: Final = {50: "35", 40: "31", 30: "33", 20: "32", 10: "36"}
_HOST: Final = socket.gethostname() or "localhost"

_encoder = msgspec.json.Encoder(enc_hook=lambda value: clean_text(text_of(value)))
to_json: Callable[[Any], bytes] = _encoder.encode
_SECOND_NS: Final = 1_000_000_000
#: Three digits, ready: formatting a number costs more than the rest of a time.
DIGITS: Final = tuple(f"{number:03d}" for number in range(1000))
#: When the last second began, and its text.
_second: tuple[int, str] = (-_SECOND_NS, "")


def new_second(timestamp_ns: int) -> tuple[int, str]:
    """When the second of a time began, and its text, which is made once and then remembered."""
    global _second  # noqa: PLW0603 - one tuple, replaced as a whole: any thread may read it at any time
    began = timestamp_ns - timestamp_ns % _SECOND_NS
    try:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(began // _SECOND_NS))
    except (OverflowError, ValueError, OSError):
        text = "1970-01-01T00:00:00."  # a clock that is out of every calendar
    found = _second = (began, text)
    return found


def json_time(timestamp_ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    began, text = _second
    rest = timestamp_ns - began
    if not 0 <= rest < _SECOND_NS:
        began, text = new_second(timestamp_ns)
        rest = timestamp_ns - began
    return f"{text}{DIGITS[rest // 1_000_000]}{DIGITS[rest // 1000 % 1000]}Z"


def encode(facts: Mapping[str, Any]) -> bytes:
    """Plain data as JSON on one line of printable characters."""
    try:
        line = to_json(facts)
    except Exception:  # beyond what JSON or UTF-8 can say: the standard library escapes all of it
        line = json.dumps(facts, ensure_ascii=True, default=text_of, skipkeys=True).encode()
    return line if line.isascii() and b"\x7f" not in line else escape(line)


def escape(line: bytes) -> bytes:
    """A line of JSON without characters that could be taken for its end or turn a terminal's text around."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()


def facts_of(entry: Entry, service: str) -> dict[str, Any]:
    """An entry as the keys of a line, in their order."""
    facts: dict[str, Any] = {
        "timestamp": json_time(entry.timestamp_ns),
        "level": entry.level.name,
        "logger": entry.logger,
        "message": entry.message,
    }
    if entry.event is not None:
        facts["event"] = entry.event
    if entry.ids.trace:
        facts["trace_id"], facts["span_id"] = entry.ids.trace, entry.ids.span
    facts["service"] = service
    facts.update(entry.fields)
    return facts


def json_line(entry: Entry, service: str) -> bytes:
    """The JSON format."""
    return encode(facts_of(entry, service))


def gelf_line(entry: Entry, service: str) -> bytes:
    """GELF 1.1 (https://go2docs.graylog.org/current/getting_in_log_data/gelf.html): numbers and strings alone."""
    lines = entry.message.strip().splitlines()
    short = lines[0].strip() if lines else ""
    line: dict[str, Any] = {
        "version": "1.1",
        "host": _HOST,
        "short_message": short or "-",
        "timestamp": round(entry.timestamp_ns / 1e9, 6),
        "level": entry.level.syslog,
    }
    if short != entry.message:
        line["full_message"] = entry.message
    named = {"level_name": entry.level.name, **facts_of(entry, service)}
    for key, value in named.items():
        if key in ("timestamp", "level", "message") or value is None:
            continue
        name = "_" + (_GELF_NAME.sub("_", key) or "_")
        line["_field_id" if name == "_id" else name] = (
            value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else encode_text(value)
        )
    return encode(line)


def encode_text(value: Any) -> str:
    """A value as the text of its JSON."""
    return encode({"v": value})[5:-1].decode()


def plain_line(entry: Entry, service: str, colour: bool = False) -> bytes:
    """For people: time, level, logger, message, then `name=value`; what would be ambiguous is quoted as in JSON."""
    level = f"{_one_line(entry.level.name):8}"
    if colour:
        code = next((code for number, code in _COLOURS.items() if entry.level.number >= number), "0")
        level = f"\x1b[{code}m{level}\x1b[0m"
    facts = facts_of(entry, service)
    time_, logger = facts.pop("timestamp"), re.sub(r"\s", "_", _one_line(entry.logger)) or "_"
    named = [
        f"{_PLAIN_NAME.sub('_', _one_line(key)) or '_'}={_plain_value(value)}"
        for key, value in facts.items()
        if key not in ("level", "logger", "message", "service")
    ]
    return " ".join([time_, level, f"{logger}:", _quoted(entry.message), *named]).encode()


def _one_line(text: str) -> str:
    return UNSAFE.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _quoted(text: str) -> str:
    """As it is where that can be told from a field, else as a JSON string."""
    line = _one_line(text)
    return encode_text(text) if _NEEDS_QUOTES.search(line) else line


def _plain_value(value: Any) -> str:
    if not isinstance(value, str):
        return encode_text(value)
    return encode_text(value) if not value or " " in value or "\t" in value else _quoted(value)


def wants_colour(stream: Any, environ: Mapping[str, str] = os.environ) -> bool:
    """Colour is for terminals, and not where NO_COLOR (https://no-color.org) or a dumb terminal says otherwise."""
    try:
        return bool(stream.isatty()) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    except Exception:
        return False


def formatter_of(log_format: LogFormat | str, colour: bool = False) -> Callable[[Entry, str], bytes]:
    """The function that makes lines of a format."""
    lines: dict[LogFormat, Callable[[Entry, str], bytes]] = {
        LogFormat.JSON: json_line,
        LogFormat.GELF: gelf_line,
        LogFormat.PLAIN_TEXT: lambda entry, service: plain_line(entry, service, colour),
    }
    return lines[LogFormat(str(log_format).lower())]


class LineFormatter(logging.Formatter):
    """A `logging.Formatter` for one of the formats, for handlers that are not ours (a file, say)."""

    def __init__(self, log_format: LogFormat | str, service: str, stream: Any = None) -> None:
        super().__init__()
        self._service = service
        self._line = formatter_of(log_format, wants_colour(stream))

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return self._line(entry_of(record), self._service).decode()
