"""Charts as SVG that scales with its place: curves are stretched, dots and labels are not. Pure functions.

Colours and strokes come from the style sheet; nothing is styled inline, which the page's policy forbids.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

#: Curves of one chart; more could not be told apart.
MOST_CURVES = 8
_WIDTH, _HEIGHT = 1000.0, 100.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: `points` are (ns since the epoch, value), a value of None leaves a gap."""

    name: str
    points: Sequence[tuple[int, float | None]]


@dataclass(frozen=True, slots=True)
class Dot:
    """A single measurement that leads somewhere."""

    at_ns: int
    value: float
    href: str
    title: str


def bounds(curves: Sequence[Curve], dots: Sequence[Dot] = ()) -> tuple[float, float]:
    """The vertical range: from 0 (or the least, below it) to a round number above the greatest."""
    values = [value for curve in curves for value in _values(curve)]
    values += [dot.value for dot in dots if math.isfinite(dot.value)]
    low, high = min([0.0, *values]), max([0.0, *values])
    if high <= low:
        return low, low + 1.0
    return (-_round_up(-low) if low < 0 else 0.0), (_round_up(1.04 * high) if high > 0 else 0.0)


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10):
        if value <= step * power * (1 + 1e-9):
            return float(step * power)
    return value


def _measured(curve: Curve) -> list[tuple[int, float]]:
    return [(at, value) for at, value in curve.points if value is not None and math.isfinite(value)]


def _values(curve: Curve) -> list[float]:
    return [value for _, value in _measured(curve)]


def chart(
    curves: Sequence[Curve],
    *,
    span_ns: tuple[int, int],
    form: Callable[[float], str],
    title: str,
    dots: Sequence[Dot] = (),
    size: str = "",
) -> Markup:
    """One chart with its labels; `form` writes a value, `span_ns` is the time from left to right."""
    shown = [Curve(curve.name, [p for p in curve.points if span_ns[0] <= p[0] <= span_ns[1]]) for curve in curves]
    shown = shown[:MOST_CURVES]
    inside = [dot for dot in dots if span_ns[0] <= dot.at_ns <= span_ns[1]]
    low, high = bounds(shown, inside)
    length = max(1, span_ns[1] - span_ns[0])

    def x(at_ns: int) -> float:
        return (at_ns - span_ns[0]) / length

    def y(value: float) -> float:
        return 1 - (value - low) / (high - low)

    paths = Markup("").join(_paths(number, curve, x, y) for number, curve in enumerate(shown))
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{0}%" y2="{0}%"/>').format(each)
        for each in (0, 25, 50, 75, 100)
    )
    links = Markup("").join(
        Markup('<a href="{}"><title>{}</title><circle class="dot" cx="{}%" cy="{}%" r="4"/></a>').format(
            dot.href, dot.title, round(100 * x(dot.at_ns), 2), round(100 * min(1.0, max(0.0, y(dot.value))), 2)
        )
        for dot in inside
    )
    data = [
        {"name": curve.name, "points": [[at // 1_000_000, value, form(value)] for at, value in _measured(curve)]}
        for curve in shown
    ]
    label = f"{title}: " + (", ".join(_summary(curve, form) for curve in shown if curve.points) or "no data")
    middle = low + (high - low) / 2
    return Markup(
        '<div class="chart {size}" data-from="{start}" data-to="{end}" data-series="{data}">'
        '<div class="y" aria-hidden="true"><span>{high}</span><span>{middle}</span><span>{low}</span></div>'
        '<div class="plot"><svg role="{role}" aria-label="{label}"><g>{grid}</g>'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>{links}</svg></div>'
        '<div class="x" aria-hidden="true">{left}{right}</div></div>'
    ).format(
        size=size,
        start=span_ns[0] // 1_000_000,
        end=span_ns[1] // 1_000_000,
        data=json.dumps(data, allow_nan=False),
        high=form(high),
        middle=form(middle),
        low=form(low),
        role="group" if inside else "img",
        label=label,
        grid=grid,
        paths=paths,
        links=links,
        left=_clock(span_ns[0]),
        right=_clock(span_ns[1]),
    )


def _clock(at_ns: int) -> Markup:
    from streamlit_extension.viewer.text import moment

    at = moment(at_ns)
    if at is None:
        return Markup("<span>–</span>")
    return Markup('<time datetime="{}" data-form="minute">{}</time>').format(
        at.isoformat().replace("+00:00", "Z"), at.strftime("%H:%MZ")
    )


def _paths(number: int, curve: Curve, x: Callable[[int], float], y: Callable[[float], float]) -> Markup:
    found = []
    base = round(_HEIGHT * min(1.0, max(0.0, y(0.0))), 2)
    for stretch in _stretches(curve.points):
        points = [(round(_WIDTH * x(at), 1), round(_HEIGHT * y(value), 2)) for at, value in stretch]
        alone = " alone" if len(points) == 1 else ""  # a dot: the end of a thick line
        if alone:
            points.append((round(points[0][0] + 0.1, 1), points[0][1]))
        line = " ".join(f"{a},{b}" for a, b in points)
        area = f"{points[0][0]},{base} {line} {points[-1][0]},{base}"
        found.append(
            Markup('<polygon class="area c{0}" points="{1}"/><polyline class="line c{0}{3}" points="{2}"/>').format(
                number, area, line, alone
            )
        )
    return Markup("").join(found)


def _stretches(points: Sequence[tuple[int, float | None]]) -> list[list[tuple[int, float]]]:
    found: list[list[tuple[int, float]]] = [[]]
    for at, value in points:
        if value is not None and math.isfinite(value):
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [each for each in found if each]


def _summary(curve: Curve, form: Callable[[float], str]) -> str:
    values = _values(curve)
    if not values:
        return f"{curve.name} no data"
    return f"{curve.name} last {form(values[-1])}, least {form(min(values))}, most {form(max(values))}"


def spark(values: Sequence[float | None], title: str) -> Markup:
    """A curve as small as a word."""
    curve = Curve("", [(number, value) for number, value in enumerate(values)])
    low, high = bounds([curve])
    last = max(1, len(values) - 1)
    paths = _paths(0, curve, lambda at: at / last, lambda value: 1 - (value - low) / (high - low))
    return Markup(
        '<svg class="spark" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(title, paths)


def legend(names: Sequence[str]) -> Markup:
    """What each colour means."""
    items = Markup("").join(
        Markup('<li><i class="key c{}"></i>{}</li>').format(number, name)
        for number, name in enumerate(names[:MOST_CURVES])
    )
    return Markup('<ul class="legend">{}</ul>').format(items) if names else Markup("")


def bar(parts: Sequence[tuple[str, float]], title: str) -> Markup:
    """A single bar of parts that make up a whole: class → share from 0 to 1."""
    at = 0.0
    found = []
    for kind, share in parts:
        width = max(0.0, min(1.0 - at, share))
        found.append(
            Markup('<rect class="{}" x="{}%" y="0" width="{}%" height="100%"/>').format(
                kind, round(100 * at, 2), round(100 * width, 2)
            )
        )
        at += width
    return Markup('<svg class="bar" role="img" aria-label="{}">{}</svg>').format(escape(title), Markup("").join(found))
