"""How the application is doing: the first page."""

from __future__ import annotations

from typing import Any

from otel.names import Metric
from otel.store.model import Overview
from streamlit_extension.viewer import charts, text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import Range, Room
from streamlit_extension.viewer.pages.health import alert_rows, component_rows, service_state


def show(room: Room) -> Answer:
    """The overview of a stretch of time, live."""
    chosen = room.range
    reader = room.sources.reader
    overview = None if reader is None else reader.overview(chosen.since_ns, chosen.until_ns, steps=60)
    return room.page(
        "overview.html",
        title="Overview",
        chosen=chosen,
        state=service_state(room),
        components=component_rows(room),
        alerts=[each for each in alert_rows(room) if each.phase == "firing"],
        overview=overview,
        charts={} if overview is None else _charts(overview, chosen),
        machine={} if reader is None else _machine(room, chosen),
    )


def _charts(overview: Overview, chosen: Range) -> dict[str, Any]:
    span = (chosen.since_ns, chosen.until_ns)
    per_minute = 60 / overview.step_s if overview.step_s > 0 else 1.0
    rate = [
        charts.Curve("runs", [(each.time_ns, each.runs * per_minute) for each in overview.steps]),
        charts.Curve("failed", [(each.time_ns, each.failed * per_minute) for each in overview.steps]),
    ]
    times = [
        charts.Curve("p50", [(each.time_ns, each.p50_s) for each in overview.steps]),
        charts.Curve("p95", [(each.time_ns, each.p95_s) for each in overview.steps]),
        charts.Curve("p99", [(each.time_ns, each.p99_s) for each in overview.steps]),
    ]
    return {
        "rate": charts.chart(rate, span_ns=span, form=text.number, title="Runs a minute"),
        "rate_legend": charts.legend(["runs", "failed"]),
        "latency": charts.chart(times, span_ns=span, form=text.duration, title="Duration of runs"),
        "latency_legend": charts.legend(["p50", "p95", "p99"]),
    }


def _machine(room: Room, chosen: Range) -> dict[str, Any]:
    """CPU, memory and open sessions: the newest value, and their course."""
    found: dict[str, Any] = {}
    for key, name in (
        ("cpu", Metric.SYSTEM_CPU_UTILIZATION),
        ("memory", Metric.PROCESS_MEMORY_USAGE),
        ("sessions", Metric.SESSION_ACTIVE),
    ):
        series = room.reader.series(name.value, chosen.since_ns, chosen.until_ns, steps=60, limit=1)
        points = series[0].points if series else ()
        if points:
            spark = charts.spark([point.value for point in points], f"{key} over time")
            found[key] = {"value": points[-1].value, "spark": spark}
    return found
