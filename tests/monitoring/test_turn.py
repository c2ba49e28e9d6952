"""Which of several workers speaks of the machine."""

from __future__ import annotations

from pathlib import Path

from streamlit_extension.monitoring.turn import OF_THE_MACHINE, Turn

READINGS = dict.fromkeys([*OF_THE_MACHINE, "error_rate"], 1)


def test_one_speaks_until_it_ends_and_then_another(tmp_path: Path) -> None:
    """The others leave the machine's readings out and keep their own; groups don't know one another."""
    first, second, stranger = Turn(tmp_path, "a"), Turn(tmp_path, "a"), Turn(tmp_path, "b")
    assert first.without_others(READINGS) == READINGS == stranger.without_others(READINGS)
    assert second.without_others(READINGS) == {"error_rate": 1}
    assert first.is_ours() and not second.is_ours()
    first.close()
    assert second.without_others(READINGS) == READINGS
    second.close()
    stranger.close()
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_can_tell_all_speak(tmp_path: Path) -> None:
    """An alert that is told twice is better than none."""
    assert Turn(tmp_path / "not there", "a").is_ours()
