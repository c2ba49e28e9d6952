"""The scheduler: who runs when, on which threads, and what a check that hangs, raises or dies does to the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from streamlit_extension import _settings_load
from streamlit_extension.health import scheduler as module
from streamlit_extension.health.model import CheckResult, CheckSpec, Outcome
from streamlit_extension.health.scheduler import CONCURRENCY, Scheduler
from tests.support.faults import kill_thread

OK = CheckResult(Outcome.OK)
PATIENT_S = 30.0


@dataclass
class Published:
    """What a scheduler has published, in order."""

    found: list[tuple[str, CheckResult]] = field(default_factory=list)
    moved: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, name: str, result: CheckResult) -> None:
        with self.moved:
            self.found.append((name, result))
            self.moved.notify_all()

    def of(self, name: str) -> list[Outcome]:
        """The outcomes of one check."""
        return [result.outcome for each, result in self.found if each == name]

    def wait(self, accept: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
        """Wait until what was published is accepted."""
        with self.moved:
            assert self.moved.wait_for(accept, timeout_s), self.found[-20:]


@dataclass
class Hanging:
    """A check that hangs until it is let go; counts how often it was begun, and by how many threads at a time."""

    let_go: threading.Event = field(default_factory=threading.Event)
    begun: int = 0
    inside: int = 0
    most_inside: int = 0

    def __call__(self) -> CheckResult:
        self.begun += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.let_go.wait(PATIENT_S)
        self.inside -= 1
        return OK


def good() -> CheckResult:
    return OK


def check_threads() -> list[str]:
    """The names of the workers' threads."""
    return [each.name for each in threading.enumerate() if each.name.startswith("stx-check-")]


