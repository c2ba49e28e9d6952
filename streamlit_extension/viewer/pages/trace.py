"""One run: its waterfall, what failed, what was repeated, its logs in place, and itself as a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from otel.store.model import LogQuery, LogRow, RunFilter, RunRow, SpanRow
from streamlit_extension.viewer import text, waterfall
from streamlit_extension.viewer.answers import Answer, redirect
from streamlit_extension.viewer.desk import NotFound, Room
from streamlit_extension.viewer.otlp_json import export
from streamlit_extension.viewer.spans import bar_of, detail_of, failures, label_of, repeats

_HEX: Final = re.compile(r"[0-9a-f]{1,32}")
#: Log lines of a run and of one span that are shown before the reader asks for all, and then; spans that are read.
SHOWN_LOGS, LOGS_OF_A_SPAN, ALL_LOGS, MOST_SPANS = 200, 4, 2_000, 20_000
#: Stretches of the run's time that are named, largest first.
_NAMED: Final = 6


def show_prefix(room: Room, given: str) -> Answer:
    """A run by its id or the beginning of it, as an error reference has it."""
    digits = given.lower().replace("-", "")
    if _HEX.fullmatch(digits) is None:
        raise NotFound("A run's id has hexadecimal digits alone.")
    if len(digits) == 32:
        return show(room, digits)
    found = room.reader.find_traces(digits, limit=20)
    if not found:
        raise NotFound(f"No run that is kept has an id that begins with {digits}.")
    if len(found) == 1:
        return redirect(room.href(f"traces/{found[0].trace_id}"))
    return room.page("several.html", title=f"Runs {digits}…", runs=found, digits=digits)


def show(room: Room, trace_id: str) -> Answer:
    """One run."""
    trace = room.reader.trace(trace_id, limit=MOST_SPANS)
    if trace is None or not trace.spans:
        raise NotFound("No run of this id is kept. It may still be under way, or older than what the store keeps.")
    ask, everything = room.ask, bool(room.ask.get("all"))
    spans = {span.span_id: span for span in reversed(trace.spans)}  # of two with one id, the first
    tree = waterfall.build_tree(bar_of(span) for span in trace.spans)
    path = waterfall.critical_path(tree, tree.main)
    whole = waterfall.window_of(tree)
    window = _zoom(whole, ask.get("zoom"))
    selected = spans.get(ask.get("span"))
    drawn = waterfall.lay_out(
        tree,
        window=window,
        path=path,
        opened=ask.get("open").split("."),
        selected=selected.span_id if selected else "",
        skip=_rows_before(ask.get("from")),
    )
    limit = ALL_LOGS if everything else SHOWN_LOGS
    logs = room.reader.logs(LogQuery(trace_id=trace_id), limit=limit, newest_first=False)
    before, after = (None, None) if trace.run is None else room.reader.neighbours(trace.run)
    own = waterfall.time_on_path(path)
    told = "" if trace.run is None else text.one_line(trace.run.error_message, 400)
    return room.page(
        "trace.html",
        title=text.one_line(trace.run.name if trace.run else trace.spans[0].name, 80),
        trace=trace,
        run=trace.run,
        spans=spans,
        label_of=label_of,
        drawn=drawn,
        page_rows=waterfall.SHOWN_ROWS,
        ticks=waterfall.ticks(window),
        offset_s=(window.start_ns - whole.start_ns) / 1e9,
        whole=whole,
        zoomed=window != whole,
        zoom_on=_shares(whole, selected),
        selected=selected,
        detail=None if selected is None else detail_of(selected, trace, show_all=everything),
        failures=failures(trace.spans, told),
        told=told,
        repeats=repeats(trace.spans)[:5],
        logs=logs,
        logs_of=_by_span(logs.items),
        logs_shown=LOGS_OF_A_SPAN,
        before=before,
        after=after,
        own=own,
        named=_named(own, spans, tree.main),
    )


def _rows_before(asked: str) -> int:
    return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 8 else 0


def _zoom(whole: waterfall.Window, asked: str) -> waterfall.Window:
    left, _, right = asked.partition("-")
    try:
        return waterfall.zoomed(whole, float(left), float(right)) if asked else whole
    except (ValueError, OverflowError):
        return whole


def _shares(whole: waterfall.Window, span: SpanRow | None) -> str:
    """The `zoom` that shows one span with a little room around it."""
    if span is None:
        return ""
    left, right = whole.share(span.start_ns), whole.share(span.end_ns)
    room = max(0.02 * (right - left), 1e-6)
    return f"{max(0.0, left - room):.7f}-{min(1.0, right + room):.7f}"


def _by_span(logs: Sequence[LogRow]) -> Mapping[str, Sequence[LogRow]]:
    found: dict[str, list[LogRow]] = {}
    for log in logs:
        found.setdefault(log.span_id, []).append(log)
    return found


def _named(
    own: Mapping[str, int], spans: Mapping[str, SpanRow], main: waterfall.Bar | None
) -> list[tuple[str, str, float, float]]:
    """Where the run's time went: span id, label, share of the run, seconds; the largest first."""
    if main is None or not main.length_ns:
        return []
    found: dict[str, tuple[str, int]] = {}
    for span_id, ns in own.items():
        label = "the script itself" if span_id == main.span_id else label_of(spans[span_id])
        first, sum_ns = found.get(label, (span_id, 0))
        found[label] = (first, sum_ns + ns)
    largest = sorted(found.items(), key=lambda each: -each[1][1])[:_NAMED]
    return [(span_id, label, ns / main.length_ns, ns / 1e9) for label, (span_id, ns) in largest]


def download(room: Room, trace_id: str) -> Answer:
    """The run as OTLP JSON, which collectors and other viewers read."""
    trace = room.reader.trace(trace_id, limit=1_000_000)
    if trace is None:
        raise NotFound("No run of this id is kept.")
    name = f'attachment; filename="trace-{trace_id}.json"'.encode()
    return Answer(200, export(trace), "application/json", ((b"content-disposition", name),))


def search(room: Room) -> Answer:
    """Where a search leads: an error reference or an id to its run, anything else to what contains it."""
    words = " ".join(room.ask.get("q").split())[:500]
    if not words:
        return redirect(room.href())
    digits = words.lower().removeprefix("trace_id:").strip().replace("-", "")
    runs: Sequence[RunRow] = ()
    if _HEX.fullmatch(digits) and len(digits) >= 4:
        runs = room.reader.find_traces(digits, limit=20)
        if len(runs) == 1:
            return redirect(room.href(f"traces/{runs[0].trace_id}"))
    if not runs and room.reader.session(words) is not None:
        return redirect(room.href(f"sessions/{words}"))
    by_words = room.reader.runs(RunFilter(text=words), limit=10)
    logs = room.reader.logs(LogQuery(text=words), limit=15)
    return room.page("search.html", title="Search", words=words, runs=runs, by_words=by_words, logs=logs)
