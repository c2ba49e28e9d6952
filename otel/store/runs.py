"""Runs and sessions: filtered, newest first, page by page."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, Final

from otel.store.ids import half, prefix_ranges, row_id, span_hex, trace_halves, trace_hex
from otel.store.model import Page, RunFilter, RunRow, SessionRow
from otel.store.shards import PATIENCE_S, Shard, Shards, is_interrupt

COLUMNS: Final = (
    "id, trace_hi, trace_lo, span, name, type, session, page, cause, outcome, start, duration, error_type, "
    "error_message, spans, queries, query_ns, repeats, errors"
)
#: Runs that are looked at in one query: few at first, for most pages are full soon.
_FIRST_WINDOW, _WINDOW = 256, 16_384
_LAST: Final = (1 << 63) - 1
_MAX_WORDS: Final = 16


def search(shards: Shards, wanted: RunFilter, limit: int, cursor: str) -> Page[RunRow]:
    """One page, newest first."""
    position = position_of(cursor)
    if limit < 1 or (cursor and position is None):
        return Page()
    deadline = time.monotonic() + PATIENCE_S
    walks = [_Walk(shard, wanted, position, limit + 1, deadline, shards) for shard in shards.newest_first()]
    merged = heapq.merge(*(iter(walk) for walk in walks), key=lambda each: each[0], reverse=True)
    found = list(itertools.islice(merged, limit + 1))
    items = tuple(run_of(row) for _, row in found[:limit])
    if len(found) > limit:
        number, name = found[limit - 1][0]
        return Page(items, f"{number:x}.{name}")
    if any(walk.stopped for walk in walks):
        at = max(walk.reached for walk in walks if walk.stopped)
        return Page(tuple(run_of(row) for key, row in found if key > at), f"{at[0]:x}.{at[1]}", complete=False)
    return Page(items)


def position_of(cursor: str) -> tuple[int, str] | None:
    """The number and the file that a cursor names."""
    number, _, name = cursor.partition(".")
    try:
        return (int(number, 16), name) if cursor and len(number) <= 16 else None
    except ValueError:
        return None


class _Walk:
    """The matching runs of one file, newest first, as `((number, file), row)`."""

    def __init__(
        self,
        shard: Shard,
        wanted: RunFilter,
        position: tuple[int, str] | None,
        limit: int,
        deadline: float,
        shards: Shards,
    ) -> None:
        self._shard = shard
        self._shards = shards
        self._limit = limit
        self._deadline = deadline
        self._where, self._parameters = _where(wanted)
        self._low = 0 if wanted.since_ns is None else row_id(max(0, wanted.since_ns - 1_000_000))
        self._high = _LAST if wanted.until_ns is None else row_id(wanted.until_ns, -1)
        if position is not None:
            number, name = position
            self._high = min(self._high, number if shard.name < name else number - 1)
        self.stopped = False
        self.reached = (self._high + 1, "")

    def __iter__(self) -> Iterator[tuple[tuple[int, str], Any]]:
        where = " AND ".join(["id BETWEEN :low AND :high", *self._where])
        sql = f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY id DESC LIMIT :limit"  # noqa: S608
        far = "SELECT id FROM runs WHERE id BETWEEN :low AND :high ORDER BY id DESC LIMIT 1 OFFSET :offset"
        window = _FIRST_WINDOW
        try:
            while self._low <= self._high:
                bounds: dict[str, Any] = {"low": self._low, "high": self._high, "offset": window}
                window = min(4 * window, _WINDOW)
                end = self._shard.one(far, bounds)
                low = self._low if end is None else end[0]
                rows = self._shard.rows(sql, {**self._parameters, "low": low, "high": self._high, "limit": self._limit})
                yield from (((row[0], self._shard.name), row) for row in rows)
                if len(rows) < self._limit and end is None:
                    return
                reached = rows[-1][0] if len(rows) == self._limit else low
                self.reached, self._high = (reached, self._shard.name), reached - 1
                if time.monotonic() > self._deadline:
                    self.stopped = True
                    return
        except sqlite3.Error as error:
            if is_interrupt(error):
                self.stopped = True
            else:
                self._shards._complain(self._shard.path.name, error)


def _where(wanted: RunFilter) -> tuple[list[str], dict[str, Any]]:
    """The conditions that a filter asks for, with what they compare to."""
    shortest, longest = wanted.min_duration_s, wanted.max_duration_s
    asked: list[tuple[str, str, Any]] = [
        ("page = :page", "page", wanted.page or None),
        ("outcome = :outcome", "outcome", wanted.outcome or None),
        ("session = :session", "session", wanted.session_id or None),
        ("duration >= :shortest", "shortest", None if shortest is None else _nanoseconds(shortest)),
        ("duration <= :longest", "longest", None if longest is None else _nanoseconds(longest)),
        ("start >= :since", "since", wanted.since_ns),
        ("start < :until", "until", wanted.until_ns),
        *((f"type{i}", f"type{i}", each) for i, each in enumerate(wanted.types)),
        *(_word(i, word) for i, word in enumerate(wanted.text.lower().split()[:_MAX_WORDS])),
    ]
    parameters = {name: value for _, name, value in asked if value is not None}
    where = [condition for condition, name, value in asked if value is not None and condition != name]
    if wanted.types:
        where.append(f"type IN ({', '.join(f':type{i}' for i in range(len(wanted.types)))})")
    if wanted.failed:
        where.append("outcome IN ('error', 'compile_error')")
    return where, parameters


def _word(place: int, word: str) -> tuple[str, str, str]:
    """A word that a run's text holds, or that its trace id begins with."""
    condition = f"instr(text, :word{place})"
    ranges = prefix_ranges(word) if len(word) >= 6 else None
    if ranges is not None:
        condition = f"({condition} OR trace_hi BETWEEN {ranges[0]} AND {ranges[1]})"
    return condition, f"word{place}", word.replace("\0", " ").encode("utf-8", "replace").decode()


