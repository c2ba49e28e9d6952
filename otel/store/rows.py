"""From finished records to rows: pure, bounded, and never raising for a single record's sake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel.records import LogFact
from otel.store.ids import half
from otel.store.plain import simple, text, to_json

if TYPE_CHECKING:
    from otel.store.ids import Numbers

#: Longest name of a span, a logger, an event, a page.
MAX_NAME: Final = 512
#: Characters of one value, and of a whole record, that are searched by words.
WORDS_OF_VALUE: Final = 4096
WORDS: Final = 16 * 1024
#: Most events and links of a span.
MAX_EVENTS: Final = 128
_INT64: Final = 1 << 63


class SpanFacts(NamedTuple):
    """A finished span as far as more than its row is made of it."""

    trace_id: int
    span_id: int
    is_root: bool
    name: str
    kind: int
    failed: bool
    start_ns: int
    duration_ns: int
    attributes: Mapping[str, Any]
    error_message: str


def span_row(span: Any, resource_of: Callable[[Any], int]) -> tuple[tuple[Any, ...], SpanFacts]:
    """A span's row without its number, and its facts."""
    context, parent = span.context, span.parent
    raw = span._attributes if hasattr(span, "_attributes") else span.attributes
    attributes: Mapping[str, Any] = getattr(raw, "_dict", raw) or {}
    start = nanoseconds(span.start_time)
    duration = max(0, nanoseconds(span.end_time) - start)
    status = span.status
    code = status.status_code.value
    name = text(str(span.name), MAX_NAME)
    events = span._events if hasattr(span, "_events") else span.events
    links = span._links if hasattr(span, "_links") else span.links
    scope = span.instrumentation_scope
    kind = span.kind.value
    trace_id, span_id = context.trace_id, context.span_id
    row = (
        half(trace_id >> 64),
        half(trace_id),
        half(span_id),
        None if parent is None else half(parent.span_id),
        start,
        duration,
        name,
        kind,
        code,
        text(status.description) if status.description else None,
        "" if scope is None else text(str(scope.name), MAX_NAME),
        resource_of(span.resource),
        to_json(attributes),
        _events(events) if events else None,
        _links(links) if links else None,
    )
    facts = SpanFacts(
        trace_id,
        span_id,
        parent is None or bool(parent.is_remote),
        name,
        kind,
        code == 2,
        start,
        duration,
        attributes,
        _error_message(events) if events else (status.description or ""),
    )
    return row, facts


def _events(events: Sequence[Any]) -> bytes:
    parts = []
    for each in list(events)[:MAX_EVENTS]:
        attributes = to_json(each.attributes) or b"{}"
        head = to_json({"n": text(str(each.name), MAX_NAME), "t": nanoseconds(each.timestamp)}) or b"{}"
        parts.append(head[:-1] + b',"a":' + attributes + b"}")
    return b"[" + b",".join(parts) + b"]"


def _links(links: Sequence[Any]) -> bytes:
    parts = []
    for each in list(links)[:MAX_EVENTS]:
        attributes = to_json(each.attributes) or b"{}"
        ids = f'{{"i":"{each.context.trace_id:032x}","s":"{each.context.span_id:016x}","a":'.encode()
        parts.append(ids + attributes + b"}")
    return b"[" + b",".join(parts) + b"]"


def _error_message(events: Sequence[Any]) -> str:
    for each in events:
        if each.name == "exception" and each.attributes:
            return text(str(each.attributes.get("exception.message", "")), 2048)
    return ""


def nanoseconds(value: Any) -> int:
    """A moment in SQLite's range; 0 for none."""
    return value if value.__class__ is int and 0 <= value < _INT64 else 0 if not value else _clamped(value)


def _clamped(value: Any) -> int:
    try:
        return int(min(max(value, 0), _INT64 - 1))
    except (TypeError, ValueError, OverflowError):
        return 0


class LogRows(NamedTuple):
    """The rows of some log records, numbered, and their words."""

    rows: list[tuple[Any, ...]]
    words: list[tuple[int, str]]


def log_row(fact: LogFact, number: int) -> tuple[tuple[Any, ...], str]:
    """A log record's row, and the words it is found by."""
    attributes = fact.attributes
    trace_id = fact.trace_id
    event = fact.event_name
    body = fact.body if fact.body.__class__ is str and fact.body.isascii() and len(fact.body) < 8192 else None
    if body is None:
        body = text(str(fact.body))
    if event is not None:
        event = text(str(event), MAX_NAME)
    data = to_json(attributes)
    row = (
        number,
        nanoseconds(fact.timestamp_ns),
        fact.severity_number,
        text(str(fact.severity_text), 64),
        text(str(fact.scope), MAX_NAME),
        event,
        body,
        half(trace_id >> 64) if trace_id else None,
        half(trace_id) if trace_id else None,
        half(fact.span_id) if fact.span_id else None,
        data,
    )
    return row, _words(body, event, attributes)


def _words(body: str, event: str | None, attributes: Mapping[str, Any]) -> str:
    """What a log record is found by: its message, its event, its values."""
    parts = [body if len(body) <= WORDS_OF_VALUE else body[:WORDS_OF_VALUE]]
    if event:
        parts.append(event)
    size = 0
    for value in attributes.values():
        kind = value.__class__
        if kind is str:
            part = value if len(value) <= WORDS_OF_VALUE else value[:WORDS_OF_VALUE]
        elif kind is int or kind is float:
            part = str(value) if -_INT64 < value < _INT64 else ""
        elif kind is bool or value is None:
            continue
        else:
            part = str(simple(value))[:WORDS_OF_VALUE]
        size += len(part)
        if size > WORDS:
            break
        parts.append(part)
    found = "\n".join(parts)
    return found if found.isascii() else text(found, WORDS * 2)


def log_rows(facts: Sequence[LogFact], numbers: Numbers) -> LogRows:
    """The rows of log records in the order of their numbers; full-text search takes them in no other."""
    rows, words = [], []
    for fact in facts:
        row, found = log_row(fact, numbers(nanoseconds(fact.timestamp_ns)))
        rows.append(row)
        words.append((row[0], found))
    if any(rows[i][0] > rows[i + 1][0] for i in range(len(rows) - 1)):
        rows.sort(key=lambda each: each[0])
        words.sort(key=lambda each: each[0])
    return LogRows(rows, words)
