"""The facts of health: what a check is, what it said, and what follows. No thread, clock or file is touched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec


class HealthStatus(StrEnum):
    """Health of the whole process or of one component, as `/health` spells it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    MAINTENANCE = "maintenance"


class Outcome(StrEnum):
    """What one run of one check found."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"
    NOT_CONFIGURED = "not_configured"


class Scope(StrEnum):
    """Whether other replicas depend on the same thing (a database) or this process alone does (its disk)."""

    LOCAL = "local"
    SHARED = "shared"


class ServicePhase(StrEnum):
    """Where the process stands between its start and its end."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


_EMPTY: Mapping[str, Any] = MappingProxyType({})


class CheckResult(msgspec.Struct, frozen=True):
    """What one run of a check found.

    `duration_s` is in seconds. `detail` holds JSON-ready keys for the component's object (percentages as floats
    0-100, durations in seconds; the HTTP translation formats them). `error` is one redacted line, `cause` names the
    failed check that a skipped one depends on.
    """

    outcome: Outcome
    duration_s: float = 0.0
    detail: Mapping[str, Any] = msgspec.field(default_factory=lambda: _EMPTY)
    error: str | None = None
    cause: str | None = None


CheckFunction = Callable[[], CheckResult]


class CheckSpec(msgspec.Struct, frozen=True):
    """One check and how it is run.

    Arguments:
        name: unique; also the name of the component or of a part of it (`database`, `database:reports`, `disk`).
        function: runs the check once and returns its result; an exception counts as `FAILED`. None for a check whose
            results are reported from outside (`script`); such a check never times out and never turns stale.
            It may offer `prepare()`, called before its first run and not timed, and `interrupt()`, which wakes a run
            that hangs.
        component: the component of `/health/detailed` that shows it; by default its name.
        interval_s, timeout_s, max_age_s: seconds, all above 0.
        critical: its failure makes the process unhealthy and not ready; otherwise it degrades.
        depends_on: names of checks; while one of them fails, this one is `SKIPPED` with the cause.
        failures_to_trip, successes_to_recover: consecutive results that it takes, at least 1. The first result ever
            decides at once.
        enabled: a disabled check is never run and shows as `not_configured`.
    """

    name: str
    function: CheckFunction | None
    component: str = ""
    interval_s: float = 10.0
    timeout_s: float = 2.0
    max_age_s: float = 30.0
    critical: bool = False
    scope: Scope = Scope.LOCAL
    depends_on: tuple[str, ...] = ()
    failures_to_trip: int = 2
    successes_to_recover: int = 1
    enabled: bool = True


class CheckState(msgspec.Struct, frozen=True):
    """What is held of a check between its runs.

    `status` is the state after hysteresis; None until the first result (`pending`). `result` is the last result as it
    was found, `result_at_s` its monotonic time. `last_transition` is wall time, `trace_id` the trace of that change
    (32 hex digits) or None.
    """

    status: HealthStatus | None = None
    result: CheckResult | None = None
    result_at_s: float | None = None
    consecutive_failures: int = 0
    consecutive_successes: int = 0
    transitions: int = 0
    last_transition: datetime | None = None
    last_error: str | None = None
    trace_id: str | None = None


class Maintenance(msgspec.Struct, frozen=True):
    """A planned absence: not ready and not alarming. `until` is wall time in UTC, `reason` the operator's words."""

    reason: str
    until: datetime


class HealthResponse(msgspec.Struct, frozen=True):
    """An answer without HTTP: the status code and the JSON object."""

    status_code: int
    body: dict[str, Any]
