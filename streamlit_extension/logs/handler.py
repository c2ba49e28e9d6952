"""The one way out: an entry becomes a line in an outlet and, where there is a sink, one record for OTLP."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

from otel.guard import MAX_FIELDS, MAX_TEXT, is_sensitive, known_secrets
from otel.logsink import current_log_sink, is_export_path
from otel.records import LogFact
from otel.secret_text import maybe_named, maybe_token
from streamlit_extension.logs.correlation import Ids
from streamlit_extension.logs.entry import DONE, RESERVED, Entry, entry_of
from streamlit_extension.logs.formats import LogFormat, escape, formatter_of, json_time, to_json, wants_colour
from streamlit_extension.logs.levels import Level

#: Types that every encoder takes as they are.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
#: Names of fields that have been looked at: not sensitive, not one of the line's own, printable. Bounded.
_safe_names: set[str] = set()
_MAX_NAMES: Final = 4096
_exports = lru_cache(maxsize=1024)(lambda logger: not is_export_path(logger))


class Outlet(Protocol):
    """Where lines go. `write` takes one with its line feed; a lost one is the outlet's to count."""

    def write(self, line: bytes) -> None:
        """Take one line."""


class StreamOutlet:
    """A stream such as standard output, flushed after each line; None is standard output as it is at the moment."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream

    @property
    def stream(self) -> Any:
        """Where lines go now."""
        return sys.stdout if self._stream is None else self._stream

    def write(self, line: bytes) -> None:
        """Write UTF-8, whatever the stream's own encoding is; one without bytes below it gets text."""
        stream = sys.stdout if self._stream is None else self._stream
        try:
            stream = stream.buffer
        except AttributeError:
            stream.write(line.decode())
        else:
            stream.write(line)
        stream.flush()


class LineHandler(logging.Handler):
    """Writes one line for each record, once, and hands it to the sink; what fails never reaches the caller.

    Arguments:
        log_format: `json`, `gelf` or `plain_text`.
        service: the name in each line.
        outlet: takes the lines; by default standard output.
    """

    def __init__(
        self, log_format: LogFormat | str = LogFormat.JSON, service: str = "streamlit-app", outlet: Outlet | None = None
    ) -> None:
        super().__init__()
        self.outlet = outlet or StreamOutlet()
        self.service = service
        self.log_format = LogFormat(str(log_format).lower())
        #: Lines that could not be written.
        self.lost = 0
        self._line = formatter_of(self.log_format, wants_colour(getattr(self.outlet, "stream", None)))
        self._heads: dict[tuple[str, str], bytes] = {}
        self._service_json = b',"service":' + to_json(service)
        self._fast = self.log_format is LogFormat.JSON

    def emit(self, record: logging.LogRecord) -> None:
        """One line for a record of standard logging; the second time that it comes by is ignored."""
        own = record.__dict__
        if DONE in own:
            return
        own[DONE] = True
        try:
            self.deliver(entry_of(record))
        except Exception:
            self.lost += 1

    def deliver(self, entry: Entry) -> None:
        """Write an entry's line and hand it to the sink."""
        self._write(self._line(entry, self.service) + b"\n")
        if entry.exportable and (sink := current_log_sink()) is not None and _exports(entry.logger):
            sink(entry.fact())

    def _write(self, line: bytes) -> None:
        lock = self.lock
        try:
            if lock is None:
                self.outlet.write(line)
            else:
                with lock:
                    self.outlet.write(line)
        except Exception:  # standard output is gone, full or closed: there is nobody to tell
            self.lost += 1

    def deliver_plain(
        self,
        timestamp_ns: int,
        level: Level,
        logger: str,
        message: str,
        event: str | None,
        ids: Ids,
        fields: dict[str, Any],
        exportable: bool,
    ) -> bool:
        """The short way for what is plain and clean already; False, with nothing done, for anything else.

        The fields' JSON is searched instead of the fields: its colons are counted, so that one within a value shows.
        """
        if not (self._fast and fields.keys() <= _safe_names and _PLAIN.issuperset(map(type, fields.values()))):
            return False
        if event is not None and event not in _safe_names:
            return False
        head = self._heads.get((logger, level.name))
        if head is None:
            head = self._head(logger, level)
        try:
            tail = to_json(fields)
            body = to_json(message)
        except (UnicodeEncodeError, TypeError, ValueError):  # lone surrogates, a subclass of str
            return False
        text = tail.decode()
        if len(text) + len(message) > MAX_TEXT or len(fields) > MAX_FIELDS:
            return False
        if text.count(":") != len(fields) or "=" in text or maybe_token(text):
            return False
        if "null" in text and any(value.__class__ is float and value - value != 0.0 for value in fields.values()):
            return False  # NaN or infinite, which JSON can't say
        if (("=" in message or ":" in message) and maybe_named(message)) or maybe_token(message):
            return False
        for secret, _ in known_secrets():
            if secret in text or secret in message:
                return False
        name = b"" if event is None else b',"event":' + to_json(event)
        parts = (b'{"timestamp":"', json_time(timestamp_ns), head, body, name, ids.json, self._service_json)
        line = b"".join((*parts, b",", tail[1:], b"\n") if fields else (*parts, b"}\n"))
        if not line.isascii() or b"\x7f" in line:
            line = escape(line[:-1]) + b"\n"
        self._write(line)
        if exportable and (sink := current_log_sink()) is not None and _exports(logger):
            sink(
                LogFact(
                    timestamp_ns,
                    level.severity,
                    level.name,
                    message,
                    fields,
                    event,
                    ids.trace_id,
                    ids.span_id,
                    ids.flags,
                    logger,
                )
            )
        return True

    def _head(self, logger: str, level: Level) -> bytes:
        head = b'","level":%b,"logger":%b,"message":' % (to_json(level.name), to_json(logger))
        if len(self._heads) < _MAX_NAMES:
            self._heads[logger, level.name] = head
        return head


def learn_names(fields: Iterable[Any]) -> None:
    """Remember the names of fields and events that need no second look."""
    if len(_safe_names) > _MAX_NAMES:
        _safe_names.clear()
    for key in fields:
        if type(key) is str and len(key) <= 128 and key.isascii() and key.isprintable() and ":" not in key:
            if key not in RESERVED and not is_sensitive(key):
                _safe_names.add(key)
