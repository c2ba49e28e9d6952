"""The one way out: an entry becomes a line in an outlet and, where there is a sink, one record for OTLP."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

from otel import guard as _guard
from otel import logsink as _logsink
from otel.guard import MAX_FIELDS, MAX_TEXT, is_sensitive, known_secrets, looks_clean
from otel.log_bridge import DONE
from otel.logsink import current_log_sink, is_export_path
from otel.patterns import lazy
from otel.records import LogFact
from otel.secret_text import maybe_token
from otel.sizes import FACT_BYTES
from streamlit_extension.logs import formats as _formats
from streamlit_extension.logs.correlation import Ids
from streamlit_extension.logs.entry import RESERVED, Entry, entry_of
from streamlit_extension.logs.formats import DIGITS, LogFormat, escape, formatter_of, new_second, to_json, wants_colour
from streamlit_extension.logs.levels import Level

#: Types that every encoder takes as they are.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
#: Names of fields that have been looked at: not sensitive, not one of the line's own, printable. Bounded.
_safe_names: set[str] = set()
_are_safe = _safe_names.issuperset
_MAX_NAMES: Final = 4096
_NAME: Final = lazy(r"[A-Za-z0-9_.\-]{1,128}")
#: Messages that are remembered as clean: how many, and of how many characters at most.
_MAX_MESSAGES: Final = 1024
_MAX_MESSAGE: Final = 256
#: The same of values.
_MAX_VALUES: Final = 4096
_MAX_VALUE: Final = 64
exports = lru_cache(maxsize=1024)(lambda logger: not is_export_path(logger))


class Outlet(Protocol):
    """Where lines go. `write` takes one with its line feed; a lost one is the outlet's to count."""

    def write(self, line: bytes) -> None:
        """Take one line."""


class StreamOutlet:
    """A stream such as standard output, written to at once; None is standard output as it is at the moment."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream
        self._raw = _raw_of(stream)

    @property
    def stream(self) -> Any:
        """Where lines go now."""
        return sys.stdout if self._stream is None else self._stream

    def write(self, line: bytes) -> None:
        """Write UTF-8, whatever the stream's own encoding is; one without bytes below it gets text."""
        raw = self._raw
        if raw is not None:  # one call of the system for a line, and nothing that waits in a buffer
            written = raw.write(line)
            while written != len(line):
                line = line[written or 0 :]
                written = raw.write(line)
            return
        stream = sys.stdout if self._stream is None else self._stream
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(line.decode())
        else:
            stream.flush()
            buffer.write(line)
        stream.flush()


def _raw_of(stream: Any) -> io.FileIO | None:
    """The file below a text stream, when it blocks."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    try:
        return raw if isinstance(raw, io.FileIO) and os.get_blocking(raw.fileno()) else None
    except (OSError, ValueError):
        return None


class LineHandler(logging.Handler):
    """Writes one line for each record, once, and hands it to the sink; what fails never reaches the caller.

    Arguments:
        log_format: `json`, `gelf` or `plain_text`.
        service: the name in each line.
        outlet: takes the lines; by default standard output.
    """

    #: Its records become facts for the sink; nobody else needs to make them.
    makes_facts: Final = True

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
        self._service_last = f',"service":{to_json(service).decode()}'
        self._service_before = f"{self._service_last},"
        #: What lines of the same message, logger, level and event have in common; most are written again and again.
        #: Their messages were found clean, with one set of known secrets.
        self._middles: dict[tuple[str, str, Level, str | None], str] = {}
        #: Short texts among the fields' values that were found clean: names of pages, users and states come again.
        self._values: set[str] = set()
        self._secrets = known_secrets()
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
        if entry.exportable and (sink := current_log_sink()) is not None and exports(entry.logger):
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

    def deliver_plain(  # noqa: C901, PLR0912 - the hot path is one piece: each call costs a tenth of it
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
        Texts that were found clean before are not searched again.
        """
        if not self._fast or not _are_safe(fields) or (event is not None and event not in _safe_names):
            return False
        clean, unsure = self._values, False
        for value in fields.values():
            kind = value.__class__
            if kind is str:
                if value not in clean:
                    unsure = True
            elif kind is not int and kind is not float and kind not in _PLAIN:
                return False
        try:
            tail = to_json(fields).decode()
        except UnicodeEncodeError:  # lone surrogates
            return False
        if (unsure or self._secrets is not _guard._known) and not self._looks_clean(tail, fields):
            return False
        if "null" in tail and any(value.__class__ is float and value - value != 0.0 for value in fields.values()):
            return False  # NaN or infinite, which JSON can't say
        if len(fields) > MAX_FIELDS:
            return False
        middle = self._middles.get((message, logger, level, event)) or self._middle(message, logger, level, event)
        if middle is None:
            return False
        service = self._service_before if fields else self._service_last
        began, opening = _formats._second
        rest = timestamp_ns - began
        if not 0 <= rest < 1_000_000_000:
            began, opening = new_second(timestamp_ns)
            rest = timestamp_ns - began
        line = (  # faster than bytes that are joined
            f'{{"timestamp":"{opening}{DIGITS[rest // 1_000_000]}{DIGITS[rest // 1000 % 1000]}Z'
            f"{middle}{ids.json}{service}{tail[1:]}\n"
        )
        out = line.encode()
        if len(out) != len(line) or "\x7f" in line:
            out = escape(out[:-1]) + b"\n"
        lock: Any = self.lock
        lock.acquire()  # half the price of `with`
        try:
            self.outlet.write(out)
        except Exception:  # as in `_write`
            self.lost += 1
        finally:
            lock.release()
        if exportable and (sink := _logsink._sink) is not None:
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
                    FACT_BYTES + len(line),  # its texts and more: nobody has to go through them again
                )
            )
        return True

    def _looks_clean(self, tail: str, fields: dict[str, Any]) -> bool:
        """Whether fields, given as their JSON too, hold nothing that would be replaced; remembers short values."""
        if self._secrets is not _guard._known:
            self._secrets = known_secrets()
            self._middles.clear()
            self._values.clear()
            _safe_names.clear()
            return False
        if tail.count(":") != len(fields) or "=" in tail or len(tail) > MAX_TEXT or maybe_token(tail):
            return False
        for secret, _ in self._secrets:
            if secret in tail:
                return False
        if len(self._values) > _MAX_VALUES:
            self._values.clear()
        self._values.update(each for each in fields.values() if each.__class__ is str and len(each) <= _MAX_VALUE)
        return True

    def _middle(self, message: str, logger: str, level: Level, event: str | None) -> str | None:
        """What stands between a line's time and its ids; None where the message is not clean."""
        if len(message) > MAX_TEXT or not looks_clean(message):
            return None
        try:
            names = [to_json(each).decode() for each in (level.name, logger, message, event)]
        except UnicodeEncodeError:
            return None
        made = '","level":{},"logger":{},"message":{}'.format(*names) + (f',"event":{names[3]}' if event else "")
        if len(message) <= _MAX_MESSAGE:
            if len(self._middles) >= _MAX_MESSAGES:
                self._middles.clear()
            self._middles[message, logger, level, event] = made
        return made


def learn_names(fields: Iterable[Any]) -> None:
    """Remember the names of fields and events that need no second look."""
    if len(_safe_names) > _MAX_NAMES:
        _safe_names.clear()
    for key in fields:
        if (
            type(key) is str
            and _NAME.fullmatch(key)
            and key not in RESERVED
            and not is_sensitive(key)
            and looks_clean(key)
        ):
            _safe_names.add(key)
