"""The control file: what it orders, how it ends, and what a damaged one does."""

from __future__ import annotations

import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.control import (
    LOG_LEVELS,
    ControlFile,
    ControlFileDamaged,
    ControlState,
    ControlWatcher,
    LogLevelOrder,
    MaintenanceOrder,
    parse,
    render,
)
from streamlit_extension.health.model import Maintenance

NOW = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)
LATER = NOW + timedelta(minutes=30)
MAINTENANCE = MaintenanceOrder(reason="move the database", until=LATER, set_at=NOW)
LOG_LEVEL = LogLevelOrder(level="DEBUG", until=LATER)

_moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
_states = st.builds(
    ControlState,
    maintenance=st.none() | st.builds(MaintenanceOrder, reason=st.text(), until=_moments, set_at=_moments),
    log_level=st.none() | st.builds(LogLevelOrder, level=st.sampled_from(LOG_LEVELS), until=_moments),
)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records]


@given(_states)
def test_what_is_written_is_read(state: ControlState) -> None:
    """Every state survives the file's text."""
    assert parse(render(state).encode()) == state


def test_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    """The file is 0600 whatever was there before, and no draft is left beside it."""
    file = ControlFile(tmp_path)
    file.path.write_text("old")
    file.path.chmod(0o666)
    file.write(ControlState(maintenance=MAINTENANCE))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["control.json"]
    assert file.read().maintenance == MAINTENANCE


def test_no_file_orders_nothing(tmp_path: Path) -> None:
    """Without a file there is neither maintenance nor a log level, and a poll says that nothing changed."""
    assert ControlFile(tmp_path).read() == ControlState()
    assert not ControlWatcher(tmp_path).poll(NOW)


def test_watcher_sees_the_beginning_and_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A change is told once, with an audit event, and again when it is taken back."""
    caplog.set_level(logging.INFO)
    told: list[Maintenance | None] = []
    watcher = ControlWatcher(tmp_path, on_maintenance=told.append)
    ControlFile(tmp_path).write(ControlState(maintenance=MAINTENANCE))
    changes = watcher.poll(NOW)
    assert changes.maintenance_changed and not changes.log_level_changed
    assert not watcher.poll(NOW)
    ControlFile(tmp_path).write(ControlState())
    assert watcher.poll(NOW).maintenance is None
    assert told == [Maintenance("move the database", LATER), None]
    assert events(caplog) == ["audit.maintenance_on", "audit.maintenance_off"]


def test_orders_end_by_themselves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At its time both orders end without anybody writing the file."""
    caplog.set_level(logging.INFO)
    levels: list[str | None] = []
    watcher = ControlWatcher(tmp_path, on_log_level=levels.append)
    ControlFile(tmp_path).write(ControlState(MAINTENANCE, LOG_LEVEL))
    assert watcher.poll(LATER - timedelta(seconds=1)).log_level == "DEBUG"
    ended = watcher.poll(LATER)
    assert ended.maintenance_changed and ended.log_level_changed and ended.log_level is None
    assert levels == ["DEBUG", None]
    assert events(caplog)[2:] == ["audit.maintenance_off", "audit.log_level_reset"]


def test_maintenance_survives_a_restart(tmp_path: Path) -> None:
    """A new process finds what an earlier one was told; one that starts after its end finds nothing."""
    ControlFile(tmp_path).write(ControlState(maintenance=MAINTENANCE))
    assert ControlWatcher(tmp_path).poll(NOW).maintenance == Maintenance("move the database", LATER)
    assert not ControlWatcher(tmp_path).poll(LATER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        "{}",
        '{"version": 1, "maintenance": {"reason": 1}}',
        '{"version": 1, "maintenance": []}',
        '{"version": 1, "log_level": {"level": "LOUD", "until": "2025-01-15T10:30:00+00:00"}}',
        '{"version": 1, "log_level": {"level": "INFO", "until": "2025-01-15T10:30:00"}}',
        '{"version": 1, "log_level": {"level": "INFO", "until": 5}}',
        "[" * 70_000,
    ],
)
def test_damaged_file_is_told_once_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """A file that is not what it should be is refused by `read`; the watcher keeps what held and logs it once."""
    file = ControlFile(tmp_path)
    watcher = ControlWatcher(tmp_path)
    file.write(ControlState(maintenance=MAINTENANCE))
    watcher.poll(NOW)
    caplog.clear()
    for padding in ("", " "):
        file.path.write_text(text + padding)
        assert not watcher.poll(NOW)
        assert watcher.poll(NOW).state.maintenance == MAINTENANCE
    with pytest.raises(ControlFileDamaged):
        file.read()
    assert events(caplog) == ["control.file_damaged"]
    file.write(ControlState())
    assert watcher.poll(NOW).maintenance_changed


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["version", "maintenance", "log_level", "reason", "until", "set_at", "level"]), x
            )
        ),
    )
)
def test_any_json_is_a_state_or_damage(data: object) -> None:
    """No JSON at all makes `parse` raise anything else."""
    try:
        assert isinstance(parse(json.dumps(data).encode()), ControlState)
    except ControlFileDamaged as error:
        assert str(error)
