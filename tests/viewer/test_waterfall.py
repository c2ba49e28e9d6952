"""The waterfall: trees of any shape, the critical path, repeats, rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlit_extension.viewer.waterfall import (
    REPEATS,
    Bar,
    Row,
    Window,
    build_tree,
    collapse,
    critical_path,
    lay_out,
    ticks,
    time_on_path,
    window_of,
    zoomed,
)


def bar(span_id: str, parent: str = "", start: int = 0, end: int = 10, **more: Any) -> Bar:
    return Bar(span_id, parent, more.pop("name", span_id), start, end, **more)


IDS = st.sampled_from([f"{number:x}" for number in range(12)])
TIMES = st.integers(-50, 200)
BARS = st.lists(
    st.builds(
        Bar,
        span_id=IDS,
        parent_id=st.one_of(st.just(""), st.just("gone"), IDS),
        name=st.sampled_from(["SELECT", "work"]),
        start_ns=TIMES,
        end_ns=TIMES,
        failed=st.booleans(),
        group=st.sampled_from(["", "x"]),
    ),
    max_size=40,
)


def shown(rows: tuple[Row, ...]) -> list[str]:
    return [each.span_id for row in rows for each in (row.members or (row.bar,))]


@given(BARS)
def test_every_span_is_reached_exactly_once(bars: list[Bar]) -> None:
    """Whatever the parents: missing, circles, oneself, an id twice."""
    tree = build_tree(bars)
    drawn = lay_out(tree, path=critical_path(tree, tree.main))
    assert sorted(shown(drawn.rows)) == sorted({each.span_id for each in bars})
    assert drawn.hidden == 0
    following = [row.depth for row in drawn.rows[1:]] + [0]
    for row, next_depth in zip(drawn.rows, following, strict=False):
        assert next_depth <= row.depth + 1
        assert row.opens == (next_depth > row.depth)
        assert 0 <= row.mark.left <= 100
        assert 0 <= row.mark.width <= 100


@given(BARS)
def test_the_critical_path_is_exactly_the_roots_time(bars: list[Bar]) -> None:
    """Its stretches follow one another without a gap or an overlap, from the root's start to its end."""
    tree = build_tree(bars)
    root = tree.main
    path = critical_path(tree, root)
    if root is None or root.length_ns == 0:
        assert path == ()
        return
    assert path[0].start_ns == root.start_ns
    assert path[-1].end_ns == root.end_ns
    assert all(one.end_ns == other.start_ns for one, other in pairwise(path))
    assert sum(time_on_path(path).values()) == root.length_ns


def test_the_path_goes_through_what_was_waited_for() -> None:
    """Of two children at the same time, the one that ended last held the run up; the other did not."""
    tree = build_tree([bar("r", end=100), bar("a", "r", 10, 60), bar("b", "r", 20, 90), bar("c", "b", 30, 80)])
    assert time_on_path(critical_path(tree, tree.main)) == {"r": 20, "a": 10, "b": 20, "c": 50}


def test_repeats_become_one_row_and_open_again() -> None:
    """Alike siblings without children are one row ("42 × SELECT"), unless they failed or are asked for."""
    many = [bar(f"s{number}", "r", number, number + 1, name="SELECT", group="q") for number in range(42)]
    failed = bar("f", "r", 50, 51, name="SELECT", group="q", failed=True)
    tree = build_tree([bar("r", end=100), *many, failed])
    rows = lay_out(tree).rows
    assert [(row.bar.span_id, len(row.members)) for row in rows] == [("r", 0), ("s0", 42), ("f", 0)]
    opened = lay_out(tree, opened=["s0"]).rows
    assert len(opened) == 1 + 1 + 42 + 1
    assert [row.depth for row in opened[:3]] == [0, 1, 2]
    chosen = lay_out(tree, selected="s7").rows
    assert ("s7", 0) in [(row.bar.span_id, len(row.members)) for row in chosen]
    few = [bar(f"s{number}", "r") for number in range(REPEATS - 1)]
    assert all(len(group.bars) == 1 for group in collapse(few, {each.span_id for each in few}))


def test_ten_thousand_levels_and_ten_thousand_children_are_no_matter() -> None:
    """A chain and a crowd are laid out without recursion, up to the limit, and say what is hidden."""
    chain = build_tree([bar(str(n), str(n - 1) if n else "", n, 20_000 - n) for n in range(10_000)])
    drawn = lay_out(chain, path=critical_path(chain, chain.main), limit=300)
    assert len(drawn.rows) == 300
    assert drawn.hidden == 9_700
    assert sum(row.opens for row in drawn.rows) == 299
    crowd = build_tree([bar("r", end=10**6), *(bar(f"c{n}", "r", n, n + 5, name=f"n{n}") for n in range(10_000))])
    assert len(lay_out(crowd, limit=20_000).rows) == 10_001
    assert sum(time_on_path(critical_path(crowd, crowd.main)).values()) == 10**6


def test_a_crowd_is_shown_page_by_page() -> None:
    """Each span is on exactly one page, in order; a page that is not there is the first."""
    crowd = build_tree([bar("r", end=10**6), *(bar(f"c{n}", "r", n, n + 5, name=f"n{n}") for n in range(1_000))])
    pages = [lay_out(crowd, limit=400, skip=skip) for skip in (0, 400, 800)]
    shown = [row.bar.span_id for page in pages for row in page.rows]
    assert shown == ["r", *(f"c{n}" for n in range(1_000))]
    assert [(page.hidden, page.skipped) for page in pages] == [(601, 0), (201, 400), (0, 800)]
    for nonsense in (-1, 1_001, 10**12):
        assert lay_out(crowd, limit=400, skip=nonsense).rows == pages[0].rows


def test_a_clock_that_is_plainly_another_does_not_squeeze_the_picture() -> None:
    """A span of 1970 or of next year is marked as outside; one a little before or after widens the picture."""
    start = 10**18
    tree = build_tree(
        [
            bar("r", "", start, start + 1000),
            bar("past", "r", 5, 10),
            bar("future", "r", 2 * start, 2 * start + 5),
            bar("late", "r", start + 900, start + 1500),
        ]
    )
    window = window_of(tree)
    assert (window.start_ns, window.end_ns) == (start, start + 1500)
    assert {row.bar.span_id for row in lay_out(tree).rows if row.outside} == {"past", "future"}


@settings(max_examples=50)
@given(st.floats(), st.floats())
def test_any_zoom_gives_a_time(left: float, right: float) -> None:
    """Nonsense in the address shows everything or a part of it, never fails."""
    whole = Window(1000, 2000)
    part = zoomed(whole, left, right)
    assert whole.start_ns <= part.start_ns < part.end_ns <= whole.end_ns


def test_a_zoom_is_a_part() -> None:
    """A quarter to a half of a second, whichever comes first."""
    assert zoomed(Window(0, 1000), 0.5, 0.25) == Window(250, 500)
    assert ticks(Window(0, 10**9), 2) == ((0.0, 0.0), (50.0, 0.5), (100.0, 1.0))
    assert Window(0, 10).share(20) == pytest.approx(1.0)
