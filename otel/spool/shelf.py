"""All that waits in this process: its own spool file, those it took over, and memory for what no disk takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from otel.export.notices import Notices
from otel.ledger import Ledger
from otel.records import Batch, DropReason, Signal
from otel.spool import database
from otel.spool.bell import Bell
from otel.spool.file import FileSegment, describe
from otel.spool.gate import GATE
from otel.spool.memory import MemorySegment
from otel.spool.rows import DamagedRow, Held, Row, Segment, Waiting, chunks, row_of

_CHUNK_BYTES: Final = 1 << 20  # what is moved from memory to disk in one transaction
_AT_ONCE: Final = 64  # rows that are given up while the gate is held once


class Shelf:
    """Rows, oldest first: files that were taken over before the own file and memory, which share their ids.

    Arguments:
        ledger: told of every change while the gate is held, so that its figures and the files agree.
        max_bytes: of all files together; above it the oldest rows are given up.
        memory_bytes: what waits in memory while the disk takes nothing; above it the oldest are given up.
        clock: wall time, seconds since the Unix epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        notices: Notices,
        *,
        max_bytes: int,
        memory_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.bell = Bell()
        self.max_bytes = max_bytes
        self._ledger = ledger
        self._notices = notices
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self.own: FileSegment | None = None
        self.foreign: list[FileSegment] = []
        self.broken: list[FileSegment] = []
        self._memory = MemorySegment()
        self._in_flight: dict[Signal, Held] = {}
        self._last_id = 0
        self._closed = False

    # -- coming in ----------------------------------------------------------------------------------------------

    def put(self, batches: Sequence[Batch]) -> None:
        """Commit batches, to the disk if it takes them, else to memory."""
        with GATE():
            now_s = self._clock()
            rows = []
            for batch in batches:
                self._last_id += 1
                rows.append(row_of(batch, self._last_id, now_s))
            self._memory.append(rows)
            self._move_to_disk()
            self._give_up_memory()
            self._give_up_size()
        self.bell.ring()

    def move_to_disk(self) -> None:
        """Try again to write what waits in memory."""
        with GATE():
            self._move_to_disk()

    def _move_to_disk(self) -> None:
        flying = {held.row.id for held in self._in_flight.values() if held.segment is self._memory}
        waiting = [row for row in self._memory.rows() if row.id not in flying]
        for chunk in chunks(waiting, _CHUNK_BYTES):
            if self.own is None:
                return
            try:
                self.own.append(chunk)
            except Exception as error:
                self._disk_failed(self.own, error)
                return
            for row in chunk:
                self._memory.remove(row)
                self._ledger.spooled(row.signal, row.count)

    def _disk_failed(self, segment: FileSegment, error: Exception) -> None:
        if database.is_damage(error):
            self._set_broken(segment, error)
        else:
            self._notices.say(
                "spool.disk", f"the spool can't be used now: {describe(error)}; telemetry waits in memory"
            )

    def _set_broken(self, segment: FileSegment, error: Exception) -> None:
        """Offer nothing more of a damaged file; the keeper saves what it can of it."""
        self._notices.say("spool.damaged", f"a spool file is damaged: {describe(error)}", file=segment.path.name)
        if segment is self.own:
            self.own = None
        else:
            self.foreign.remove(segment)
        self.broken.append(segment)

    def open(self, folder: Path) -> None:
        """Make the own file where there is none, and anew where somebody has removed it.

        Raises:
            OSError, sqlite3.Error: the folder does not take it.
        """
        with GATE():
            if self._closed or (self.own is not None and self.own.is_in_place()):
                return
            fresh = FileSegment.create(folder)
            if self.own is not None:  # its rows can still be read through the open file, and are sent from there
                self.foreign.append(self.own)
                self._notices.say("spool.removed", "the spool file was removed from outside; a new one is made")
            self.own = fresh

    def tidy(self) -> None:
        """Do what the disk did not take before, and give unused room back to it."""
        with GATE():
            for segment in self.files():
                try:
                    segment.tidy()
                except sqlite3.Error as error:
                    self._disk_failed(segment, error)

    def adopt(self, segment: FileSegment) -> None:
        """Take in a file that another process left; call inside the gate, after the ledger was told."""
        self.foreign.append(segment)
        self._close_if_empty(segment)

    # -- going out ----------------------------------------------------------------------------------------------

    def take(self, signal: Signal) -> Held | None:
        """The oldest row of a signal, held until `settle` or `put_back`; nobody gives it up meanwhile."""
        with GATE():
            held = None if self._closed else self._oldest(signal)
            if held is not None:
                self._in_flight[signal] = held
            return held

    def _oldest(self, signal: Signal) -> Held | None:
        for segment in list(self.foreign):
            row = self._head(segment, signal)
            if row is not None:
                return Held(segment, row)
        found = [Held(self._memory, row)] if (row := self._memory.head(signal)) is not None else []
        own = self.own
        if own is not None and (row := self._head(own, signal)) is not None:
            found.append(Held(own, row))
        return min(found, key=lambda held: held.row.id, default=None)

    def _head(self, segment: FileSegment, signal: Signal, after_id: int = 0) -> Row | None:
        while segment.waiting[signal].rows and segment not in self.broken:
            try:
                return segment.head(signal, after_id)
            except DamagedRow as damaged:
                self._notices.say("spool.damaged", "a record in the spool is damaged", file=segment.path.name)
                self._give_up(segment, damaged.row, DropReason.DAMAGED)
            except Exception as error:
                self._disk_failed(segment, error)
                return None
        return None

    def settle(
        self,
        held: Held,
        *,
        delivered: int = 0,
        dropped: Mapping[DropReason, int] | None = None,
        left: Row | None = None,
    ) -> None:
        """Account for a row that was sent, and remove it or, with `left`, what is done of it."""
        row, segment = held.row, held.segment
        with GATE():
            self._in_flight.pop(row.signal, None)
            if self._closed:
                return
            if left is None:
                segment.remove(row)
            else:
                segment.shrink(row, left)
            if delivered:
                self._ledger.delivered(row.signal, delivered, source=segment.source)
            for reason, count in (dropped or {}).items():
                self._ledger.dropped(row.signal, count, reason, source=segment.source)
            self._close_if_empty(segment)
        self.bell.ring()

    def is_sending(self, segment: FileSegment) -> bool:
        """Whether a row of the file is being sent; inside the gate."""
        return any(held.segment is segment for held in self._in_flight.values())

    def put_back(self, held: Held) -> None:
        """The row was not sent; it stays the oldest, and may be given up again."""
        with GATE():
            self._in_flight.pop(held.row.signal, None)

    def _close_if_empty(self, segment: Segment) -> None:
        if not isinstance(segment, FileSegment) or segment not in self.foreign:
            return
        if not any(waiting.rows for waiting in segment.waiting.values()):
            self.foreign.remove(segment)
            segment.close()

    # -- giving up ----------------------------------------------------------------------------------------------

    def give_up(self, max_age_s: float) -> bool:
        """Give up what is too old, or above the cap; True when there is more of it."""
        with GATE():
            more = self._give_up_age(self._clock() - max_age_s)
            more = self._give_up_size() or more
        self.bell.ring()
        return more

    def _give_up_age(self, before_s: float) -> bool:
        count = 0
        for segment in self._segments():
            for signal in Signal:
                for row in self._heads(segment, signal):
                    if row.created_s >= before_s:
                        break
                    if count == _AT_ONCE:
                        return True
                    self._give_up(segment, row, DropReason.AGE)
                    count += 1
        return False

    def _give_up_size(self) -> bool:
        """Oldest first over all signals, of the oldest file first."""
        over = self.size_bytes() - self.max_bytes
        count = 0
        for segment in self.files():
            while over > 0:
                if count == _AT_ONCE:
                    return True
                heads = [next(self._heads(segment, signal), None) for signal in Signal]
                oldest = min((row for row in heads if row is not None), key=lambda row: row.id, default=None)
                if oldest is None:
                    break
                self._give_up(segment, oldest, DropReason.SIZE)
                over -= oldest.size_bytes
                count += 1
        return False

    def _give_up_memory(self) -> None:
        for row in self._memory.rows():
            if sum(waiting.size_bytes for waiting in self._memory.waiting.values()) <= self._memory_bytes:
                return
            if not self._flies(self._memory, row):
                self._give_up(self._memory, row, DropReason.DISK)

    def _heads(self, segment: Segment, signal: Signal) -> Iterator[Row]:
        """Rows of a signal, oldest first, without the one that is being sent."""
        after_id = 0
        while True:
            row = (
                self._head(segment, signal, after_id)
                if isinstance(segment, FileSegment)
                else segment.head(signal, after_id)
            )
            if row is None:
                return
            after_id = row.id
            if not self._flies(segment, row):
                yield row

    def _flies(self, segment: Segment, row: Row) -> bool:
        held = self._in_flight.get(row.signal)
        return held is not None and held.segment is segment and held.row.id == row.id

    def _give_up(self, segment: Segment, row: Row, reason: DropReason) -> None:
        segment.remove(row)
        self._ledger.dropped(row.signal, row.count, reason, source=segment.source)
        if reason is not DropReason.DAMAGED:
            self._notices.say(f"spool.dropped.{reason}", f"telemetry was given up (reason {reason})")
        self._close_if_empty(segment)

    # -- figures and end ----------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """What the files hold, against the cap."""
        return sum(waiting.size_bytes for segment in self.files() for waiting in segment.waiting.values())

    def waiting(self, timeout_s: float = -1) -> Mapping[Signal, Waiting]:
        """What waits of each signal, in files and in memory; raises `gate.Busy`."""
        with GATE(timeout_s):
            found = {signal: Waiting() for signal in Signal}
            for segment in (*self._segments(), *self.broken):
                for signal, waiting in segment.waiting.items():
                    found[signal].records += waiting.records
                    found[signal].rows += waiting.rows
                    found[signal].size_bytes += waiting.size_bytes
            return found

    def files(self) -> list[FileSegment]:
        """The files that are in use; inside the gate."""
        return [*self.foreign, *([self.own] if self.own is not None else [])]

    def _segments(self) -> list[Segment]:
        return [*self.files(), self._memory]

    def close(self, timeout_s: float) -> None:
        """Leave what is on disk for whoever starts next; what is in memory alone is written or given up.

        Raises:
            gate.Busy: the disk does not let go of the gate in time.
        """
        with GATE(timeout_s):
            if self._closed:
                return
            self._in_flight.clear()
            self._move_to_disk()
            for row in self._memory.rows():
                self._give_up(self._memory, row, DropReason.DISK)
            self._closed = True
            for segment in self.files():
                segment.close()
            for segment in self.broken:
                segment.release().release()
            self.own, self.foreign, self.broken = None, [], []

    def begin_in_child(self) -> None:
        """In a forked child: everything here is the parent's. Called without the gate: no other thread lives here."""
        for segment in (*self.files(), *self.broken):
            segment.abandon_in_child()
        self.bell = Bell()
        self._begin()
