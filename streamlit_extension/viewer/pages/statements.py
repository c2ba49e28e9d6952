"""Database statements: which take most time, and which single runs repeat (N+1)."""

from __future__ import annotations

from typing import Final

from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import Room

#: What statements can be ordered by: the word in the address → its heading.
ORDERS: Final = {
    "total": "Total time",
    "count": "Count",
    "mean": "Mean time",
    "max": "Slowest",
    "errors": "Errors",
}


def show(room: Room) -> Answer:
    """Statements by what the reader asks for, below those that single runs repeat."""
    chosen = room.range
    by = room.ask.get("by")
    by = by if by in ORDERS else "total"
    found = room.reader.statements(chosen.since_ns, chosen.until_ns, by=by, limit=50)
    return room.page(
        "statements.html",
        title="Queries",
        chosen=chosen,
        by=by,
        orders=ORDERS,
        found=found,
        whole_s=sum(each.total_s for each in found) or 1.0,
        repeated=room.reader.repeated(chosen.since_ns, chosen.until_ns, limit=20),
    )
