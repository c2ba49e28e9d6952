"""A run as a waterfall: which span is below which, what is shown in which order, where the time went. Pure functions.

Spans come from the network and may be anything: parents that are missing or in a circle, ids twice, clocks that
disagree, a chain of ten thousand. Nothing here recurses, and every span is shown exactly once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: So many alike siblings without children are shown as one row ("42 × SELECT").
REPEATS: Final = 4
#: Rows of one page: what a browser lays out, and a thread renders, while nobody notices.
SHOWN_ROWS: Final = 400
#: Marks in the bar of one repeated row: more could not be told apart.
MOST_MARKS: Final = 120
#: A span counts for the axis if it lies within so many times the run's own length after its start.
_REACH: Final = 20


@dataclass(frozen=True, slots=True)
class Bar:
    """What the waterfall needs of a span. `group` is what makes it like another; times are ns since the epoch."""

    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    failed: bool = False
    group: str = ""

    @property
    def length_ns(self) -> int:
        """How long it took; 0 for one that ended before it began."""
        return max(0, self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True)
class Tree:
    """Bars by id and by parent; `roots` have no parent here. Every bar is reached exactly once."""

    bars: Mapping[str, Bar]
    children: Mapping[str, Sequence[Bar]]
    roots: Sequence[Bar]

    @property
    def main(self) -> Bar | None:
        """The root that the run is: without a parent and longest, else the longest of all."""
        return max(self.roots, key=lambda bar: (not bar.parent_id, bar.length_ns), default=None)


def build_tree(bars: Iterable[Bar]) -> Tree:
    """Put bars below their parents. One whose parent is missing or below itself is a root; an id counts once."""
    known: dict[str, Bar] = {}
    for bar in bars:
        known.setdefault(bar.span_id, bar)
    cut = _breaks_of_circles(known)
    children: dict[str, list[Bar]] = {}
    roots: list[Bar] = []
    for bar in known.values():
        if bar.parent_id in known and bar.span_id not in cut:
            children.setdefault(bar.parent_id, []).append(bar)
        else:
            roots.append(bar)
    for siblings in (*children.values(), roots):
        siblings.sort(key=lambda bar: (bar.start_ns, -bar.end_ns, bar.span_id))
    return Tree(known, children, roots)


def _breaks_of_circles(known: Mapping[str, Bar]) -> set[str]:
    """One bar of each circle of parents."""
    settled: set[str] = set()
    cut: set[str] = set()
    for start in known:
        path: list[str] = []
        on_path: set[str] = set()
        at = start
        while at in known and at not in settled and at not in on_path:
            path.append(at)
            on_path.add(at)
            at = known[at].parent_id
        if at in on_path:
            cut.add(at)
        settled.update(path)
    return cut


# -- where the time went ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the critical path, in ns since the epoch: only this span's own work held the run up meanwhile."""

    span_id: str
    start_ns: int
    end_ns: int


def critical_path(tree: Tree, root: Bar | None) -> tuple[Segment, ...]:
    """The stretches that together are exactly the root's time, each given to the deepest span that was waited for.

    Seen from the end, what a span waited for last is the child that ended last; before that child began, the next.
    """
    if root is None:
        return ()
    found: list[Segment] = []
    todo: list[tuple[Bar, int, int]] = [(root, root.start_ns, root.end_ns)]
    while todo:
        bar, low, at = todo.pop()
        for child in sorted(tree.children.get(bar.span_id, ()), key=lambda each: each.end_ns, reverse=True):
            begins, ends = max(child.start_ns, low), min(child.end_ns, at)
            if begins >= ends:
                continue
            if ends < at:
                found.append(Segment(bar.span_id, ends, at))
            todo.append((child, begins, ends))
            at = begins
        if low < at:
            found.append(Segment(bar.span_id, low, at))
    return tuple(sorted(found, key=lambda each: each.start_ns))


def time_on_path(path: Iterable[Segment]) -> dict[str, int]:
    """Span id → ns of the critical path that are its own."""
    found: dict[str, int] = {}
    for each in path:
        found[each.span_id] = found.get(each.span_id, 0) + each.end_ns - each.start_ns
    return found


# -- what is shown ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """The time that the picture shows, in ns since the epoch; `end_ns` is above `start_ns`."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """From its start to its end."""
        return self.end_ns - self.start_ns

    def share(self, at_ns: int) -> float:
        """Where a moment lies, 0 to 1, clamped."""
        return min(1.0, max(0.0, (at_ns - self.start_ns) / self.length_ns))


def window_of(tree: Tree) -> Window:
    """The main root's time, and that of spans around it, but not of those whose clock is plainly another."""
    main = tree.main
    if main is None:
        return Window(0, 1)
    low, high = main.start_ns, max(main.end_ns, main.start_ns + 1)
    earliest, latest = low - (high - low), low + _REACH * (high - low)
    near = [bar for bar in tree.bars.values() if earliest <= bar.start_ns and bar.end_ns <= latest]
    return Window(
        min((bar.start_ns for bar in near), default=low) if near else low,
        max(high, max((bar.end_ns for bar in near), default=high)),
    )


