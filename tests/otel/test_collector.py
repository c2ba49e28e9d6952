"""The clock of metrics ticks on its own thread, is asked from outside, and ends."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from otel.collector import FIRST_FOR_S, THREAD_NAME, Collector


def running() -> list[threading.Thread]:
    """The clocks that run now."""
    return [each for each in threading.enumerate() if each.name == THREAD_NAME]


def test_it_collects_when_asked_and_waits_for_it() -> None:
    """A question is answered with a collection that began after it."""
    seen: list[float] = []
    collector = Collector(seen.append, interval_s=3600.0, timeout_s=7.0)
    assert not collector.collect_now(1), "it has not been started"
    collector.start()
    assert collector.collect_now(10)
    assert seen == [7.0]
    assert collector.stop(10)
    assert running() == []
    assert not collector.collect_now(1)


def test_it_collects_by_itself() -> None:
    """Every interval, until it is stopped."""
    enough = threading.Event()
    seen: list[float] = []

    def collect(timeout_s: float) -> None:
        seen.append(timeout_s)
        if len(seen) == 3:
            enough.set()

    collector = Collector(collect, interval_s=0.01, timeout_s=1.0)
    collector.start()
    assert enough.wait(10)
    assert collector.stop(10)


def test_one_that_hangs_holds_nobody_up() -> None:
    """Question and stop end in their time; the thread ends with its callback."""
    release = threading.Event()

    def hang(_: float) -> None:
        release.wait()

    collector = Collector(hang, interval_s=3600.0, timeout_s=1.0)
    collector.start()
    began = time.monotonic()
    assert not collector.collect_now(0.05)
    assert not collector.stop(0.05)
    assert time.monotonic() - began < 5
    release.set()
    assert collector.stop(10)
    assert running() == []


def test_one_that_fails_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """The line names the kind of error, not its text, which may hold anything."""

    def fail(_: float) -> None:
        raise ValueError("hunter2")

    collector = Collector(fail, interval_s=3600.0, timeout_s=1.0)
    collector.start()
    with caplog.at_level(logging.WARNING, "otel.export.metrics"):
        assert all(collector.collect_now(10) for _ in range(3))
    assert collector.stop(10)
    assert len([each for each in caplog.records if each.name == "otel.export.metrics"]) == 1
    assert "hunter2" not in caplog.text


def test_it_is_quicker_in_the_first_ten_minutes() -> None:
    """The first interval comes first and gives way to the other."""
    collector = Collector(lambda _: None, interval_s=60.0, timeout_s=1.0, first_s=10.0)
    assert [collector.next_after(age_s) for age_s in (0.0, 599.0, FIRST_FOR_S, 1e6)] == [10.0, 10.0, 60.0, 60.0]
    assert Collector(lambda _: None, interval_s=60.0, timeout_s=1.0).next_after(0.0) == 60.0
    collected = threading.Event()
    quick = Collector(lambda _: collected.set(), interval_s=3600.0, timeout_s=1.0, first_s=0.01)
    quick.start()
    assert collected.wait(10)
    assert quick.stop(10)
