"""One file that this process writes: its claim, its connection, and the statements that put a commit into it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from otel.spool.claim import Claim
from otel.store import schema
from otel.store.ids import half
from otel.store.points import PointRows
from otel.store.rows import LogRows
from otel.store.traces import OpenTrace, TraceRows

_TRIES: Final = 8
_SPAN: Final = (
    "INSERT INTO spans (trace_hi, trace_lo, span, parent, start, duration, name, kind, status, status_text, scope, "
    "resource, attributes, events, links) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_RUN: Final = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LATE: Final = (
    "UPDATE runs SET spans = spans + ?, queries = queries + ?, query_ns = query_ns + ?, errors = errors + ? "
    "WHERE id = ?"
)
_ADD: Final = "INSERT INTO {} ON CONFLICT DO UPDATE SET count = count + excluded.count, total = total + excluded.total"
_RUN_STEP: Final = _ADD.format("run_steps VALUES (?, ?, ?, ?, ?, ?)")
_RUN_TEN: Final = _ADD.format("run_tens VALUES (?, ?, ?, ?, ?)")
_RUN_HOUR: Final = _ADD.format("run_hours VALUES (?, ?, ?, ?, ?, ?)")
_SESSION: Final = (
    "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "first = min(first, excluded.first), runs = runs + excluded.runs, failed = failed + excluded.failed, "
    "run_ns = run_ns + excluded.run_ns, last_page = iif(excluded.last >= last, excluded.last_page, last_page), "
    "last_hi = iif(excluded.last >= last, excluded.last_hi, last_hi), "
    "last_lo = iif(excluded.last >= last, excluded.last_lo, last_lo), last = max(last, excluded.last)"
)
_STATEMENT: Final = "INSERT OR IGNORE INTO statements VALUES (?, ?, ?, ?, ?)"
_STATEMENT_STEP: Final = (
    "INSERT INTO statement_steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "count = count + excluded.count, errors = errors + excluded.errors, total = total + excluded.total, "
    "max = max(max, excluded.max), runs = runs + excluded.runs, "
    "last_hi = iif(excluded.last >= last, excluded.last_hi, last_hi), "
    "last_lo = iif(excluded.last >= last, excluded.last_lo, last_lo), last = max(last, excluded.last)"
)
_REPEAT: Final = "INSERT OR REPLACE INTO repeats VALUES (?, ?, ?, ?)"
_LOG: Final = "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_WORDS: Final = "INSERT INTO words (rowid, text) VALUES (?, ?)"
_LOG_STEP: Final = "INSERT INTO log_steps VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
_TRANSITION: Final = "INSERT INTO transitions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SERIES: Final = "INSERT OR IGNORE INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SUM: Final = (
    "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n, "
    "value = value + excluded.value, low = min(low, excluded.low), high = max(high, excluded.high)"
)
_LAST: Final = "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_EXEMPLAR: Final = "INSERT OR IGNORE INTO exemplars VALUES (?, ?, ?, ?, ?, ?)"
_SESSION_MEMORY: Final = "INSERT OR REPLACE INTO session_memory VALUES (?, ?, ?, ?)"
_RESOURCE: Final = "INSERT OR IGNORE INTO resources VALUES (?, ?)"


class Rows(msgspec.Struct):
    """All that one commit writes, table by table."""

    resources: dict[int, bytes] = msgspec.field(default_factory=dict)
    spans: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    traces: TraceRows = msgspec.field(default_factory=TraceRows)
    logs: LogRows = msgspec.field(default_factory=lambda: LogRows([], []))
    log_steps: dict[tuple[int, int], int] = msgspec.field(default_factory=dict)
    transitions: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    session_memory: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    points: PointRows = msgspec.field(default_factory=PointRows)

    def statements(self) -> list[tuple[str, Sequence[tuple[Any, ...]]]]:
        """The statements with their rows, in order; those without rows are left out."""
        traces, points = self.traces, self.points
        found: list[tuple[str, Sequence[tuple[Any, ...]]]] = [
            (_RESOURCE, list(self.resources.items())),
            (_SPAN, self.spans),
            (_RUN, traces.runs),
            (_LATE, [_late(number, each) for number, each in traces.late.items()]),
            (_RUN_STEP, [(*key, *values) for key, values in traces.run_steps.items()]),
            (_RUN_TEN, _sums((minute // 10, *key[1:], *each) for (minute, *key), each in traces.run_steps.items())),
            (_RUN_HOUR, _sums((minute // 60, *key, *each) for (minute, *key), each in traces.run_steps.items())),
            (_SESSION, [(name, *values) for name, values in traces.sessions.items()]),
            (_STATEMENT, [(number, *each) for number, each in traces.statements.items()]),
            (_STATEMENT_STEP, [_step(key, values) for key, values in traces.statement_steps.items()]),
            (_REPEAT, traces.repeats),
            (_LOG, self.logs.rows),
            (_WORDS, self.logs.words),
            (_LOG_STEP, [(*key, count) for key, count in self.log_steps.items()]),
            (_TRANSITION, self.transitions),
            (_SERIES, points.series),
            (_SUM, points.sums),
            (_LAST, points.lasts),
            (_EXEMPLAR, points.exemplars),
            (_SESSION_MEMORY, self.session_memory),
        ]
        return [(statement, rows) for statement, rows in found if rows]


def _sums(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with the same key added up; the last two columns are count and total."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for *key, count, total in rows:
        held = found.setdefault(tuple(key), [0, 0])
        held[0] += count
        held[1] += total
    return [(*key, *held) for key, held in found.items()]


def _step(key: tuple[int, int], values: Sequence[int]) -> tuple[int, ...]:
    *figures, trace_id = values
    return (*key, *figures, half(trace_id >> 64), half(trace_id))


def _late(number: int, each: OpenTrace) -> tuple[int, int, int, int, int]:
    return each.spans, each.queries, each.query_ns, each.errors, number


class Segment:
    """A file that this process owns by the lock on the file beside it. Every call is made inside the gate."""

    def __init__(self, path: Path, claim: Claim, connection: sqlite3.Connection) -> None:
        self.path = path
        self._claim = claim
        self._connection = connection

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make a new file; raises `OSError` or `sqlite3.Error` where the folder does not take it."""
        for _ in range(_TRIES):
            path = folder / f"{time.time_ns() // 1000:014x}-{secrets.token_hex(4)}{schema.SUFFIX}"
            claim = Claim.take(path)
            if claim is not None:  # else somebody who looks for files that nobody has, has locked it for a moment
                break
        else:
            raise FileExistsError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        try:
            return cls(path, claim, schema.open_to_write(path))
        except BaseException:
            with contextlib.suppress(OSError):
                schema.remove_files(path)
            claim.discard()
            raise

    @classmethod
    def go_on(cls, path: Path, claim: Claim) -> Self:
        """Go on with a file that an ended process left; raises what `schema.open_to_write` does."""
        return cls(path, claim, schema.open_to_write(path))

    def write(self, rows: Rows) -> None:
        """Put a commit into the file, all of it or none.

        Raises:
            sqlite3.Error: nothing of it was written.
        """
        try:
            self._write(rows.statements())
        except sqlite3.IntegrityError:  # two processes, or two releases of the clock, gave the same number
            renumber(self._connection, rows)
            self._write(rows.statements())

    def _write(self, statements: Sequence[tuple[str, Sequence[tuple[Any, ...]]]]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in statements:
                connection.executemany(statement, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def size_bytes(self) -> int:
        """What the file and its log take."""
        return schema.size_of(self.path)

    def is_in_place(self) -> bool:
        """Whether nobody has removed it."""
        return self.path.exists()

    def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do something with the connection."""
        return work(self._connection)

    def seal(self) -> None:
        """Write nothing more: from now on whoever needs room may remove it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.close()

    def close(self) -> None:
        """Close it and let go of it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._claim.release()

    def set_aside(self) -> None:
        """Close a damaged file and take it out of the way."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        set_aside(self.path, self._claim)

    def abandon_in_child(self) -> None:
        """In a forked child: let the parent's file be. Its connection is never closed here, nor ever used."""
        # A reference too many, for the interpreter's end would close it: SQLite would then write to the parent's file.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._claim.release()


def set_aside(path: Path, claim: Claim) -> None:
    """Rename a damaged file, with what belongs to it, and end its claim; nobody reads it any more."""
    for suffix in ("", *schema.SIDE_FILES):
        each = path.with_name(path.name + suffix)
        with contextlib.suppress(OSError):
            each.rename(each.with_name(f"{each.name}.damaged"))
    claim.discard()


def renumber(connection: sqlite3.Connection, rows: Rows) -> None:
    """Give other numbers to rows whose own are taken."""
    _renumber(connection, "transitions", rows.transitions)
    moved = _renumber(connection, "logs", rows.logs.rows)
    rows.logs.words[:] = [(moved.get(number, number), words) for number, words in rows.logs.words]
    rows.logs.words.sort(key=lambda each: each[0])
    moved = _renumber(connection, "runs", rows.traces.runs)
    rows.traces.repeats[:] = [(moved.get(run, run), *rest) for run, *rest in rows.traces.repeats]  # type: ignore[misc]


def _renumber(connection: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> dict[int, int]:
    moved: dict[int, int] = {}
    used: set[int] = set()
    after: dict[int, int] = {}  # a number that was taken → the last one that was tried instead
    for place, (number, *rest) in enumerate(rows):
        found = after.get(number, number)
        while found in used or connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (found,)).fetchone():  # noqa: S608
            found += 1
        after[number] = found
        used.add(found)
        if found != number:
            moved[number] = found
            rows[place] = (found, *rest)
    rows.sort(key=lambda each: each[0])
    return moved
