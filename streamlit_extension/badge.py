"""A small element for an application's own page: how long this run has taken, its queries, and the way to its trace."""

from __future__ import annotations

import functools
from typing import Final

from otel.containment import contained
from otel.instrumentation.streamlit.current import RunNow, count_queries, current_run

_BADGE: Final = (
    '<a class="stx-badge" href="{href}" target="_blank" rel="noopener" title="Open the trace of this run" '
    'style="display:inline-block;font-size:.8rem;line-height:1.6;padding:0 .6rem;border-radius:1rem;color:inherit;'
    'text-decoration:none;border:1px solid rgba(128,132,149,.4);background:rgba(128,132,149,.1)">'
    "{duration} · {queries} · trace {trace}</a>"
)


def telemetry_badge() -> None:
    """Show this run's duration so far, its number of SQL statements, and a link to its trace in the telemetry page.

    Put it at the end of a page: it counts what came before it. Where the run leaves no trace (plain Streamlit, no
    telemetry) it shows nothing. Who may open the link is decided by the telemetry page. Statements are counted from the
    first import of this function in a process on; without one nothing is counted.
    """
    with contained("the badge could not be shown"):
        run = current_run()
        if run is not None:
            import streamlit as st

            st.html(badge_html(run, _base()))


def badge_html(run: RunNow, base: str) -> str:
    """The element; `base` is what stands in front of `/telemetry/`."""
    duration = f"{run.duration_s:.2f} s" if run.duration_s >= 1 else f"{run.duration_s * 1000:.0f} ms"
    queries = "1 query" if run.queries == 1 else f"{run.queries} queries"
    href = f"{base}/telemetry/traces/{run.trace_id}"
    return _BADGE.format(href=href, duration=duration, queries=queries, trace=run.trace_id[:8])


@functools.cache
def _base() -> str:
    """The path in front of ours: `path_prefix`, or where Streamlit is served below a path, that one."""
    import html

    import streamlit as st

    from streamlit_extension.settings import Settings, SettingsError

    try:
        prefix = Settings.load().path_prefix
    except SettingsError:
        prefix = ""
    below = str(st.get_option("server.baseUrlPath") or "").strip("/")
    parts = [part for part in (below, prefix.strip("/")) if part]
    return html.escape("".join(f"/{part}" for part in parts), quote=True)


count_queries()
