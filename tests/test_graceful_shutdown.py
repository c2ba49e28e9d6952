"""The stop in four phases: order, budget, containment, signals; with real signals to real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import pytest

from streamlit_extension.utils.graceful_shutdown import Deadline, GracefulShutdownHandler, ShutdownPhase
from streamlit_extension.utils.shutdown_model import kept_back_s


def test_phases_run_in_their_order_and_callbacks_last_in_first_out() -> None:
    """The four phases follow each other, and clean-up callbacks run in reverse order of their registration."""
    seen: list[str] = []
    handler = GracefulShutdownHandler(budget_s=5)

    def note(name: str, _deadline: Deadline) -> None:
        seen.append(name)

    for phase in ShutdownPhase:
        handler.add_step(phase, partial(note, phase.value))
    handler.add_cleanup(lambda: seen.append("first added"))
    handler.add_cleanup(lambda: seen.append("last added"))
    report = handler.shutdown_sequence("test")
    assert seen == [
        "stop_accepting_requests",
        "drain_connections",
        "last added",
        "first added",
        "cleanup_resources",
        "final_shutdown",
    ]
    assert [phase.phase for phase in report.phases] == list(ShutdownPhase)
    assert report.clean


def test_a_failing_callback_is_contained_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """One callback's failure is logged by name and keeps no other from running."""
    seen: list[str] = []
    handler = GracefulShutdownHandler(budget_s=5)

    def breaks() -> None:
        raise ValueError("no luck")

    handler.add_cleanup(lambda: seen.append("still called"))
    handler.add_cleanup(breaks, "breaks")
    handler.shutdown_sequence()
    assert seen == ["still called"]
    assert "breaks failed while stopping: ValueError: no luck" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_callback_that_means_to_end_the_program_is_a_failure_too(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """`sys.exit()` in a callback ends neither the stop nor goes unsaid."""
    seen: list[str] = []
    handler = GracefulShutdownHandler(budget_s=5)

    def leaves() -> None:
        raise kind

    handler.add_cleanup(lambda: seen.append("still called"))
    handler.add_cleanup(leaves, "leaves")
    handler.shutdown_sequence()
    assert seen == ["still called"]
    assert f"leaves failed while stopping: {kind.__name__}" in caplog.text


def test_a_callback_that_stops_the_program_does_not_wait_for_itself() -> None:
    """`shutdown_sequence()` in a step returns at once: the stop goes on, and nothing is cut off."""
    handler = GracefulShutdownHandler(budget_s=60)
    handler.add_cleanup(lambda: handler.shutdown_sequence())
    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, lambda _: (handler.shutdown_sequence(), ())[1])
    report = handler.shutdown_sequence()
    assert report.clean
    assert report.duration_s < 30


@pytest.mark.parametrize("value", [True, 1, ("a", "b"), (None,)])
def test_what_a_callback_returns_means_nothing(value: object) -> None:
    """Any function may be a clean-up callback (`future.cancel`, `thread.join`), and a stop is clean whatever it says."""
    handler = GracefulShutdownHandler(budget_s=5)
    handler.add_cleanup(lambda: value)
    report = handler.shutdown_sequence()
    assert report.clean
    assert handler.wait_for_completion(0)


def test_a_hanging_step_is_cancelled_by_name_within_the_budget() -> None:
    """What is over the budget is named in the report, and the stop is on time."""
    handler = GracefulShutdownHandler(budget_s=1.0)
    release = threading.Event()

    def hangs(_deadline: Deadline) -> None:
        release.wait(30)

    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, hangs)
    report = handler.shutdown_sequence()
    release.set()
    assert report.phases[1].cancelled == ("hangs",)
    assert report.duration_s < 1.5
    assert not report.clean


def test_a_callback_that_hangs_leaves_time_to_those_behind_it() -> None:
    """The last one added hangs; the one before it, which takes its time, ends, and the hanging one alone is named."""
    handler = GracefulShutdownHandler(budget_s=4.0)
    release, ended = threading.Event(), threading.Event()

    async def takes_a_while() -> None:
        await asyncio.sleep(0.2)
        ended.set()

    handler.add_cleanup(takes_a_while, "slow")
    handler.add_cleanup(lambda: release.wait(30), "hanging")
    report = handler.shutdown_sequence()
    ended_in_time = ended.is_set()
    release.set()
    assert ended_in_time
    assert report.phases[2].cancelled == ("hanging",)


def test_a_slow_callback_that_ends_within_the_budget_is_not_cut_off() -> None:
    """It was left behind for the sake of the others, and is waited for until the deadline."""
    handler = GracefulShutdownHandler(budget_s=4.0)
    other, ended = threading.Event(), threading.Event()

    def slow() -> None:
        other.wait(30)  # until the one behind it has had its turn
        ended.set()

    handler.add_cleanup(other.set, "other")
    handler.add_cleanup(slow, "slow")
    report = handler.shutdown_sequence()
    assert ended.is_set()
    assert report.clean


