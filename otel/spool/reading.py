"""Looking into spool files without owning them: what waits, also in a living process's file, in short reads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from otel.records import Signal
from otel.spool import database
from otel.spool.claim import is_owned, read_tally
from otel.spool.file import describe, read_row
from otel.spool.rows import ROW_BYTES, DamagedRow, Row, Waiting
from otel.spool.takeover import spool_files

_BETWEEN = "SELECT id, count, created, checksum, payload FROM batch WHERE signal = ? AND id > ? ORDER BY id LIMIT 16"
_OLDEST = "SELECT min(created) FROM batch WHERE signal = ? AND id >= ?"
_WAITING = "SELECT sum(count), count(*), sum(length(payload)) FROM batch WHERE signal = ? AND id >= ?"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What one spool file holds.

    `owned` tells whether a living process has it. `oldest` is the wall time of the oldest batch of each signal that has
    one. `problem` is why it can't be read, "" when it can.
    """

    path: Path
    owned: bool
    waiting: Mapping[Signal, Waiting]
    oldest: Mapping[Signal, float]
    problem: str = ""


def status_of(folder: Path) -> list[FileStatus]:
    """Every spool file in a folder, oldest first; one that ends while it is looked at is left out."""
    found = []
    for path in spool_files(folder):
        status = _status(path)
        if path.exists():
            found.append(status)
    return found


def _status(path: Path) -> FileStatus:
    first = _first_ids(path)
    waiting = {signal: Waiting() for signal in Signal}
    oldest = {}
    problem = ""
    try:
        with contextlib.closing(database.connect(path, read_only=True)) as connection:
            for signal in Signal:
                place = (signal.value, first.get(signal, 0))
                records, rows, size = connection.execute(_WAITING, place).fetchone()
                if rows:
                    waiting[signal] = Waiting(records, rows, size + rows * ROW_BYTES)
                    oldest[signal] = float(connection.execute(_OLDEST, place).fetchone()[0])
    except (sqlite3.Error, ValueError, TypeError) as error:
        problem = describe(error)
    return FileStatus(path, is_owned(path), waiting, oldest, problem)


def _first_ids(path: Path) -> Mapping[Signal, int]:
    tally = read_tally(path)
    return {} if tally is None else tally.first_id


def rows_of(path: Path) -> Iterator[Row]:
    """Every row of a file that can be read, signal by signal, in order; no read lasts longer than sixteen rows.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    first = _first_ids(path)
    with contextlib.closing(database.connect(path, read_only=True)) as connection:
        for signal in Signal:
            after_id = max(first.get(signal, 0) - 1, 0)
            while found := connection.execute(_BETWEEN, (signal.value, after_id)).fetchall():
                for each in found:
                    after_id = each[0]
                    with contextlib.suppress(DamagedRow, database.Damaged):
                        yield read_row(signal, each)