def zoomed(window: Window, from_share: float, to_share: float) -> Window:
    """A part of a window, given as shares of it in any order; nonsense gives the whole."""
    low, high = sorted((min(1.0, max(0.0, from_share)), min(1.0, max(0.0, to_share))))
    start = window.start_ns + int(low * window.length_ns)
    end = window.start_ns + int(high * window.length_ns)
    return Window(start, end) if end - start >= 1 else window


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of a bar in per cent of the picture's width."""

    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the waterfall.

    `members` are the bars that a repeated row stands for (none for a span's own row). `opens` says that rows below
    follow. `outside` says that the bar lies outside the picture.
    """

    bar: Bar
    depth: int
    mark: Mark
    critical: tuple[Mark, ...] = ()
    members: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    opens: bool = False
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Rows in order; `total` spans there are, `hidden` of them come on later pages. `skipped` rows came before."""

    rows: tuple[Row, ...]
    window: Window
    total: int
    hidden: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Siblings that are alike, or one bar alone."""

    bars: tuple[Bar, ...]

    @property
    def key(self) -> str:
        """What opens it: the id of its first bar."""
        return self.bars[0].span_id


def collapse(siblings: Sequence[Bar], childless: Collection[str], alone: Collection[str] = ()) -> list[Group]:
    """Put alike siblings together where there are `REPEATS` or more, at the place of the first.

    Only childless ones that did not fail, and none of the ids in `alone`.
    """
    alike: dict[tuple[str, str], list[Bar]] = {}
    for bar in siblings:
        if not bar.failed and bar.span_id in childless and bar.span_id not in alone:
            alike.setdefault((bar.group, bar.name), []).append(bar)
    together = {bars[0].span_id: tuple(bars) for bars in alike.values() if len(bars) >= REPEATS}
    inside = {bar.span_id for bars in together.values() for bar in bars}
    return [
        Group(together.get(bar.span_id, (bar,)))
        for bar in siblings
        if bar.span_id not in inside or bar.span_id in together
    ]


@dataclass(slots=True)
class _Shape:
    """A row before it is known whether others follow below it."""

    bar: Bar
    depth: int
    members: tuple[Bar, ...] = ()
    opens: bool = False


def lay_out(
    tree: Tree,
    *,
    window: Window | None = None,
    path: Iterable[Segment] = (),
    opened: Collection[str] = (),
    selected: str = "",
    limit: int = SHOWN_ROWS,
    skip: int = 0,
) -> Waterfall:
    """Lay a tree out.

    Arguments:
        window: what the picture shows; by default all of it.
        path: the critical path, drawn into the bars.
        opened: keys of groups whose members are shown.
        selected: a span that is shown by itself.
        limit: the most rows.
        skip: rows that are on earlier pages; too many show the beginning.
    """
    window = window or window_of(tree)
    childless = {span_id for span_id in tree.bars if not tree.children.get(span_id)}
    selected_only = {selected} if selected else set()
    skip = skip if 0 < skip < len(tree.bars) * 2 else 0
    shapes, shown = _shapes(tree, childless, selected_only, set(opened), skip + limit)
    skip = skip if skip < len(shapes) else 0
    shapes = shapes[skip:] if skip else shapes[:limit]
    stretches: dict[str, list[Segment]] = {}
    for each in path:
        stretches.setdefault(each.span_id, []).append(each)
    rows = []
    for number, shape in enumerate(shapes):
        following = shapes[number + 1].depth if number + 1 < len(shapes) else 0
        opens = shape.opens and following > shape.depth
        rows.append(_row(shape, window, stretches, opens=opens))
    return Waterfall(tuple(rows), window, len(tree.bars), len(tree.bars) - shown, skip)


def _shapes(tree: Tree, childless: set[str], alone: set[str], opened: set[str], limit: int) -> tuple[list[_Shape], int]:
    shapes: list[_Shape] = []
    shown = 0
    todo = [(each, 0) for each in reversed(collapse(tree.roots, childless, alone))]
    while todo and len(shapes) < limit:
        group, depth = todo.pop()
        bars = group.bars
        if len(bars) > 1:
            is_open = group.key in opened
            shapes.append(_Shape(bars[0], depth, bars, opens=is_open))
            if is_open:
                todo += [(Group((bar,)), depth + 1) for bar in reversed(bars)]
            else:
                shown += len(bars)
            continue
        below = tree.children.get(bars[0].span_id, ())
        shapes.append(_Shape(bars[0], depth, opens=bool(below)))
        shown += 1
        todo += [(each, depth + 1) for each in reversed(collapse(below, childless, alone))]
    return shapes, shown


def _row(shape: _Shape, window: Window, stretches: Mapping[str, Sequence[Segment]], *, opens: bool) -> Row:
    bars = shape.members or (shape.bar,)
    first, last = min(each.start_ns for each in bars), max(each.end_ns for each in bars)
    step = max(1, len(shape.members) // MOST_MARKS)
    critical = [
        each
        for bar in bars
        for each in stretches.get(bar.span_id, ())
        if each.end_ns > window.start_ns and each.start_ns < window.end_ns
    ]
    return Row(
        bar=shape.bar,
        depth=shape.depth,
        mark=_mark(first, last, window),
        critical=tuple(_mark(each.start_ns, each.end_ns, window) for each in critical[:MOST_MARKS]),
        members=shape.members,
        marks=tuple(_mark(each.start_ns, each.end_ns, window) for each in shape.members[::step][:MOST_MARKS]),
        opens=opens,
        outside=last < window.start_ns or first > window.end_ns,
    )


def _mark(start_ns: int, end_ns: int, window: Window) -> Mark:
    left, right = window.share(start_ns), window.share(max(start_ns, end_ns))
    return Mark(round(100 * left, 3), round(100 * (right - left), 3))


def ticks(window: Window, count: int = 5) -> tuple[tuple[float, float], ...]:
    """Where the axis is labelled: per cent of the width, and seconds since the window's start."""
    step_s = window.length_ns / 1e9 / count
    return tuple((round(100 * number / count, 3), step_s * number) for number in range(count + 1))