def wait_until(accept: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not accept():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def scheduler(published: Published) -> Iterator[Scheduler]:
    """A scheduler that is started by the test and whose threads have all ended after it."""
    made = Scheduler(publish=published, blocked_by=lambda spec: None)
    yield made
    made.stop()
    wait_until(lambda: not check_threads())
    assert not [each for each in threading.enumerate() if each.name == "stx-health-scheduler"]


@contextlib.contextmanager
def hanging(count: int) -> Iterator[list[Hanging]]:
    """Checks that hang until the end of the block."""
    made = [Hanging() for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.let_go.set()


# -- what hangs -----------------------------------------------------------------------------------------------------


def test_checks_that_hang_delay_nobody_are_reported_and_never_run_twice(
    scheduler: Scheduler, published: Published
) -> None:
    """With three times as many hanging checks as may begin together, one more check runs on before any time-out."""
    with hanging(3 * CONCURRENCY) as made:
        for number, function in enumerate(made):
            scheduler.add(CheckSpec(f"hangs-{number}", function, interval_s=0.1, timeout_s=4))
        scheduler.add(CheckSpec("good", good, interval_s=0.05, timeout_s=4))
        scheduler.start()
        published.wait(lambda: len({name for name, _ in published.found}) == len(made) + 1)
        first = next(at for at, (_, result) in enumerate(published.found) if result.outcome is Outcome.TIMEOUT)
        assert sum(name == "good" for name, _ in published.found[:first]) >= 5
        published.wait(lambda: all(len(published.of(f"hangs-{number}")) >= 3 for number in range(len(made))))
        for number, function in enumerate(made):
            assert set(published.of(f"hangs-{number}")) == {Outcome.TIMEOUT}
            assert function.begun == 1
        assert len(check_threads()) <= len(made) + CONCURRENCY


def test_a_time_out_says_how_long_was_waited(scheduler: Scheduler, published: Published) -> None:
    """The result of a hanging check is `timeout`, with its time-out as duration and in words."""
    with hanging(1) as (function,):
        scheduler.add(CheckSpec("hangs", function, interval_s=5, timeout_s=0.1))
        scheduler.start()
        published.wait(lambda: bool(published.found))
    ((_, result),) = published.found
    assert (result.outcome, result.duration_s, result.error) == (Outcome.TIMEOUT, 0.1, "no answer within 0.1 s")


def test_a_check_that_hangs_no_more_is_run_again(scheduler: Scheduler, published: Published) -> None:
    """Its late answer isn't taken for a timely one; the next run decides."""
    with hanging(1) as (function,):
        scheduler.add(CheckSpec("hangs", function, interval_s=0.1, timeout_s=0.1))
        scheduler.start()
        published.wait(lambda: len(published.of("hangs")) >= 3)
        assert function.begun == 1
        function.let_go.set()
        published.wait(lambda: Outcome.OK in published.of("hangs"))
        assert function.begun >= 2
        assert function.most_inside == 1
        outcomes = published.of("hangs")
        assert set(outcomes[: outcomes.index(Outcome.OK)]) == {Outcome.TIMEOUT}


def test_a_stop_waits_for_nothing_that_hangs(published: Published) -> None:
    """`stop` returns while checks hang, and nothing is begun or published afterwards; their threads end with them."""
    scheduler = Scheduler(publish=published, blocked_by=lambda spec: None)
    with hanging(4) as made:
        for number, function in enumerate(made):
            scheduler.add(CheckSpec(f"hangs-{number}", function, interval_s=0.05, timeout_s=0.1))
        scheduler.start()
        published.wait(lambda: len(published.found) >= 8)
        scheduler.stop(1.0)
        assert all(function.inside == 1 for function in made)  # it did not wait for them
        told = len(published.found)
    wait_until(lambda: not check_threads())
    assert len(published.found) == told
    assert all(function.begun == 1 for function in made)


def test_threads_that_hung_are_not_kept(scheduler: Scheduler, published: Published) -> None:
    """Once checks hang no more, no more threads are left than are kept for the next runs."""
    with hanging(4 * CONCURRENCY) as made:
        for number, function in enumerate(made):
            scheduler.add(CheckSpec(f"hangs-{number}", function, interval_s=20, timeout_s=0.2))
        scheduler.start()
        published.wait(lambda: len(published.found) >= len(made))
        assert len(check_threads()) >= len(made)
    wait_until(lambda: len(check_threads()) <= CONCURRENCY)


class Wakeable(Hanging):
    """A hanging check that can be woken, and that complains when it is."""

    woken: int = 0

    def interrupt(self) -> None:
        self.woken += 1
        self.let_go.set()
        raise RuntimeError("woken badly")


def test_a_hanging_check_is_woken_once_where_it_can_be(scheduler: Scheduler, published: Published) -> None:
    """A check with `interrupt` is interrupted at its time-out; what that raises stops nothing."""
    function = Wakeable()
    scheduler.add(CheckSpec("hangs", function, interval_s=0.1, timeout_s=0.2))
    scheduler.start()
    published.wait(lambda: Outcome.OK in published.of("hangs"))
    assert published.of("hangs")[0] is Outcome.TIMEOUT
    assert function.woken == 1


# -- what fails in other ways ---------------------------------------------------------------------------------------


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def exits() -> CheckResult:
    raise SystemExit(3)


def raises_what_has_no_text() -> CheckResult:
    raise UnspeakableError


def tells_a_password() -> CheckResult:
    raise RuntimeError("can't reach\npostgresql://me:hunter2hunter2@db/app\n" + "x" * 5000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "function", [exits, raises_what_has_no_text, tells_a_password, lambda: None, lambda: "fine", lambda: 1 / 0]
)
def test_whatever_a_check_does_it_is_a_failure_and_it_is_run_again(
    scheduler: Scheduler, published: Published, function: Callable[[], CheckResult]
) -> None:
    """Ending its thread, raising anything or returning nonsense is `failed` in one short line, time and again."""
    scheduler.add(CheckSpec("bad", function, interval_s=0.05, timeout_s=20))
    scheduler.add(CheckSpec("good", good, interval_s=0.05))
    scheduler.start()
    published.wait(lambda: len(published.of("bad")) >= 3 and len(published.of("good")) >= 3)
    assert set(published.of("bad")) == {Outcome.FAILED}
    for name, result in published.found:
        if name == "bad":
            assert result.error
            assert "\n" not in result.error
            assert len(result.error) <= 300
            assert "hunter2" not in result.error


def test_a_subscriber_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What can't take a result doesn't end the scheduler's thread or a worker's."""
    taken: list[str] = []

    def publish(name: str, result: CheckResult) -> None:
        taken.append(name)
        raise RuntimeError("full")

    scheduler = Scheduler(publish=publish, blocked_by=lambda spec: "cause" if spec.name == "skipped" else None)
    for name in ("good", "skipped"):
        scheduler.add(CheckSpec(name, good, interval_s=0.05))
    scheduler.start()
    wait_until(lambda: taken.count("good") >= 3 and taken.count("skipped") >= 3)
    scheduler.stop()
    assert {getattr(record, "event", "") for record in caplog.records} == {"telemetry.internal_error"}


def test_a_system_without_threads_fails_the_run_and_not_the_scheduler(
    scheduler: Scheduler, published: Published
) -> None:
    """When no thread can be started the check has failed and says so; when there are some again it is run."""
    scheduler.start()
    before = threading.stack_size(1 << 47)  # more than there are addresses: every new thread is refused
    try:
        scheduler.add(CheckSpec("check", good, interval_s=0.05))
        published.wait(lambda: len(published.of("check")) >= 2)
    finally:
        threading.stack_size(before)
    assert published.found[0][1].outcome is Outcome.FAILED
    assert "can't start new thread" in str(published.found[0][1].error)
    published.wait(lambda: Outcome.OK in published.of("check"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scheduler_whose_thread_was_killed_can_be_started_again(scheduler: Scheduler, published: Published) -> None:
    """After its thread has died nothing is run; `start` begins anew with all checks."""
    scheduler.add(CheckSpec("check", good, interval_s=0.05))
    scheduler.start()
    published.wait(lambda: bool(published.found))
    kill_thread("stx-health-scheduler")
    told = len(published.found)
    time.sleep(0.3)
    assert len(published.found) <= told + 1  # the one run that was under way
    scheduler.start()
    published.wait(lambda: len(published.found) >= told + 4)


# -- who runs when --------------------------------------------------------------------------------------------------


def test_checks_run_at_the_same_time(scheduler: Scheduler, published: Published) -> None:
    """As many as may begin together do: each waits inside for all the others."""
    together = threading.Barrier(CONCURRENCY)

    def meet() -> CheckResult:
        together.wait(PATIENT_S)
        return OK

    for number in range(CONCURRENCY):
        scheduler.add(CheckSpec(f"check-{number}", meet, interval_s=60, timeout_s=PATIENT_S))
    scheduler.start()
    published.wait(lambda: len(published.found) == CONCURRENCY)
    assert {result.outcome for _, result in published.found} == {Outcome.OK}


def test_two_hundred_checks_all_have_their_results_spread_over_time(scheduler: Scheduler, published: Published) -> None:
    """Each of 200 checks is run again and again, by few threads; equal intervals don't stay in step."""
    names = [f"check-{number}" for number in range(200)]
    runs: dict[str, list[float]] = {name: [] for name in names}

    def function_for(name: str) -> Callable[[], CheckResult]:
        def run() -> CheckResult:
            runs[name].append(time.monotonic())
            return OK

        return run

    for name in names:
        scheduler.add(CheckSpec(name, function_for(name), interval_s=1, timeout_s=20))
    scheduler.start()
    published.wait(lambda: all(len(published.of(name)) >= 3 for name in names))
    assert {result.outcome for _, result in published.found} == {Outcome.OK}
    thirds = [times[2] for times in runs.values()]
    assert max(thirds) - min(thirds) > 0.1  # two intervals with ±10 %: without jitter they would be in step
    assert len(check_threads()) <= 2 * CONCURRENCY


def test_settings_and_scheduler_agree_on_how_late_a_run_may_be() -> None:
    """The settings refuse a `max_age_s` by the scheduler's own jitter."""
    assert _settings_load._JITTER == module.JITTER


def test_a_check_that_is_replaced_runs_at_once_also_during_a_run_of_the_old_one(
    scheduler: Scheduler, published: Published
) -> None:
    """The new one begins when the old run ends, not an interval later, and the old run's result isn't taken for its."""
    with hanging(1) as (old,):
        scheduler.add(CheckSpec("check", old, interval_s=600, timeout_s=PATIENT_S))
        scheduler.start()
        wait_until(lambda: old.inside == 1)
        scheduler.add(CheckSpec("check", lambda: CheckResult(Outcome.DEGRADED), interval_s=600, timeout_s=PATIENT_S))
        scheduler.add(CheckSpec("later", good, interval_s=600))
        published.wait(lambda: bool(published.of("later")))  # so both were looked at while the old run went on
        old.let_go.set()
        published.wait(lambda: bool(published.of("check")))
    assert published.of("check") == [Outcome.DEGRADED]


def test_a_check_whose_predecessor_hangs_is_not_left_pending(scheduler: Scheduler, published: Published) -> None:
    """While the replaced one hangs, the new one is reported as `timeout`; then it is run."""
    with hanging(1) as (old,):
        scheduler.add(CheckSpec("check", old, interval_s=0.1, timeout_s=0.2))
        scheduler.start()
        published.wait(lambda: len(published.of("check")) >= 2)
        scheduler.add(CheckSpec("check", good, interval_s=0.1, timeout_s=0.2))
        told = len(published.found)
        published.wait(lambda: len(published.found) >= told + 2)
        assert set(published.of("check")) == {Outcome.TIMEOUT}
        old.let_go.set()
        published.wait(lambda: Outcome.OK in published.of("check"))


def test_a_check_that_is_taken_away_says_nothing_more(scheduler: Scheduler, published: Published) -> None:
    """Neither its run under way nor its time-out is published once it was removed."""
    with hanging(1) as (function,):
        scheduler.add(CheckSpec("gone", function, interval_s=0.05, timeout_s=0.1))
        scheduler.start()
        wait_until(lambda: function.inside == 1)
        scheduler.remove("gone")
        told = len(published.of("gone"))
        scheduler.add(CheckSpec("good", good, interval_s=0.05))
        published.wait(lambda: len(published.of("good")) >= 6)
        function.let_go.set()
        published.wait(lambda: len(published.of("good")) >= 10)
    assert len(published.of("gone")) == told
    assert function.begun == 1


def test_a_skipped_check_is_not_run_and_names_its_cause(published: Published) -> None:
    """While something that it depends on fails, a check's function is left alone and its result says why."""
    ran = threading.Event()
    blocked = ["database"]

    def function() -> CheckResult:
        ran.set()
        return OK

    scheduler = Scheduler(publish=published, blocked_by=lambda spec: blocked[0] if blocked else None)
    scheduler.add(CheckSpec("reports", function, interval_s=0.05))
    scheduler.start()
    published.wait(lambda: len(published.found) >= 3)
    assert not ran.is_set()
    assert {(result.outcome, result.cause) for _, result in published.found} == {(Outcome.SKIPPED, "database")}
    blocked.clear()
    published.wait(lambda: Outcome.OK in published.of("reports"))
    scheduler.stop()


# -- runs that somebody asks for ------------------------------------------------------------------------------------


def test_a_run_that_was_asked_for_is_published_once(scheduler: Scheduler, published: Published) -> None:
    """`run_now` returns the result of a run that counts exactly once, known to the scheduler or not."""
    spec = CheckSpec("check", good, interval_s=600)
    assert scheduler.run_now(spec).outcome is Outcome.OK
    assert published.of("check") == [Outcome.OK]
    scheduler.add(spec)
    scheduler.start()
    published.wait(lambda: len(published.found) == 2)
    assert scheduler.run_now(spec).outcome is Outcome.OK
    assert published.of("check") == [Outcome.OK] * 3


def test_a_run_that_was_asked_for_and_hangs_is_a_time_out_without_a_scheduler_too(
    scheduler: Scheduler, published: Published
) -> None:
    """`run_now` comes back after the time-out; later callers share the run that hangs."""
    with hanging(1) as (function,):
        spec = CheckSpec("hangs", function, interval_s=600, timeout_s=0.2)
        assert scheduler.run_now(spec).outcome is Outcome.TIMEOUT
        assert scheduler.run_now(spec).outcome is Outcome.TIMEOUT
        assert function.begun == 1
        assert published.of("hangs") == [Outcome.TIMEOUT]


def test_callers_at_the_same_time_share_one_run(scheduler: Scheduler, published: Published) -> None:
    """Eight callers of `run_now` cost one run, and its result counts once."""
    with hanging(1) as (function,):
        spec = CheckSpec("check", function, interval_s=600, timeout_s=PATIENT_S)
        results: list[CheckResult] = []
        callers = [threading.Thread(target=lambda: results.append(scheduler.run_now(spec))) for _ in range(8)]
        for each in callers:
            each.start()
        wait_until(lambda: function.inside == 1)
        function.let_go.set()
        for each in callers:
            each.join(PATIENT_S)
    assert [result.outcome for result in results] == [Outcome.OK] * 8
    assert function.most_inside == 1


# -- what has to be imported first ----------------------------------------------------------------------------------


class Prepares(Hanging):
    """A check that needs a while before its first run, and never again."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()
        self.preparations = 0

    def prepare(self) -> None:
        """Wait until the test has seen enough of it."""
        self.preparations += 1
        self.ready.wait(PATIENT_S)


def test_what_is_imported_before_the_first_run_is_not_its_time(scheduler: Scheduler, published: Published) -> None:
    """A preparation longer than the time-out is no failure; the run after it is timed, and no later one prepares."""
    check = Prepares()
    check.let_go.set()
    scheduler.add(CheckSpec("slow start", check, interval_s=0.05, timeout_s=0.1))
    scheduler.add(CheckSpec("beat", good, interval_s=0.05))
    scheduler.start()
    published.wait(lambda: len(published.of("beat")) >= 6)  # longer than the time-out has passed
    assert published.of("slow start") == []
    assert check.preparations == 1
    check.ready.set()
    published.wait(lambda: len(published.of("slow start")) >= 1)
    assert published.of("slow start")[0] is Outcome.OK
    check.let_go.clear()
    published.wait(lambda: Outcome.TIMEOUT in published.of("slow start"))
    check.let_go.set()
    assert check.preparations == 1


def test_a_preparation_without_end_is_a_time_out_too(
    scheduler: Scheduler, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a limit of its own, after which the check is reported like any that hangs, and never run beside itself."""
    monkeypatch.setattr("streamlit_extension.health.scheduler.PREPARE_S", 0.2)
    check = Prepares()
    check.let_go.set()
    scheduler.add(CheckSpec("stuck", check, interval_s=0.05, timeout_s=0.1))
    scheduler.start()
    published.wait(lambda: len(published.of("stuck")) >= 2)
    assert set(published.of("stuck")) == {Outcome.TIMEOUT}
    assert (check.preparations, check.begun) == (1, 0)
    check.ready.set()
    published.wait(lambda: Outcome.OK in published.of("stuck"))


def test_who_asks_for_a_first_run_waits_for_its_preparation(scheduler: Scheduler) -> None:
    """`run_now` counts the time-out from the moment at which the run really begins."""
    check = Prepares()
    check.let_go.set()
    found: list[CheckResult] = []
    spec = CheckSpec("asked", check, interval_s=600, timeout_s=0.2)
    asking = threading.Thread(target=lambda: found.append(scheduler.run_now(spec)))
    asking.start()
    asking.join(0.5)
    assert asking.is_alive()
    check.ready.set()
    asking.join(PATIENT_S)
    assert [each.outcome for each in found] == [Outcome.OK]


def test_a_preparation_that_fails_leaves_the_word_to_the_run(scheduler: Scheduler, published: Published) -> None:
    """What can't be imported is told by the run itself."""

    class Lacking:
        def prepare(self) -> None:
            raise ImportError("no such driver")

        def __call__(self) -> CheckResult:
            return CheckResult(Outcome.FAILED, error="needs a driver")

    scheduler.add(CheckSpec("lacking", Lacking(), interval_s=600))
    scheduler.start()
    published.wait(lambda: published.of("lacking") == [Outcome.FAILED])
