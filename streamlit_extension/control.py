"""What can be changed on a running process: maintenance and the log level, through a 0600 file in the data folder.

The file outlives processes, so maintenance survives a restart; both changes end by themselves at their `until`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from streamlit_extension.health.model import Maintenance

_log = logging.getLogger("streamlit_extension.control")

CONTROL_FILE: Final = "control.json"
SCHEMA_VERSION: Final = 1
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_MOST_BYTES: Final = 65_536


class MaintenanceOrder(msgspec.Struct, frozen=True):
    """Maintenance as it was ordered: the operator's `reason`, wall times in UTC."""

    reason: str
    until: datetime
    set_at: datetime


class LogLevelOrder(msgspec.Struct, frozen=True):
    """A log level for a while: one of `LOG_LEVELS`, `until` in wall time, UTC."""

    level: str
    until: datetime


class ControlState(msgspec.Struct, frozen=True):
    """What the control file orders; None where it orders nothing."""

    maintenance: MaintenanceOrder | None = None
    log_level: LogLevelOrder | None = None

    def at(self, now: datetime) -> ControlState:
        """Return what still holds at `now` (UTC)."""
        return ControlState(
            maintenance=self.maintenance if self.maintenance and now < self.maintenance.until else None,
            log_level=self.log_level if self.log_level and now < self.log_level.until else None,
        )


class ControlChanges(msgspec.Struct, frozen=True):
    """What differs from the poll before. `state` holds now; the flags say which part is new, ended or replaced."""

    state: ControlState
    maintenance_changed: bool = False
    log_level_changed: bool = False

    @property
    def maintenance(self) -> Maintenance | None:
        """The maintenance that holds now, as the health model has it."""
        order = self.state.maintenance
        return Maintenance(reason=order.reason, until=order.until) if order is not None else None

    @property
    def log_level(self) -> str | None:
        """The log level ordered now; None means the configured one."""
        return self.state.log_level.level if self.state.log_level is not None else None

    def __bool__(self) -> bool:
        return self.maintenance_changed or self.log_level_changed


class ControlFileDamaged(ValueError):
    """The control file is there and does not hold what it should."""


class ControlFile:
    """The file itself: read as a whole, replaced as a whole."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / CONTROL_FILE

    def read(self) -> ControlState:
        """Return what is ordered; nothing when there is no file. Raises OSError and ControlFileDamaged."""
        try:
            with self.path.open("rb") as opened:
                raw = opened.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return ControlState()
        return parse(raw)

    def write(self, state: ControlState) -> None:
        """Replace the file (0600) in one step: a reader sees the old one or the new one. Raises OSError."""
        draft = self.path.with_name(f".{CONTROL_FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(render(state))
                opened.flush()
                os.fsync(opened.fileno())
            draft.replace(self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()

    def stamp(self) -> tuple[int, ...] | None:
        """Return what changes when the file is replaced, None when there is none."""
        try:
            info = self.path.stat()
        except OSError:
            return None
        return (info.st_mtime_ns, info.st_ino, info.st_size)


def render(state: ControlState) -> str:
    """Return the file's text for a state."""
    data: dict[str, Any] = {"version": SCHEMA_VERSION}
    if state.maintenance is not None:
        order = state.maintenance
        data["maintenance"] = {
            "reason": order.reason,
            "until": order.until.isoformat(),
            "set_at": order.set_at.isoformat(),
        }
    if state.log_level is not None:
        data["log_level"] = {"level": state.log_level.level, "until": state.log_level.until.isoformat()}
    return json.dumps(data, indent=2) + "\n"


def parse(raw: bytes) -> ControlState:
    """Return the state that a file's bytes hold; raises ControlFileDamaged."""
    try:
        if len(raw) > _MOST_BYTES:
            raise ValueError("too long")
        data = json.loads(raw)
        if data["version"] != SCHEMA_VERSION:
            raise ValueError("version")
        return ControlState(_maintenance(data.get("maintenance")), _log_level(data.get("log_level")))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ControlFileDamaged(type(error).__name__) from None


def _maintenance(data: Mapping[str, Any] | None) -> MaintenanceOrder | None:
    if data is None:
        return None
    if not isinstance(data["reason"], str):
        raise TypeError("reason")
    return MaintenanceOrder(data["reason"], _moment(data["until"]), _moment(data["set_at"]))


def _log_level(data: Mapping[str, Any] | None) -> LogLevelOrder | None:
    if data is None:
        return None
    if data["level"] not in LOG_LEVELS:
        raise ValueError("level")
    return LogLevelOrder(data["level"], _moment(data["until"]))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.astimezone(UTC)


class ControlWatcher:
    """Follows the control file from inside a process. `poll` is one `stat` while nothing changes; it has no thread.

    Arguments:
        data_dir: the data folder.
        on_maintenance: called by `poll` with the maintenance that begins or replaces another, with None at its end.
        on_log_level: the same with the level's name; None means the configured level.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        on_maintenance: Callable[[Maintenance | None], object] | None = None,
        on_log_level: Callable[[str | None], object] | None = None,
    ) -> None:
        self._file = ControlFile(data_dir)
        self._on_maintenance = on_maintenance
        self._on_log_level = on_log_level
        self._stamp: tuple[int, ...] | None = None
        self._written = ControlState()
        self._held = ControlState()
        self._damage_said = False

    def poll(self, now: datetime | None = None) -> ControlChanges:
        """Return what changed since the last poll, ends included; each change writes an audit event and is called.

        `now` is wall time in UTC, by default the clock's. What was ordered last holds on while the file is damaged.
        """
        now = datetime.now(UTC) if now is None else now
        stamp = self._file.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._read()
        state, before = self._written.at(now), self._held
        self._held = state
        changes = ControlChanges(
            state,
            maintenance_changed=state.maintenance != before.maintenance,
            log_level_changed=state.log_level != before.log_level,
        )
        if changes:
            _audit(changes, before)
        if changes.maintenance_changed and self._on_maintenance is not None:
            self._on_maintenance(changes.maintenance)
        if changes.log_level_changed and self._on_log_level is not None:
            self._on_log_level(changes.log_level)
        return changes

    def _read(self) -> None:
        try:
            self._written = self._file.read()
            self._damage_said = False
        except (OSError, ControlFileDamaged) as error:
            if not self._damage_said:
                self._damage_said = True
                fields = {"event": "control.file_damaged", "error_type": type(error).__name__}
                _log.warning("the control file can't be read and is ignored", extra=fields)


def _audit(changes: ControlChanges, before: ControlState) -> None:
    if changes.maintenance_changed:
        order = changes.state.maintenance
        if order is not None:
            fields = {"reason": order.reason, "until": order.until.isoformat(), "set_at": order.set_at.isoformat()}
            _log.warning("maintenance is on", extra={"event": "audit.maintenance_on", **fields})
        else:
            reason = before.maintenance.reason if before.maintenance else ""
            _log.warning("maintenance is off", extra={"event": "audit.maintenance_off", "reason": reason})
    if changes.log_level_changed:
        level = changes.state.log_level
        if level is not None:
            fields = {"new_level": level.level, "until": level.until.isoformat()}
            _log.warning("the log level is changed", extra={"event": "audit.log_level_set", **fields})
        else:
            _log.warning("the log level is back as configured", extra={"event": "audit.log_level_reset"})
