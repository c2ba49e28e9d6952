"""Runs checks: one thread that decides when, and worker threads that a hanging check can't exhaust."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from otel.guard import redact_text
from otel.trace_context import suppressed
from streamlit_extension.health.model import CheckFunction, CheckResult, CheckSpec, Outcome
from streamlit_extension.health.workers import Workers

_logger = logging.getLogger("streamlit_extension.health")

#: Checks that are begun at the same time, and threads that are kept for later runs.
CONCURRENCY = 16
#: A run that has taken this many seconds waits for something and no longer keeps others from beginning. So there are
#: never more threads than checks, and `CONCURRENCY` checks that hang delay the next ones by no more than this.
PATIENCE_S = 0.25
#: What a check imports before its first run may take this many seconds; then its time-out counts all the same.
PREPARE_S = 20.0
#: Runs are spread by this share of their interval, so that replicas don't ask in step.
JITTER = 0.1
#: Longest error text that is kept, in characters.
ERROR_LENGTH = 300


class _Job(msgspec.Struct, eq=False):
    """One run of one check on a worker."""

    spec: CheckSpec
    started_s: float
    to_prepare: bool = False
    due_s: float = 0.0
    prepared: threading.Event = msgspec.field(default_factory=threading.Event)
    done: threading.Event = msgspec.field(default_factory=threading.Event)
    result: CheckResult | None = None
    overdue: bool = False
    asked: bool = False


class Scheduler:
    """Runs every check at its interval and publishes what it found.

    Arguments:
        publish: gets (name, result), from a worker or from the scheduler's thread.
        blocked_by: gives the name of a failed check that this one depends on, or None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        publish: Callable[[str, CheckResult], None],
        blocked_by: Callable[[CheckSpec], str | None],
        clock: Callable[[], float] = time.monotonic,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._publish_result = publish
        self._blocked_by = blocked_by
        self._clock = clock
        self._concurrency = concurrency
        self._specs: dict[str, CheckSpec] = {}
        self._due: list[tuple[float, int, CheckSpec]] = []
        self._deadlines: list[tuple[float, int, _Job]] = []
        self._running: dict[str, _Job] = {}
        self._prepared: dict[str, CheckFunction] = {}
        self._waiting: list[CheckSpec] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._workers = Workers(concurrency)
        self._thread: threading.Thread | None = None
        self._stopping = False

    # -- from outside -------------------------------------------------------------------------------------------

    def add(self, spec: CheckSpec) -> None:
        """Run this check from now on, the first time at once; replaces the one of that name."""
        with self._wake:
            self._specs[spec.name] = spec
            heapq.heappush(self._due, (self._clock(), next(self._order), spec))
            self._wake.notify()

    def remove(self, name: str) -> None:
        """Run this check no more; a run under way is let go."""
        with self._wake:
            self._specs.pop(name, None)
            self._prepared.pop(name, None)

    def start(self) -> None:
        """Start the thread; again changes nothing."""
        with self._wake:
            self._stopping = False
            self._workers.reopen()
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="stx-health-scheduler", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop; returns within `timeout_s` seconds, whatever hangs."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        self._workers.close()

    def run_now(self, spec: CheckSpec) -> CheckResult:
        """Run a check once on a worker, waiting for its time-out at most; a run already under way is shared.

        What it finds is published, once. What it imports before its first run is not counted.
        """
        with self._wake:
            job = self._running.get(spec.name) or self._begin(spec)
            job.asked = True
            refused = job.result
            self._wake.notify()
        if refused is not None:
            self._publish(spec.name, refused)
        job.prepared.wait(PREPARE_S)
        if job.done.wait(spec.timeout_s) and job.result is not None:
            return job.result
        with self._wake:  # nobody else says so while the scheduler's own thread isn't there
            overdue = self._expire()
        for name, result in overdue:
            self._publish(name, result)
        return _timed_out(spec)

    # -- the scheduler's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    self._thread = None
                    return
                published = self._expire() + self._begin_due()
                if not published:
                    self._wake.wait(self._sleep_s())
                    continue
            for name, result in published:
                self._publish(name, result)

    def _sleep_s(self) -> float | None:
        moments = [heap[0][0] for heap in (self._due, self._deadlines) if heap]
        now_s = self._clock()
        if self._waiting:
            moments += [job.started_s + PATIENCE_S for job in self._running.values() if _is_young(job, now_s)]
        return max(0.0, min(moments) - now_s) if moments else None

    def _expire(self) -> list[tuple[str, CheckResult]]:
        """Jobs over their time-out: reported now, and again at each interval while they hang."""
        now_s = self._clock()
        found: list[tuple[str, CheckResult]] = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            due_s, _, job = heapq.heappop(self._deadlines)
            if due_s != job.due_s or job.done.is_set() or self._running.get(job.spec.name) is not job:
                continue
            if not job.overdue:
                job.overdue = True
                _interrupt(job.spec)
            spec = self._specs.get(job.spec.name, job.spec if job.asked else None)
            if spec is not None:  # also one that has replaced it meanwhile: it can't be run beside it
                found.append((spec.name, _timed_out(spec)))
            self._expect(job, now_s + job.spec.interval_s)
        return found

    def _begin_due(self) -> list[tuple[str, CheckResult]]:
        now_s = self._clock()
        results: list[tuple[str, CheckResult]] = []
        while self._due and self._due[0][0] <= now_s:
            _, _, spec = heapq.heappop(self._due)
            if self._specs.get(spec.name) is spec:
                self._waiting.append(spec)
        free = self._concurrency - sum(_is_young(job, now_s) for job in self._running.values())
        still_waiting: list[CheckSpec] = []
        for spec in self._waiting:
            if self._specs.get(spec.name) is not spec:
                continue
            running = self._running.get(spec.name)
            if running is not None and running.spec is spec:  # it hangs: never a second run beside it
                self._plan(spec, now_s)
            elif running is not None:  # the one that this one replaces: begun as soon as that has ended
                still_waiting.append(spec)
            elif (cause := self._blocked_by(spec)) is not None:
                results.append((spec.name, CheckResult(Outcome.SKIPPED, cause=cause)))
                self._plan(spec, now_s)
            elif free <= 0:
                still_waiting.append(spec)
            else:
                free -= 1
                self._plan(spec, now_s)
                job = self._begin(spec)
                if job.result is not None:
                    results.append((spec.name, job.result))
        self._waiting = still_waiting
        return results

    def _plan(self, spec: CheckSpec, now_s: float) -> None:
        spread = 1 + JITTER * (2 * random.random() - 1)
        heapq.heappush(self._due, (now_s + spec.interval_s * spread, next(self._order), spec))

    def _begin(self, spec: CheckSpec) -> _Job:
        function = spec.function
        job = _Job(spec, self._clock(), _has_to_prepare(function, self._prepared.get(spec.name)))
        if job.to_prepare and function is not None:
            self._prepared[spec.name] = function
        else:
            job.prepared.set()
        try:
            self._workers.submit(lambda: self._work(job))
        except RuntimeError as error:  # the system's limit of threads: a failure of this run, not of the scheduler
            job.result = CheckResult(Outcome.FAILED, error=f"the check could not be run: {error}")
            job.prepared.set()
            job.done.set()
            return job
        self._running[spec.name] = job
        self._expect(job, job.started_s + spec.timeout_s + (PREPARE_S if job.to_prepare else 0.0))
        return job

    def _expect(self, job: _Job, due_s: float) -> None:
        """From `due_s` on the job is over its time; an earlier moment that was said before counts no more."""
        job.due_s = due_s
        heapq.heappush(self._deadlines, (due_s, next(self._order), job))

    # -- a worker's thread --------------------------------------------------------------------------------------

    def _work(self, job: _Job) -> None:
        result = _ENDED
        try:
            if job.to_prepare:
                prepare(job.spec.function)
                self._begin_timed(job)
            result = _call(job.spec, self._clock)
        finally:  # also when the check ends its thread (`sys.exit()`)
            self._finish(job, result)

    def _begin_timed(self, job: _Job) -> None:
        with self._wake:
            if not job.overdue:
                job.started_s = self._clock()
                self._expect(job, job.started_s + job.spec.timeout_s)
                self._wake.notify()
        job.prepared.set()

    def _finish(self, job: _Job, result: CheckResult) -> None:
        with self._wake:
            late = job.overdue or self._clock() - job.started_s > job.spec.timeout_s
            job.result = _timed_out(job.spec) if late else result
            if self._running.get(job.spec.name) is job:
                del self._running[job.spec.name]
            wanted = job.asked or self._specs.get(job.spec.name) is job.spec
            self._wake.notify()
        if wanted and not job.overdue:
            self._publish(job.spec.name, job.result)
        job.prepared.set()
        job.done.set()

    def _publish(self, name: str, result: CheckResult) -> None:
        try:
            self._publish_result(name, result)
        except Exception as error:
            _logger.warning(
                "a check's result could not be taken: %s",
                type(error).__name__,
                extra={"event": "telemetry.internal_error", "check": name},
            )


