"""Which log records tell of a change of health, of alerts or of maintenance, and what they say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from otel.records import LogFact
from otel.store.ids import Numbers, half, trace_halves
from otel.store.plain import text, to_json
from otel.store.rows import MAX_NAME, nanoseconds

#: Name of an event, or its beginning with a dot at the end → kind of change.
KINDS: Final = {
    "health.maintenance_started": "maintenance",
    "health.maintenance_ended": "maintenance",
    "health.": "health",
    "alert.": "alert",
    "audit.": "audit",
    "event_loop.": "health",
}


def kind_of(event: str) -> str | None:
    """The kind of change that an event tells, None for any other event."""
    return KINDS.get(event) or KINDS.get(event[: event.find(".") + 1])


def transition_rows(facts: Iterable[LogFact], numbers: Numbers) -> list[tuple[Any, ...]]:
    """The rows of those records that tell of a change."""
    rows = []
    for fact in facts:
        event = fact.event_name
        if not event or (kind := kind_of(str(event))) is None:
            continue
        attributes = fact.attributes

        def of(*names: str, values: Any = attributes) -> str:
            return next((text(str(values[name]), MAX_NAME) for name in names if values.get(name) is not None), "")

        trace = fact.trace_id or _example(attributes.get("example_trace_id"))
        rows.append(
            (
                *(numbers(nanoseconds(fact.timestamp_ns)), nanoseconds(fact.timestamp_ns), kind),
                *(text(str(event), MAX_NAME), of("check", "rule", "alert", "circuit", "name") or _service(str(event))),
                *(of("old", "old_state"), of("new", "state") or _last_word(str(event)), text(str(fact.body), 4096)),
                *(half(trace >> 64) if trace else None, half(trace) if trace else None, to_json(attributes)),
            )
        )
    return rows


def _example(trace_id: Any) -> int:
    """The trace that an alert names as an example, 0 for none."""
    return int(trace_id, 16) if isinstance(trace_id, str) and trace_halves(trace_id) else 0


def _service(event: str) -> str:
    return "service" if event.startswith("health.service") else ""


def _last_word(event: str) -> str:
    """`fired` of `alert.fired`: the new state where no attribute says it."""
    return event.rpartition(".")[2].rpartition("_")[2]
