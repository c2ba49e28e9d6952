"""SQLite as the spool uses it: how a file is opened, what its errors mean, the statements.

`synchronous=NORMAL` with a write-ahead log is chosen on purpose. What is committed survives the end of the process,
SIGKILL and the out-of-memory killer included, because it is in the kernel's hands by then. What a power failure or a
crash of the kernel takes is what was committed since the last checkpoint (about 2 MiB); the file stays sound,
and the tally beside it tells the loss. `FULL` would wait for the disk twice a second and wear it out, for telemetry.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

APPLICATION_ID: Final = 0x53545853  # "STXS"
VERSION: Final = 1
BUSY_S: Final = 0.2  # how long a statement waits for another process's lock
SIDE_FILES: Final = ("-wal", "-shm", "-journal")
FREE_PAGES: Final = 256  # unused pages that a file may keep, 1 MiB

SCHEMA: Final = """
CREATE TABLE batch (
    signal TEXT NOT NULL,
    id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    created REAL NOT NULL,
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (signal, id)
) WITHOUT ROWID
"""
INSERT: Final = "INSERT INTO batch (signal, id, count, created, checksum, payload) VALUES (?, ?, ?, ?, ?, ?)"
HEAD: Final = "SELECT id, count, created, checksum, payload FROM batch WHERE signal = ? AND id > ? ORDER BY id LIMIT 1"
ONE: Final = "SELECT id, count, created, checksum, payload FROM batch WHERE signal = ? AND id = ?"
NEXT_ID: Final = "SELECT id FROM batch WHERE signal = ? AND id > ? ORDER BY id LIMIT 1"
OLDEST: Final = "SELECT created FROM batch WHERE signal = ? AND id = ?"
DELETE: Final = "DELETE FROM batch WHERE signal = ? AND id = ?"
DELETE_BEFORE: Final = "DELETE FROM batch WHERE signal = ? AND id < ?"
SHRINK: Final = "UPDATE batch SET count = ?, checksum = ?, payload = ? WHERE signal = ? AND id = ?"
COUNT: Final = (
    "SELECT signal, sum(count), sum(iif(id <= ?, count, 0)), min(count), count(*), sum(length(payload)), max(id) "
    "FROM batch GROUP BY signal"
)

# Primary codes of what says nothing about the file's contents: permission, busy, locked, out of memory, read-only,
# interrupted, input/output, full, can't be opened.
_PASSING: Final = frozenset({3, 5, 6, 7, 8, 9, 10, 13, 14})
_FULL: Final = 13
_MOVED: Final = 1032  # SQLITE_READONLY_DBMOVED: somebody has removed the file under its owner


class Damaged(Exception):
    """A spool file can't be read as it was written; the text tells why, without any of its contents."""


class NeverUsed(Exception):
    """A spool file whose maker ended before it wrote anything."""


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the file itself is broken, not that it can't be used now."""
    if not isinstance(error, sqlite3.Error):
        return True
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return not isinstance(error, sqlite3.ProgrammingError)
    return code == _MOVED or code & 0xFF not in _PASSING


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk had no room."""
    return getattr(error, "sqlite_errorcode", 0) == _FULL


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a file; by the class itself, because instrumentations replace `sqlite3.connect`."""
    # `mode=rw` never makes a file.
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.Connection(uri, BUSY_S, 0, None, False, uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def initialise(path: Path) -> sqlite3.Connection:
    """Make a new spool file (0600) and open it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = connect(path)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # a start does not wait for the disk; an empty file is no loss
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        configure(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def configure(connection: sqlite3.Connection) -> None:
    """What holds for one connection."""
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -512")  # KiB
    connection.execute("PRAGMA wal_autocheckpoint = 512")  # pages of 4 KiB
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("PRAGMA cell_size_check = ON")


def check_version(connection: sqlite3.Connection) -> None:
    """Raises `Damaged` for a file of another program or another version, `NeverUsed` for an empty one."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application_id, version) == (APPLICATION_ID, VERSION):
        return
    if (application_id, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
        raise NeverUsed
    raise Damaged(f"it is of version {version}, this program writes version {VERSION}")


def give_back_pages(connection: sqlite3.Connection, most: int = 1024) -> None:
    """Give pages that are no longer used back to the disk, `most` at once."""
    if connection.execute("PRAGMA freelist_count").fetchone()[0] > FREE_PAGES:
        connection.execute(f"PRAGMA incremental_vacuum({most})").fetchall()
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def remove_files(path: Path) -> None:
    """Remove a spool file and what SQLite keeps beside it."""
    for each in (path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)):
        each.unlink(missing_ok=True)
