"""Memory: who holds it, who holds most, and where it is going."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otel.store.model import Point
from streamlit_extension.viewer import charts, text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import Room

#: Who holds memory, and what helps.
HOLDERS: Final = {
    "session_state": ("Session state", "What scripts put into st.session_state, over all sessions"),
    "cache": ("Caches", "st.cache_data and st.cache_resource; max_entries and ttl bound them"),
    "uploads": ("Uploads", "Files that users uploaded, kept until their session ends"),
    "media": ("Media", "Images, audio and downloads that pages show"),
    "process": ("Process", "All memory of the process"),
}


@dataclass(frozen=True, slots=True)
class Held:
    """What one holder holds: bytes now, and its trend in bytes an hour (None where it can't be told)."""

    key: str
    name: str
    help: str
    now: float
    trend: float | None


def trend_per_hour(points: Sequence[Point]) -> float | None:
    """Slope of the straight line that fits best, in the value's unit an hour; None for less than three points."""
    given = [(point.time_ns / 3.6e12, point.value) for point in points if math.isfinite(point.value)]
    if len(given) < 3:
        return None
    mean_x = sum(x for x, _ in given) / len(given)
    mean_y = sum(y for _, y in given) / len(given)
    spread = sum((x - mean_x) ** 2 for x, _ in given)
    return sum((x - mean_x) * (y - mean_y) for x, y in given) / spread if spread > 0 else None


def show(room: Room) -> Answer:
    """Where memory went."""
    chosen = room.range
    found = room.reader.memory(chosen.since_ns, chosen.until_ns)
    held, curves = [], []
    for key, series in found.holders.items():
        name, hint = HOLDERS.get(key, (text.one_line(key, 40), ""))
        if series.points:
            held.append(Held(key, name, hint, series.points[-1].value, trend_per_hour(series.points)))
            if key != "process":
                curves.append(charts.Curve(name, [(point.time_ns, point.value) for point in series.points]))
    process = found.holders.get("process")
    whole = [] if process is None else [charts.Curve("Process", [(p.time_ns, p.value) for p in process.points])]
    span = (chosen.since_ns, chosen.until_ns)
    return room.page(
        "memory.html",
        title="Memory",
        chosen=chosen,
        held=held,
        sessions=found.sessions,
        most=max((each.bytes for each in found.sessions), default=0) or 1,
        picture=charts.chart(curves, span_ns=span, form=text.size, title="Memory by holder", size="large"),
        legend=charts.legend([curve.name for curve in curves]),
        process=charts.chart(whole, span_ns=span, form=text.size, title="Memory of the process"),
    )
