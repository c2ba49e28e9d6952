"""The commands that look into the spool: what waits, send it now, write it out."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from otel.records import Signal
from otel.spool.rows import Waiting
from streamlit_extension.cli import Duration, UserError, load_settings

if TYPE_CHECKING:
    from otel.ledger import Ledger
    from otel.spool import Spool
    from otel.spool.reading import FileStatus

_STEP_S = 1.0


def _folder() -> Path:
    from otel.spool import FOLDER

    return load_settings().data_dir / FOLDER


@click.group(invoke_without_command=True)
@click.pass_context
def spool(ctx: click.Context) -> None:
    """What telemetry waits to be sent: look at it, send it now, write it out. Works while the application runs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@spool.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def status(as_json: bool) -> None:
    """Say what waits, since when and how much, by signal."""
    from otel.spool.reading import status_of

    folder = _folder()
    files = status_of(folder)
    if as_json:
        click.echo(json.dumps(_as_json(folder, files)))
        return
    totals = _totals(files)
    records = sum(each.records for each in totals.values())
    click.echo(f"{folder}: {_plural(records, 'record')} waiting{_since(files)}")
    for signal, waiting in totals.items():
        if waiting.rows:
            size = _bytes(waiting.size_bytes)
            click.echo(f"  {signal:8} {_plural(waiting.records, 'record')} in {_plural(waiting.rows, 'batch')}, {size}")
    owned = sum(each.owned for each in files)
    if files:
        click.echo(f"  {_plural(len(files), 'file')}, {owned} of running processes")
    for each in files:
        if each.problem:
            click.echo(f"  {each.path.name} can't be read: {each.problem}")


def _totals(files: Sequence[FileStatus]) -> dict[Signal, Waiting]:
    totals = {signal: Waiting() for signal in Signal}
    for each in files:
        for signal, waiting in each.waiting.items():
            totals[signal].records += waiting.records
            totals[signal].rows += waiting.rows
            totals[signal].size_bytes += waiting.size_bytes
    return totals


def _as_json(folder: Path, files: Sequence[FileStatus]) -> dict[str, Any]:
    def figures(waiting: Waiting, oldest: float | None) -> dict[str, Any]:
        return {
            "records": waiting.records,
            "batches": waiting.rows,
            "bytes": waiting.size_bytes,
            "since": None if oldest is None else _clock(oldest),
        }

    def oldest(signal: Signal) -> float | None:
        return min((each.oldest[signal] for each in files if signal in each.oldest), default=None)

    return {
        "folder": str(folder),
        "signals": {signal: figures(waiting, oldest(signal)) for signal, waiting in _totals(files).items()},
        "files": [
            {
                "file": each.path.name,
                "owned": each.owned,
                "problem": each.problem or None,
                "signals": {signal: figures(each.waiting[signal], each.oldest.get(signal)) for signal in Signal},
            }
            for each in files
        ],
    }


@spool.command()
@click.option(
    "--for", "time_", type=Duration(), default="30s", show_default=True, help="Longest time without progress."
)
def drain(time_: timedelta) -> None:
    """Send now what ended processes left; what running ones have they send themselves."""
    from otel.export.target import make_senders
    from otel.ledger import Ledger
    from otel.spool import Spool
    from streamlit_extension.telemetry import telemetry_config

    settings = load_settings()
    folder = _folder()
    try:
        senders = make_senders(telemetry_config(settings, settings.data_dir))
    except (ImportError, OSError, ValueError) as error:
        raise UserError(str(error)) from None
    if not senders:
        raise UserError("no OTLP endpoint is configured; set OTEL_EXPORTER_OTLP_ENDPOINT")
    if not folder.is_dir():
        click.echo("nothing waits")
        return
    ledger = Ledger()
    # Whoever drains wants what is there, however old or much it is.
    draining = Spool(folder, ledger, senders, max_age_s=math.inf, max_bytes=sys.maxsize)
    draining.start(own=False)
    try:
        draining.look_after()
        done = _drain(draining, ledger, time_.total_seconds())
    finally:
        draining.close(_STEP_S)
    _tell(ledger)
    if not done:
        click.get_current_context().exit(1)


def _drain(draining: Spool, ledger: Ledger, patience_s: float) -> bool:
    """Show the progress until nothing waits; False when for `patience_s` seconds there was none."""

    def figures() -> tuple[int, int]:
        accounts = ledger.snapshot().accounts.values()
        return sum(each.emitted for each in accounts), sum(each.emitted - each.spooled for each in accounts)

    total, settled = figures()
    shown, progressed_at = 0, time.monotonic()
    with click.progressbar(length=total, label="sending") as bar:
        while True:
            done = draining.flush(min(_STEP_S, patience_s))
            total, settled = figures()
            bar.length = total
            if settled > shown:
                bar.update(settled - shown)
                shown, progressed_at = settled, time.monotonic()
            if done or time.monotonic() - progressed_at >= patience_s:
                return done


def _tell(ledger: Ledger) -> None:
    for signal, account in ledger.snapshot().accounts.items():
        if account.emitted:
            parts = [f"{account.delivered} sent"]
            parts += [f"{count} given up ({reason})" for reason, count in account.dropped.items()]
            parts += [f"{account.spooled} still waiting"] if account.spooled else []
            click.echo(f"{signal}: {', '.join(parts)}")
    if not any(account.emitted for account in ledger.snapshot().accounts.values()):
        click.echo("nothing waits that is not a running process's own")


@spool.command()
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=False), default="-", help="Where to.")
def export(output: TextIO) -> None:
    """Write what waits as OTLP JSON, one request a line; nothing is taken out of the spool."""
    from otel.export.payload import json_line
    from otel.spool.reading import rows_of
    from otel.spool.takeover import spool_files

    unreadable = 0
    for path in spool_files(_folder()):
        try:
            output.writelines(json_line(row.signal, row.payload) + "\n" for row in rows_of(path))
        except sqlite3.Error:
            if path.exists():  # else it was sent and removed meanwhile
                unreadable += 1
                click.echo(f"{path.name} can't be read", err=True)
    if unreadable:
        click.get_current_context().exit(1)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _since(files: Sequence[FileStatus]) -> str:
    oldest = min((moment for each in files for moment in each.oldest.values()), default=None)
    return "" if oldest is None else f" since {_clock(oldest)}"


def _plural(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def _bytes(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"
