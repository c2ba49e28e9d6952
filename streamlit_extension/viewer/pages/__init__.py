"""The pages: which path shows what, and which form does what."""

from __future__ import annotations

from typing import Final

from streamlit_extension.viewer.desk import View
from streamlit_extension.viewer.pages import health, logs, memory, metrics, overview, runs, sessions, statements, trace

#: Pattern of a path below the page's own → view; groups of the pattern are handed on.
GETS: Final[tuple[tuple[str, View], ...]] = (
    (r"", overview.show),
    (r"search/?", trace.search),
    (r"sessions/?", sessions.show_all),
    (r"sessions/(.{1,200}?)/?", sessions.show),
    (r"(?:runs|traces)/?", runs.show_all),
    (r"traces/([0-9a-f]{32})\.json", trace.download),
    (r"(?:traces|runs)/([^/]{1,64})/?", trace.show_prefix),
    (r"logs/?", logs.show),
    (r"metrics/?", metrics.show_all),
    (r"metrics/(.{1,300}?)/?", metrics.show),
    (r"health/?", health.show),
    (r"statements/?", statements.show),
    (r"memory/?", memory.show),
)

#: Path of a form → what it does.
POSTS: Final[dict[str, View]] = {
    "maintenance": health.maintain,
    "silence": health.silence,
}
