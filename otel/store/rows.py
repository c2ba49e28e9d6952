"""From finished records to rows: pure, bounded, and never raising for a single record's sake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel.records import LogFact
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
_MOVE: Final = 1 << 63
_LOW: Final = (1 << 64) - 1
#: Words of a record for its level, each from its least severity on: with them the full-text index knows levels too.
LEVEL_WORDS: Final = {13: "stxwarning", 17: "stxerror", 21: "stxcritical"}
_LEVEL_WORDS: Final = tuple(
    "".join(f"\n{word}" for least, word in LEVEL_WORDS.items() if severity >= least) for severity in range(25)
)


class SpanFacts(NamedTuple):
    """A finished span as far as more than its row is made of it."""

    trace_id: int
    span_id: int
    is_root: bool
    name: str
    failed: bool
    start_ns: int
    duration_ns: int
    attributes: Mapping[str, Any]
    error_message: str


def span_row(span: Any, resource: int) -> tuple[tuple[Any, ...], SpanFacts]:
    """A span's row without its number, and its facts; `resource` is the number of its resource."""
    try:  # the SDK's own names: the public ones are functions, or make copies
        context, parent, status, kind = span._context, span._parent, span._status, span._kind
        raw, events, links, scope = span._attributes, span._events, span._links, span._instrumentation_scope
        start, end, name = span._start_time, span._end_time, span._name
        code, description, number = status._status_code._value_, status._description, kind._value_
    except AttributeError:
        context, parent, status, kind = span.context, span.parent, span.status, span.kind
        raw, events, links, scope = span.attributes, span.events, span.links, span.instrumentation_scope
        start, end, name = span.start_time, span.end_time, span.name
        code, description, number = status.status_code.value, status.description, kind.value
    attributes: Mapping[str, Any] = getattr(raw, "_dict", raw) or {}
    start = nanoseconds(start)
    duration = max(0, nanoseconds(end) - start)
    failed = code == 2
    name = short(name)
    trace_id, span_id = context.trace_id, context.span_id
    row = (
        (trace_id >> 64) - _MOVE,
        (trace_id & _LOW) - _MOVE,
        span_id - _MOVE,
        None if parent is None else parent.span_id - _MOVE,
        start,
        duration,
        name,
        number,
        code,
        text(description) if description else None,
        "" if scope is None else short(scope.name),
        resource,
        to_json(attributes),
        _events(events) if events else None,
        _links(links) if links else None,
    )
    is_root = parent is None or bool(parent.is_remote)
    message = _error_message(events) if events else (description or "")
    facts = SpanFacts(trace_id, span_id, is_root, name, failed, start, duration, attributes, message)
    return row, facts


def short(name: Any) -> str:
    """A name, bounded; there are few, which are remembered."""
    if name.__class__ is not str:
        return text(str(name), MAX_NAME)
    found = _names.get(name)
    if found is None:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        found = _names[name] = text(name, MAX_NAME)
    return found


_names: Final[dict[Any, str]] = {}
_MAX_NAMES: Final = 2048


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


_MINUTE_NS: Final = 60 * 10**9


class LogRows(NamedTuple):
    """The rows of some log records, numbered, and their words."""

    rows: list[tuple[Any, ...]]
    words: list[tuple[int, str]]


def log_row(fact: LogFact, number: int) -> tuple[tuple[Any, ...], str]:
    """A log record's row, and the words it is found by."""
    attributes = fact.attributes
    trace_id, span_id = fact.trace_id, fact.span_id
    event = fact.event_name
    body = fact.body
    if body.__class__ is not str or len(body) > 8192 or not body.isascii():
        body = text(str(body))
    if event is not None:
        event = short(event)
    row = (
        number,
        nanoseconds(fact.timestamp_ns),
        fact.severity_number,
        _names.get(fact.severity_text) or short(fact.severity_text),
        _names.get(fact.scope) or short(fact.scope),
        event,
        body,
        (trace_id >> 64) - _MOVE if trace_id else None,
        (trace_id & _LOW) - _MOVE if trace_id else None,
        span_id - _MOVE if span_id else None,
        to_json(attributes),
    )
    return row, _words(body, event, attributes) + _LEVEL_WORDS[min(max(fact.severity_number, 0), 24)]


def _plain(fact: LogFact) -> LogFact:
    """A record whose fields are not what they should be, as texts."""
    trace_id, span_id = (each if each.__class__ is int else 0 for each in (fact.trace_id, fact.span_id))
    severity = fact.severity_number if fact.severity_number.__class__ is int else 0
    attributes = {"attributes": simple(fact.attributes)}
    body, level, scope = text(str(fact.body)), str(fact.severity_text), str(fact.scope)
    moment = nanoseconds(fact.timestamp_ns)
    return LogFact(moment, severity, level, body, attributes, None, trace_id, span_id, 0, scope)


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
    last, in_order = 0, True
    for fact in facts:
        number = numbers(nanoseconds(fact.timestamp_ns))
        try:
            row, found = log_row(fact, number)
        except Exception:
            row, found = log_row(_plain(fact), number)
        rows.append(row)
        words.append((number, found))
        if number < last:
            in_order = False
        last = number
    if not in_order:
        rows.sort(key=lambda each: each[0])
        words.sort(key=lambda each: each[0])
    return LogRows(rows, words)


def log_steps(logs: LogRows) -> dict[tuple[int, int], int]:
    """How many records there are of each minute and level."""
    found: dict[tuple[int, int], int] = {}
    for row in logs.rows:
        key = (row[1] // _MINUTE_NS, (row[2] - 1) // 4 * 4 + 1)
        found[key] = found.get(key, 0) + 1
    return found
