"""Holds the checks, their states and the one snapshot that requests read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace
from opentelemetry import trace

from otel.names import Attribute, SpanName
from streamlit_extension.health.model import (
    CheckResult,
    CheckSpec,
    CheckState,
    HealthStatus,
    Maintenance,
    Outcome,
    ServicePhase,
)
from streamlit_extension.health.scheduler import Scheduler
from streamlit_extension.health.state import (
    Entry,
    SharedFailure,
    Snapshot,
    aggregate,
    failing,
    maintenance_at,
    next_state,
)

_logger = logging.getLogger("streamlit_extension.health")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class HealthService:
    """Runs checks in the background and keeps the snapshot; safe to call from any thread.

    Arguments:
        version: shown by `/health`.
        shared_failure: whether a shared dependency's failure makes this replica not ready ("unready") or only
            degraded ("degrade"); `register` can say otherwise for one check.
        clock: monotonic seconds.
        wall: wall time in UTC; shown, and decides when maintenance ends, nothing else.
        tracer: makes the span of a change of status; by default the process's.
    """

    def __init__(
        self,
        *,
        version: str,
        shared_failure: str = SharedFailure.UNREADY,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = _utc_now,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._tracer = tracer
        self._shared_failure = SharedFailure(shared_failure)
        self._lock = threading.RLock()
        #: All that is known, as one value; read by every request, replaced only here.
        self.snapshot = Snapshot(version=version, started_s=clock())
        self._told = HealthStatus.HEALTHY
        self._problem: Callable[[], str | None] = lambda: None
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._scheduler = Scheduler(publish=self._publish, blocked_by=self._blocked_by, clock=clock)

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> ServicePhase:
        """Where the process stands between its start and its end."""
        return self.snapshot.phase

    def status(self) -> HealthStatus:
        """The status of the whole process now."""
        return aggregate(self.snapshot, self._clock(), self._wall())

    def liveness_problem(self) -> str | None:
        """Why a restart would help; None while alive."""
        return self._problem()

    # -- checks -------------------------------------------------------------------------------------------------

    def register(self, spec: CheckSpec, *, shared_failure: str | None = None) -> None:
        """Add a check, or replace the one of that name; it is run at once and `pending` until its first result.

        Raises:
            ValueError: it would depend on itself, directly or through others.
        """
        with self._lock:
            known = dict(self.snapshot.checks)
            _refuse_cycle(spec, known)
            policy = self._shared_failure if shared_failure is None else SharedFailure(shared_failure)
            at_start = self.snapshot.phase is ServicePhase.STARTING
            known[spec.name] = Entry(spec, CheckState(), at_start, policy)
            self._replace(checks=MappingProxyType(known))
            if spec.function is not None and spec.enabled:
                self._scheduler.add(spec)
            else:
                self._scheduler.remove(spec.name)

    def unregister(self, name: str) -> None:
        """Forget a check; an unknown name changes nothing."""
        with self._lock:
            known = dict(self.snapshot.checks)
            if known.pop(name, None) is not None:
                self._scheduler.remove(name)
                self._replace(checks=MappingProxyType(known))

    def report(self, name: str, result: CheckResult) -> None:
        """Take a result from outside; an unknown name changes nothing.

        It comes with every run of a script, so what time alone has changed is left to the heartbeat to tell.
        """
        self._publish(name, result, tells_status=False)

    def run_now(self, name: str) -> CheckResult:
        """Run one check at once, in its time-out, and return its result, which counts.

        Raises:
            KeyError: no such check.
        """
        spec = self.snapshot.checks[name].spec
        if spec.function is None:
            return self.snapshot.checks[name].state.result or CheckResult(Outcome.NOT_CONFIGURED)
        return self._scheduler.run_now(spec)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run checks in the background; again changes nothing."""
        self._scheduler.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop running checks; returns within `timeout_s` seconds also when checks hang."""
        self._scheduler.stop(timeout_s)

    def set_phase(self, phase: ServicePhase) -> None:
        """Say where the process stands."""
        with self._lock:
            self._replace(phase=phase)

    def set_maintenance(self, maintenance: Maintenance | None) -> None:
        """Begin, replace or end (None) maintenance; it ends by itself at its `until`."""
        with self._lock:
            before = self.snapshot.maintenance
            self._replace(maintenance=maintenance)
        if maintenance is not None:
            _logger.warning(
                "maintenance: %s",
                maintenance.reason,
                extra={
                    "event": "health.maintenance_started",
                    "reason": maintenance.reason,
                    "until": maintenance.until.isoformat(),
                },
            )
        elif before is not None:
            _logger.warning("maintenance ended", extra={"event": "health.maintenance_ended", "reason": before.reason})
        self._tell_status()

    def heartbeat(self) -> None:
        """Called about twice a second from the event loop: shows that it moves, and ends maintenance in time."""
        with self._lock:
            wall = self._wall()
            self._replace(heartbeat=wall)
            over = self.snapshot.maintenance is not None and maintenance_at(self.snapshot, wall) is None
        if over:
            self.set_maintenance(None)
        else:
            self._tell_status()

    def set_liveness(self, problem: Callable[[], str | None]) -> None:
        """`problem` tells why a restart would help, None while alive; called for `/health/live`, so be quick."""
        self._problem = problem

    def add_listener(self, listener: Callable[[Snapshot], None]) -> None:
        """Call `listener` with each snapshot in which a check's status has changed."""
        self._listeners.append(listener)

    # -- inside -------------------------------------------------------------------------------------------------

    def _replace(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, **changes)

    def _blocked_by(self, spec: CheckSpec) -> str | None:
        checks = self.snapshot.checks
        now_s = self._clock()
        return next((name for name in spec.depends_on if failing(checks.get(name), now_s)), None)

    def _publish(self, name: str, result: CheckResult, *, tells_status: bool = True) -> None:
        with self._lock:
            entry = self.snapshot.checks.get(name)
            if entry is None:
                return
            state = next_state(entry.state, entry.spec, result, self._clock(), self._wall())
            self._put(name, entry, state)
            changed = state.status is not entry.state.status
            if changed:  # told with the check's own change, so that nobody tells it a second time
                self._told = self.status()
            service = self._told
        if not changed:
            if tells_status:
                self._tell_status()
            return
        trace_id = self._tell_change(name, entry.state.status, state, service)
        with self._lock:
            latest = self.snapshot.checks.get(name)
            if trace_id is not None and latest is not None and latest.state.last_transition == state.last_transition:
                self._put(name, latest, replace(latest.state, trace_id=trace_id))
            snapshot = self.snapshot
        for listener in tuple(self._listeners):
            listener(snapshot)

    def _put(self, name: str, entry: Entry, state: CheckState) -> None:
        known = dict(self.snapshot.checks)
        known[name] = replace(entry, state=state)
        self._replace(checks=MappingProxyType(known))

    def _tell_change(self, name: str, old: HealthStatus | None, state: CheckState, service: HealthStatus) -> str | None:
        """One span and one log event for a check's change of status; returns the span's trace id."""
        before, after = old.value if old else "pending", state.status.value if state.status else "pending"
        tracer = self._tracer or trace.get_tracer("streamlit_extension.health")
        attributes = {
            Attribute.HEALTH_CHECK_NAME.value: name,
            Attribute.HEALTH_STATUS_OLD.value: before,
            Attribute.HEALTH_STATUS_NEW.value: after,
        }
        nowhere = trace.set_span_in_context(trace.INVALID_SPAN)
        with tracer.start_as_current_span(
            SpanName.HEALTH_STATUS_CHANGE.value, context=nowhere, attributes=attributes
        ) as span:
            level = logging.INFO if state.status is HealthStatus.HEALTHY else logging.WARNING
            fields = {"event": "health.status_changed", "check": name, "old": before, "new": after}
            if state.status is not HealthStatus.HEALTHY and state.result is not None and state.result.error:
                fields["error"] = state.result.error
            _logger.log(level, "%s: %s, was %s", name, after, before, extra={**fields, "service_status": service.value})
            context = span.get_span_context()
            return format(context.trace_id, "032x") if context.is_valid else None

    def _tell_status(self) -> None:
        """One log event when the whole process's status has changed by itself (stale, maintenance over)."""
        with self._lock:
            status = self.status()
            before, self._told = self._told, status
        if before is not status:
            level = logging.INFO if status is HealthStatus.HEALTHY else logging.WARNING
            fields = {"event": "health.service_status_changed", "old": before.value, "new": status.value}
            _logger.log(level, "the service is %s, was %s", status.value, before.value, extra=fields)


def _refuse_cycle(spec: CheckSpec, known: Mapping[str, Entry]) -> None:
    """Dependencies may be registered later, but none may lead back."""
    seen: set[str] = set()
    todo = list(spec.depends_on)
    while todo:
        name = todo.pop()
        if name == spec.name:
            raise ValueError(f"check {spec.name!r} would depend on itself through depends_on {list(spec.depends_on)!r}")
        if name not in seen and name in known:
            seen.add(name)
            todo += known[name].spec.depends_on
