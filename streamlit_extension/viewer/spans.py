"""What is told of spans: their labels, what failed, what was repeated, and everything about one. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from otel.names import Attribute
from otel.store.model import SpanRow, Trace
from streamlit_extension.viewer import text, waterfall

#: Attributes, events and links of a span that are shown before the reader asks for all, and then.
SHOWN, ALL = 60, 10_000
#: A statement that a run executes so often is worth a hint.
OFTEN: Final = 5
_STATEMENT: Final = Attribute.DB_QUERY_TEXT.value
_STACK: Final = Attribute.EXCEPTION_STACKTRACE.value


def bar_of(span: SpanRow) -> waterfall.Bar:
    """A span as the waterfall sees it; statements are alike when their text is."""
    group = str(span.attributes.get(_STATEMENT, ""))[:500] or span.kind
    failed = span.status == "error"
    return waterfall.Bar(span.span_id, span.parent_id, span.name, span.start_ns, span.end_ns, failed, group)


def label_of(span: SpanRow) -> str:
    """What a span did, in a line: a statement's text says more than its name."""
    statement = span.attributes.get(_STATEMENT)
    return text.one_line(statement if isinstance(statement, str) and statement else span.name, 160)


@dataclass(frozen=True, slots=True)
class Failure:
    """A span that failed by itself, not because one below it did."""

    span_id: str
    label: str
    error_type: str
    message: str
    is_statement: bool


def failures(spans: Sequence[SpanRow], told: str = "", most: int = 5) -> list[Failure]:
    """The deepest failed spans, statements first, `most` of them; one that says nothing has what its run `told`."""
    failed = {span.span_id: span for span in spans if span.status == "error" or _exception(span) is not None}
    above = {span.parent_id for span in failed.values()}
    deepest = [span for span_id, span in failed.items() if span_id not in above] or list(failed.values())
    return [_failure(span, told) for span in sorted(deepest, key=lambda span: not _is_statement(span))[:most]]


def _exception(span: SpanRow) -> Mapping[str, Any] | None:
    return next((event.attributes for event in span.events if event.name == "exception"), None)


def _failure(span: SpanRow, run_told: str) -> Failure:
    told = _exception(span) or {}
    kind = told.get(Attribute.EXCEPTION_TYPE.value) or span.attributes.get(Attribute.ERROR_TYPE.value) or ""
    message = told.get(Attribute.EXCEPTION_MESSAGE.value) or run_told or span.status_text
    return Failure(
        span.span_id, label_of(span), text.one_line(kind, 80), text.one_line(message, 400), _is_statement(span)
    )


def _is_statement(span: SpanRow) -> bool:
    return _STATEMENT in span.attributes or Attribute.DB_SYSTEM_NAME.value in span.attributes


@dataclass(frozen=True, slots=True)
class Repeat:
    """A statement that a run executed again and again."""

    span_id: str
    label: str
    count: int
    total_s: float


def repeats(spans: Sequence[SpanRow], least: int = OFTEN) -> list[Repeat]:
    """Statements with the same text, `least` times or more; the most frequent first."""
    found: dict[str, list[SpanRow]] = {}
    for span in spans:
        statement = span.attributes.get(_STATEMENT)
        if isinstance(statement, str) and statement:
            found.setdefault(statement, []).append(span)
    rows = [
        Repeat(group[0].span_id, label_of(group[0]), len(group), sum(span.duration_s for span in group))
        for group in found.values()
        if len(group) >= least
    ]
    return sorted(rows, key=lambda row: -row.count)


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a span as it is shown."""

    name: str
    time_ns: int
    attributes: Sequence[tuple[str, str]]
    stack: str


@dataclass(frozen=True, slots=True)
class Detail:
    """What is told of one span; `hidden` is how many attributes are not shown."""

    statement: str
    attributes: Sequence[tuple[str, str]]
    hidden: int
    events: Sequence[Told]
    links: Sequence[tuple[str, str]]
    resource: Sequence[tuple[str, str]]


def detail_of(span: SpanRow, trace: Trace, *, show_all: bool = False) -> Detail:
    """Everything about a span, as much of it as can be looked at."""
    limit = ALL if show_all else SHOWN
    most = text.ALL_CHARS if show_all else text.SHOWN_CHARS
    statement = span.attributes.get(_STATEMENT)
    pairs = pairs_of({name: value for name, value in span.attributes.items() if name != _STATEMENT}, limit, most)
    events = []
    for event in span.events[:limit]:
        rest = {name: value for name, value in event.attributes.items() if name != _STACK}
        stack = text.clean(event.attributes.get(_STACK, ""), max(most, 20_000))
        events.append(Told(text.one_line(event.name, 120), event.time_ns, pairs_of(rest, limit, most), stack))
    return Detail(
        text.clean(statement, max(most, 8_000)) if isinstance(statement, str) else "",
        pairs,
        len(span.attributes) - len(pairs) - (_STATEMENT in span.attributes),
        events,
        [(link.trace_id, link.span_id) for link in span.links[:limit]],
        pairs_of(trace.resources.get(span.resource, {}), limit, 500),
    )


def pairs_of(attributes: Mapping[str, Any], limit: int = SHOWN, most: int = 500) -> list[tuple[str, str]]:
    """Names and values as text, in order, `limit` of them."""
    names = sorted(attributes)[:limit]
    return [(text.one_line(name, 200), value_text(attributes[name], most)) for name in names]


def value_text(value: Any, most: int) -> str:
    """An attribute's value as text of at most `most` characters."""
    if isinstance(value, str):
        return text.clean(value, most)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return str(value)
    try:
        return text.clean(msgspec.json.encode(value).decode(), most)
    except (TypeError, ValueError):
        return text.clean(str(value), most)
