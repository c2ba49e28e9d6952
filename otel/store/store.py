"""The embedded store: takes the pipeline's batches and keeps them in SQLite below the data folder."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from otel.config import STORE_MAX_AGE_S, STORE_MAX_BYTES
from otel.export.notices import Notices
from otel.file_systems import network_file_system
from otel.ledger import Ledger
from otel.records import Batch, DropReason, LogFact, Signal
from otel.spool.gate import GATE, Busy
from otel.store import schema
from otel.store.ids import Numbers, row_id
from otel.store.keeper import Keeper
from otel.store.plain import text, to_json
from otel.store.points import Points
from otel.store.rows import SpanFacts, log_rows, log_steps, span_row
from otel.store.segment import Rows, Segment
from otel.store.traces import Traces
from otel.store.transitions import transition_rows

#: A file is full at this share of all that is kept, and old at this share of the age: so much goes at once.
SHARE: Final = 8
#: A file is never full below this.
LEAST_BYTES: Final = 2**20
#: After a failure of the disk it is tried again so often, in seconds; meanwhile records are given up at once.
RETRY_S: Final = 1.0
#: A log record at most so late comes after those that were written before it, in milliseconds.
SLACK_MS: Final = 2000


class StoreState(msgspec.Struct, frozen=True):
    """How the store does: `problem` tells in one line why nothing is written, "" when all is well.

    `lost` counts records that could not be written, `damaged` files that were set aside, `left_out` data points of
    series above the bound.
    """

    problem: str = ""
    lost: int = 0
    damaged: int = 0
    left_out: int = 0
    size_bytes: int = 0


class Store:
    """A `Destination` that keeps telemetry where a person can look at it.

    Arguments:
        folder: `data_dir / "store"`, made when it is not there.
        ledger: told of the fate of each record of the signals in `accounts_for`; another destination accounts for the
            others.
        max_bytes: of the whole folder; above it the oldest files are removed.
        max_age_s: files whose newest record is older are removed.
        clock: wall time, seconds since the Unix epoch.

    Each process writes a file of its own, and goes on with one that an ended process left. Never raises.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        *,
        accounts_for: frozenset[Signal] = frozenset(Signal),
        max_bytes: int = STORE_MAX_BYTES,
        max_age_s: float = STORE_MAX_AGE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._accounts_for = accounts_for
        self._max_bytes = max_bytes
        self._clock = clock
        self._notices = Notices("otel.spool.store")
        self.keeper = Keeper(folder, self._notices, max_bytes, max_age_s, self._look_after, clock=clock)
        self._begin()
        _STORES.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._segment: Segment | None = None
        self._began_s = 0.0
        self._traces = Traces()
        self._points = Points()
        self._numbers = Numbers(SLACK_MS), Numbers(SLACK_MS)  # of logs, of transitions
        self._resources: dict[int, tuple[Any, int]] = {}  # id of the object → itself, its number
        self._written_resources: set[int] = set()
        self._problem, self._refused = "", ""
        self._retry_at = 0.0
        self._lost = 0
        self._left_out = 0
        self._closed = False
        self._starting = threading.Lock()
        self._started = False

    # -- the destination --------------------------------------------------------------------------------------------

    def commit(self, batches: Sequence[Batch]) -> None:
        """Return once the batches are in the file, or given up and counted."""
        if self._pid != os.getpid():  # forked by something that does not call Python's hooks
            self.begin_in_child()
        if self._closed:
            self._give_up(batches, DropReason.SHUTDOWN)
            return
        if self._problem and time.monotonic() < self._retry_at:
            self._give_up(batches, DropReason.DISK)
            return
        try:
            with GATE():
                self._write(batches)
            self._start()
        except Exception as error:
            self._failed(error)
            self._give_up(batches, DropReason.DISK)
            return
        if self._problem:
            self._problem = ""
            self._notices.say("store.recovered", "the store is written to again")
        for batch in batches:
            if batch.signal in self._accounts_for:
                self._ledger.delivered(batch.signal, batch.count, source="queued")

    def put_session_memory(self, sessions: Iterable[tuple[str, int, int]]) -> None:
        """Keep what sessions hold now: id, bytes of state, bytes of uploads; on any thread, and never raising."""
        now_ns = int(self._clock() * 1e9)
        rows = Rows(session_memory=[(text(name, 64), now_ns, state, uploads) for name, state, uploads in sessions])
        try:
            with GATE():
                if self._segment is not None and not self._closed and self._pid == os.getpid():
                    self._segment.write(rows)
        except Exception as error:
            self._notices.say("store.failed", f"the store can't be written to: {describe(error)}")

    def close(self, timeout_s: float) -> None:
        """End the keeper and close the file; within `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        self._closed = True
        self.keeper.stop(timeout_s)
        try:
            with GATE(max(0.2, deadline - time.monotonic())):
                if self._segment is not None:
                    self._segment.close()
                    self._segment = None
        except Busy:
            self._notices.say("store.stop", "the disk hangs; the store is left as it is")
        _STORES.discard(self)

    @property
    def problem(self) -> str:
        """Why nothing is written, in one line; "" when all is well."""
        return self._problem

    def state(self) -> StoreState:
        """How it does now."""
        return StoreState(self._problem, self._lost, self.keeper.damaged, self._left_out, self.keeper.size_bytes())

    def begin_in_child(self) -> None:
        """In a forked child: begin with a file of its own; what is open is the parent's."""
        if self._pid == os.getpid():
            return
        if self._segment is not None:
            self._segment.abandon_in_child()
        self._notices.begin_in_child()
        self.keeper.begin_in_child()
        self._begin()

    # -- writing ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                self.keeper.start()

    def _write(self, batches: Sequence[Batch]) -> None:
        segment = self._open()
        rows = self._rows(batches)
        try:
            segment.write(rows)
        except sqlite3.Error as error:
            if schema.is_damage(error):
                self._set_aside(error)
                segment = self._open()
                rows = self._rows(batches)  # what the file before had explained is to be explained again
            elif getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                segment.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
            else:
                raise
            segment.write(rows)
        self._traces.written(rows.traces)
        self._points.written(rows.points)
        self._written_resources.update(rows.resources)
        self._left_out += rows.points.left_out
        if segment.size_bytes() >= self._full_bytes():
            self._seal()

    def _rows(self, batches: Iterable[Batch]) -> Rows:
        rows = Rows()
        horizon = row_id(int((self._clock() + 60) * 1e9))
        for numbers in self._numbers:
            numbers.horizon = horizon
        facts: list[LogFact] = []
        spans: list[SpanFacts] = []
        collections: list[Any] = []
        for batch in batches:
            if batch.signal is Signal.LOGS:
                facts += batch.records
            elif batch.signal is Signal.METRICS:
                collections += batch.records
            else:
                last: Any = None
                number = 0
                for span in batch.records:
                    if span.resource is not last:
                        last = span.resource
                        number = self._resource(last, rows)
                    row, fact = span_row(span, number)
                    rows.spans.append(row)
                    spans.append(fact)
        if spans:
            rows.traces = self._traces.add(spans)
        if facts:
            rows.logs = log_rows(facts, self._numbers[0])
            rows.transitions = transition_rows(facts, self._numbers[1])
            rows.log_steps = log_steps(rows.logs)
        if collections:
            rows.points = self._points.add(collections, lambda resource: self._resource(resource, rows))
        return rows

    def _resource(self, resource: Any, rows: Rows) -> int:
        """The number of a resource, which the file is to explain."""
        known = self._resources.get(id(resource))
        if (
            known is not None
            and known[0] is resource
            and (known[1] in self._written_resources or known[1] in rows.resources)
        ):
            return known[1]
        data = to_json(dict(getattr(resource, "attributes", {}) or {})) or b"{}"
        number = int.from_bytes(hashlib.blake2b(data, digest_size=6).digest())
        if number not in self._written_resources:
            rows.resources[number] = data
        if len(self._resources) > 64:
            self._resources.clear()
        self._resources[id(resource)] = (resource, number)
        return number

    def _give_up(self, batches: Iterable[Batch], reason: DropReason) -> None:
        for batch in batches:
            self._lost += batch.count
            if batch.signal in self._accounts_for:
                self._ledger.dropped(batch.signal, batch.count, reason, source="queued")

    def _failed(self, error: Exception) -> None:
        self._problem = self._refused or f"the store can't be written to: {describe(error)}"
        self._retry_at = time.monotonic() + RETRY_S
        self._notices.say("store.failed", f"{self._problem}; the application goes on without it")

    # -- files ------------------------------------------------------------------------------------------------------

    def _open(self) -> Segment:
        """The file that is written now: the one at hand, one that was left, or a new one."""
        if self._segment is not None and self._segment.is_in_place():
            return self._segment
        if self._segment is not None:
            self._segment.close()
            self._forget_file()
        if self._refused or (kind := network_file_system(self._folder)) is not None:
            self._refused = (
                self._refused or f"{self._folder} is on a network file system ({kind}), where no store is safe"
            )
            raise OSError(self._refused)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segment = self.keeper.left_over(self._full_bytes()) or Segment.create(self._folder)
        self._began_s = self._clock()
        return self._segment

    def _forget_file(self) -> None:
        self._segment = None
        self._traces.forget_file()
        self._points.forget_file()
        self._written_resources.clear()

    def _full_bytes(self) -> int:
        return max(LEAST_BYTES, self._max_bytes // (SHARE * max(1, self.keeper.writers)))

    def _seal(self) -> None:
        if self._segment is not None:
            self._segment.seal()
            self._forget_file()
            self.keeper.hurry()

    def _set_aside(self, error: Exception) -> None:
        if self._segment is not None:
            self._notices.say(
                "store.damaged",
                f"a file of the store is damaged and was set aside: {describe(error)}",
                file=self._segment.path.name,
            )
            self._segment.set_aside()
            self.keeper.damaged += 1
            self._forget_file()

    def _look_after(self, work: Callable[[sqlite3.Connection], Any], old_s: float) -> Path | None:
        """What the keeper asks for now and then: work on the own file, and an end to it when it is old."""
        with GATE():
            segment = self._segment
            if segment is None or self._closed:
                return None
            if self._clock() - self._began_s > old_s:
                self._seal()
                return None
            segment.run(work)
            return segment.path


def describe(error: BaseException) -> str:
    """What an error says, without anything of the file's contents."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


_STORES: Final[weakref.WeakSet[Store]] = weakref.WeakSet()


def _begin_in_child() -> None:
    for store in list(_STORES):
        store.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