@pytest.mark.parametrize("budget_s", [0.5, 6.0, 25.0, 300.0])
def test_the_last_phase_leaves_the_process_time_to_end_within_the_budget(budget_s: float) -> None:
    """Each phase has to be done before the next one's deadline, and the last before the budget is used up."""
    kept_s = [kept_back_s(phase, budget_s) for phase in ShutdownPhase]
    assert kept_s == sorted(kept_s, reverse=True)
    assert min(0.5, 0.05 * budget_s) <= kept_s[-1] < kept_s[-2] < kept_s[0] < budget_s / 4


def test_a_second_caller_waits_for_the_first() -> None:
    """Two calls of shutdown_sequence run the steps once and both see the same report."""
    calls: list[int] = []
    handler = GracefulShutdownHandler(budget_s=5)
    entered, release = threading.Event(), threading.Event()

    def step(_deadline: Deadline) -> None:
        calls.append(1)
        entered.set()
        release.wait(5)

    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, step)
    thread = threading.Thread(target=handler.shutdown_sequence)
    thread.start()
    assert entered.wait(5)
    threading.Timer(0.1, release.set).start()
    report = handler.shutdown_sequence()
    thread.join(5)
    assert calls == [1]
    assert report is handler.report
    assert handler.wait_for_completion(0)


async def test_asynchronous_steps_run_on_the_bound_loop() -> None:
    """A coroutine step and an asynchronous callback run on the loop that was bound."""
    loops: list[asyncio.AbstractEventLoop] = []
    handler = GracefulShutdownHandler(budget_s=5)
    handler.bind_loop(asyncio.get_running_loop())

    async def step(_deadline: Deadline) -> None:
        loops.append(asyncio.get_running_loop())

    async def cleanup() -> None:
        loops.append(asyncio.get_running_loop())

    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, step)
    handler.add_cleanup(cleanup)
    report = await asyncio.to_thread(handler.shutdown_sequence)
    assert loops == [asyncio.get_running_loop()] * 2
    assert report.clean


def test_over_budget_is_seen_while_a_stop_lasts() -> None:
    """`over_budget` turns true by the clock while a stop is under way, and not before or after."""
    now = [0.0]
    handler = GracefulShutdownHandler(budget_s=10, clock=lambda: now[0])
    seen: list[bool] = []

    def step(_deadline: Deadline) -> None:
        seen.append(handler.over_budget)
        now[0] = 10.5
        seen.append(handler.over_budget)

    assert not handler.over_budget
    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, step)
    handler.shutdown_sequence()
    assert seen == [False, True]
    assert not handler.over_budget


@pytest.mark.parametrize("arguments", [{"budget_s": 0}, {"budget_s": -1}, {"pre_drain_s": -0.1}])
def test_bad_times_are_refused_with_what_is_allowed(arguments: dict[str, float]) -> None:
    """A budget that can't be is refused with the argument's name, its value and what is allowed."""
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*; allowed is"):
        GracefulShutdownHandler(**arguments)  # type: ignore[arg-type]


def test_signal_handlers_are_restored_exactly() -> None:
    """Registering twice and restoring leaves the handlers that were there."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    handler = GracefulShutdownHandler()
    handler.register_signal_handlers()
    handler.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) != before[0]
    handler.restore_signal_handlers()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_off_the_main_thread_everything_but_signals_works() -> None:
    """On another thread no signal is taken, and the sequence runs all the same."""
    handler = GracefulShutdownHandler(budget_s=5)
    found: list[object] = []

    def use() -> None:
        found.append(handler.register_signal_handlers())
        found.append(handler.shutdown_sequence().clean)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert found == [{}, True]


def _program(body: str) -> subprocess.Popen[str]:
    source = textwrap.dedent(
        """
        import sys, time, threading
        from streamlit_extension import GracefulShutdownHandler, ShutdownPhase
        """
    ) + textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _end(process: subprocess.Popen[str], *signals: signal.Signals, pause_s: float = 0.3) -> tuple[int, str, float]:
    began = time.monotonic()
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(pause_s)
    output, _ = process.communicate(timeout=15)
    return process.returncode, output, time.monotonic() - began


ALONE = """
    with GracefulShutdownHandler(budget_s=5) as handler:
        handler.add_cleanup(lambda: print("cleaned"))
        print("ready")
        while True:
            time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_alone_in_any_program_it_ends_it_cleanly(number: signal.Signals) -> None:
    """A program that only sleeps is ended by a signal with its clean-up done and exit code 0."""
    code, output, _ = _end(_program(ALONE), number)
    assert (code, output) == (0, "cleaned\n")


