"""The command that searches and follows the log records that the store keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from otel.store.source import TelemetrySource, source_of
from streamlit_extension.cli import Duration, UserError, load_settings
from streamlit_extension.terminal import harmless, harmless_json, iso, moment, say

if TYPE_CHECKING:
    from otel.store.model import LogQuery, LogRow

LEVELS: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_COLOURS: Final = {13: "yellow", 17: "red", 21: "red"}
_PAGE: Final = 500
#: How often it looks for new records, in seconds: half of the time after which one is committed.
FOLLOW_S: Final = 0.25


def telemetry_source() -> TelemetrySource:
    """Who answers; ends the command in one line where nothing is kept."""
    from streamlit_extension.remote import remote_source

    settings = load_settings()
    embedded = source_of(settings.data_dir)
    source = remote_source(settings, embedded) or embedded
    if source is None:
        raise UserError(
            f"no telemetry is kept in {settings.data_dir}; it is kept there while an application runs "
            "without an OTLP endpoint, or with STX_STORE=on"
        )
    return source


def nothing_found(source: TelemetrySource) -> str:
    """The line for an empty answer: another back end keeps many services, and is asked for one."""
    service = getattr(source, "service", "")
    return f"nothing was found{f' of the service {service}; OTEL_SERVICE_NAME names another one' if service else ''}"


@click.command()
@click.option("--trace-id", default="", help="Only records of this trace; its first digits are enough.")
@click.option("--query", default="", help='Words, "a phrase", word*, -word, field:value.')
@click.option("--level", type=click.Choice(list(LEVELS), case_sensitive=False), help="Only this level and above.")
@click.option("--since", type=Duration(), help="Only the last 30s, 10m, 2h or 1d.")
@click.option("--follow", is_flag=True, help="Go on with what comes; Ctrl+C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object for each record.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Most records shown.")
def logs(
    trace_id: str, query: str, level: str | None, since: timedelta | None, follow: bool, as_json: bool, limit: int
) -> None:
    """Search the log records that are kept, oldest first; works while the application runs and after."""
    from otel.store.model import LogQuery

    source = telemetry_source()
    wanted = LogQuery(
        text=query,
        trace_id=_checked(trace_id),
        min_severity=LEVELS[level.lower()] if level else 0,
        since_ns=None if since is None else time.time_ns() - int(since.total_seconds() * 1e9),
    )
    tail = source.tail(wanted) if follow else None
    shown = _newest(source, wanted, limit)
    _show(shown, as_json)
    if tail is None:
        if not shown and not as_json:
            click.echo(nothing_found(source), err=True)
        return
    known = {each.id for each in shown}
    never = threading.Event()
    while not never.wait(FOLLOW_S):
        found = tail.poll()
        _show((each for each in found if each.id not in known), as_json)
        known.clear()


def _checked(trace_id: str) -> str:
    wanted = trace_id.strip().lower()
    if wanted and (len(wanted) > 32 or not set(wanted) <= set("0123456789abcdef")):
        raise UserError(f"--trace-id {harmless(trace_id)!r} is not the beginning of a trace id (hexadecimal digits)")
    return wanted


def _newest(source: TelemetrySource, wanted: LogQuery, limit: int) -> list[LogRow]:
    """The newest records, in order."""
    found: list[LogRow] = []
    cursor = ""
    while len(found) < limit:
        page = source.logs(wanted, limit=min(_PAGE, limit - len(found)), cursor=cursor)
        found += page.items
        cursor = page.next
        if not cursor:
            break
    return found[::-1]


def _show(records: Iterable[LogRow], as_json: bool) -> None:
    for each in records:
        if as_json:
            say(harmless_json(_as_json(each)))
            continue
        name = f" {harmless(each.event)}" if each.event else ""
        fields = "".join(f" {harmless(str(key), 100)}={_value(value)}" for key, value in each.attributes.items())
        trace = f" [{harmless(each.trace_id[:8])}]" if each.trace_id else ""
        line = (
            f"{moment(each.time_ns, milliseconds=True)} {harmless(each.level, 20):8} {harmless(each.logger, 100)}"
            f"{name}: {harmless(each.message)}{fields}{trace}"
        )
        colour = _COLOURS.get(max((least for least in _COLOURS if least <= each.severity), default=0))
        say(line, fg=colour) if colour else say(line)


def _value(value: Any) -> str:
    return harmless(value, 500) if isinstance(value, str) else harmless_json(value)[:500]


def _as_json(each: LogRow) -> dict[str, Any]:
    return {
        "timestamp": iso(each.time_ns),
        "level": each.level,
        "logger": each.logger,
        "message": each.message,
        "event": each.event or None,
        "trace_id": each.trace_id or None,
        "span_id": each.span_id or None,
        "attributes": each.attributes,
    }
