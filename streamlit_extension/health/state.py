"""Decisions of health as pure functions of values: what a result changes, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from streamlit_extension.health.model import (
    CheckResult,
    CheckSpec,
    CheckState,
    HealthStatus,
    Maintenance,
    Outcome,
    Scope,
    ServicePhase,
)


class SharedFailure(StrEnum):
    """What the failure of a shared dependency does to this replica (`health.shared_failure`)."""

    UNREADY = "unready"
    DEGRADE = "degrade"


class Entry(msgspec.Struct, frozen=True):
    """A check and its state. `at_start` is whether it was registered before the start was finished."""

    spec: CheckSpec
    state: CheckState
    at_start: bool = True
    shared_failure: SharedFailure = SharedFailure.UNREADY


_NO_CHECKS: Mapping[str, Entry] = MappingProxyType({})


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that a request needs, as one value that is replaced as a whole.

    `started_s` is in monotonic seconds, `heartbeat` is wall time in UTC.
    """

    version: str
    started_s: float
    phase: ServicePhase = ServicePhase.STARTING
    checks: Mapping[str, Entry] = msgspec.field(default_factory=lambda: _NO_CHECKS)
    maintenance: Maintenance | None = None
    heartbeat: datetime | None = None


_FAILURES = (Outcome.FAILED, Outcome.TIMEOUT)
_STATUS_OF = {Outcome.OK: HealthStatus.HEALTHY, Outcome.DEGRADED: HealthStatus.DEGRADED}


def next_state(
    state: CheckState,
    spec: CheckSpec,
    result: CheckResult,
    now_s: float,
    wall: datetime,
) -> CheckState:
    """The state after one more result.

    The first result ever decides at once; later `failures_to_trip` failures or `successes_to_recover` successes in a
    row are needed to change between working and not. A degraded result is a success that is told as degraded. A
    skipped or not configured one holds the counts and says nothing about the dependency itself.
    """
    failed = result.outcome in _FAILURES
    counts = result.outcome in _STATUS_OF or failed
    failures = state.consecutive_failures + 1 if failed else (0 if counts else state.consecutive_failures)
    successes = 0 if failed else (state.consecutive_successes + 1 if counts else state.consecutive_successes)
    status = _next_status(state, spec, result, failures, successes)
    changed = status is not state.status and state.status is not None
    return replace(
        state,
        status=status,
        result=result,
        result_at_s=now_s,
        consecutive_failures=failures,
        consecutive_successes=successes,
        transitions=state.transitions + changed,
        last_transition=wall if status is not state.status else state.last_transition,
        last_error=result.error or state.last_error,
        trace_id=None if status is not state.status else state.trace_id,
    )


def _next_status(
    state: CheckState, spec: CheckSpec, result: CheckResult, failures: int, successes: int
) -> HealthStatus | None:
    if result.outcome in _FAILURES:
        down = state.status in (None, HealthStatus.UNHEALTHY) or failures >= spec.failures_to_trip
        return HealthStatus.UNHEALTHY if down else state.status
    good = _STATUS_OF.get(result.outcome)
    if good is None:  # skipped, not configured
        return state.status
    if state.status is HealthStatus.UNHEALTHY and successes < spec.successes_to_recover:
        return state.status
    return good


def is_stale(spec: CheckSpec, state: CheckState, now_s: float) -> bool:
    """Whether the last result is older than `max_age_s`; never for a check whose results are reported from outside."""
    return (
        spec.function is not None
        and spec.enabled
        and state.result_at_s is not None
        and now_s - state.result_at_s > spec.max_age_s
    )


class Verdict(StrEnum):
    """What one check contributes to the whole."""

    UNCOUNTED = "uncounted"
    GOOD = "good"
    IMPAIRED = "impaired"
    DOWN = "down"
    STALE = "stale"


def verdict(entry: Entry, now_s: float) -> Verdict:
    """What one check contributes now: pending, disabled and not configured ones are not counted."""
    spec, state = entry.spec, entry.state
    if not spec.enabled or state.result is None:
        return Verdict.UNCOUNTED
    if is_stale(spec, state, now_s):
        return Verdict.STALE
    if state.result.outcome is Outcome.SKIPPED:
        return Verdict.DOWN if state.status is HealthStatus.UNHEALTHY else Verdict.IMPAIRED
    if state.result.outcome is Outcome.NOT_CONFIGURED or state.status is None:
        return Verdict.UNCOUNTED
    if state.status is HealthStatus.UNHEALTHY:
        return Verdict.DOWN
    return Verdict.GOOD if state.status is HealthStatus.HEALTHY else Verdict.IMPAIRED


def _keeps_ready(entry: Entry) -> bool:
    return entry.spec.scope is Scope.SHARED and entry.shared_failure is SharedFailure.DEGRADE


def status_of(entries: Iterable[Entry], maintenance: Maintenance | None, now_s: float) -> HealthStatus:
    """The status of the whole process, whatever the order of its checks."""
    if maintenance is not None:
        return HealthStatus.MAINTENANCE
    worst = HealthStatus.HEALTHY
    for entry in entries:
        found = verdict(entry, now_s)
        if found in (Verdict.UNCOUNTED, Verdict.GOOD):
            continue
        down = found is Verdict.DOWN and not _keeps_ready(entry)
        if entry.spec.critical and (down or found is Verdict.STALE):
            return HealthStatus.UNHEALTHY
        worst = HealthStatus.DEGRADED
    return worst


def aggregate(snapshot: Snapshot, now_s: float, wall: datetime) -> HealthStatus:
    """`status_of` for a snapshot; maintenance whose time is over does not count."""
    return status_of(snapshot.checks.values(), maintenance_at(snapshot, wall), now_s)


def maintenance_at(snapshot: Snapshot, wall: datetime) -> Maintenance | None:
    """The maintenance that holds at `wall`, if any."""
    maintenance = snapshot.maintenance
    return maintenance if maintenance is not None and wall < maintenance.until else None


def pending_at_start(snapshot: Snapshot) -> tuple[str, ...]:
    """Critical checks that were there at the start and have no result yet."""
    return tuple(
        name
        for name, entry in snapshot.checks.items()
        if entry.at_start and entry.spec.critical and entry.spec.enabled and entry.state.result is None
    )


def startup_complete(snapshot: Snapshot) -> bool:
    """Whether the server's start and the first run of every critical check are done."""
    return snapshot.phase is not ServicePhase.STARTING and not pending_at_start(snapshot)


def not_ready_because(snapshot: Snapshot, now_s: float, wall: datetime) -> str | None:
    """Why requests should go elsewhere (`starting`, `draining`, `maintenance`, a check's name); None when ready."""
    if snapshot.phase in (ServicePhase.DRAINING, ServicePhase.STOPPED):
        return "draining"
    if not startup_complete(snapshot):
        return "starting"
    if maintenance_at(snapshot, wall) is not None:
        return "maintenance"
    for name, entry in snapshot.checks.items():
        found = verdict(entry, now_s)
        down = found is Verdict.DOWN and not _keeps_ready(entry)
        if entry.spec.critical and (down or found is Verdict.STALE):
            return name
    return None


def failing(entry: Entry | None, now_s: float) -> bool:
    """Whether what depends on this check should be skipped: its own failure, or its being skipped itself."""
    if entry is None or entry.state.result is None:
        return False
    return verdict(entry, now_s) is Verdict.DOWN or entry.state.result.outcome is Outcome.SKIPPED
