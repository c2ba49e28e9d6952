"""Log records: found by words, fields, trace, level and time, page by page, and followed."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

from otel.store.ids import row_id, span_hex, trace_hex
from otel.store.model import LogQuery, LogRow, Page
from otel.store.plain import from_json
from otel.store.queries import Conditions, conditions, field_matches
from otel.store.rows import LEVEL_WORDS
from otel.store.shards import PATIENCE_S, Shard, Shards, is_interrupt

_COLUMNS: Final = "logs.id, logs.time, severity, level, logger, event, body, trace_hi, trace_lo, span, attributes"
#: Rows that are looked at in one query where each is looked at: few at first, for most pages are full soon.
_FIRST_WINDOW, _WINDOW = 512, 32_768
#: Ids may differ from their times by this, in nanoseconds.
_SLACK_NS: Final = 4 * 10**9
_LAST: Final = (1 << 63) - 1


def search(shards: Shards, query: LogQuery, limit: int, cursor: str, newest_first: bool) -> Page[LogRow]:
    """One page."""
    wanted = conditions(query)
    position = _position(cursor)
    if wanted.impossible or limit < 1 or (cursor and position is None):
        return Page()
    deadline = time.monotonic() + PATIENCE_S
    walks = [
        _Walk(shard, wanted, query, newest_first, position, limit + 1, deadline) for shard in shards.newest_first()
    ]
    merged = heapq.merge(*(iter(walk) for walk in walks), key=lambda each: each[0], reverse=newest_first)
    found = list(itertools.islice(merged, limit + 1))
    for walk in walks:
        if walk.error is not None:
            shards._complain(walk.shard.path.name, walk.error)
    incomplete = any(walk.stopped for walk in walks)
    items = tuple(_log(name, row) for (_, name), row in found[:limit])
    if len(found) > limit:
        (number, name), _ = found[limit - 1]
        return Page(items, f"{number:x}.{name}")
    if incomplete:
        # Where the walk that got least far stands; what others found beyond it comes again with the next page.
        reached = [walk.reached for walk in walks if walk.stopped]
        at = max(reached) if newest_first else min(reached)
        kept = [each for each in found if (each[0] > at if newest_first else each[0] < at)]
        return Page(tuple(_log(name, row) for (_, name), row in kept), f"{at[0]:x}.{at[1]}", complete=False)
    return Page(items)


class _Walk:
    """The matching rows of one file, in order, as `((number, file), row)`."""

    def __init__(
        self,
        shard: Shard,
        wanted: Conditions,
        query: LogQuery,
        newest_first: bool,
        position: tuple[int, str] | None,
        limit: int,
        deadline: float,
    ) -> None:
        self.shard = shard
        self.error: Exception | None = None
        self.stopped = False
        self._wanted = wanted
        self._newest_first = newest_first
        self._limit = limit
        self._deadline = deadline
        since, until = query.since_ns, query.until_ns
        self._low = 0 if since is None else row_id(max(0, since - _SLACK_NS))
        self._high = _LAST if until is None else row_id(until + _SLACK_NS, -1)
        self._times = (since or 0, _LAST if until is None else until)
        if position is not None:
            number, name = position
            if newest_first:
                self._high = min(self._high, number if shard.name < name else number - 1)
            else:
                self._low = max(self._low, number if shard.name > name else number + 1)
        self.reached = (self._high + 1, "") if newest_first else (self._low - 1, "~")

    def __iter__(self) -> Iterator[tuple[tuple[int, str], Any]]:
        import sqlite3

        try:
            yield from self._indexed() if self._wanted.match or self._wanted.trace else self._windows()
        except sqlite3.Error as error:
            if is_interrupt(error):
                self.stopped = True
            else:
                self.error = error

    def _indexed(self) -> Iterator[tuple[tuple[int, str], Any]]:
        """Through the full-text index, or that of traces."""
        where, parameters = self._where()
        source = "logs"
        if self._wanted.match and self._wanted.trace is None:
            source = "words JOIN logs ON logs.id = words.rowid"
            where = ["words MATCH :match", "words.rowid BETWEEN :low AND :high", *where]
            order = "words.rowid"
        else:
            source = "logs INDEXED BY logs_trace"
            where = ["logs.id BETWEEN :low AND :high", *where]
            order = "logs.id"
            if self._wanted.match:
                where.append("EXISTS (SELECT 1 FROM words WHERE words MATCH :match AND words.rowid = logs.id)")
        parameters["match"] = self._match()
        direction = "DESC" if self._newest_first else "ASC"
        sql = f"SELECT {_COLUMNS} FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} {direction} LIMIT :limit"  # noqa: S608
        while True:
            rows = self.shard.rows(sql, {**parameters, "low": self._low, "high": self._high, "limit": self._limit})
            yield from self._fitting(rows)
            if len(rows) < self._limit:
                return
            self._go_on(rows[-1][0])
            if self._is_late():
                return

    def _match(self) -> str:
        """The query of the full-text index, with the word of the level."""
        least = max((each for each in LEVEL_WORDS if each <= self._wanted.min_severity), default=None)
        return self._wanted.match if least is None else f"({self._wanted.match}) AND {LEVEL_WORDS[least]}"

    def _windows(self) -> Iterator[tuple[tuple[int, str], Any]]:
        """Through the table itself, some thousand rows at once."""
        where, parameters = self._where()
        direction = "DESC" if self._newest_first else "ASC"
        far = "SELECT id FROM logs WHERE id BETWEEN :low AND :high {} ORDER BY id {} LIMIT 1 OFFSET :offset"
        index = next((each for each in where if each.startswith("severity >=")), "")
        far = far.format(f"AND {index}" if index else "", direction)
        conditions_ = " AND ".join(["id BETWEEN :low AND :high", *where])
        sql = f"SELECT {_COLUMNS} FROM logs WHERE {conditions_} ORDER BY id {direction} LIMIT :limit"  # noqa: S608
        window = _FIRST_WINDOW
        while self._low <= self._high:
            bounds = {"low": self._low, "high": self._high, "offset": window}
            window = min(4 * window, _WINDOW)
            end = self.shard.one(far, bounds)
            low, high = self._low, self._high
            if end is not None:
                low, high = (end[0], high) if self._newest_first else (low, end[0])
            rows = self.shard.rows(sql, {**parameters, "low": low, "high": high, "limit": self._limit})
            yield from self._fitting(rows)
            if len(rows) < self._limit and end is None:
                return
            self._go_on(rows[-1][0] if len(rows) == self._limit else end[0])
            if self._is_late():
                return

    def _fitting(self, rows: list[Any]) -> Iterator[tuple[tuple[int, str], Any]]:
        fields = self._wanted.fields
        for row in rows:
            if not fields or field_matches(from_json(row[10]), fields):
                yield (row[0], self.shard.name), row

    def _go_on(self, number: int) -> None:
        """What comes next begins behind `number`."""
        self.reached = (number, self.shard.name)
        if self._newest_first:
            self._high = number - 1
        else:
            self._low = number + 1

    def _is_late(self) -> bool:
        if time.monotonic() > self._deadline:
            self.stopped = True
        return self.stopped

    def _where(self) -> tuple[list[str], dict[str, Any]]:
        wanted = self._wanted
        where: list[str] = []
        parameters: dict[str, Any] = {}
        if self._times != (0, _LAST):
            where.append("logs.time >= :since AND logs.time < :until")
            parameters["since"], parameters["until"] = self._times
        if wanted.min_severity:  # literally, so that the indexes of warnings and of errors are used
            where.append(f"severity >= {int(wanted.min_severity)}")
        for column in ("logger", "event"):
            if value := getattr(wanted, column):
                where.append(f"{column} = :{column}")
                parameters[column] = value
        if wanted.trace is not None:
            where.append("trace_hi BETWEEN :hi1 AND :hi2")
            if wanted.trace[0] == wanted.trace[1]:
                where.append("trace_lo BETWEEN :lo1 AND :lo2")
            parameters |= dict(zip(("hi1", "hi2", "lo1", "lo2"), wanted.trace, strict=True))
        if wanted.unwanted:
            where.append("NOT EXISTS (SELECT 1 FROM words WHERE words MATCH :unwanted AND words.rowid = logs.id)")
            parameters["unwanted"] = wanted.unwanted
        if wanted.span_id:
            where.append("span = :span")
            parameters["span"] = _span(wanted.span_id)
        return where, parameters


def _span(span_id: str) -> int | None:
    try:
        return int(span_id, 16) - (1 << 63)
    except ValueError:
        return None


def _position(cursor: str) -> tuple[int, str] | None:
    number, _, name = cursor.partition(".")
    try:
        return (int(number, 16), name) if cursor and len(number) <= 16 else None
    except ValueError:
        return None


def _log(name: str, row: Any) -> LogRow:
    number, time_ns, severity, level, logger, event, body, hi, lo, span, attributes = row
    return LogRow(
        f"{number:x}.{name}",
        time_ns,
        severity,
        level,
        logger,
        event or "",
        body,
        trace_hex(hi, lo),
        span_hex(span),
        from_json(attributes),
    )


class LogTail:
    """Follows what is written: each `poll` returns the records that came since the one before, oldest first."""

    def __init__(self, shards: Shards, query: LogQuery, clock: Any = time.time) -> None:
        self._shards = shards
        self._query = query
        self._clock = clock
        self._after: dict[str, int] = {}
        self._known = False
        self.poll(0)
        self._known = True

    def poll(self, limit: int = 500) -> list[LogRow]:
        """Return what is new, at most `limit`; what is left comes with the next call. Never waits."""
        found: list[LogRow] = []
        wanted = conditions(self._query)
        horizon = row_id(int((self._clock() + 60) * 1e9))
        for shard in reversed(self._shards.newest_first()):
            if not self._known:
                newest = list(self._shards.ask(lambda each: _newest(each, horizon), shards=[shard]))
                self._after[shard.name] = newest[0][1] if newest else 0
                continue
            room = limit - len(found)
            if room <= 0 or wanted.impossible:
                break
            walk = _Walk(shard, wanted, self._query, False, None, room, time.monotonic() + PATIENCE_S)
            walk._low = max(walk._low, self._after.get(shard.name, 0) + 1)
            walk._high = min(walk._high, horizon)
            newest = list(self._shards.ask(lambda each: _newest(each, horizon), shards=[shard]))
            if not newest or newest[0][1] < walk._low:
                continue
            walk._high = newest[0][1]
            rows = list(itertools.islice(walk, room))
            full = len(rows) == room or walk.stopped
            self._after[shard.name] = (rows[-1][0][0] if len(rows) == room else walk.reached[0]) if full else walk._high
            found += [_log(name, row) for (_, name), row in rows]
        self._after = {name: self._after[name] for name in self._after if name in _names(self._shards)}
        return sorted(found, key=lambda each: each.time_ns)


def _names(shards: Shards) -> set[str]:
    return {shard.name for shard in shards.newest_first()}


def _newest(shard: Shard, horizon: int) -> int:
    found = shard.one("SELECT max(id) FROM logs WHERE id <= ?", (horizon,))
    return found[0] or 0
