"""Log lines: searched by words and fields, followed live, each leading to its run."""

from __future__ import annotations

from typing import Final

from otel.store.model import LogQuery
from streamlit_extension.viewer import text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import Room
from streamlit_extension.viewer.spans import pairs_of

#: Names of levels in the address, and the log data model's least severity of each.
LEVELS: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
SHOWN: Final = 100


def query_of(room: Room) -> LogQuery:
    """What the address asks for."""
    ask = room.ask
    return LogQuery(
        text=ask.get("q"),
        trace_id=ask.get("trace").lower(),
        span_id=ask.get("span").lower(),
        min_severity=LEVELS.get(ask.get("level"), 0),
        since_ns=text.since_ns(ask.get("since"), room.now_ns),
        until_ns=text.since_ns(ask.get("until"), room.now_ns),
    )


def show(room: Room) -> Answer:
    """Log lines, newest first; `live=1` follows them."""
    found = room.reader.logs(query_of(room), limit=SHOWN, cursor=room.ask.get("cursor"))
    names = ("q", "trace", "span", "level", "since", "until")
    return room.page(
        "logs.html",
        title="Logs",
        found=found,
        levels=tuple(LEVELS),
        live=bool(room.ask.get("live")) and not room.ask.get("cursor"),
        filtered=any(room.ask.get(name) for name in names),
        pairs_of=pairs_of,
        level_class=level_class,
    )


def level_class(severity: int) -> str:
    """How loud a line is: bad, warn, info or quiet."""
    return "bad" if severity >= 17 else "warn" if severity >= 13 else "info" if severity >= 9 else "quiet"
