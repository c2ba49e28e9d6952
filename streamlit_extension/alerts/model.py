"""The facts of alerting: what a rule is, what was read, and what follows. No thread, clock or file is touched here.

Times are seconds since the Unix epoch, handed in by the caller; durations are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from streamlit_extension._settings_rules import Watched

#: What is watched by default, as spec.md's THRESHOLDS spell it.
Metric = Watched


class Comparison(StrEnum):
    """How a value is held against the threshold; the threshold itself counts as reached."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class Severity(StrEnum):
    """How bad it is, worst first; PagerDuty's four."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Phase(StrEnum):
    """Where one alert stands."""

    OK = "ok"
    PENDING = "pending"  # breached, but not yet for long enough
    FIRING = "firing"


class NoticeKind(StrEnum):
    """What is told of an alert."""

    FIRED = "fired"
    REPEATED = "repeated"
    ACKNOWLEDGED = "acknowledged"  # an operator silenced it while it fired
    RESOLVED = "resolved"


class Cause(StrEnum):
    """Why an alert resolved."""

    CLEARED = "cleared"
    NO_DATA = "no_data"
    RULE_REMOVED = "rule_removed"


class AlertRule(msgspec.Struct, frozen=True):
    """One rule.

    Arguments:
        name: unique; one alert may fire for it at a time.
        metric: the key of its reading.
        threshold: the value that breaches, in `unit`.
        comparison: on which side of the threshold the breach lies.
        clear: the value that must be passed back for a resolve; None: 5 % of the threshold away from it.
        for_s: how long the breach must last before the alert fires, 0 for at once.
        share_of_limit: where the reading brings a limit (a pool's maximum), the threshold is this share of it.
        min_samples: a reading of fewer samples counts as none.
        max_age_s: a reading older than this counts as none.
        no_data_s: how long a firing alert outlives its data; then it resolves with `Cause.NO_DATA`.
        runbook: what to do, for the one who is called.
    """

    name: str
    metric: str
    threshold: float
    comparison: Comparison = Comparison.AT_LEAST
    clear: float | None = None
    for_s: float = 30.0
    severity: Severity = Severity.CRITICAL
    share_of_limit: float | None = None
    min_samples: int = 1
    max_age_s: float = 120.0
    no_data_s: float = 600.0
    unit: str = ""
    title: str = ""
    runbook: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"{self.name}: the threshold is no number")
        above = self.comparison is Comparison.AT_LEAST
        if self.clear is not None and not (self.clear <= self.threshold if above else self.clear >= self.threshold):
            raise ValueError(f"{self.name}: the clear threshold lies on the breach's side")
        if self.for_s < 0 or self.min_samples < 1:
            raise ValueError(f"{self.name}: for_s is at least 0 and min_samples at least 1")


class Reading(msgspec.Struct, frozen=True):
    """One metric's value now. `samples` it is made of, `age_s` of its newest one, `limit` where the metric has one.

    `trace_id` (32 hex digits) is an example of what made the value.
    """

    value: float | None
    samples: int = 1
    age_s: float = 0.0
    limit: float | None = None
    trace_id: str | None = None


#: Metric → its reading; a metric that is absent has no data.
Snapshot = Mapping[str, Reading]


class AlertState(msgspec.Struct, frozen=True):
    """What is held of one rule between evaluations.

    `since` is when the phase began, `seen` when data was last there, `told` when somebody was last told that it fires
    (None: nobody was, because it was silenced), `acknowledged` whether a silence was passed on. `value`, `threshold`
    and `trace_id` are those of the breach. `key` is what it was told under: who takes over a volume resolves what
    was told by the one before.
    """

    phase: Phase = Phase.OK
    since: float = 0.0
    seen: float = 0.0
    told: float | None = None
    acknowledged: bool = False
    value: float = 0.0
    threshold: float = 0.0
    trace_id: str | None = None
    key: str = ""


class Silence(msgspec.Struct, frozen=True):
    """Nobody is told of the alerts of `rule` ("*": all) before `until`; whoever set it says why."""

    rule: str
    until: float
    reason: str
    set_at: float = 0.0

    def covers(self, rule: str, now: float) -> bool:
        """Whether this silence holds for a rule now."""
        return now < self.until and self.rule in ("*", rule)


class Alert(msgspec.Struct, frozen=True):
    """One alert as it is told: its rule, and what was seen when.

    `key` is the same for all that is told of one rule of one process, so that a resolve finds its trigger.
    """

    rule: AlertRule
    key: str
    value: float
    threshold: float
    fired_at: float
    at: float
    trace_id: str | None = None
    cause: Cause | None = None
    silence: Silence | None = None


class Notice(msgspec.Struct, frozen=True):
    """What one evaluation has to tell of one kind: all alerts that fired together are one message.

    `service` and `instance` say whose they are; `test` marks a message that nobody needs to act upon.
    """

    kind: NoticeKind
    alerts: tuple[Alert, ...]
    at: float
    service: str = ""
    instance: str = ""
    test: bool = False

    @property
    def severity(self) -> Severity:
        """The worst of its alerts."""
        order = list(Severity)
        return min((alert.rule.severity for alert in self.alerts), key=order.index, default=Severity.INFO)