def _nanoseconds(seconds: float) -> int:
    return int(min(max(seconds, 0.0), 9e9) * 1e9)


def run_of(row: Any) -> RunRow:
    """A run from its columns."""
    _, hi, lo, span, name, type_, session, page, cause, outcome, start, duration, error, message, *counts = row
    spans, queries, query_ns, repeats, errors = counts
    return RunRow(
        trace_hex(hi, lo),
        span_hex(span),
        name,
        type_,
        session,
        page,
        cause,
        outcome,
        start,
        duration / 1e9,
        error,
        message,
        spans,
        queries,
        query_ns / 1e9,
        repeats,
        errors,
    )


def pages(shards: Shards) -> list[str]:
    """The names of all pages that ran, in order: from name to name through the index, never over every run."""
    sql = """
        WITH RECURSIVE names (page) AS (
            SELECT min(page) FROM runs WHERE page != ''
            UNION ALL
            SELECT (SELECT min(page) FROM runs WHERE page != '' AND page > names.page) FROM names
            WHERE names.page IS NOT NULL LIMIT 1000)
        SELECT page FROM names WHERE EXISTS (
            SELECT 1 FROM runs WHERE page != '' AND page = names.page AND type = 'full')"""
    asked = shards.ask(lambda shard: shard.rows(sql))
    return sorted({row[0] for _, rows in asked for row in rows})


def run_of_trace(shards: Shards, hi: int, lo: int) -> RunRow | None:
    """The run that a trace is of: of several roots the first."""
    sql = f"SELECT {COLUMNS} FROM runs WHERE trace_hi = ? AND trace_lo = ? ORDER BY id LIMIT 1"  # noqa: S608
    found = [row for _, row in shards.ask(lambda shard: shard.one(sql, (hi, lo))) if row is not None]
    return run_of(min(found, key=lambda row: row[10])) if found else None


def find(shards: Shards, prefix: str, limit: int) -> list[RunRow]:
    """Roots of traces whose id begins with `prefix`, newest first."""
    ranges = prefix_ranges(prefix.strip().lower())
    if ranges is None or limit < 1:
        return []
    hi1, hi2, lo1, lo2 = ranges
    exact = "" if hi1 != hi2 else f" AND trace_lo BETWEEN {lo1} AND {lo2}"
    runs = (
        f"SELECT {COLUMNS} FROM runs INDEXED BY runs_trace WHERE trace_hi BETWEEN ? AND ?{exact} "  # noqa: S608
        "ORDER BY id DESC LIMIT ?"
    )
    spans = (
        "SELECT trace_hi, trace_lo, span, name, min(start), max(start + duration), count(*), max(status) "  # noqa: S608
        f"FROM spans INDEXED BY spans_trace WHERE trace_hi BETWEEN ? AND ?{exact} "
        "GROUP BY trace_hi, trace_lo ORDER BY min(start) DESC LIMIT ?"
    )
    found: dict[str, RunRow] = {}
    for _, rows in shards.ask(lambda shard: shard.rows(runs, (hi1, hi2, limit))):
        for row in rows:
            run = run_of(row)
            if run.trace_id not in found or run.start_ns < found[run.trace_id].start_ns:
                found[run.trace_id] = run
    if len(found) < limit and len(prefix.strip()) >= 4:
        for _, rows in shards.ask(lambda shard: shard.rows(spans, (hi1, hi2, limit))):
            for hi, lo, span, name, start, end, count, status in rows:
                if (trace_id := trace_hex(hi, lo)) not in found:
                    outcome = "error" if status == 2 else ""
                    seconds = (end - start) / 1e9
                    found[trace_id] = RunRow(
                        *(trace_id, span_hex(span), name, "other", "", "", "", outcome, start, seconds, "", ""),
                        *(count, 0, 0.0, 0, int(status == 2)),
                    )
    return sorted(found.values(), key=lambda run: run.start_ns, reverse=True)[:limit]


