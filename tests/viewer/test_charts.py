"""Charts: SVG that is well formed whatever is measured, and says in words what it shows."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.viewer import charts, text

FIGURES = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))


@given(st.lists(st.lists(st.tuples(st.integers(0, 100), FIGURES), max_size=8), max_size=10))
def test_any_figures_make_a_chart(given_curves: list[list[tuple[int, float | None]]]) -> None:
    """Gaps, one point, infinities and nothing at all: well formed, without a style of its own."""
    curves = [charts.Curve(f"<{number}>", points) for number, points in enumerate(given_curves)]
    made = charts.chart(curves, span_ns=(0, 100), form=text.number, title='"><script>', dots=())
    root = ET.fromstring(made)
    assert "style" not in {name for each in root.iter() for name in each.attrib}
    assert len(json.loads(root.attrib["data-series"])) == min(len(curves), charts.MOST_CURVES)


def test_a_chart_says_what_it_shows() -> None:
    """Who can't see the curve reads its last, least and greatest value; a dot leads to its run."""
    curve = charts.Curve("p95", [(0, 1.0), (50, None), (100, 3.0)])
    dot = charts.Dot(50, 2.0, "/telemetry/traces/1", "2: open the run")
    made = charts.chart([curve], span_ns=(0, 100), form=text.number, title="Duration", dots=[dot])
    assert "Duration: p95 last 3, least 1, most 3" in made
    assert 'href="/telemetry/traces/1"' in made
    assert made.count("<polyline") == 2


def test_a_value_alone_is_a_dot() -> None:
    """One point between gaps has no length that a line could show."""
    curve = charts.Curve("p95", [(0, None), (50, 2.0), (60, None), (80, 1.0), (90, 2.0)])
    made = charts.chart([curve], span_ns=(0, 100), form=text.number, title="Duration")
    assert made.count('class="line c0 alone"') == 1
    assert made.count('class="line c0"') == 1


def test_the_axis_ends_above_the_greatest() -> None:
    """At a round number, and below zero only where something is."""
    assert charts.bounds([charts.Curve("", [(0, 4.7)])]) == (0.0, 5.0)
    assert charts.bounds([charts.Curve("", [(0, -3.0), (1, 0.012)])]) == (-3.0, 0.015)
    assert charts.bounds([]) == (0.0, 1.0)
