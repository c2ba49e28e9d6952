"""What is told of a snapshot: the JSON objects of the health paths, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from streamlit_extension.health.model import HealthResponse, HealthStatus, Outcome
from streamlit_extension.health.state import (
    Entry,
    Snapshot,
    Verdict,
    aggregate,
    is_stale,
    maintenance_at,
    not_ready_because,
    pending_at_start,
    startup_complete,
    verdict,
)

#: Components that are always told, configured or not.
STANDARD_COMPONENTS = ("database", "cache", "external_apis", "system")
#: An answer that shows no time may be given again for this many seconds at most.
MAX_VALID_S = 60.0

_SERVING = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)


class Rendered(msgspec.Struct, frozen=True):
    """An answer, and for how many seconds it stays right while the snapshot is the same."""

    response: HealthResponse
    valid_for_s: float


# -- formats --------------------------------------------------------------------------------------------------------


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds: `2025-01-15T10:30:00Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_uptime(seconds: float) -> str:
    """`H…:MM:SS` with at least two digits for the hours: `72:30:15`. What is below 0 counts as 0."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def format_percent(percent: float) -> str:
    """A whole percentage: `25%`. What is below 0 counts as 0."""
    return f"{max(0.0, percent):.0f}%"


def format_milliseconds(seconds: float) -> str:
    """A duration in whole milliseconds: `2ms`."""
    return f"{max(0.0, seconds) * 1000:.0f}ms"


# -- answers --------------------------------------------------------------------------------------------------------


def basic(snapshot: Snapshot, now_s: float, wall: datetime) -> Rendered:
    """`/health`."""
    status = aggregate(snapshot, now_s, wall)
    body: dict[str, Any] = {
        "status": status.value,
        "timestamp": format_timestamp(wall),
        "uptime": format_uptime(now_s - snapshot.started_s),
        "version": snapshot.version,
    }
    maintenance = maintenance_at(snapshot, wall)
    if maintenance is not None:
        body["maintenance"] = {"reason": maintenance.reason, "until": format_timestamp(maintenance.until)}
    return _rendered(_code(status), body, _until_next_second(wall), snapshot, now_s, wall)


def detailed(snapshot: Snapshot, now_s: float, wall: datetime, *, entitled: bool) -> Rendered:
    """`/health/detailed`; `status` and `timestamp` alone to those not entitled."""
    status = aggregate(snapshot, now_s, wall)
    body: dict[str, Any] = {"status": status.value, "timestamp": format_timestamp(wall)}
    if entitled:
        body["components"] = _components(snapshot, now_s)
        maintenance = maintenance_at(snapshot, wall)
        if maintenance is not None:
            body["maintenance"] = {"reason": maintenance.reason, "until": format_timestamp(maintenance.until)}
    return _rendered(_code(status), body, _until_next_second(wall), snapshot, now_s, wall)


def component(snapshot: Snapshot, now_s: float, wall: datetime, name: str, *, entitled: bool) -> Rendered:
    """`/health/detailed/{component}`; its `status` alone to those not entitled, 404 for an unknown one."""
    found = _components(snapshot, now_s).get(name)
    if found is None:
        return Rendered(HealthResponse(404, {"error": "no such component"}), 0.0)
    code = 503 if found["status"] == HealthStatus.UNHEALTHY.value else 200
    return Rendered(HealthResponse(code, found if entitled else {"status": found["status"]}), 0.0)


def ready(snapshot: Snapshot, now_s: float, wall: datetime) -> Rendered:
    """`/health/ready`: the decision after hysteresis, and for each dependency what was last seen of it."""
    reason = not_ready_because(snapshot, now_s, wall)
    told = {name: _dependency(name, snapshot.checks.get(name), now_s) for name in _dependency_names(snapshot)}
    body: dict[str, Any] = {"ready": reason is None, "dependencies": told}
    if reason is not None:
        body["reason"] = reason
    return _rendered(200 if reason is None else 503, body, MAX_VALID_S, snapshot, now_s, wall)


def live(snapshot: Snapshot, now_s: float, wall: datetime, problem: str | None = None) -> Rendered:
    """`/health/live`: 503 with the reason when a restart would help; no check has a say."""
    last = snapshot.heartbeat or wall
    body: dict[str, Any] = {"alive": problem is None, "last_heartbeat": format_timestamp(last)}
    if problem is not None:
        body["reason"] = problem
    return Rendered(HealthResponse(200 if problem is None else 503, body), 1.0)


def startup(snapshot: Snapshot, now_s: float, wall: datetime) -> Rendered:
    """`/health/startup`: 503 until the server's start and the first run of every critical check are done."""
    started = startup_complete(snapshot)
    body = {"started": started, "pending": list(pending_at_start(snapshot))}
    return _rendered(200 if started else 503, body, MAX_VALID_S, snapshot, now_s, wall)


def _code(status: HealthStatus) -> int:
    return 200 if status in _SERVING else 503


# -- components -----------------------------------------------------------------------------------------------------


def _components(snapshot: Snapshot, now_s: float) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Entry]] = {name: [] for name in STANDARD_COMPONENTS}
    for name, entry in snapshot.checks.items():
        members.setdefault(entry.spec.component or name, []).append(entry)
        group = name.partition(":")[0]
        if group == "external_apis" and group != name:
            members[group].append(entry)
    return {name: _component(entries, now_s, name) for name, entries in members.items()}


