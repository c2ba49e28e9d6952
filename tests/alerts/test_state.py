"""What outlives a restart: alerts, undelivered notices and silences, in private files that may be damaged."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlit_extension.alerts.message import trial_notice
from streamlit_extension.alerts.model import AlertRule, AlertState, Notice, NoticeKind, Phase, Silence
from streamlit_extension.alerts.state import AlertFile, DamagedFile, SilenceFile, rebased

NOW = 1_700_000_000.0
FIRING = AlertState(Phase.FIRING, since=NOW, seen=NOW + 30, told=NOW + 1, value=93.5, threshold=85, trace_id="ab" * 16)
NOTICE = trial_notice(NOW, service="shop", instance="pod-1")

_times = st.floats(0, 4e9)
_states = st.builds(
    AlertState,
    st.sampled_from(list(Phase)),
    _times,
    _times,
    st.none() | _times,
    st.booleans(),
    st.floats(-1e9, 1e9),
    st.floats(-1e9, 1e9),
    st.none() | st.text(),
)


@settings(deadline=None, max_examples=50)
@given(states=st.dictionaries(st.text(), _states, max_size=4))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, states: dict[str, AlertState]) -> None:
    """Every state and every undelivered notice comes back as it was."""
    folder = tmp_path_factory.mktemp("data")
    first = AlertFile(folder)
    first.save(states, {"slack": [NOTICE], "email": []})
    first.close()
    second = AlertFile(folder)
    loaded = second.load(4e9)
    second.close()
    assert loaded.states == states
    assert loaded.outbox == {"slack": [NOTICE]}


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    """Files are 0600, and no draft is left beside them."""
    file = AlertFile(tmp_path)
    file.save({"cpu_usage": FIRING}, {})
    file.save({"cpu_usage": AlertState()}, {})
    SilenceFile(tmp_path).write([Silence("*", NOW, "x")])
    file.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"alerts.json": 0o600, "alerts.lock": 0o600, "silences.json": 0o600}


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    """The same state is not written a second time."""
    file = AlertFile(tmp_path)
    file.save({"cpu_usage": FIRING}, {})
    before = (tmp_path / "alerts.json").stat().st_ino
    file.save({"cpu_usage": FIRING}, {"slack": []})
    assert (tmp_path / "alerts.json").stat().st_ino == before
    file.save({}, {})
    assert (tmp_path / "alerts.json").stat().st_ino != before
    file.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 2, "states": {}}', b'{"states": {"x": {"phase": "loud"}}}', b"\xff" * 99],
)
def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file that holds something else starts nothing from it, is kept under another name, and is told of."""
    (tmp_path / "alerts.json").write_bytes(content)
    file = AlertFile(tmp_path)
    assert file.load(NOW).states == {}
    aside = [path for path in tmp_path.iterdir() if ".damaged-" in path.name]
    assert [path.read_bytes() for path in aside] == [content]
    assert [getattr(record, "event", "") for record in caplog.records] == ["alerts.state_damaged"]
    file.save({"cpu_usage": FIRING}, {})
    file.close()


def test_processes_that_share_a_folder_keep_files_of_their_own(tmp_path: Path) -> None:
    """A second process takes another file, and whoever comes after one that ended, also by a kill, goes on from its."""
    code = (
        "import sys, pathlib\n"
        "from streamlit_extension.alerts.state import AlertFile\n"
        "from streamlit_extension.alerts.model import AlertState\n"
        "file = AlertFile(pathlib.Path(sys.argv[1]))\n"
        "file.save({'of_the_other': AlertState()}, {})\n"
        "print(file.slot, flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == b"0\n"
    mine = AlertFile(tmp_path)
    assert (mine.slot, mine.load(NOW).states) == (1, {})
    mine.close()
    other.kill()
    other.wait()
    other.stdout.close()
    other.stdin.close()
    successor = AlertFile(tmp_path)
    assert (successor.slot, list(successor.load(NOW).states)) == (0, ["of_the_other"])
    successor.close()


def test_a_folder_that_can_not_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Alerts go on without their file, and one line says so."""
    file = AlertFile(tmp_path)
    file.path = tmp_path / "gone" / "alerts.json"
    file.save({"a": FIRING}, {})
    file.save({"a": FIRING, "b": FIRING}, {})
    assert [getattr(record, "event", "") for record in caplog.records] == ["alerts.state_not_kept"]
    file.close()
    nowhere = AlertFile(tmp_path / "gone")
    assert nowhere.path is None and nowhere.load(NOW).states == {}


def test_a_clock_that_was_wrong_holds_no_alert_for_years() -> None:
    """Times from the future are taken for now."""
    wrong = AlertState(Phase.FIRING, since=NOW + 1e8, seen=NOW + 1e8, told=NOW + 1e8)
    assert rebased(wrong, NOW) == AlertState(Phase.FIRING, since=NOW, seen=NOW, told=NOW)


def test_silences_have_an_end_and_the_last_good_ones_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only what has not ended is current; a damaged file changes nothing until it is mended."""
    caplog.set_level(logging.WARNING)
    file, reader = SilenceFile(tmp_path), SilenceFile(tmp_path)
    assert reader.current(NOW) == ()
    mine, over = Silence("cpu_usage", NOW + 60, "deploying", NOW), Silence("*", NOW, "over")
    file.write([mine, over])
    assert reader.current(NOW) == (mine,)
    (tmp_path / "silences.json").write_text("{")
    assert reader.current(NOW) == (mine,) and reader.current(NOW) == (mine,)
    told = [getattr(record, "event", "") for record in caplog.records]
    assert told == ["audit.alerts_silenced", "alerts.silences_damaged"]
    assert vars(caplog.records[0])["rules"] == ["cpu_usage"]
    file.write([])
    assert reader.current(NOW) == () and vars(caplog.records[-1])["event"] == "audit.alerts_unsilenced"
    (tmp_path / "silences.json").write_text("{")
    with pytest.raises(DamagedFile):
        file.read()


def test_without_a_folder_nothing_is_kept() -> None:
    """No data folder: alerts work, silences can't be written."""
    file = AlertFile(None)
    file.save({"a": FIRING}, {})
    assert file.load(NOW).states == {} and SilenceFile(None).current(NOW) == ()
    with pytest.raises(OSError, match="no data folder"):
        SilenceFile(None).write([])


def test_a_notice_knows_the_worst_of_its_alerts() -> None:
    """The severity of a group is that of its worst alert."""
    rule = AlertRule(name="a", metric="a", threshold=1.0)
    worst = Notice(NoticeKind.FIRED, (*NOTICE.alerts, *(trial_notice(NOW, service="s").alerts)), NOW)
    assert str(worst.severity) == "info" and str(rule.severity) == "critical"
