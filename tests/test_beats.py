"""What is done again and again: on the event loop, and on a thread where it may hang."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest

from streamlit_extension.beats import TELL_AGAIN_S, Beats, Heartbeat, Housekeeping


def fails() -> None:
    raise OSError("no such volume")


def fails_too() -> None:
    raise ValueError("closed")


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "stx-housekeeping"]


def wait_until(accept: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not accept():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_beat_that_fails_is_told_once_a_minute_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand failures of two beats within a minute are two lines; each is told again after it."""
    now_s = [0.0]
    calls: list[int] = []
    beats = Beats((fails, fails_too, lambda: calls.append(1)), clock=lambda: now_s[0])
    for _ in range(1000):
        now_s[0] += TELL_AGAIN_S / 1100
        beats.round()
    assert len(calls) == 1000
    assert [(each.__dict__["beat"], each.getMessage()) for each in caplog.records] == [
        ("fails", "fails failed: OSError"),
        ("fails_too", "fails_too failed: ValueError"),
    ]
    now_s[0] += TELL_AGAIN_S
    beats.round()
    assert len(caplog.records) == 4


async def test_the_heartbeat_goes_on_after_a_failure_and_ends_with_its_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It beats more than once although one of its functions fails each time; after `stop` there is no task of it."""
    beaten = asyncio.Event()
    count = 0

    def beat() -> None:
        nonlocal count
        count += 1
        if count > 1:
            beaten.set()

    heartbeat = Heartbeat(fails, beat)
    heartbeat.start()
    async with asyncio.timeout(20):
        await beaten.wait()
    heartbeat.stop()
    await asyncio.sleep(0)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "stx-heartbeat"] == []
    assert len(caplog.records) == 1


def test_the_first_round_is_over_when_the_start_is(caplog: pytest.LogCaptureFixture) -> None:
    """What operators have ordered holds before anybody is served; the thread ends with `stop`."""
    caplog.set_level(logging.INFO)
    rounds: list[int] = []
    housekeeping = Housekeeping(fails, lambda: rounds.append(threading.get_ident()))
    housekeeping.start(first_round_s=20)
    assert rounds
    assert rounds[0] != threading.get_ident()
    wait_until(lambda: len(rounds) > 1)
    assert len(threads()) == 1
    housekeeping.stop()
    assert threads() == []
    assert len(caplog.records) == 1


async def test_a_chore_that_hangs_holds_up_neither_the_loop_nor_the_stop() -> None:
    """Start and stop return although a chore waits for ever, and the event loop beats meanwhile."""
    hanging, let_go, beaten = threading.Event(), threading.Event(), asyncio.Event()

    def hang() -> None:
        hanging.set()
        let_go.wait(120)

    housekeeping, heartbeat = Housekeeping(hang), Heartbeat(beaten.set)
    housekeeping.start(first_round_s=0.05)
    heartbeat.start()
    assert await asyncio.to_thread(hanging.wait, 20)
    async with asyncio.timeout(20):
        await beaten.wait()
    heartbeat.stop()
    (thread,) = threads()
    await asyncio.wait_for(asyncio.to_thread(housekeeping.stop), 20)
    assert thread.daemon
    let_go.set()
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