#: The result of a run that has raised what no check may catch.
_ENDED = CheckResult(Outcome.FAILED, error="the check ended its own thread")


def _is_young(job: _Job, now_s: float) -> bool:
    return now_s - job.started_s < PATIENCE_S


def _has_to_prepare(function: CheckFunction | None, prepared: CheckFunction | None) -> bool:
    return function is not prepared and hasattr(function, "prepare")


def prepare(function: object) -> None:
    """Let a check that offers it (`function.prepare()`) import what it needs, outside of its time-out.

    A process that has just begun imports slowly, which says nothing of the component that is asked.
    """
    with contextlib.suppress(Exception):  # the run itself tells what is missing
        getattr(function, "prepare", lambda: None)()


def _interrupt(spec: CheckSpec) -> None:
    """Let a check that offers it (`function.interrupt()`, which must not wait) wake its own hanging call."""
    interrupt = getattr(spec.function, "interrupt", None)
    if interrupt is not None:
        try:
            interrupt()
        except Exception as error:
            _logger.debug("a check could not be interrupted: %s", type(error).__name__)


def _timed_out(spec: CheckSpec) -> CheckResult:
    return CheckResult(Outcome.TIMEOUT, spec.timeout_s, error=f"no answer within {spec.timeout_s:g} s")


def _call(spec: CheckSpec, clock: Callable[[], float]) -> CheckResult:
    """Run a check's function; what it raises is a failure, in one redacted line."""
    began_s = clock()
    try:
        if spec.function is None:
            return CheckResult(Outcome.NOT_CONFIGURED)
        with suppressed():  # a check's own queries are no telemetry of the application's
            result = spec.function()
        if not isinstance(result, CheckResult):
            raise TypeError(f"the check returned {type(result).__name__}, not a CheckResult")
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return CheckResult(Outcome.FAILED, clock() - began_s, error=redact_text(text)[:ERROR_LENGTH])
    return result if result.duration_s else replace(result, duration_s=clock() - began_s)
