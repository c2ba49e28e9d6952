"""A trace's spans as a tree, whatever they claim of their parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from otel.store.model import SpanRow


@dataclass(frozen=True, slots=True)
class Node:
    """A span in its place: `depth` from 0, `children` how many it has."""

    span: SpanRow
    depth: int
    children: int


def nodes(spans: Sequence[SpanRow]) -> list[Node]:
    """Every span once, parents before children and children by start.

    One whose parent is missing, is itself, or leads back to it is a root. Nothing here recurses.
    """
    known = {span.span_id for span in spans}
    children: dict[str, list[SpanRow]] = defaultdict(list)
    roots: list[SpanRow] = []
    for span in spans:
        if span.parent_id in known and span.parent_id != span.span_id:
            children[span.parent_id].append(span)
        else:
            roots.append(span)
    found: list[Node] = []
    seen: set[int] = set()

    def walk(root: SpanRow) -> None:
        todo = [(root, 0)]
        while todo:
            span, depth = todo.pop()
            if id(span) in seen:
                continue
            seen.add(id(span))
            below = sorted(children.get(span.span_id, ()), key=lambda each: each.start_ns)
            found.append(Node(span, depth, len(below)))
            todo += [(each, depth + 1) for each in reversed(below) if id(each) not in seen]

    for root in sorted(roots, key=lambda each: each.start_ns):
        walk(root)
    for span in sorted(spans, key=lambda each: each.start_ns):  # those in a circle, which no root leads to
        if id(span) not in seen:
            walk(span)
    return found
