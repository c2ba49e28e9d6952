"""Metrics: every instrument as a chart, with exemplars that lead to their runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from markupsafe import Markup

from otel.store.model import Instrument, Point, Series
from streamlit_extension.viewer import charts, text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import NotFound, Range, Room

#: Charts of the list are drawn for so many seconds; what is left then is a link.
BUDGET_S: Final = 4.0
#: Headings of the list: the beginning of an instrument's name → what it is about; the first that fits.
GROUPS: Final = (
    ("streamlit.script_run.", "Script runs"),
    ("streamlit.session.", "Sessions"),
    ("streamlit.cache.", "Caches"),
    ("streamlit.memory.", "Memory"),
    ("business.", "Business"),
    ("db.", "Database"),
    ("http.", "HTTP"),
    ("health.", "Health"),
    ("alert.", "Health"),
    ("process.", "Process"),
    ("cpython.", "Process"),
    ("system.", "Machine"),
    ("telemetry.", "Telemetry"),
)
OTHER: Final = "Your own"


@dataclass(frozen=True, slots=True)
class Card:
    """One instrument as it is shown; `picture` is None for one that was not drawn in time."""

    instrument: Instrument
    picture: Markup | None
    legend: Markup
    now: str
    exemplars: int


def group_of(name: str) -> str:
    """The heading of an instrument."""
    return next((group for start, group in GROUPS if name.startswith(start)), OTHER)


def series_name(attributes: Mapping[str, Any]) -> str:
    """A series by its attributes' values."""
    return text.one_line(", ".join(str(attributes[name]) for name in sorted(attributes)) or "all", 60)


def form_of(instrument: Instrument) -> Callable[[float], str]:
    """How a value of this instrument is written: a counter's is a rate."""
    if instrument.kind == "counter":
        return partial(_rate, unit=instrument.unit)
    return partial(text.with_unit, unit=instrument.unit)


def _rate(value: float, unit: str) -> str:
    if unit == "s":
        return f"{text.number(value)} s/s"
    return text.with_unit(value, unit) + "/s"


def curves(found: Sequence[Series], *, percentiles: bool) -> list[charts.Curve]:
    """A chart's curves: one for each series, or a histogram's percentiles."""
    if found and found[0].instrument.kind == "histogram":
        if percentiles:
            points = found[0].points
            return [
                charts.Curve("p50", [(point.time_ns, point.p50) for point in points]),
                charts.Curve("p95", [(point.time_ns, point.p95) for point in points]),
                charts.Curve("p99", [(point.time_ns, point.p99) for point in points]),
            ]
        return [charts.Curve(series_name(each.attributes), _points(each.points, "p95")) for each in found]
    return [charts.Curve(series_name(each.attributes), _points(each.points, "value")) for each in found]


def _points(points: Sequence[Point], field: str) -> list[tuple[int, float | None]]:
    return [(point.time_ns, getattr(point, field)) for point in points]


def dots(room: Room, found: Sequence[Series], form: Callable[[float], str], most: int = 40) -> list[charts.Dot]:
    """Exemplars as dots that lead to their runs."""
    made = [
        charts.Dot(
            each.time_ns,
            each.value,
            room.href(f"traces/{each.trace_id}", span=each.span_id),
            f"{form(each.value)}: open the run {each.trace_id[:8]}",
        )
        for series in found
        for each in series.exemplars
        if each.trace_id
    ]
    return sorted(made, key=lambda dot: -dot.value)[:most]


def _card(room: Room, instrument: Instrument, chosen: Range) -> Card:
    found = room.reader.series(instrument.name, chosen.since_ns, chosen.until_ns, steps=60, limit=charts.MOST_CURVES)
    form = form_of(instrument)
    single = len(found) == 1
    drawn = curves(found, percentiles=single)
    marked = dots(room, found, form, 12) if instrument.kind == "histogram" else []
    title = text.one_line(instrument.name, 120)
    picture = charts.chart(
        drawn, span_ns=(chosen.since_ns, chosen.until_ns), form=form, title=title, dots=marked, size="small"
    )
    last = next((value for curve in drawn[:1] for _, value in reversed(curve.points) if value is not None), None)
    legend = charts.legend([curve.name for curve in drawn]) if len(drawn) > 1 else Markup("")
    return Card(instrument, picture, legend, "–" if last is None else form(last), len(marked))


def show_all(room: Room) -> Answer:
    """Every instrument, charted."""
    chosen, words = room.range, room.ask.get("q").lower().split()
    instruments = room.reader.instruments()
    fitting = [each for each in instruments if all(word in f"{each.name} {each.description}".lower() for word in words)]
    deadline_s = time.monotonic() + BUDGET_S
    groups: dict[str, list[Card]] = {}
    order = {name: number for number, (_, name) in enumerate(reversed(GROUPS))}
    for each in sorted(fitting, key=lambda one: (-order.get(group_of(one.name), 99), one.name)):
        drawn = time.monotonic() < deadline_s
        card = _card(room, each, chosen) if drawn else Card(each, None, Markup(""), "", 0)
        groups.setdefault(group_of(each.name), []).append(card)
    return room.page("metrics.html", title="Metrics", chosen=chosen, groups=groups, total=len(instruments))


def show(room: Room, name: str) -> Answer:
    """One instrument, large, with all its series."""
    instrument = next((each for each in room.reader.instruments() if each.name == name), None)
    if instrument is None:
        raise NotFound("No instrument of this name was ever measured here.")
    chosen = room.range
    found = room.reader.series(name, chosen.since_ns, chosen.until_ns, steps=120, limit=50)
    form = form_of(instrument)
    span = (chosen.since_ns, chosen.until_ns)
    histogram = instrument.kind == "histogram"
    drawn = curves(found, percentiles=len(found) == 1)
    title = text.one_line(name, 120)
    marked = dots(room, found, form)
    rates = [charts.Curve(series_name(each.attributes), _points(each.points, "value")) for each in found]
    return room.page(
        "metric.html",
        title=title,
        chosen=chosen,
        instrument=instrument,
        series=found,
        series_name=series_name,
        form=form,
        picture=charts.chart(drawn, span_ns=span, form=form, title=title, dots=marked, size="large"),
        legend=charts.legend([curve.name for curve in drawn]),
        rate=charts.chart(rates, span_ns=span, form=_per_second, title="Measurements a second") if histogram else None,
        exemplars=marked,
        shows="p95 of each series" if histogram and len(found) > 1 else "",
    )


def _per_second(value: float) -> str:
    return f"{text.number(value)}/s"
