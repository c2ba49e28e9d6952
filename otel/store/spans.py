"""One trace: its spans out of all files."""

from __future__ import annotations

from typing import Any, Final

from otel.store import runs
from otel.store.ids import span_hex, trace_halves, trace_hex
from otel.store.model import SpanEvent, SpanLink, SpanRow, Trace
from otel.store.plain import from_json
from otel.store.shards import Shards

KINDS: Final = ("internal", "server", "client", "producer", "consumer")
STATUSES: Final = ("unset", "ok", "error")
_COLUMNS: Final = (
    "trace_hi, trace_lo, span, parent, start, duration, name, kind, status, status_text, scope, resource, "
    "attributes, events, links"
)
#: A trace is told with at most so many bytes of attributes; what comes above has none.
MAX_BYTES: Final = 16 * 2**20


def trace(shards: Shards, trace_id: str, limit: int) -> Trace | None:
    """One trace, None when it is not known."""
    halves = trace_halves(trace_id.strip())
    if halves is None:
        return None
    sql = (
        f"SELECT {_COLUMNS} FROM spans INDEXED BY spans_trace WHERE trace_hi = ? AND trace_lo = ? "  # noqa: S608
        "LIMIT ?"
    )
    count = "SELECT count(*) FROM spans INDEXED BY spans_trace WHERE trace_hi = ? AND trace_lo = ?"
    rows: list[Any] = []
    total = 0
    resources: dict[int, Any] = {}
    files = shards.newest_first()
    for shard, found in shards.ask(lambda shard: shard.rows(sql, (*halves, limit)), shards=files):
        if not found:
            continue
        rows += found
        total += shard.one(count, halves)[0] if len(found) == limit else len(found)
        for number in {row[11] for row in found} - resources.keys():
            one = shard.one("SELECT attributes FROM resources WHERE id = ?", (number,))
            resources[number] = from_json(one[0]) if one is not None else {}
    if not rows:
        return None
    rows.sort(key=lambda row: row[4])
    left = MAX_BYTES
    spans = []
    for row in rows[:limit]:
        left -= sum(len(each) for each in row[12:] if each)
        spans.append(_span(row, whole=left >= 0))
    return Trace(trace_id.strip().lower(), tuple(spans), total, resources, runs.run_of_trace(shards, *halves))


def _span(row: Any, *, whole: bool) -> SpanRow:
    hi, lo, span, parent, start, duration, name, kind, status, text, scope, resource, attributes, events, links = row
    return SpanRow(
        trace_hex(hi, lo),
        span_hex(span),
        span_hex(parent),
        name,
        KINDS[kind] if 0 <= kind < len(KINDS) else KINDS[0],
        start,
        start + duration,
        STATUSES[status] if 0 <= status < len(STATUSES) else STATUSES[0],
        text or "",
        scope,
        from_json(attributes) if whole else {},
        _events(events) if whole and events else (),
        _links(links) if whole and links else (),
        resource,
    )


def _events(data: bytes) -> tuple[SpanEvent, ...]:
    return tuple(SpanEvent(each["n"], each["t"], each["a"]) for each in from_json(data) or ())


def _links(data: bytes) -> tuple[SpanLink, ...]:
    return tuple(SpanLink(each["i"], each["s"], each["a"]) for each in from_json(data) or ())
