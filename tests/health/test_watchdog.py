"""The watchdog: an event loop that doesn't move is noticed, with the frame that blocks it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.health.watchdog import Watchdog

STALL_S = 0.3


async def beside(watchdog: Watchdog, *works: Callable[[], object]) -> None:
    """Do each work on a loop that beats as the product's does, and beat on until the watchdog has seen its end."""

    async def beat() -> None:
        while True:
            watchdog.beat()
            await asyncio.sleep(STALL_S / 10)

    watchdog.start()
    beats = asyncio.create_task(beat())
    try:
        await asyncio.sleep(STALL_S)
        for work in works:
            work()
            await asyncio.sleep(STALL_S * 2)
    finally:
        beats.cancel()
        watchdog.stop()


def stalls(caplog: pytest.LogCaptureFixture, event: str = "event_loop.stalled") -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.__dict__.get("event") == event]


def blocks_in_python() -> None:
    deadline = time.monotonic() + 4 * STALL_S
    while time.monotonic() < deadline:
        time.sleep(0.01)


def blocks_with_the_lock_held() -> None:
    """Sleeps in C without giving the interpreter's lock away."""
    ctypes.PyDLL(None).usleep(int((STALL_S + 1.0 + 0.7) * 1_000_000))


async def test_python_code_that_blocks_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """One event names the innermost frames while it lasts, one tells that it is over and how long it took."""
    caplog.set_level(logging.INFO)
    await beside(Watchdog(stall_after_s=STALL_S), blocks_in_python)
    (stall,) = stalls(caplog)
    assert stall["stall_s"] >= STALL_S
    assert any("blocks_in_python" in frame for frame in stall["frames"][:2])
    assert __file__ in stall["message"] or "blocks_in_python" in stall["message"]
    (recovered,) = stalls(caplog, "event_loop.recovered")
    assert recovered["duration_s"] >= stall["stall_s"]


async def test_each_stall_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A second stall after a recovery is an event of its own."""
    caplog.set_level(logging.INFO)
    await beside(Watchdog(stall_after_s=STALL_S), blocks_in_python, blocks_in_python)
    assert len(stalls(caplog)) == len(stalls(caplog, "event_loop.recovered")) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="calls the C library's usleep")
async def test_c_code_that_keeps_the_lock_is_named_on_standard_error(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """While no Python thread can run at all, the traceback with the blocking call is written to standard error."""
    caplog.set_level(logging.INFO)
    await beside(Watchdog(stall_after_s=STALL_S), blocks_with_the_lock_held)
    written = capfd.readouterr().err
    assert "blocks_with_the_lock_held" in written
    assert "most recent call first" in written
    (stall,) = stalls(caplog)
    assert stall["stall_s"] >= STALL_S + 1


async def test_a_stall_that_was_over_before_the_watchdog_could_look_is_told_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The beats themselves show the gap, so that no stall is lost when the loop gets the lock back first."""
    caplog.set_level(logging.INFO)
    watchdog = Watchdog(stall_after_s=STALL_S)

    def blocks_and_beats() -> None:
        held_s = sys.getswitchinterval()
        sys.setswitchinterval(100)  # nobody else gets the lock before the next beat
        try:
            ctypes.PyDLL(None).usleep(int(2 * STALL_S * 1_000_000))
            watchdog.beat()
        finally:
            sys.setswitchinterval(held_s)

    await beside(watchdog, blocks_and_beats)
    (stall,) = stalls(caplog)
    assert stall["stall_s"] >= STALL_S
    assert "or the machine was overloaded" in stall["message"]
    assert len(stalls(caplog, "event_loop.recovered")) == 1


def test_a_stall_without_a_frame_says_that_the_machine_may_be_overloaded(caplog: pytest.LogCaptureFixture) -> None:
    """Where the thread of the loop shows no frame, nobody is accused."""
    watchdog = Watchdog(stall_after_s=STALL_S)
    thread = threading.Thread(target=watchdog.start)
    thread.start()
    thread.join(10)  # with its thread the loop is gone, and beats no more
    deadline = time.monotonic() + 20
    while not stalls(caplog) and time.monotonic() < deadline:
        time.sleep(0.01)
    watchdog.stop()
    (stall,) = stalls(caplog)
    assert stall["frames"] == []
    assert "an unknown place (the machine may be overloaded)" in stall["message"]


async def test_a_loop_that_moves_is_never_accused(caplog: pytest.LogCaptureFixture) -> None:
    """Work that gives the loop back in time, also long work on another thread, makes no event."""
    caplog.set_level(logging.INFO)
    busy = threading.Thread(target=blocks_in_python)
    await beside(Watchdog(stall_after_s=5), busy.start)
    busy.join(30)
    assert stalls(caplog) == []


async def test_its_thread_ends_and_nothing_is_left_armed(capfd: pytest.CaptureFixture[str]) -> None:
    """After `stop` there is no thread of its own, and no traceback comes however long the loop blocks then."""
    watchdog = Watchdog(stall_after_s=0.05)
    await beside(watchdog, lambda: None)
    capfd.readouterr()
    time.sleep(1.3)
    assert capfd.readouterr().err == ""
    assert not [each for each in threading.enumerate() if each.name == "stx-watchdog"]


@pytest.mark.parametrize("stream", [None, object()])
async def test_it_works_without_a_real_standard_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    """Where standard error is no file the log line alone tells."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", stream)
    await beside(Watchdog(stall_after_s=STALL_S), blocks_in_python)
    assert len(stalls(caplog)) == 1


async def test_a_standard_error_that_is_closed_meanwhile_is_dropped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beats go on without an error, nothing stays armed, and the log line still tells of a stall."""
    caplog.set_level(logging.INFO)
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        watchdog = Watchdog(stall_after_s=STALL_S)
        watchdog.beat()
    for _ in range(3):
        watchdog.beat()
    await beside(watchdog, blocks_in_python)
    assert len(stalls(caplog)) == 1
    assert (tmp_path / "stderr").read_text() == ""
