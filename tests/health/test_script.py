"""The script's own health, while its runs end on many threads."""

from __future__ import annotations

import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from otel.instrumentation.streamlit import RunOutcome, ScriptRun
from streamlit_extension.health.model import CheckResult, Outcome
from streamlit_extension.health.script import ScriptHealth, ScriptRuns


def run(outcome: RunOutcome) -> ScriptRun:
    error_type = "ValueError" if outcome in (RunOutcome.ERROR, RunOutcome.COMPILE_ERROR) else None
    return ScriptRun("s", "p", (), outcome, 0.1, error_type)


def test_no_run_is_lost_when_several_end_at_once() -> None:
    """Runs that fail on eight threads at once are each counted, and each is told in its turn."""
    told: list[CheckResult] = []
    runs = ScriptRuns(told.append)
    begin = threading.Barrier(8)

    def fail() -> None:
        begin.wait()
        for _ in range(2_000):
            runs(run(RunOutcome.ERROR))

    threads = [threading.Thread(target=fail) for _ in range(8)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    finally:
        sys.setswitchinterval(switching)
    assert runs.health.consecutive_failures == len(told) == 16_000


def test_the_word_that_is_told_last_is_the_last_runs() -> None:
    """A run that ends while another one's result is being told waits, so that the older result never comes last."""
    telling, let_go = threading.Event(), threading.Event()
    told: list[Outcome] = []

    def report(result: CheckResult) -> None:
        if result.outcome is Outcome.DEGRADED:
            telling.set()
            let_go.wait(20)
        told.append(result.outcome)

    runs = ScriptRuns(report)
    first = threading.Thread(target=runs, args=(run(RunOutcome.ERROR),))
    second = threading.Thread(target=runs, args=(run(RunOutcome.SUCCESS),))
    first.start()
    assert telling.wait(20)
    second.start()
    second.join(0.2)
    let_go.set()
    first.join(20)
    second.join(20)
    assert told == [Outcome.DEGRADED, Outcome.OK]


@given(st.lists(st.sampled_from(list(RunOutcome))))
def test_a_script_that_has_worked_fails_only_after_two_failures_in_a_row(outcomes: list[RunOutcome]) -> None:
    """Alone, a rerun says nothing, and one good run makes it well again."""
    health = ScriptHealth().after(run(RunOutcome.SUCCESS))
    counted: list[RunOutcome] = []
    for outcome in outcomes:
        health = health.after(run(outcome))
        if outcome is not RunOutcome.RERUN:
            counted.append(outcome)
        failed = [each in (RunOutcome.ERROR, RunOutcome.COMPILE_ERROR) for each in counted[-2:]]
        assert health.failing is (failed == [True, True])


def test_a_script_that_never_worked_is_failing_with_its_first_failure() -> None:
    """It names the error's type and nothing of its text."""
    health = ScriptHealth().after(run(RunOutcome.COMPILE_ERROR))
    assert (health.failing, health.result(0.5).error, health.result(0.5).duration_s) == (True, "ValueError", 0.5)
