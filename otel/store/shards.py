"""The store's files as readers see them: one read-only connection for each file and thread."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from otel.spool.claim import Claim
from otel.store import schema

T = TypeVar("T")

#: A question is not followed any longer; what was found by then is the answer.
PATIENCE_S: Final = 2.0
#: SQLite looks at the clock once in so many steps of its machine.
_STEPS: Final = 50_000
_FURTHEST: Final = (1 << 63) - 1


class Shard:
    """One file, to one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.name = path.stem
        self.path = path
        self._connection = connection
        self._deadline = 0.0
        connection.set_progress_handler(self._over, _STEPS)

    def _over(self) -> int:
        return 1 if time.monotonic() > self._deadline else 0

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """All rows of a query.

        Raises:
            sqlite3.Error: the file can't be read, or the query took too long (`is_interrupt`).
        """
        self._deadline = time.monotonic() + PATIENCE_S
        return self._connection.execute(sql, _bounded(parameters)).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The first row of a query, None for none."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _bounded(parameters: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
    """Parameters with numbers that SQLite can hold: a time before or after all times is the first or the last."""
    if isinstance(parameters, Mapping):
        return {name: _held(value) for name, value in parameters.items()}
    return [_held(value) for value in parameters]


def _held(value: Any) -> Any:
    return min(max(value, -_FURTHEST - 1), _FURTHEST) if isinstance(value, int) else value


def is_interrupt(error: sqlite3.Error) -> bool:
    """Whether a query was ended because it took too long."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT


class Shards:
    """The files of a folder. Files come and go while they are read; one that can't be read is left out and named."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[Shard] = []
        self.problems: dict[str, str] = {}

    def newest_first(self) -> list[Shard]:
        """The files that can be read, the one begun last first."""
        known: dict[str, tuple[Shard, tuple[int, int]]] = self._local.__dict__.setdefault("known", {})
        there = {}
        for path in sorted(self._folder.glob(f"*{schema.SUFFIX}"), reverse=True):
            try:
                status = path.stat()
            except OSError:
                continue
            there[path.name] = (path, (status.st_dev, status.st_ino))
        for name in [name for name, (_, identity) in known.items() if name not in there or there[name][1] != identity]:
            self._forget(known.pop(name)[0])
        for name in self.problems.keys() - there.keys():
            self.problems.pop(name, None)
        for name, (path, identity) in there.items():
            if name not in known and (shard := self._open(path)) is not None:
                known[name] = (shard, identity)
        return [known[name][0] for name in there if name in known]

    def _open(self, path: Path) -> Shard | None:
        try:
            try:
                connection = schema.open_to_read(path)
            except schema.Older:
                _bring_forward(path)
                connection = schema.open_to_read(path)
        except (schema.Damaged, schema.Newer, schema.Older, sqlite3.Error, OSError) as error:
            self._complain(path.name, error)
            return None
        self.problems.pop(path.name, None)
        shard = Shard(path, connection)
        with self._lock:
            self._all.append(shard)
        return shard

    def _complain(self, name: str, error: Exception) -> None:
        self.problems[name] = f"{name} can't be read: {getattr(error, 'sqlite_errorname', None) or error}"

    def _forget(self, shard: Shard) -> None:
        shard.close()
        with self._lock:
            if shard in self._all:
                self._all.remove(shard)

    def ask(
        self, question: Callable[[Shard], T], *, shards: Sequence[Shard] | None = None
    ) -> Iterator[tuple[Shard, T]]:
        """Ask each file, the newest first; what one can't answer is left out."""
        for shard in self.newest_first() if shards is None else shards:
            try:
                answer = question(shard)
            except sqlite3.Error as error:
                if not is_interrupt(error):
                    self._complain(shard.path.name, error)
                continue
            yield shard, answer

    def close(self) -> None:
        """Close every thread's connections; a later question opens new ones."""
        with self._lock:
            everything, self._all = self._all, []
        self._local = threading.local()
        for shard in everything:
            shard.close()


def _bring_forward(path: Path) -> None:
    """Bring a file of an older release to this one's version, unless a process has it.

    Raises:
        sqlite3.Error, OSError: it can't be written to.
    """
    claim = Claim.take(path)
    if claim is not None:
        try:
            schema.open_to_write(path).close()
        finally:
            claim.release()
