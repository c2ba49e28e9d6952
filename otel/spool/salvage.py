"""What can be saved of a damaged spool file."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from otel.records import Signal
from otel.spool import database
from otel.spool.claim import Claim, Tally
from otel.spool.file import FileSegment, read_row
from otel.spool.gate import GATE
from otel.spool.rows import DamagedRow, Row

ASIDE_SUFFIX: Final = ".damaged"
#: Files that were set aside are kept for whoever wants to look at them, but not many.
MOST_ASIDE: Final = 4
_AT_ONCE: Final = 64
_LONGEST_S: Final = 20.0


def salvage(path: Path, claim: Claim) -> FileSegment:
    """Copy the rows that can still be read into a new file beside the damaged one, in their order, and return it.

    Called outside the gate, which is taken for a few rows at a time.

    Raises:
        OSError, sqlite3.Error: the new file can't be written.
    """
    with GATE():
        tally = claim.read()
        saved = FileSegment.create(path.parent)
    try:
        found = _readable(path, tally)
        while True:
            with GATE():
                rows = [row for _, row in zip(range(_AT_ONCE), found, strict=False)]
                if not rows:
                    return saved
                saved.append(sorted(rows, key=lambda row: row.id))
    except BaseException:
        with GATE():
            _discard(saved)
        raise


def _discard(segment: FileSegment) -> None:
    with contextlib.suppress(OSError, sqlite3.Error):
        claim = segment.release()
        database.remove_files(segment.path)
        claim.discard()


def _readable(path: Path, tally: Tally | None) -> Iterator[Row]:
    """Every row whose checksum is right. Each is asked for by its id: a broken page hides its own rows alone."""
    deadline = time.monotonic() + _LONGEST_S
    try:
        connection = database.connect(path)
    except sqlite3.Error:
        return
    try:
        for signal in Signal:
            for row_id in _ids(connection, signal, tally):
                if time.monotonic() > deadline:
                    return
                # Whatever a broken page gives: an error, a wrong type, a row that is not what was written.
                with contextlib.suppress(sqlite3.Error, database.Damaged, DamagedRow, ValueError, OverflowError):
                    found = connection.execute(database.ONE, (signal.value, row_id)).fetchone()
                    if found is not None:
                        yield read_row(signal, found)
    finally:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


def _ids(connection: sqlite3.Connection, signal: Signal, tally: Tally | None) -> Iterator[int]:
    """The ids that a signal may have: all between the tally's, or as far as the file itself tells."""
    if tally is not None:
        yield from range(max(tally.first_id.get(signal, 0), 1), tally.last_id + 1)
        return
    after_id = 0
    with contextlib.suppress(sqlite3.Error, ValueError):
        while (found := connection.execute(database.NEXT_ID, (signal.value, after_id)).fetchone()) is not None:
            after_id = int(found[0])
            yield after_id


def set_aside(path: Path, claim: Claim) -> None:
    """Rename a damaged file, so that nobody takes it for a spool again, and let go of it."""
    for suffix in ("", *database.SIDE_FILES):
        side = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            side.rename(path.with_name(path.name + ASIDE_SUFFIX + suffix))
    claim.discard()
    aside = sorted(path.parent.glob(f"*{ASIDE_SUFFIX}"))
    for each in aside[:-MOST_ASIDE]:
        with contextlib.suppress(OSError):
            database.remove_files(each)


def lost(expected: Mapping[Signal, int], saved: FileSegment) -> dict[Signal, int]:
    """How many records of each signal were expected and not saved."""
    return {
        signal: count - saved.waiting[signal].records
        for signal, count in expected.items()
        if count > saved.waiting[signal].records
    }
