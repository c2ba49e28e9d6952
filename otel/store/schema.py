"""A file of the store: its tables, their versions, and how it is opened.

A file holds what one process wrote, one after the other, until it is full; then it is only read, and in the end removed
as a whole. So nothing is ever deleted from the full-text index, which would cost as much as writing it, and retention
stalls nobody.

Ids are numbers: of a trace its upper and lower half (`…_hi`, `…_lo`), moved by 2^63 so that SQLite's signed integers
have the order of the hexadecimal digits, and a prefix of an id is a range. Rows of `logs`, `runs` and `transitions` are
numbered by time (milliseconds, then 12 bits of sequence): the primary key is the order in time, in every file.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

APPLICATION_ID: Final = 0x53545854  # "STXT"
VERSION: Final = 3
BUSY_S: Final = 2.0
SIDE_FILES: Final = ("-wal", "-shm", "-journal")
SUFFIX: Final = ".db"

#: Seconds of a step of statements, and of the coarse levels of metrics.
STATEMENT_STEP_S: Final = 600
LEVELS_S: Final = (0, 60, 600)

TABLES: Final = (
    "CREATE TABLE resources (id INTEGER PRIMARY KEY, attributes BLOB NOT NULL)",
    """CREATE TABLE spans (
        id INTEGER PRIMARY KEY, trace_hi INTEGER NOT NULL, trace_lo INTEGER NOT NULL, span INTEGER NOT NULL,
        parent INTEGER, start INTEGER NOT NULL, duration INTEGER NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
        status INTEGER NOT NULL, status_text TEXT, scope TEXT NOT NULL, resource INTEGER NOT NULL, attributes BLOB,
        events BLOB, links BLOB)""",
    "CREATE INDEX spans_trace ON spans (trace_hi)",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, trace_hi INTEGER NOT NULL, trace_lo INTEGER NOT NULL, span INTEGER NOT NULL,
        name TEXT NOT NULL, type TEXT NOT NULL, session TEXT NOT NULL, page TEXT NOT NULL, cause TEXT NOT NULL,
        outcome TEXT NOT NULL, start INTEGER NOT NULL, duration INTEGER NOT NULL, error_type TEXT NOT NULL,
        error_message TEXT NOT NULL, spans INTEGER NOT NULL, queries INTEGER NOT NULL, query_ns INTEGER NOT NULL,
        repeats INTEGER NOT NULL, errors INTEGER NOT NULL, text TEXT NOT NULL)""",
    "CREATE INDEX runs_trace ON runs (trace_hi)",
    "CREATE INDEX runs_session ON runs (session) WHERE session != ''",
    "CREATE INDEX runs_outcome ON runs (outcome)",
    "CREATE INDEX runs_page ON runs (page) WHERE page != ''",
    """CREATE TABLE run_steps (
        minute INTEGER, page TEXT, outcome TEXT, bucket INTEGER, count INTEGER NOT NULL, total INTEGER NOT NULL,
        PRIMARY KEY (minute, page, outcome, bucket)) WITHOUT ROWID""",
    """CREATE TABLE sessions (
        session TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, runs INTEGER NOT NULL,
        failed INTEGER NOT NULL, run_ns INTEGER NOT NULL, last_page TEXT NOT NULL, last_hi INTEGER NOT NULL,
        last_lo INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX sessions_last ON sessions (last)",
    """CREATE TABLE statements (
        id INTEGER PRIMARY KEY, text TEXT NOT NULL, summary TEXT NOT NULL, system TEXT NOT NULL,
        namespace TEXT NOT NULL)""",
    """CREATE TABLE statement_steps (
        step INTEGER, statement INTEGER, count INTEGER NOT NULL, errors INTEGER NOT NULL, total INTEGER NOT NULL,
        max INTEGER NOT NULL, runs INTEGER NOT NULL, last INTEGER NOT NULL, last_hi INTEGER NOT NULL,
        last_lo INTEGER NOT NULL, PRIMARY KEY (step, statement)) WITHOUT ROWID""",
    """CREATE TABLE repeats (
        run INTEGER, statement INTEGER, count INTEGER NOT NULL, total INTEGER NOT NULL,
        PRIMARY KEY (run, statement)) WITHOUT ROWID""",
    """CREATE TABLE logs (
        id INTEGER PRIMARY KEY, time INTEGER NOT NULL, severity INTEGER NOT NULL, level TEXT NOT NULL,
        logger TEXT NOT NULL, event TEXT, body TEXT NOT NULL, trace_hi INTEGER, trace_lo INTEGER, span INTEGER,
        attributes BLOB)""",
    "CREATE INDEX logs_trace ON logs (trace_hi) WHERE trace_hi IS NOT NULL",
    "CREATE INDEX logs_warning ON logs (id) WHERE severity >= 13",
    "CREATE INDEX logs_error ON logs (id) WHERE severity >= 17",
    """CREATE VIRTUAL TABLE words USING fts5 (
        text, content = '', columnsize = 0, tokenize = "unicode61 remove_diacritics 2")""",
    """CREATE TABLE log_steps (
        minute INTEGER, severity INTEGER, count INTEGER NOT NULL, PRIMARY KEY (minute, severity)) WITHOUT ROWID""",
    """CREATE TABLE transitions (
        id INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, event TEXT NOT NULL, name TEXT NOT NULL,
        old TEXT NOT NULL, new TEXT NOT NULL, message TEXT NOT NULL, trace_hi INTEGER, trace_lo INTEGER,
        attributes BLOB)""",
    "CREATE INDEX transitions_kind ON transitions (kind)",
    "CREATE INDEX transitions_name ON transitions (name)",
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, description TEXT NOT NULL,
        resource INTEGER NOT NULL, attributes BLOB NOT NULL, bounds BLOB, start INTEGER NOT NULL)""",
    "CREATE INDEX series_name ON series (name)",
    """CREATE TABLE points (
        series INTEGER, level INTEGER, time INTEGER, n INTEGER NOT NULL, value REAL NOT NULL, low REAL, high REAL,
        data BLOB, PRIMARY KEY (series, level, time)) WITHOUT ROWID""",
    """CREATE TABLE exemplars (
        series INTEGER, time INTEGER, value REAL, trace_hi INTEGER, trace_lo INTEGER, span INTEGER,
        PRIMARY KEY (series, time, trace_hi, value)) WITHOUT ROWID""",
)

