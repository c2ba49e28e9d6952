"""A stop in four phases under one budget: for our server, for a foreign one, and for any program of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

from streamlit_extension.utils.shutdown_model import (
    ALONE_SHARE,
    Cleanup,
    Deadline,
    PhaseReport,
    ShutdownPhase,
    ShutdownReport,
    Step,
    kept_back_s,
)
from streamlit_extension.utils.shutdown_outcome import Outcome

__all__ = ["Deadline", "GracefulShutdownHandler", "PhaseReport", "ShutdownPhase", "ShutdownReport"]

_logger = logging.getLogger("streamlit_extension.shutdown")

#: The same signal again within these seconds is the first, told to a process and to its group; no person is as fast.
SAME_SIGNAL_S = 0.1
#: Exit code after a second signal, and when the process had to be ended by force.
EXIT_FORCED = 1


class GracefulShutdownHandler:
    """Takes SIGTERM and SIGINT and stops in four phases; usable alone.

    `with GracefulShutdownHandler() as handler:` around a program, `async with` around one on asyncio: there
    asynchronous steps and callbacks run on the program's loop, which goes on meanwhile.

    Arguments:
        budget_s: total of all phases, in seconds, above 0.
        pre_drain_s: seconds in which requests are still served although readiness is already refused; part of the
            budget, at least 0.
        exit_when_done: raise `SystemExit(0)` in the main thread once a signal's stop has completed, so that a
            program that only sleeps ends; a server turns it off because its own loop ends.
        clock: monotonic seconds.

    A second signal ends the process at once with exit code 1; the same one again within `SAME_SIGNAL_S` is the first
    one, told twice. Off the main thread no signal can be taken; the rest works. Every public method may be called from
    any thread.
    """

    def __init__(
        self,
        *,
        budget_s: float = 25.0,
        pre_drain_s: float = 0.0,
        exit_when_done: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not budget_s > 0:
            raise ValueError(f"budget_s is {budget_s!r}; allowed is a number of seconds above 0")
        if not pre_drain_s >= 0:
            raise ValueError(f"pre_drain_s is {pre_drain_s!r}; allowed is a number of seconds from 0")
        self.budget_s = budget_s
        self.pre_drain_s = min(pre_drain_s, budget_s)
        self.stopping = threading.Event()
        self.report: ShutdownReport | None = None
        self._exit_when_done = exit_when_done
        self._clock = clock
        self._steps: dict[ShutdownPhase, list[Step]] = {phase: [] for phase in ShutdownPhase}
        self._cleanups: list[tuple[str, Cleanup]] = []
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._started_s: float | None = None
        self._first_signal: tuple[int, float] | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._leaving = False
        self._in_step = threading.local()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_complete: list[Callable[[], None]] = []
        self.phase: ShutdownPhase | None = None

    # -- what is to be done -------------------------------------------------------------------------------------

    def add_step(self, phase: ShutdownPhase, step: Step) -> None:
        """Do `step` in `phase`, after the steps already there; it gets a `Deadline`."""
        with self._lock:
            self._steps[phase].append(step)

    def add_cleanup(self, callback: Cleanup, name: str | None = None) -> None:
        """Call `callback` in CLEANUP_RESOURCES; the last one added is called first, each failure is contained."""
        with self._lock:
            self._cleanups.append((name or str(getattr(callback, "__qualname__", repr(callback))), callback))

    def on_complete(self, callback: Callable[[], None]) -> None:
        """Call `callback` when all phases are done (a server ends itself then); its failure is contained."""
        with self._lock:
            self._on_complete.append(callback)

    def bind_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """The event loop on which asynchronous steps and callbacks run."""
        self._loop = loop

    # -- signals ------------------------------------------------------------------------------------------------

    def register_signal_handlers(
        self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    ) -> dict[signal.Signals, Any]:
        """Take `signals`; returns the handlers that were there (empty off the main thread, where none can be taken).

        Calling it again changes nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            _logger.warning(
                "signals can only be taken on the main thread; call shutdown_sequence() yourself",
                extra={"event": "shutdown.signals_unavailable"},
            )
            return {}
        for number in signals:
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._on_signal)
        return dict(self._previous)

    def restore_signal_handlers(self) -> None:
        """Put back the handlers that `register_signal_handlers` found, where ours is still the one in place."""
        if threading.current_thread() is not threading.main_thread():
            return
        with self._lock:
            found, self._previous = self._previous, {}
        for number, previous in found.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._done.is_set() and self._exit_when_done:
            raise SystemExit(0)
        name, now_s = signal.Signals(number).name, time.monotonic()
        if self._first_signal is not None:
            if number == self._first_signal[0] and now_s - self._first_signal[1] < SAME_SIGNAL_S:
                return
            _exit_now(f"second signal ({name}): ending without waiting\n")
        self._first_signal = number, now_s
        threading.Thread(target=self._run_for_signal, args=(name, number), name="stx-shutdown", daemon=True).start()

    def _run_for_signal(self, name: str, number: int) -> None:
        self.shutdown_sequence(name)
        with self._lock:  # not after the handlers were put back: the signal would kill
            if self._exit_when_done and self._previous and not self._leaving:
                signal.raise_signal(number) if os.name == "nt" else os.kill(os.getpid(), number)

    # -- the sequence -------------------------------------------------------------------------------------------

    @property
    def over_budget(self) -> bool:
        """Whether a stop has been going on for longer than the budget."""
        started = self._started_s
        return started is not None and not self._done.is_set() and self._clock() - started > self.budget_s

    def shutdown_sequence(self, reason: str = "requested") -> ShutdownReport:
        """Go through the four phases once and return what they did; a second caller waits for the first."""
        with self._lock:
            first = self._started_s is None
            if first:
                self._started_s = self._clock()
        if not first:
            if not getattr(self._in_step, "is_set", False):  # a step would wait for itself
                self.wait_for_completion(self.budget_s + 1.0)
            return self.report or ShutdownReport(reason, self.budget_s, ())
        started_s = self._started_s or 0.0
        self.stopping.set()
        _logger.info("stopping: %s", reason, extra={"event": "shutdown.started", "budget_s": self.budget_s})
        phases = tuple(self._run_phase(phase, started_s) for phase in ShutdownPhase)
        self.report = ShutdownReport(reason, self._clock() - started_s, phases)
        self._done.set()
        for callback in self._on_complete:
            try:
                callback()
            except Exception as error:
                _logger.warning("the server could not be ended: %s", type(error).__name__)
        return self.report

    def _deadline(self, phase: ShutdownPhase, started_s: float) -> Deadline:
        return Deadline(started_s + self.budget_s - kept_back_s(phase, self.budget_s), self._clock)

    def _run_phase(self, phase: ShutdownPhase, started_s: float) -> PhaseReport:
        self.phase = phase
        began_s = self._clock()
        deadline = self._deadline(phase, started_s)
        cancelled: list[str] = []
        failures: list[str] = []
        if phase is ShutdownPhase.CLEANUP_RESOURCES:
            cancelled += self.cleanup_resources(deadline)
        with self._lock:
            steps = list(self._steps[phase])
        for step in steps:
            self._run_contained(_name_of(step), partial(step, deadline), deadline, cancelled, failures)
        report = PhaseReport(phase, self._clock() - began_s, tuple(cancelled), tuple(failures))
        facts = {"event": "shutdown.phase", "phase": phase.value, "duration_s": round(report.duration_s, 6)}
        _logger.log(
            logging.WARNING if cancelled or failures else logging.INFO,
            "%s took %.3f s%s",
            phase.value,
            report.duration_s,
            f", cancelled: {', '.join(cancelled)}" if cancelled else "",
            extra={**facts, "cancelled": list(cancelled)},
        )
        return report

    def cleanup_resources(self, deadline: Deadline | None = None) -> tuple[str, ...]:
        """Call what was added with `add_cleanup`, last in first out, each once; returns the names of those cut off.

        One that hangs is left behind after half of the time that is left, so that the others get theirs.
        """
        deadline = deadline or Deadline(self._clock() + self.budget_s, self._clock)
        left_behind: list[tuple[str, Outcome]] = []
        while True:
            with self._lock:
                if not self._cleanups:
                    break
                name, callback = self._cleanups.pop()
                share = ALONE_SHARE if self._cleanups else 1.0
            outcome = self._begin(name, callback, deadline)
            if outcome.done.wait(share * deadline.remaining_s):
                outcome.has_failed(name)
            else:
                left_behind.append((name, outcome))
        cut_off = []
        for name, outcome in left_behind:
            if outcome.done.wait(deadline.remaining_s):
                outcome.has_failed(name)
            else:
                cut_off.append(name)
        return tuple(cut_off)

    def wait_for_completion(self, timeout_s: float | None = None) -> bool:
        """Wait until a stop has gone through all phases; False when `timeout_s` seconds passed first."""
        return self._done.wait(timeout_s)

    def _run_contained(
        self, name: str, function: Callable[[], Any], deadline: Deadline, cancelled: list[str], failures: list[str]
    ) -> None:
        """Run one step on its own thread: one that hangs or fails holds nobody up. A step returns what it cut off."""
        outcome = self._begin(name, function, deadline)
        if not outcome.done.wait(deadline.remaining_s):
            cancelled.append(name)
        elif outcome.has_failed(name):
            failures.append(name)
        elif outcome.value:
            cancelled.extend(outcome.value)

    def _begin(self, name: str, function: Callable[[], Any], deadline: Deadline) -> Outcome:
        outcome = Outcome()
        arguments = function, outcome, deadline
        threading.Thread(target=self._call, args=arguments, name=f"stx-{name}", daemon=True).start()
        return outcome

    def _call(self, function: Callable[[], Any], outcome: Outcome, deadline: Deadline) -> None:
        self._in_step.is_set = True
        try:
            value = function()
            if inspect.isawaitable(value):
                value = self._await(value, deadline)
            outcome.value = value
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            outcome.error = error  # also of one that calls `sys.exit()`: nobody has heard of it
        finally:
            outcome.done.set()

    def _await(self, value: Awaitable[Any], deadline: Deadline) -> Any:
        async def wait() -> Any:
            return await value

        if self._loop is None or self._loop.is_closed():
            return asyncio.run(wait())
        future = asyncio.run_coroutine_threadsafe(wait(), self._loop)
        try:
            return future.result(deadline.remaining_s + 0.5)  # the caller's own wait ends first and names it
        finally:
            future.cancel()

    # -- alone, in any program ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.register_signal_handlers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        self.shutdown_sequence(_reason(error))
        self._left(error)

    def _left(self, error: BaseException | None) -> None:
        """After a signal the program ends with its block, wherever the signal found it."""
        self.restore_signal_handlers()
        if error is None and self._first_signal is not None and self._exit_when_done:
            raise SystemExit(0)

    async def __aenter__(self) -> Self:
        self.bind_loop(asyncio.get_running_loop())
        self.register_signal_handlers()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if not self._done.is_set():  # after a signal's stop the loop is ending and waits for nothing new
            loop = asyncio.get_running_loop()
            done = loop.create_future()

            def run() -> None:
                self.shutdown_sequence(_reason(error))
                loop.call_soon_threadsafe(done.cancel)

            threading.Thread(target=run, name="stx-shutdown", daemon=True).start()
            await asyncio.wait([done])
        self.bind_loop(None)
        self._left(error)


def _reason(error: BaseException | None) -> str:
    return "end of the program" if error is None else type(error).__name__


def _name_of(step: Step) -> str:
    return str(getattr(step, "__qualname__", repr(step))).rsplit(".", 1)[-1].strip("_")


def _exit_now(message: str) -> None:
    """End the process from a signal handler: no lock is taken and nothing is waited for."""
    os.write(2, message.encode())
    os._exit(EXIT_FORCED)
