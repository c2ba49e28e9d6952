"""Health and alerts: state, history, and the two switches that an operator has here."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from otel.store.model import Transition
from streamlit_extension.alerts.model import Phase, Silence
from streamlit_extension.control import ControlFileDamaged, ControlState, MaintenanceOrder
from streamlit_extension.health.report import detailed
from streamlit_extension.health.state import Entry, Snapshot, aggregate, maintenance_at, verdict
from streamlit_extension.viewer import text
from streamlit_extension.viewer.answers import Answer, redirect
from streamlit_extension.viewer.desk import Room

_logger = logging.getLogger("streamlit_extension.viewer")

#: How long maintenance or a silence may last, by the word in the form.
TIMES: Final = {
    "10m": timedelta(minutes=10),
    "30m": timedelta(minutes=30),
    "2h": timedelta(hours=2),
    "8h": timedelta(hours=8),
    "1d": timedelta(days=1),
}
#: Changes of one component that are drawn.
_MOST_CHANGES: Final = 40


@dataclass(frozen=True, slots=True)
class State:
    """The whole service: its status, and why it is in maintenance."""

    status: str
    phase: str
    uptime_s: float
    maintenance: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """One check as it is shown; times in seconds, `since_ns` is its last change."""

    name: str
    status: str
    critical: bool
    age_s: float | None
    took_s: float | None
    since_ns: int | None
    last_error: str
    trace_id: str
    facts: Sequence[tuple[str, str]]
    changes: Sequence[Transition]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One rule as it is shown."""

    name: str
    title: str
    phase: str
    severity: str
    value: float
    threshold: float
    unit: str
    since_ns: int | None
    trace_id: str
    runbook: str
    silence: Silence | None


def service_state(room: Room) -> State | None:
    """The service as a whole, None without health."""
    service = room.sources.service
    if service is None:
        return None
    snapshot, now_s, wall = service.snapshot, time.monotonic(), datetime.now(UTC)
    held = maintenance_at(snapshot, wall)
    return State(
        aggregate(snapshot, now_s, wall).value,
        snapshot.phase.value,
        max(0.0, now_s - snapshot.started_s),
        held.reason if held else "",
        held.until if held else None,
    )


def component_rows(room: Room) -> list[ComponentRow]:
    """Every check, those that don't work first."""
    service = room.sources.service
    if service is None:
        return []
    snapshot = service.snapshot
    changes = _changes(room)
    told = detailed(snapshot, time.monotonic(), datetime.now(UTC), entitled=True).response.body.get("components", {})
    rows = [_component(name, entry, told, changes.get(name, ())) for name, entry in snapshot.checks.items()]
    order = {"down": 0, "stale": 1, "impaired": 2, "good": 3, "uncounted": 4}
    return sorted(rows, key=lambda row: (order.get(_verdict(snapshot, row.name), 5), row.name))


def _verdict(snapshot: Snapshot, name: str) -> str:
    return verdict(snapshot.checks[name], time.monotonic()).value


def _changes(room: Room) -> dict[str, list[Transition]]:
    found: dict[str, list[Transition]] = {}
    if room.sources.reader is not None:
        for each in room.reader.transitions(("health",), limit=500).items:
            held = found.setdefault(each.name, [])
            if len(held) < _MOST_CHANGES:
                held.append(each)
    return found


_LABELS: Final = {"good": "healthy", "impaired": "degraded", "down": "unhealthy", "stale": "stale"}


def _component(name: str, entry: Entry, told: dict[str, Any], changes: Sequence[Transition]) -> ComponentRow:
    state, spec, now_s = entry.state, entry.spec, time.monotonic()
    result = state.result
    status = _LABELS.get(verdict(entry, now_s).value)
    if status is None:
        status = "pending" if result is None and spec.enabled else "not_configured"
    shown = told.get(spec.component or name, {})
    hidden = ("status", "last_error", "trace_id", "last_transition", "age")
    facts = [
        (text.one_line(key, 60), text.one_line(_plain(value), 120))
        for key, value in shown.items()
        if key not in hidden and isinstance(shown, dict)
    ]
    return ComponentRow(
        name=text.one_line(name, 80),
        status=status,
        critical=spec.critical,
        age_s=None if state.result_at_s is None else max(0.0, now_s - state.result_at_s),
        took_s=None if result is None else result.duration_s,
        since_ns=None if state.last_transition is None else int(state.last_transition.timestamp() * 1e9),
        last_error=text.one_line(state.last_error or "", 300),
        trace_id=state.trace_id or "",
        facts=facts,
        changes=changes,
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)