SESSION_MEMORY: Final = (
    """CREATE TABLE session_memory (
        session TEXT PRIMARY KEY, time INTEGER NOT NULL, state INTEGER NOT NULL, uploads INTEGER NOT NULL)
        WITHOUT ROWID""",
)

#: `run_steps` added up: of ten minutes without pages, of an hour with them; a day is then read in a few milliseconds.
RUN_SUMS: Final = (
    """CREATE TABLE run_tens (
        ten INTEGER, outcome TEXT, bucket INTEGER, count INTEGER NOT NULL, total INTEGER NOT NULL,
        PRIMARY KEY (ten, outcome, bucket)) WITHOUT ROWID""",
    """CREATE TABLE run_hours (
        hour INTEGER, page TEXT, outcome TEXT, bucket INTEGER, count INTEGER NOT NULL, total INTEGER NOT NULL,
        PRIMARY KEY (hour, page, outcome, bucket)) WITHOUT ROWID""",
    "INSERT INTO run_tens SELECT minute / 10, outcome, bucket, sum(count), sum(total) FROM run_steps GROUP BY 1, 2, 3",
    """INSERT INTO run_hours SELECT minute / 60, page, outcome, bucket, sum(count), sum(total) FROM run_steps
        GROUP BY 1, 2, 3, 4""",
)

#: Version → the statements that lead to it from the one before.
MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {1: TABLES, 2: SESSION_MEMORY, 3: RUN_SUMS}

# Primary codes of what says nothing about the file's contents: permission, busy, locked, out of memory, read-only,
# interrupted, input/output, full, can't be opened.
_PASSING: Final = frozenset({3, 5, 6, 7, 8, 9, 10, 13, 14})


class Damaged(Exception):
    """A file can't be read as it was written."""


class Older(Exception):
    """A file was written by an older release, and nobody has brought it forward yet."""


class Newer(Exception):
    """A file was written by a newer release, and is left alone."""


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the file itself is broken, not that it can't be used now."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, Damaged)
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return not isinstance(error, sqlite3.ProgrammingError)
    return code & 0xFF not in _PASSING


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open a file, made (0600) where it is not there, and bring it to this release's version.

    Raises:
        Damaged, Newer: it can't be written to.
        sqlite3.Error, OSError: not now.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    connection = _connect(path, "rw")
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -8192")  # KiB
        connection.execute("PRAGMA wal_autocheckpoint = 1000")  # pages of 4 KiB
        connection.execute("PRAGMA journal_size_limit = 8388608")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file that is only looked at.

    Raises:
        Damaged, Newer, Older: it can't be read.
        sqlite3.Error, OSError: not now.
    """
    connection = _connect(path, "ro")
    try:
        if version_of(connection) < VERSION:
            raise Older("it is of an older version")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -4096")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # By the class itself, because instrumentations replace `sqlite3.connect`.
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.Connection(uri, BUSY_S, 0, None, False, uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The version of a file, 0 for an empty one.

    Raises:
        Damaged: it is another program's.
        Newer: a newer release wrote it.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID and (application or version):
        raise Damaged("it is of another program")
    if version > VERSION:
        raise Newer(f"it is of version {version}, this release knows {VERSION}")
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file forward, version by version, in one transaction."""
    if version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(version_of(connection) + 1, VERSION + 1):
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def remove_files(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it."""
    for each in (path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)):
        each.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file and what SQLite keeps beside it."""
    total = 0
    for each in (path, path.with_name(path.name + "-wal")):
        try:
            total += each.stat().st_size
        except OSError:
            pass
    return total
