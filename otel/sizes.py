"""About how many bytes records hold in memory while they wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel.records import LogFact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# Measured with tracemalloc, without attributes' values: a finished span with its context, lists and locks; an event of
# a span; a log fact; a metric's data point.
SPAN_BYTES: Final = 2000
EVENT_BYTES: Final = 1000
FACT_BYTES: Final = 800
POINT_BYTES: Final = 500
#: Deepest nesting that is measured.
MAX_DEPTH: Final = 8


def span_bytes(span: ReadableSpan) -> int:
    """About what a finished span holds in memory, by what every span tells."""
    try:
        return SPAN_BYTES + value_bytes(dict(span.attributes or {}))
    except Exception:  # a span of another make
        return SPAN_BYTES


def events_bytes(span: ReadableSpan) -> int:
    """About what a span's events hold."""
    try:
        return sum(EVENT_BYTES + value_bytes(dict(event.attributes or {})) for event in span.events)
    except Exception:
        return EVENT_BYTES


def fact_bytes(fact: LogFact) -> int:
    """About what a log record holds in memory."""
    try:
        return FACT_BYTES + len(fact.body) + value_bytes(fact.attributes)
    except Exception:
        return FACT_BYTES


def value_bytes(value: Any, depth: int = 0) -> int:
    """About what a value of attributes holds, nested ones included."""
    if isinstance(value, (str, bytes)):
        return 50 + len(value)
    if depth > MAX_DEPTH or not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return 32
    size = 50
    for each in value:
        size += 50
        size += value_bytes(value[each] if isinstance(value, Mapping) else each, depth + 1)
    return size
