"""Alerts that survive a restart, and silences that operators set: files in the data folder, 0600, replaced whole.

Several processes may share a data folder: each keeps its alerts in a file of its own, held by a lock on a file, so that
a process that comes after one that ended goes on where that one stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from streamlit_extension.alerts.model import AlertState, Notice, Silence

try:
    import fcntl
except ImportError:  # Windows: one process a data folder
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("streamlit_extension.alerts")

SCHEMA_VERSION: Final = 1
SILENCES_FILE: Final = "silences.json"
MOST_SLOTS: Final = 64
_MOST_BYTES: Final = 4 * 1024 * 1024

T = TypeVar("T")


class Saved(msgspec.Struct, frozen=True):
    """What a process keeps: the state of each rule, and by sink what was not delivered yet."""

    version: int = SCHEMA_VERSION
    states: dict[str, AlertState] = msgspec.field(default_factory=dict)
    outbox: dict[str, list[Notice]] = msgspec.field(default_factory=dict)


class _Silences(msgspec.Struct, frozen=True):
    version: int = SCHEMA_VERSION
    silences: list[Silence] = msgspec.field(default_factory=list)


class DamagedFile(ValueError):
    """A file is there and does not hold what it should."""


def write_private(path: Path, content: bytes) -> None:
    """Replace a file (0600) in one step: a reader sees the old one or the new one. Raises OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def _read(path: Path, kind: type[T], version: Callable[[T], int]) -> T | None:
    """Return what a file holds, None when there is none. Raises OSError and DamagedFile."""
    try:
        with path.open("rb") as opened:
            raw = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        if len(raw) > _MOST_BYTES:
            raise ValueError("too long")
        found = msgspec.json.decode(raw, type=kind)
        if version(found) != SCHEMA_VERSION:
            raise ValueError("version")
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise DamagedFile(type(error).__name__) from None
    return found


def rebased(state: AlertState, now: float) -> AlertState:
    """Return a kept state with no time after `now`: a clock that was wrong must not hold an alert for years."""
    told = state.told
    return replace(
        state, since=min(state.since, now), seen=min(state.seen, now), told=None if told is None else min(told, now)
    )


class AlertFile:
    """One process's alerts in the data folder.

    Arguments:
        data_dir: the folder; None keeps nothing.

    `slot` is the number of the file that this process holds until `close`.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self.slot = 0
        self._lock_file: Any = None
        self.path: Path | None = None
        self._told = False
        self._written: bytes | None = None
        if data_dir is not None:
            self._take_slot(data_dir)

    def _take_slot(self, data_dir: Path) -> None:
        for slot in range(MOST_SLOTS):
            path = data_dir / ("alerts.json" if slot == 0 else f"alerts-{slot}.json")
            lock = path.with_suffix(".lock")
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            except OSError as error:
                self._say("alerts can't be kept in the data folder", error)
                return
            opened = os.fdopen(descriptor, "r+b")
            if _locked(opened):
                self._lock_file, self.path, self.slot = opened, path, slot
                return
            opened.close()
        self._say("alerts are not kept: too many processes share the data folder", None)

    def load(self, now: float) -> Saved:
        """Return what was kept; nothing when there is nothing. A damaged file is set aside."""
        if self.path is None:
            return Saved()
        try:
            found = _read(self.path, Saved, lambda saved: saved.version)
        except DamagedFile as error:
            self._set_aside(self.path, error)
            return Saved()
        except OSError as error:
            self._say("the kept alerts can't be read", error)
            return Saved()
        if found is None:
            return Saved()
        return replace(found, states={name: rebased(state, now) for name, state in found.states.items()})

    def save(self, states: Mapping[str, AlertState], outbox: Mapping[str, Sequence[Notice]]) -> None:
        """Keep what holds now, when it differs from what is kept; never raises."""
        if self.path is None:
            return
        saved = Saved(states=dict(states), outbox={name: list(held) for name, held in outbox.items() if held})
        content = msgspec.json.encode(saved)
        if content == self._written:
            return
        try:
            write_private(self.path, content)
            self._written, self._told = content, False
        except OSError as error:
            self._say("alerts can't be kept in the data folder", error)

    def close(self) -> None:
        """Let another process have the file."""
        if self._lock_file is not None:
            self._lock_file.close()
        self._lock_file = self.path = None

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        with contextlib.suppress(OSError):
            path.replace(aside)
        fields = {"event": "alerts.state_damaged", "file": str(aside), "error_type": str(error)}
        _log.warning("the kept alerts are damaged and set aside", extra=fields)

    def _say(self, message: str, error: Exception | None) -> None:
        if not self._told:
            self._told = True
            kind = type(error).__name__ if error is not None else ""
            _log.warning(message, extra={"event": "alerts.state_not_kept", "error_type": kind})


def _locked(opened: Any) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: better kept than not
        return True
    return True


class SilenceFile:
    """What operators silenced, for every process of the data folder; each silence has an end."""

    def __init__(self, data_dir: Path | None) -> None:
        self.path = data_dir / SILENCES_FILE if data_dir is not None else None
        self._stamp: tuple[int, ...] | None = None
        self._held: tuple[Silence, ...] = ()

    def read(self) -> tuple[Silence, ...]:
        """Return all that were written, ended ones too. Raises OSError and DamagedFile."""
        if self.path is None:
            return ()
        found = _read(self.path, _Silences, lambda held: held.version)
        return tuple(found.silences) if found is not None else ()

    def current(self, now: float) -> tuple[Silence, ...]:
        """Return those that hold now; one `stat` while nothing changes. The last good ones hold while it is damaged."""
        if self.path is None:
            return ()
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                held = self.read()
                if held != self._held:
                    _audit(held, now)
                self._held = held
            except (OSError, DamagedFile) as error:
                fields = {"event": "alerts.silences_damaged", "error_type": type(error).__name__}
                _log.warning("the silences can't be read; the last ones hold", extra=fields)
        return tuple(each for each in self._held if now < each.until)

    def write(self, silences: Sequence[Silence]) -> None:
        """Replace them all. Raises OSError."""
        if self.path is None:
            raise OSError("there is no data folder")
        write_private(self.path, msgspec.json.format(msgspec.json.encode(_Silences(silences=list(silences)))))


def _audit(silences: Sequence[Silence], now: float) -> None:
    """Say what operators silenced, once for each change."""
    held = [each for each in silences if now < each.until]
    fields: dict[str, Any] = {"rules": [each.rule for each in held], "reasons": [each.reason for each in held]}
    event = "audit.alerts_silenced" if held else "audit.alerts_unsilenced"
    _log.warning("alerts are silenced" if held else "no alert is silenced", extra={"event": event, **fields})


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return (info.st_mtime_ns, info.st_ino, info.st_size)
