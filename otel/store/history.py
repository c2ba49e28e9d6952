"""Changes of health and alerts, what sessions hold, and what the folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from otel.store import schema
from otel.store.ids import SEQUENCE_BITS, row_id, trace_hex
from otel.store.model import Page, SessionMemoryRow, StoreFacts, Transition
from otel.store.plain import from_json
from otel.store.runs import position_of
from otel.store.shards import Shard, Shards

_LAST: Final = (1 << 63) - 1
_LARGEST: Final = 50


def transitions(
    shards: Shards, kinds: Sequence[str], name: str, since_ns: int | None, limit: int, cursor: str
) -> Page[Transition]:
    """One page, newest first."""
    position = position_of(cursor)
    if limit < 1 or (cursor and position is None):
        return Page()
    number, file = position or (_LAST, "~")
    where = ["id >= ?", "id <= ?"]
    parameters: list[Any] = []
    if kinds:
        where.append(f"kind IN ({', '.join('?' * len(kinds))})")
        parameters += kinds
    if name:
        where.append("name = ?")
        parameters.append(name)
    sql = (
        "SELECT id, time, kind, event, name, old, new, message, trace_hi, trace_lo, attributes FROM transitions "  # noqa: S608
        f"WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
    )
    low = 0 if since_ns is None else row_id(max(0, since_ns))
    found: list[tuple[tuple[int, str], Any]] = []

    def question(shard: Shard) -> list[Any]:
        return shard.rows(sql, (low, number if shard.name < file else number - 1, *parameters, limit + 1))

    for shard, rows in shards.ask(question):
        found += [((row[0], shard.name), row) for row in rows]
    found.sort(key=lambda each: each[0], reverse=True)
    items = tuple(_transition(row) for _, row in found[:limit])
    if len(found) > limit:
        return Page(items, f"{found[limit - 1][0][0]:x}.{found[limit - 1][0][1]}")
    return Page(items)


def _transition(row: Any) -> Transition:
    _, time_ns, kind, event, name, old, new, message, hi, lo, attributes = row
    return Transition(time_ns, kind, event, name, old, new, message, trace_hex(hi, lo), from_json(attributes))


def largest_sessions(shards: Shards) -> tuple[SessionMemoryRow, ...]:
    """The sessions that held most when memory was last sampled."""
    sql = "SELECT session, time, state, uploads FROM session_memory ORDER BY time DESC LIMIT 1000"
    found: dict[str, SessionMemoryRow] = {}
    for _, rows in shards.ask(lambda shard: shard.rows(sql)):
        for name, time_ns, state, uploads in rows:
            if name not in found or found[name].time_ns < time_ns:
                found[name] = SessionMemoryRow(name, time_ns, state + uploads, state, uploads)
    newest = max((each.time_ns for each in found.values()), default=0)
    recent = [each for each in found.values() if newest - each.time_ns < 600 * 10**9]
    return tuple(sorted(recent, key=lambda each: each.bytes, reverse=True)[:_LARGEST])


def facts(shards: Shards) -> StoreFacts:
    """What the folder holds."""
    files = shards.newest_first()
    oldest: list[int] = []
    newest: list[int] = []
    spans = logs = 0
    sql = (
        "SELECT (SELECT max(id) FROM spans), (SELECT sum(count) FROM log_steps), "
        "(SELECT min(id) FROM logs), (SELECT max(id) FROM logs), (SELECT min(id) FROM runs), (SELECT max(id) FROM runs)"
    )
    for _, row in shards.ask(lambda shard: shard.one(sql), shards=files):
        spans += row[0] or 0
        logs += row[1] or 0
        oldest += [each for each in (row[2], row[4]) if each is not None]
        newest += [each for each in (row[3], row[5]) if each is not None]
    return StoreFacts(
        len(files),
        sum(schema.size_of(shard.path) for shard in files),
        (min(oldest) >> SEQUENCE_BITS) * 1_000_000 if oldest else None,
        (max(newest) >> SEQUENCE_BITS) * 1_000_000 if newest else None,
        spans,
        logs,
        tuple(shards.problems.values()),
    )