HANGING = """
    handler = GracefulShutdownHandler(budget_s=30)
    handler.register_signal_handlers()
    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, lambda deadline: time.sleep(60))
    print("ready")
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_told_twice_at_once_is_one(number: signal.Signals) -> None:
    """To a process and to its group: the stop goes on to its clean end, with exit code 0."""
    body = ALONE.replace('lambda: print("cleaned")', 'lambda: (time.sleep(1), print("cleaned"))')
    code, output, _ = _end(_program(body), number, number, number, pause_s=0.02)
    assert (code, output) == (0, "cleaned\n")


def test_another_signal_at_once_is_a_second_one() -> None:
    """Only the same signal can be the first one told twice."""
    code, output, _ = _end(_program(HANGING), signal.SIGINT, signal.SIGTERM, pause_s=0.02)
    assert (code, output) == (1, "second signal (SIGTERM): ending without waiting\n")


def test_a_signal_told_twice_leaves_the_second_one_its_meaning() -> None:
    """After a doubled first signal, a person's next one ends a stop that hangs."""
    process = _program(HANGING)
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.02)
    time.sleep(0.3)
    assert process.poll() is None
    code, output, took_s = _end(process, signal.SIGTERM)
    assert (code, output) == (1, "second signal (SIGTERM): ending without waiting\n")
    assert took_s < 2.0


def test_a_second_signal_ends_it_within_a_second() -> None:
    """While a stop hangs, a second signal ends the process at once with exit code 1."""
    code, output, took_s = _end(_program(HANGING), signal.SIGTERM, signal.SIGTERM)
    assert code == 1
    assert "second signal" in output
    assert took_s < 2.0


POLITE = """
    async def loops():
        async with GracefulShutdownHandler(budget_s=5) as handler:
            handler.on_complete(lambda: time.sleep(0.3))  # the block is left before the signal's thread has ended
            print("ready")
            while not handler.stopping.is_set():
                await asyncio.sleep(0.01)

    def waits():
        with GracefulShutdownHandler(budget_s=5) as handler:
            handler.on_complete(lambda: time.sleep(0.3))
            handler.add_cleanup(lambda: time.sleep(0.1))
            print("ready")
            handler.stopping.wait()

    import asyncio
    RUN
    print("not reached")
"""


@pytest.mark.parametrize("how", ["waits()", "asyncio.run(loops())"])
def test_a_program_that_leaves_its_block_at_a_signal_ends_with_0(how: str) -> None:
    """One that looks at `stopping` ends as one that only sleeps, never by the signal itself."""
    code, output, _ = _end(_program(POLITE.replace("RUN", how)), signal.SIGTERM)
    assert (code, output) == (0, "")


ASYNCIO = """
    import asyncio

    async def main():
        beats = 0
        async with GracefulShutdownHandler(budget_s=10) as handler:
            async def step(deadline):
                await asyncio.sleep(0.2)  # on the program's own loop, which goes on meanwhile
                print("drained", asyncio.get_running_loop() is loop, beats > seen)

            async def clean():
                print("cleaned", asyncio.get_running_loop() is loop)

            loop = asyncio.get_running_loop()
            handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, step)
            handler.add_cleanup(clean)
            print("ready")
            seen = 0
            while LEFT(beats):
                await asyncio.sleep(0.02)
                beats += 1

    asyncio.run(main())
    print("the end")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_on_asyncio_a_signal_stops_with_the_loop_running(number: signal.Signals) -> None:
    """`async with` runs asynchronous steps and callbacks on the program's own loop, then the program ends with 0."""
    code, output, _ = _end(_program(ASYNCIO.replace("LEFT(beats)", "True")), number)
    assert (code, output) == (0, "drained True True\ncleaned True\n")


def test_on_asyncio_the_end_of_the_block_stops_without_blocking_the_loop() -> None:
    """Where the program ends by itself the same happens, and what follows the block is still run."""
    process = _program(ASYNCIO.replace("LEFT(beats)", "beats < 3"))
    output, _ = process.communicate(timeout=15)
    assert (process.returncode, output) == (0, "drained True True\ncleaned True\nthe end\n")


def test_off_the_main_thread_the_block_stops_all_the_same() -> None:
    """`with` on another thread, and `async with` on another thread's loop, run every phase and take no signal."""
    reports: list[bool] = []
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def blocking() -> None:
        with GracefulShutdownHandler(budget_s=5) as handler:
            handler.add_cleanup(lambda: reports.append(True))
        reports.append(handler.report is not None and handler.report.clean)

    async def awaiting() -> None:
        async with GracefulShutdownHandler(budget_s=5) as handler:
            handler.add_cleanup(lambda: reports.append(True))
        reports.append(handler.report is not None and handler.report.clean)

    for target in (blocking, lambda: asyncio.run(awaiting())):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert reports == [True] * 4
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_each_phase_is_an_event_with_its_duration(caplog: pytest.LogCaptureFixture) -> None:
    """Four records of one static event name, in order, each with its phase, its duration and what was cut off."""
    caplog.set_level("INFO", "streamlit_extension.shutdown")
    handler = GracefulShutdownHandler(budget_s=5)
    handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, lambda _: time.sleep(0.05))
    report = handler.shutdown_sequence()
    events = [vars(each) for each in caplog.records if vars(each).get("event") == "shutdown.phase"]
    assert [each["phase"] for each in events] == [phase.value for phase in ShutdownPhase]
    assert [each["duration_s"] for each in events] == [round(each.duration_s, 6) for each in report.phases]
    assert events[1]["duration_s"] >= 0.05
    assert all(each["cancelled"] == [] for each in events)