# -- sessions -------------------------------------------------------------------------------------------------------

_SESSION: Final = "session, first, last, runs, failed, run_ns, last_page, last_hi, last_lo"


def sessions(shards: Shards, since_ns: int | None, limit: int, cursor: str) -> Page[SessionRow]:
    """Sessions, the one that ran last first; the cursor is the moment and the id of the last one shown."""
    moment, _, name = cursor.partition(".")
    try:
        last, name = (int(moment, 16), name) if cursor else (_LAST, "")
    except ValueError:
        return Page()
    sql = (
        f"SELECT {_SESSION} FROM sessions WHERE last >= ? AND (last, session) < (?, ?) "  # noqa: S608
        "ORDER BY last DESC, session DESC LIMIT ?"
    )
    files = shards.newest_first()
    candidates: dict[str, int] = {}
    for _, rows in shards.ask(lambda shard: shard.rows(sql, (since_ns or 0, last, name, limit + 1)), shards=files):
        for row in rows:
            candidates[row[0]] = max(candidates.get(row[0], 0), row[2])
    ordered = sorted(candidates.items(), key=lambda each: (each[1], each[0]), reverse=True)
    found: list[SessionRow] = []
    for each, seen in ordered:
        row = session(shards, each, files)
        if row is not None and row.last_ns == seen:  # else it ran later, in another file, and stands above
            found.append(row)
        if len(found) > limit:
            break
    if len(found) > limit:
        end = found[limit - 1]
        return Page(tuple(found[:limit]), f"{end.last_ns:x}.{end.session_id}")
    return Page(tuple(found))


def session(shards: Shards, session_id: str, files: list[Shard] | None = None) -> SessionRow | None:
    """One session out of all files."""
    sql = f"SELECT {_SESSION} FROM sessions WHERE session = ?"  # noqa: S608
    session_id = session_id.encode("utf-8", "replace").decode()
    rows = [row for _, row in shards.ask(lambda shard: shard.one(sql, (session_id,)), shards=files) if row is not None]
    if not rows:
        return None
    last = max(rows, key=lambda row: row[2])
    return SessionRow(
        session_id,
        min(row[1] for row in rows),
        last[2],
        sum(row[3] for row in rows),
        sum(row[4] for row in rows),
        sum(row[5] for row in rows) / 1e9,
        last[6],
        trace_hex(last[7], last[8]),
    )


def neighbours(shards: Shards, run: RunRow) -> tuple[RunRow | None, RunRow | None]:
    """The runs of a session before and after one."""
    halves = trace_halves(run.trace_id)
    if not run.session_id or halves is None:
        return None, None
    sql = (
        f"SELECT {COLUMNS} FROM runs WHERE session = ? AND session != '' AND id {{}} ? "  # noqa: S608
        "AND NOT (trace_hi = ? AND trace_lo = ?) AND start {} ? ORDER BY id {} LIMIT 1"
    )
    number = row_id(run.start_ns)
    before_sql, after_sql = sql.format("<=", "<=", "DESC"), sql.format(">=", ">=", "ASC")
    before, after = [], []
    for _, (one, other) in shards.ask(
        lambda shard: (
            shard.one(before_sql, (run.session_id, number | 4095, *halves, run.start_ns)),
            shard.one(after_sql, (run.session_id, number, *halves, run.start_ns)),
        )
    ):
        before += [one] if one is not None else []
        after += [other] if other is not None else []
    return (
        run_of(max(before, key=lambda row: row[10])) if before else None,
        run_of(min(after, key=lambda row: row[10])) if after else None,
    )


def span_number(span_id: str) -> int:
    """A span's id as a number."""
    return half(int(span_id, 16))