#: Worst first: a component of several checks shows the first of these that one of them has.
_ORDER = ("unhealthy", "degraded", "skipped", "pending", "healthy", "not_configured")


def _component(entries: list[Entry], now_s: float, name: str) -> dict[str, Any]:
    if not entries:
        return {"status": "not_configured"}
    statuses = [_status_word(entry, now_s) for entry in entries]
    worst = min(statuses, key=_ORDER.index)
    lead = entries[statuses.index(worst)]
    body: dict[str, Any] = {"status": worst}
    if len(entries) > 1 and name == "external_apis":
        body["apis"] = {entry.spec.name.partition(":")[2]: word for entry, word in zip(entries, statuses, strict=True)}
    else:
        for entry in entries:
            if entry.state.result is not None:
                body |= _formatted(entry.state.result.detail)
    if worst == "not_configured":
        return body
    reason = _reason(lead, now_s)
    if reason is not None:
        body["reason"] = reason
    return body | _history(lead, now_s)


def _status_word(entry: Entry, now_s: float) -> str:
    state = entry.state
    if not entry.spec.enabled:
        return "not_configured"
    if state.result is None:
        return "pending"
    if is_stale(entry.spec, state, now_s):
        return HealthStatus.UNHEALTHY.value
    if state.result.outcome in (Outcome.SKIPPED, Outcome.NOT_CONFIGURED):
        return state.result.outcome.value
    return state.status.value if state.status is not None else "pending"


def _reason(entry: Entry, now_s: float) -> str | None:
    """Why a component is not simply healthy: `stale`, `timeout`, `failed`, or what its check names (`slow`)."""
    result = entry.state.result
    if result is None:
        return None
    if is_stale(entry.spec, entry.state, now_s):
        return "stale"
    if result.outcome is Outcome.SKIPPED:
        return f"{result.cause} failed"
    named = result.detail.get("reason")
    if result.outcome in (Outcome.FAILED, Outcome.TIMEOUT):
        return result.outcome.value
    return None if result.outcome is Outcome.OK else named


def _history(entry: Entry, now_s: float) -> dict[str, Any]:
    state = entry.state
    return {
        "age": None if state.result_at_s is None else round(max(0.0, now_s - state.result_at_s), 1),
        "last_transition": None if state.last_transition is None else format_timestamp(state.last_transition),
        "last_error": state.last_error,
        "trace_id": state.trace_id,
    }


def _formatted(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Details as they are told: `x_percent` as `x: "25%"`, `x_s` as `x: "2ms"`, the rest as it is."""
    told: dict[str, Any] = {}
    for key, value in detail.items():
        if isinstance(value, Mapping):
            told[key] = _formatted(value)
        elif isinstance(value, (int, float)) and key.endswith("_percent"):
            told[key.removesuffix("_percent")] = format_percent(value)
        elif isinstance(value, (int, float)) and key.endswith("_s"):
            told[key.removesuffix("_s")] = format_milliseconds(value)
        elif value is not None or key == "max":
            told[key] = value
    told.pop("reason", None)
    return told


# -- dependencies ---------------------------------------------------------------------------------------------------


def _dependency_names(snapshot: Snapshot) -> Iterable[str]:
    shown = [
        name for name, entry in snapshot.checks.items() if name not in ("database", "cache") and _is_dependency(entry)
    ]
    return ("database", "cache", *shown)


def _is_dependency(entry: Entry) -> bool:
    """What is outside of the process, or stops it from being ready."""
    return entry.spec.critical or entry.spec.name.partition(":")[0] in ("database", "cache", "external_apis")


def _dependency(name: str, entry: Entry | None, now_s: float) -> str:
    if entry is None or not entry.spec.enabled:
        return "not_configured"
    result = entry.state.result
    if result is None:
        return "pending"
    if is_stale(entry.spec, entry.state, now_s):
        return "stale"
    good, bad = ("connected", "disconnected") if name.partition(":")[0] == "database" else ("available", "unavailable")
    words = {Outcome.OK: good, Outcome.DEGRADED: good, Outcome.FAILED: bad}
    return words.get(result.outcome, result.outcome.value)


# -- how long an answer holds ---------------------------------------------------------------------------------------


def _until_next_second(wall: datetime) -> float:
    return 1.0 - wall.microsecond / 1_000_000


def _rendered(
    code: int, body: dict[str, Any], valid_for_s: float, snapshot: Snapshot, now_s: float, wall: datetime
) -> Rendered:
    """With the first moment at which a result turns stale or maintenance ends."""
    moments = [valid_for_s]
    for entry in snapshot.checks.values():
        at_s = entry.state.result_at_s
        if entry.spec.function is not None and at_s is not None and verdict(entry, now_s) is not Verdict.STALE:
            moments.append(math.nextafter(at_s + entry.spec.max_age_s - now_s, math.inf))
    if snapshot.maintenance is not None and wall < snapshot.maintenance.until:
        moments.append((snapshot.maintenance.until - wall) / timedelta(seconds=1))
    return Rendered(HealthResponse(code, body), max(0.0, min(moments)))
