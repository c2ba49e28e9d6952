"""The command that lists runs and draws one of them as a tree with bars."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from streamlit_extension.cli import Duration, UserError
from streamlit_extension.cli_logs import nothing_found, telemetry_source
from streamlit_extension.terminal import harmless, harmless_json, iso, moment, say, seconds

if TYPE_CHECKING:
    from otel.store.model import RunRow, SpanRow, Trace
    from otel.store.tree import Node

#: So many like siblings in a row are told in one line.
_REPEATS: Final = 3
_MAX_LINES: Final = 500
_MAX_DEPTH: Final = 20
_BAR: Final = 28
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"


@click.command()
@click.argument("trace_id", metavar="[ID]", required=False, default="")
@click.option("--since", type=Duration(), help="Only runs of the last 30s, 10m, 2h or 1d.")
@click.option("--failed", is_flag=True, help="Only runs that failed.")
@click.option("--query", default="", help="Only runs with these words in page, error, session or statements.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Most runs listed.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON: a run a line, or a trace as one object.")
def traces(trace_id: str, since: timedelta | None, failed: bool, query: str, limit: int, as_json: bool) -> None:
    """Draw a trace as a tree (the first digits of its ID are enough); without ID list the newest runs."""
    from otel.store.model import RunFilter

    source = telemetry_source()
    if not trace_id:
        begin_ns = None if since is None else time.time_ns() - int(since.total_seconds() * 1e9)
        found = source.runs(RunFilter(failed=failed, text=query, since_ns=begin_ns), limit=limit).items
        _list(found, as_json)
        if not found and not as_json:
            click.echo(nothing_found(source), err=True)
        return
    wanted = trace_id.strip().lower()
    if len(wanted) > 32 or not set(wanted) <= set("0123456789abcdef"):
        raise UserError(f"{harmless(trace_id)!r} is not the beginning of a trace id (hexadecimal digits)")
    matching = source.find_traces(wanted)
    if not matching:
        newest = ", as far as the newest ones were looked at; give the whole id" if len(wanted) < 32 else ""
        raise UserError(f"no trace begins with {wanted}{newest if hasattr(source, 'service') else ''}")
    if len(matching) > 1:
        _list(matching, as_json)
        raise UserError(f"{len(matching)} traces begin with {wanted}; give more digits")
    trace = source.trace(matching[0].trace_id)
    if trace is None:
        raise UserError(f"no trace begins with {wanted}")
    if as_json:
        say(harmless_json(_as_json(trace)))
    else:
        _draw(trace)


def _list(runs: Sequence[RunRow], as_json: bool) -> None:
    for run in runs:
        if as_json:
            say(harmless_json(_run_json(run)))
            continue
        queries = f"{run.queries} queries" if run.queries != 1 else "1 query"
        error = f"  {harmless(run.error_type, 60)}: {harmless(run.error_message, 80)}" if run.error_type else ""
        line = (
            f"{moment(run.start_ns)}  {harmless(run.trace_id[:8])}  {harmless(run.page or run.name, 32):24} "
            f"{harmless(run.trigger, 10):8} {harmless(run.outcome, 16):10} {seconds(run.duration_s):>10}  "
            f"{queries}{error}"
        )
        say(line, fg="red") if run.failed else say(line)


def _run_json(run: RunRow) -> dict[str, Any]:
    fields = {name: getattr(run, name) for name in run.__struct_fields__}
    return {"start": iso(run.start_ns), **fields}


def _as_json(trace: Trace) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(trace)}


# -- the tree -------------------------------------------------------------------------------------------------------


def _draw(trace: Trace) -> None:
    from otel.store.tree import nodes

    begin_ns = min(span.start_ns for span in trace.spans)
    whole_ns = max(1, max(span.end_ns for span in trace.spans) - begin_ns)
    run = trace.run
    told = f", {harmless(run.outcome)}" if run is not None and run.outcome else ""
    say(f"trace {harmless(trace.trace_id, 32)}: {trace.total} spans in {seconds(whole_ns / 1e9)}{told}", bold=True)
    if run is not None and run.session_id:
        say(f"session {harmless(run.session_id)}, page {harmless(run.page)}, by {harmless(run.trigger)}")
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    lines = _collapsed(nodes(trace.spans))
    for node, count, spent_ns in lines[:_MAX_LINES]:
        _line(node, count, spent_ns, (begin_ns, whole_ns), width)
    if len(lines) > _MAX_LINES:
        say(f"… {len(lines) - _MAX_LINES} more lines")
    if trace.total > len(trace.spans):
        say(f"… {trace.total - len(trace.spans)} more spans")


def _collapsed(tree: Sequence[Node]) -> list[tuple[Node, int, int]]:
    """Like siblings in a row as one: the first of them, how many, and their time together in nanoseconds."""
    found: list[tuple[Node, int, int]] = []
    place = 0
    while place < len(tree):
        node = tree[place]
        end = place + 1
        while end < len(tree) and not node.children and _alike(node, tree[end]):
            end += 1
        group = tree[place:end] if end - place >= _REPEATS else tree[place : place + 1]
        found.append((node, len(group), sum(max(0, each.span.end_ns - each.span.start_ns) for each in group)))
        place += len(group)
    return found


def _alike(one: Node, other: Node) -> bool:
    return (
        not other.children
        and one.depth == other.depth
        and one.span.name == other.span.name
        and one.span.parent_id == other.span.parent_id
        and one.span.status == other.span.status
    )


def _line(node: Node, count: int, spent_ns: int, bounds: tuple[int, int], width: int) -> None:
    span = node.span
    name = f"{count} {_TIMES} {span.name}" if count > 1 else span.name
    indent = "  " * min(node.depth, _MAX_DEPTH)
    room = max(12, width - _BAR - 16)
    shown = indent + harmless(name, room)
    label = shown[: room - 1] + "…" if len(shown) > room else shown.ljust(room)
    line = f"{label} {seconds(spent_ns / 1e9):>10} {_bar(span, spent_ns, bounds)}"
    failed = span.status == "error"
    say(line, fg="red") if failed else say(line)
    for event in span.events:
        if event.name == "exception":
            kind, message = (event.attributes.get(f"exception.{part}", "") for part in ("type", "message"))
            say(f"{indent}  {harmless(str(kind), 100)}: {harmless(str(message), 300)}", fg="red")


def _bar(span: SpanRow, spent_ns: int, bounds: tuple[int, int]) -> str:
    """Where in the trace a span lies, in eighths of a character."""
    begin_ns, whole_ns = bounds
    first = min(_BAR * 8 - 1, (span.start_ns - begin_ns) * _BAR * 8 // whole_ns)
    length = max(1, min(_BAR * 8 - first, spent_ns * _BAR * 8 // whole_ns))
    full, rest = divmod(length, 8)
    return " " * (first // 8) + "█" * full + (_EIGHTHS[rest - 1] if rest else "")
