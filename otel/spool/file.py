"""A spool file: rows in SQLite, owned by this process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from otel.ledger import Source
from otel.records import Signal
from otel.spool import database
from otel.spool.claim import SPOOL_SUFFIX, Claim, Tally
from otel.spool.rows import ROW_BYTES, DamagedRow, Row, Waiting

_TRIES: Final = 8


class FileSegment:
    """One spool file with its claim and its one connection. Every call is made inside the gate.

    `lost` is, for a file that was taken over, how many records its tally knows that it no longer holds.
    """

    source: Source = "spooled"

    def __init__(self, path: Path, claim: Claim, connection: sqlite3.Connection, tally: Tally) -> None:
        self.path = path
        self.claim = claim
        self.lost: Mapping[Signal, int] = {}
        self.waiting: Mapping[Signal, Waiting] = {signal: Waiting() for signal in Signal}
        self._connection = connection
        self._first = {signal: tally.first_id.get(signal, 0) for signal in Signal}
        self._last = tally.last_id
        # What the disk did not take: rows that are done with but not deleted, and rows that are not yet cut short.
        self._undeleted: set[tuple[Signal, int]] = set()
        self._unshrunk: dict[tuple[Signal, int], Row] = {}

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make a spool file of this process's own.

        Raises:
            OSError, sqlite3.Error: the folder does not take it.
        """
        for _ in range(_TRIES):
            path = folder / f"{time.time_ns() // 1000:014x}-{secrets.token_hex(4)}{SPOOL_SUFFIX}"
            claim = Claim.take(path)
            if claim is not None:  # else somebody who looks for orphans has locked it first, for a moment
                break
        else:
            raise FileExistsError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        try:
            claim.write(Tally())
            return cls(path, claim, database.initialise(path), Tally())
        except BaseException:
            with contextlib.suppress(OSError):
                database.remove_files(path)
            claim.discard()
            raise

    @classmethod
    def take_over(cls, path: Path, claim: Claim) -> Self:
        """Open what a dead process left.

        Raises:
            Damaged: it can't be read.
            NeverUsed: its maker ended before writing anything.
            sqlite3.Error, OSError: it can't be used now.
        """
        tally = claim.read() or Tally()
        connection = None
        try:
            connection = database.connect(path)
            database.check_version(connection)
            database.configure(connection)
            segment = cls(path, claim, connection, tally)
            segment._count(tally)
        except database.NeverUsed:
            _close(connection)
            if any(tally.records.values()):
                raise database.Damaged("what it held is not there") from None
            raise
        except database.Damaged:
            _close(connection)
            raise
        except Exception as error:
            _close(connection)
            if database.is_damage(error) and not isinstance(error, OSError):
                raise database.Damaged(describe(error)) from error
            raise
        return segment

    def _count(self, tally: Tally) -> None:
        """Take stock of a file that was taken over; what its tally says is done with is deleted first."""
        for signal in Signal:
            self._connection.execute(database.DELETE_BEFORE, (signal.value, self._first[signal]))
        known = bool(tally.last_id)
        found = self._connection.execute(database.COUNT, (tally.last_id,)).fetchall()
        for name, records, tallied, least, rows, size, last in found:
            if least < 0 or (known and tallied > tally.records.get(Signal(name), 0)):
                raise database.Damaged("its counts can't be")
            waiting = self.waiting[Signal(name)]
            waiting.records, waiting.rows, waiting.size_bytes = records, rows, size + rows * ROW_BYTES
            self._last = max(self._last, last)
        self.lost = {
            signal: tally.records.get(signal, 0) - waiting.records
            for signal, waiting in self.waiting.items()
            if tally.records.get(signal, 0) > waiting.records
        }

    @property
    def last_id(self) -> int:
        """The highest id that was ever written here."""
        return self._last

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows in one transaction.

        Raises:
            sqlite3.Error: none of them was added.
        """
        values = [(row.signal.value, row.id, row.count, row.created_s, row.checksum, row.payload) for row in rows]
        self._transact(lambda: self._connection.executemany(database.INSERT, values))
        for row in rows:
            self.waiting[row.signal].add(row)
            self._last = max(self._last, row.id)
        self._write_tally()
        with contextlib.suppress(sqlite3.Error):
            self._catch_up()

    def head(self, signal: Signal, after_id: int = 0) -> Row | None:
        """The oldest row of a signal with an id above `after_id`.

        Raises:
            DamagedRow: it is not as it was written.
            sqlite3.Error: the file can't be read.
        """
        while True:
            found = self._connection.execute(database.HEAD, (signal.value, after_id)).fetchone()
            if found is None:
                return None
            row = read_row(signal, found)
            if (signal, row.id) not in self._undeleted:
                return self._unshrunk.get((signal, row.id), row)
            after_id = row.id

    def remove(self, row: Row) -> None:
        """Take a row out: in memory and in the tally at once, on the disk when it allows it."""
        self._undeleted.add((row.signal, row.id))
        self._unshrunk.pop((row.signal, row.id), None)
        self.waiting[row.signal].add(row, -1)
        try:
            self._first[row.signal] = self._lowest(row.signal)
            self._write_tally()
            self._catch_up()
        except sqlite3.Error:  # found again, and dealt with, when the next row is read
            self._write_tally()

    def shrink(self, row: Row, left: Row) -> None:
        """Replace a row by what is left of it."""
        self.waiting[row.signal].add(row, -1)
        self.waiting[row.signal].add(left)
        self._unshrunk[row.signal, row.id] = left
        self._write_tally()
        with contextlib.suppress(sqlite3.Error):
            self._catch_up()

    def ages(self) -> Mapping[Signal, float]:
        """`created_s` of the oldest row of each signal that has one."""
        found = {}
        for signal, waiting in self.waiting.items():
            lowest = self._lowest(signal) if waiting.rows else None
            row = lowest and self._connection.execute(database.OLDEST, (signal.value, lowest)).fetchone()
            if row:
                found[signal] = float(row[0])
        return found

    def tidy(self) -> None:
        """Do on the disk what it did not take before, and give unused pages back."""
        self._catch_up()
        database.give_back_pages(self._connection)

    def is_in_place(self) -> bool:
        """Whether the file is still where it was made."""
        return self.path.exists()

    def close(self) -> None:
        """Close it: an empty one is removed, another is left for whoever starts next."""
        empty = not any(waiting.rows for waiting in self.waiting.values())
        with contextlib.suppress(sqlite3.Error):
            if empty:
                self._connection.execute("PRAGMA synchronous = OFF")  # nothing to wait for the disk for
            else:
                self._catch_up()
        _close(self._connection)
        if not empty:
            self.claim.release()
            return
        with contextlib.suppress(OSError):
            database.remove_files(self.path)
            self.claim.discard()

    def release(self) -> Claim:
        """Close the connection alone, and hand out the claim."""
        _close(self._connection)
        return self.claim

    def abandon_in_child(self) -> None:
        """In a forked child: let the parent's file be. Its connection is never closed here, nor ever used."""
        # A reference too many, for the interpreter's end would close it: SQLite would then write to the parent's file.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self.claim.release()

    def _lowest(self, signal: Signal) -> int:
        """The lowest id of a signal that is not done with."""
        after_id = 0
        while True:
            found = self._connection.execute(database.NEXT_ID, (signal.value, after_id)).fetchone()
            if found is None:
                return self._last + 1
            after_id = found[0]
            if (signal, after_id) not in self._undeleted:
                return int(after_id)

    def _catch_up(self) -> None:
        if not self._undeleted and not self._unshrunk:
            return
        gone = [(signal.value, row_id) for signal, row_id in self._undeleted]
        short = [(row.count, row.checksum, row.payload, row.signal.value, row.id) for row in self._unshrunk.values()]

        def write() -> None:
            self._connection.executemany(database.DELETE, gone)
            self._connection.executemany(database.SHRINK, short)

        self._transact(write)
        self._undeleted.clear()
        self._unshrunk.clear()

    def _transact(self, write: Any) -> None:
        try:
            self._try_to_transact(write)
        except sqlite3.Error as error:
            if not database.is_full(error):
                raise
            # The log takes more room than its rows do: put them in their places, and try once more.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._try_to_transact(write)

    def _try_to_transact(self, write: Any) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            write()
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _write_tally(self) -> None:
        records = {signal: waiting.records for signal, waiting in self.waiting.items()}
        with contextlib.suppress(OSError):  # written in place; what fails here fails in SQLite too, and is seen there
            self.claim.write(Tally(self._last, self._first, records))


def read_row(signal: Signal, values: Any) -> Row:
    """A row from its columns.

    Raises:
        DamagedRow: it is not as it was written.
        Damaged: its columns are not even of their types.
    """
    row_id, count, created_s, checksum, payload = values
    if not (isinstance(row_id, int) and isinstance(count, int) and isinstance(payload, bytes)):
        raise database.Damaged("a row has columns of wrong types")
    row = Row(row_id, signal, count, created_s if isinstance(created_s, float) else 0.0, payload)
    if row.checksum != checksum:
        raise DamagedRow(row)
    return row


def describe(error: BaseException) -> str:
    """What an error says, without anything of the file's contents."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else type(error).__name__
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
