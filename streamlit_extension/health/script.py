"""The script's own health, from its real runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from otel.instrumentation.streamlit import RunOutcome, ScriptRun
from streamlit_extension.health.model import CheckResult, Outcome

#: Runs that must fail one after the other before a script that has worked counts as failing.
FAILURES_TO_TRIP = 2

_FAILED = (RunOutcome.ERROR, RunOutcome.COMPILE_ERROR)


class ScriptHealth(msgspec.Struct, frozen=True):
    """What the last runs say. `worked` is whether a run has ended well since the start."""

    consecutive_failures: int = 0
    worked: bool = False
    error_type: str | None = None

    def after(self, run: ScriptRun) -> ScriptHealth:
        """The health after one more run; a run that ended for a rerun says nothing."""
        if run.outcome is RunOutcome.RERUN:
            return self
        if run.outcome in _FAILED:
            return ScriptHealth(self.consecutive_failures + 1, self.worked, run.error_type)
        return ScriptHealth(0, True, None)

    @property
    def failing(self) -> bool:
        """Whether the script fails on every run: the last runs in a row, or all there were."""
        needed = FAILURES_TO_TRIP if self.worked else 1
        return self.consecutive_failures >= needed

    def result(self, duration_s: float) -> CheckResult:
        """As a check's result: `duration_s` is the last run's, in seconds."""
        outcome = Outcome.DEGRADED if self.failing else Outcome.OK
        return CheckResult(outcome, duration_s, error=self.error_type if self.failing else None)


class ScriptRuns:
    """Keeps the script's health while runs end on several threads at once; a listener of runs.

    Arguments:
        report: gets each result, one after the other.
    """

    def __init__(self, report: Callable[[CheckResult], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self.health = ScriptHealth()

    def __call__(self, run: ScriptRun) -> None:
        """Take one finished run."""
        with self._lock:  # also while it is told, so that the last run's word is the last one
            self.health = self.health.after(run)
            if self.health.worked or self.health.consecutive_failures:
                self._report(self.health.result(run.duration_s))
