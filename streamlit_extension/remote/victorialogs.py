"""Log records in VictoriaLogs: a query as LogsQL, and what it answers as rows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from otel.store.model import LogQuery, LogRow, Page
from otel.store.queries import LEVELS, MAX_QUERY, MAX_WORDS
from streamlit_extension.remote.asking import RemoteError, ask, where

_NAME: Final = "VictoriaLogs"
#: A record: each of its fields is a text, and one is the moment.
_RECORD: Final = msgspec.json.Decoder(dict[str, str])
_PART: Final = re.compile(
    r'(?P<no>-)?(?:(?P<field>[A-Za-z_][\w.\-]{0,127}):(?!//))?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))', re.ASCII
)
#: What a person calls a field → its name there. Others are attributes and keep their names.
_FIELDS: Final = {"logger": "scope.name", "event": "event_name"}
_OWN: Final = frozenset(
    {"_msg", "_stream", "_stream_id", "_time", "event_name", "flags", "scope.name", "scope.version"}
    | {"severity", "severity_number", "severity_text", "span_id", "trace_id"}
)
#: Attributes of the process, which are the same in every record.
_RESOURCE: Final = ("container.", "host.", "k8s.", "os.", "process.", "service.", "telemetry.sdk.", "code.")


def logsql(query: LogQuery, service: str = "") -> str:
    """A query as LogsQL: whatever was typed is a quoted text in it, never its syntax."""
    found = list(_typed(query.text)) or ["*"]
    if service:
        found.append(f"service.name:={_quoted(service)}")
    if query.trace_id:
        found.append(_id("trace_id", query.trace_id, 32))
    if query.span_id:
        found.append(_id("span_id", query.span_id, 16))
    if query.min_severity:
        found.append(_severity(query.min_severity))
    for name, value in (("scope.name", query.logger), ("event_name", query.event)):
        if value:
            found.append(f"{_quoted(name)}:={_quoted(value)}")
    found += [_field(name, value) for name, value in query.fields]
    return " ".join(found)


def _typed(text: str) -> Iterator[str]:
    for part in list(_PART.finditer(text[:MAX_QUERY]))[:MAX_WORDS]:
        name, phrase = part["field"], part["phrase"]
        value = phrase if phrase is not None else part["word"] or ""
        no = "!" if part["no"] else ""
        if not value.strip("*"):
            continue
        if name in ("trace_id", "span_id"):
            yield no + _id(name, value, 32 if name == "trace_id" else 16)
        elif name == "level" and value.lower() in LEVELS:
            yield no + _severity(LEVELS[value.lower()])
        elif name is not None:
            yield no + _field(_FIELDS.get(name, name), value)
        else:
            star = "*" if phrase is None and value.endswith("*") else ""
            yield f"{no}*:{_quoted(value.rstrip('*') if star else value)}{star}"


def _quoted(value: str) -> str:
    return json.dumps(value)


def _id(name: str, value: str, digits: int) -> str:
    star = "*" if len(value) < digits else ""
    return f"{name}:={_quoted(value.strip().lower())}{star}"


def _severity(least: int) -> str:
    return f"severity_number:>={int(least)}"


def _field(name: str, value: str) -> str:
    """An attribute holds a text in any part of it, without regard to case."""
    return f"{_quoted(name)}:~{_quoted('(?i)' + re.escape(value.rstrip('*')))}"


class VictoriaLogs:
    """Asks one server.

    Arguments: its root, and the service whose records are asked for ("" for all).
    """

    def __init__(self, root: str, service: str = "") -> None:
        self._root = root
        self._service = service

    def logs(
        self, query: LogQuery | None = None, *, limit: int = 100, cursor: str = "", newest_first: bool = True
    ) -> Page[LogRow]:
        """Records, page by page; the cursor is the last one's moment, and how many of that moment were shown.

        What is written meanwhile moves no page: it comes before the first one, or at its own place.
        """
        wanted = query or LogQuery()
        since_ns, until_ns = wanted.since_ns or 0, wanted.until_ns or time.time_ns() + 60 * 10**9
        moment, _, shown = cursor.partition(".")
        if cursor and not (moment.isascii() and moment.isdecimal() and shown.isascii() and shown.isdecimal()):
            return Page()
        if cursor:
            since_ns, until_ns = (since_ns, int(moment) + 1) if newest_first else (int(moment), until_ns)
        before = int(shown) if cursor else 0
        rows = self._rows(wanted, since_ns, until_ns, limit + 1, before, newest_first)
        if len(rows) <= limit:
            return Page(tuple(rows))
        last_ns = rows[limit - 1].time_ns
        alike = sum(each.time_ns == last_ns for each in rows[:limit])
        if cursor and last_ns == int(moment):
            alike += before
        return Page(tuple(rows[:limit]), f"{last_ns}.{alike}")

    def tail(self, query: LogQuery | None = None) -> VictoriaLogsTail:
        """Follow what is stored from now on."""
        return VictoriaLogsTail(self, query or LogQuery())

    def _rows(
        self, query: LogQuery, since_ns: int, until_ns: int, limit: int, offset: int, newest_first: bool
    ) -> list[LogRow]:
        order = "desc" if newest_first else ""
        text = f"{logsql(query, self._service)} | sort by (_time, _msg, span_id) {order} offset {offset} limit {limit}"
        window = {"start": _moment(since_ns), "end": _moment(until_ns)}
        status, body = ask(_NAME, self._root, "/select/logsql/query", {"query": text, **window})
        try:
            if status == 200:
                return [_row(_RECORD.decode(line)) for line in body.split(b"\n") if line]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        raise RemoteError(f"{where(_NAME, self._root)} does not answer as {_NAME} does; is it the root of its API?")


class VictoriaLogsTail:
    """Follows what is stored; a record may arrive some seconds after it was written."""

    _LATE_NS: Final = 30 * 10**9

    def __init__(self, logs: VictoriaLogs, query: LogQuery) -> None:
        self._logs = logs
        self._query = query
        self._known: dict[str, int] = {}
        self._began_ns = time.time_ns()

    def poll(self, limit: int = 500, /) -> list[LogRow]:
        """Return what has come since the call before, oldest first."""
        now = time.time_ns()
        since = max(self._began_ns, now - self._LATE_NS)
        rows = self._logs._rows(self._query, since, now + 60 * 10**9, limit + len(self._known), 0, False)
        fresh = [each for each in rows if each.id not in self._known][:limit]
        self._known = {key: at for key, at in self._known.items() if at >= since}
        self._known |= {each.id: each.time_ns for each in fresh}
        return fresh


def _row(record: Mapping[str, str]) -> LogRow:
    moment = record.get("_time", "")
    trace_id, span_id, message = (record.get(name, "") for name in ("trace_id", "span_id", "_msg"))
    attributes: dict[str, Any] = {
        name: value for name, value in record.items() if name not in _OWN and not name.startswith(_RESOURCE)
    }
    severity = record.get("severity_number", "")
    number = int(severity) if severity.isdecimal() and severity.isascii() else 0
    return LogRow(
        id=f"{moment}.{record.get('_stream_id', '')}.{span_id}.{hash(message):x}",
        time_ns=_nanoseconds(moment),
        severity=min(number, 24),
        level=record.get("severity_text") or record.get("severity", ""),
        logger=record.get("scope.name", ""),
        event=record.get("event_name", ""),
        message=message,
        trace_id=trace_id,
        span_id=span_id,
        attributes=attributes,
    )


def _moment(time_ns: int) -> str:
    """RFC 3339 in UTC with all nine digits, which a number of seconds does not have."""
    seconds, part = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def _nanoseconds(moment: str) -> int:
    """A moment of RFC 3339 in UTC, with up to nine digits."""
    whole, _, part = moment.rstrip("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * 10**9 + int(part[:9].ljust(9, "0") or 0)
    except ValueError:
        return 0