def alert_rows(room: Room) -> list[AlertRow]:
    """Every rule with its state, firing ones first."""
    alerts = room.sources.alerts
    if alerts is None:
        return []
    now, states, silences = time.time(), alerts.states(), current_silences(room)
    rows = []
    for rule in alerts.rules:
        state = states.get(rule.name)
        quiet = state is None or state.phase is Phase.OK
        rows.append(
            AlertRow(
                name=rule.name,
                title=text.one_line(rule.title or rule.name, 120),
                phase="ok" if state is None else state.phase.value,
                severity=rule.severity.value,
                value=0.0 if state is None else state.value,
                threshold=rule.threshold if state is None or quiet else state.threshold,
                unit=rule.unit,
                since_ns=None if state is None or quiet else int(state.since * 1e9),
                trace_id=(state.trace_id or "") if state is not None else "",
                runbook=text.one_line(rule.runbook, 300),
                silence=next((each for each in silences if each.covers(rule.name, now)), None),
            )
        )
    order = {"firing": 0, "pending": 1}
    return sorted(rows, key=lambda row: (order.get(row.phase, 2), row.name))


def current_silences(room: Room) -> tuple[Silence, ...]:
    """What is silenced now."""
    file = room.sources.silences
    return () if file is None else file.current(time.time())


def show(room: Room) -> Answer:
    """Health, alerts, their history and switches."""
    reader = room.sources.reader
    history = None if reader is None else reader.transitions((), limit=60, cursor=room.ask.get("cursor"))
    return room.page(
        "health.html",
        title="Health and alerts",
        state=service_state(room),
        components=component_rows(room),
        alerts=alert_rows(room),
        alerts_known=room.sources.alerts is not None,
        may_silence=room.sources.silences is not None and room.sources.silences.path is not None,
        may_maintain=room.sources.control is not None,
        ordered=_ordered(room).maintenance,
        history=history,
        times=tuple(TIMES),
        done=room.ask.get("done"),
    )


# -- switches ---------------------------------------------------------------------------------------------------------


def _ordered(room: Room) -> ControlState:
    """What the control file orders now; a damaged one orders nothing."""
    control = room.sources.control
    if control is None:
        return ControlState()
    try:
        return control.read().at(datetime.now(UTC))
    except (OSError, ControlFileDamaged):
        return ControlState()


def _refused(room: Room, said: str, status: int = 400) -> Answer:
    return room.page(
        "notice.html", status=status, title="Nothing was changed", said=said, help="Go back and try again.", kind="bad"
    )


def maintain(room: Room) -> Answer:
    """Begin maintenance, or end it, for every process of the data folder; each writes its own audit event too."""
    control, ask = room.sources.control, room.ask
    if control is None:
        return _refused(room, "There is no data folder, so orders can't be kept.", 409)
    state, now = _ordered(room), datetime.now(UTC)
    if ask.sent("switch") == "off":
        order = None
    else:
        reason, lasts = text.one_line(ask.sent("reason"), 500), TIMES.get(ask.sent("for"))
        if not reason:
            return _refused(room, "Maintenance needs a reason: it is what probes and colleagues read.")
        if lasts is None:
            return _refused(room, "Choose how long it may last; it ends by itself.")
        order = MaintenanceOrder(reason=reason, until=now + lasts, set_at=now)
    try:
        control.write(ControlState(maintenance=order, log_level=state.log_level))
    except OSError as error:
        return _refused(room, f"The order could not be written: {error.strerror}.", 500)
    told = {"reason": order.reason, "until": order.until.isoformat()} if order is not None else {}
    event = "audit.maintenance_ordered" if order is not None else "audit.maintenance_end_ordered"
    _logger.warning("maintenance was switched on the telemetry page", extra={"event": event, **told})
    return redirect(room.href("health", done="maintenance-on" if order else "maintenance-off"))


def silence(room: Room) -> Answer:
    """Silence a rule for a while, or let it speak again; whoever follows the data folder hears of it."""
    file, alerts, ask = room.sources.silences, room.sources.alerts, room.ask
    if file is None or file.path is None:
        return _refused(room, "There is no data folder, so silences can't be kept.", 409)
    rule, now = ask.sent("rule"), time.time()
    known = {each.name for each in alerts.rules} if alerts is not None else set()
    if rule != "*" and rule not in known:
        return _refused(room, "There is no such rule.")
    kept = [each for each in file.current(now) if each.rule != rule]
    if ask.sent("switch") != "off":
        reason, lasts = text.one_line(ask.sent("reason"), 500), TIMES.get(ask.sent("for"))
        if not reason or lasts is None:
            return _refused(room, "A silence needs a reason and a time; it ends by itself.")
        kept.append(Silence(rule, now + lasts.total_seconds(), reason, now))
    try:
        file.write(kept)
    except OSError as error:
        return _refused(room, f"The silence could not be written: {error.strerror}.", 500)
    off = ask.sent("switch") == "off"
    event = "audit.alert_unsilenced" if off else "audit.alert_silenced"
    _logger.warning("alerts were silenced on the telemetry page", extra={"event": event, "rule": rule})
    return redirect(room.href("health", done="unsilenced" if off else "silenced"))
