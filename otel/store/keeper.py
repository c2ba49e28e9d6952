"""Looks after the store's folder in the background: size, age, coarser metrics, older versions, damage."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from otel.export.notices import Notices
from otel.spool.claim import LOCK_SUFFIX, Claim, is_owned
from otel.spool.gate import GATE
from otel.store import schema
from otel.store.segment import Segment, set_aside
from otel.trace_context import suppressed

PERIOD_S: Final = 5.0
#: So long a series is kept as it was collected, and in steps of a minute; then in steps of ten minutes.
KEPT_S: Final = (3600.0, 86400.0)
#: So many series are looked at in one round.
AT_ONCE: Final = 500
SHARE: Final = 8
_THIN: Final = "DELETE FROM points WHERE series = ? AND level = ? AND time < ?"


def files_of(folder: Path) -> list[Path]:
    """The store's files in a folder, oldest first."""
    return sorted(folder.glob(f"*{schema.SUFFIX}"))


class Keeper:
    """A thread that keeps a folder within its bounds.

    Arguments:
        own: does work on the file that this process writes, inside the gate, and ends it when it is older than so many
            seconds; returns its path, None where there is none.

    Every process that writes has one; they share the work, for whoever takes the claim of a file has it alone.
    """

    def __init__(
        self,
        folder: Path,
        notices: Notices,
        max_bytes: int,
        max_age_s: float,
        own: Callable[[Callable[[sqlite3.Connection], Any], float], Path | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._notices = notices
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._own = own
        self._clock = clock
        self.damaged = 0
        self.removed = 0
        self.begin_in_child()

    def begin_in_child(self) -> None:
        """Without a thread, as at the beginning."""
        self.writers = 1
        self._checked: set[str] = set()
        self._wake = threading.Event()
        self._after: int | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="otel.store.keeper", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def hurry(self) -> None:
        """Look now."""
        self._wake.set()

    def _run(self) -> None:
        with suppressed():
            while not self._stopping:
                self._wake.clear()
                try:
                    self.look_after()
                except Exception as error:
                    self._notices.say("store.keeper", f"looking after the store failed: {type(error).__name__}")
                self._wake.wait(PERIOD_S)

    def size_bytes(self) -> int:
        """What all files take."""
        return sum(schema.size_of(path) for path in files_of(self._folder))

    def look_after(self) -> None:
        """One round."""
        self._own(self._thin_own, self._max_age_s / SHARE)
        files = files_of(self._folder)
        free = [path for path in files if not is_owned(path)]
        self.writers = max(1, len(files) - len(free))
        self._remove_old(free)
        self._remove_above(files, free)
        for path in free:
            if path.name not in self._checked and path.exists() and not self._stopping:
                self._check(path)
                self._checked.add(path.name)
        self._forget_locks()

    # -- size and age -----------------------------------------------------------------------------------------------

    def _remove_above(self, files: list[Path], free: list[Path]) -> None:
        """Remove the oldest files until there is room for one more that is full."""
        sizes = {path: schema.size_of(path) for path in files}
        total = sum(sizes.values())
        room = self._max_bytes - self._max_bytes // SHARE
        for path in free:
            if total <= room:
                return
            if self._remove(path):
                total -= sizes[path]

    def _remove_old(self, free: list[Path]) -> None:
        before = self._clock() - self._max_age_s
        for path in list(free):
            if _changed_s(path) < before and self._remove(path):
                free.remove(path)

    def _remove(self, path: Path) -> bool:
        claim = Claim.take(path)
        if claim is None:
            return False
        schema.remove_files(path)
        claim.discard()
        self._checked.discard(path.name)
        self.removed += 1
        return True

    def _forget_locks(self) -> None:
        """Remove lock files whose file is gone."""
        for lock in self._folder.glob(f"*{LOCK_SUFFIX}"):
            path = lock.with_suffix(schema.SUFFIX)
            if not path.exists() and not is_owned(path) and (claim := Claim.take(path)) is not None:
                if path.exists():
                    claim.release()
                else:
                    claim.discard()

    # -- files that others left -------------------------------------------------------------------------------------

    def left_over(self, full_bytes: int) -> Segment | None:
        """The newest file that nobody has and that is not full, to be gone on with; inside the gate."""
        young = self._clock() - self._max_age_s / SHARE
        for path in reversed(files_of(self._folder)):
            if _began_s(path) < young or schema.size_of(path) > full_bytes * 3 // 4:
                continue
            claim = Claim.take(path)
            if claim is None:
                continue
            if not path.exists():
                claim.discard()
                continue
            try:
                return Segment.go_on(path, claim)
            except Exception as error:
                self._unusable(path, claim, error)
        return None

    def _check(self, path: Path) -> None:
        """Bring an older file forward, set a damaged one aside, take the oldest points out."""
        claim = Claim.take(path)
        if claim is None:
            return
        try:
            with GATE():
                connection = schema.open_to_write(path)
                try:
                    self._thin_all(connection)
                finally:
                    connection.close()
        except Exception as error:
            self._unusable(path, claim, error)
            return
        claim.release()

    def _unusable(self, path: Path, claim: Claim, error: Exception) -> None:
        if not schema.is_damage(error):
            claim.release()
            return
        name = getattr(error, "sqlite_errorname", None) or str(error)
        self._notices.say("store.damaged", f"a file of the store is damaged and was set aside: {name}", file=path.name)
        self.damaged += 1
        set_aside(path, claim)

    def _thin_own(self, connection: sqlite3.Connection) -> None:
        self._after = self._thin(connection, self._after)

    def _thin_all(self, connection: sqlite3.Connection) -> None:
        after: int | None = None
        while (after := self._thin(connection, after)) is not None:
            pass

    def _thin(self, connection: sqlite3.Connection, after: int | None) -> int | None:
        """Remove fine points, which coarser ones stand for, of the series after one; returns the last one's number."""
        now_ns = int(self._clock() * 1e9)
        least = -(1 << 63) if after is None else after + 1
        found = connection.execute(
            "SELECT id FROM series WHERE id >= ? ORDER BY id LIMIT ?", (least, AT_ONCE)
        ).fetchall()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for level, kept_s in enumerate(KEPT_S):
                connection.executemany(_THIN, [(each[0], level, now_ns - int(kept_s * 1e9)) for each in found])
        finally:
            connection.execute("COMMIT")
        return int(found[-1][0]) if len(found) == AT_ONCE else None


def _changed_s(path: Path) -> float:
    """When a file was last written to, in seconds since the Unix epoch."""
    found = 0.0
    for each in (path, path.with_name(path.name + "-wal")):
        try:
            found = max(found, each.stat().st_mtime)
        except OSError:
            pass
    return found


def _began_s(path: Path) -> float:
    """When a file was begun, as its name says."""
    try:
        return int(path.name.partition("-")[0], 16) / 1e6
    except ValueError:
        return 0.0
