"""The telemetry pipeline's own health: does the receiver take records, is there room, was anything given up lately."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from streamlit_extension.health.model import CheckResult, Outcome

if TYPE_CHECKING:
    from otel.ledger import Ledger
    from otel.spool import Spool

#: A receiver may be away for this long before anybody is told, in seconds.
FAILING_S: Final = 60.0
#: Share of the spool's cap, in percent, above which it is nearly full.
NEARLY_FULL_PERCENT: Final = 80.0
#: How long a loss is told, in seconds.
LATELY_S: Final = 300.0


class TelemetryFacts(msgspec.Struct, frozen=True):
    """What the decision needs.

    Arguments:
        failing_s: for how long the worst signal was not taken although it was tried; None when all goes well.
        reason: why it was not taken.
        spool_percent: share of the spool's cap that is used.
        problem: why nothing is written to disk, "" when all is well.
        dropped: records given up since the start, by reason.
        records: that wait, on disk and in memory.
    """

    failing_s: float | None = None
    reason: str = ""
    spool_percent: float = 0.0
    problem: str = ""
    dropped: Mapping[str, int] | None = None
    records: int = 0


def decide(facts: TelemetryFacts, dropped_lately: Mapping[str, int]) -> CheckResult:
    """Degraded when records are not taken, when there is hardly room, or when some were given up lately.

    Arguments:
        dropped_lately: records given up within the last five minutes, by reason.
    """
    problems = []
    if facts.failing_s is not None and facts.failing_s >= FAILING_S:
        problems.append(f"not taken for {facts.failing_s:.0f} s ({facts.reason})")
    if facts.spool_percent >= NEARLY_FULL_PERCENT:
        problems.append(f"the spool is {facts.spool_percent:.0f} % full")
    if facts.problem:
        problems.append(facts.problem)
    if lost := {reason: count for reason, count in dropped_lately.items() if count > 0}:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
        problems.append(f"records given up lately: {told}")
    detail: dict[str, Any] = {"waiting": facts.records, "spool_usage_percent": min(100.0, facts.spool_percent)}
    if dropped := {reason: count for reason, count in (facts.dropped or {}).items() if count}:
        detail["dropped"] = dropped
    outcome = Outcome.DEGRADED if problems else Outcome.OK
    return CheckResult(outcome, detail=detail, error="; ".join(problems) or None)


class TelemetryCheck:
    """Remembers when what was given up (component `telemetry`, not critical).

    Arguments:
        facts: read now; None where telemetry goes nowhere.
        clock: monotonic seconds.
    """

    def __init__(self, facts: Callable[[], TelemetryFacts | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._facts = facts
        self._clock = clock
        self._seen: list[tuple[float, Mapping[str, int]]] = []

    def __call__(self) -> CheckResult:
        """Run once."""
        facts = self._facts()
        if facts is None:
            return CheckResult(Outcome.NOT_CONFIGURED)
        now_s, dropped = self._clock(), dict(facts.dropped or {})
        # The newest figures that are older than "lately" stay as what the newer ones are compared with.
        while len(self._seen) > 1 and self._seen[1][0] <= now_s - LATELY_S:
            self._seen.pop(0)
        before = self._seen[0][1] if self._seen else {}
        if not self._seen or self._seen[-1][1] != dropped:
            self._seen.append((now_s, dropped))
        elif len(self._seen) == 1:
            self._seen[0] = (now_s, dropped)
        lately = {reason: count - before.get(reason, 0) for reason, count in dropped.items()}
        return decide(facts, lately)


def facts_of(ledger: Ledger, spool: Spool | None) -> TelemetryFacts:
    """The facts of a running pipeline; without a spool those of the accounts alone."""
    accounts = ledger.snapshot().accounts.values()
    dropped: dict[str, int] = {}
    for account in accounts:
        for reason, count in account.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    records = sum(account.spooled + account.queued for account in accounts)
    if spool is None:
        return TelemetryFacts(dropped=dropped, records=records)
    state = spool.state()
    worst = max(state.lanes.values(), key=lambda lane: lane.failing_for_s or 0.0, default=None)
    return TelemetryFacts(
        failing_s=None if worst is None else worst.failing_for_s,
        reason="" if worst is None else worst.reason,
        spool_percent=100.0 * state.size_bytes / state.max_bytes,
        problem=state.problem,
        dropped=dropped,
        records=records,
    )
