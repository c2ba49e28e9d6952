"""The commands that act on running processes through the control file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from streamlit_extension.cli import Duration, UserError, load_settings
from streamlit_extension.control import (
    LOG_LEVELS,
    ControlFile,
    ControlFileDamaged,
    ControlState,
    LogLevelOrder,
    MaintenanceOrder,
)
from streamlit_extension.data_folder import make_data_folder


def _control_file() -> ControlFile:
    folder = make_data_folder(load_settings())
    if folder.path is None:
        raise UserError(folder.reason)
    return ControlFile(folder.path)


def _read(file: ControlFile) -> ControlState:
    """Return what holds now; a damaged file orders nothing and is replaced by the next write."""
    try:
        return file.read().at(datetime.now(UTC))
    except ControlFileDamaged:
        return ControlState()
    except OSError as error:
        raise UserError(f"{file.path} can't be read: {error.strerror}") from None


def _write(file: ControlFile, state: ControlState) -> None:
    try:
        file.write(state)
    except OSError as error:
        raise UserError(f"{file.path} can't be written: {error.strerror}") from None


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@click.group(invoke_without_command=True)
@click.pass_context
def maintenance(ctx: click.Context) -> None:
    """Take running processes out of service, and back: not ready, no alarms. It survives a restart."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@maintenance.command("on")
@click.option("--reason", required=True, help="Why, for the health answer and the audit log.")
@click.option("--for", "time", type=Duration(), default="30m", show_default=True, help="It ends by itself after this.")
def maintenance_on(reason: str, time: timedelta) -> None:
    """Begin maintenance, or replace the one that is on."""
    reason = " ".join(reason.split())[:500]
    if not reason:
        raise UserError("--reason is empty; say why")
    file = _control_file()
    now = datetime.now(UTC)
    order = MaintenanceOrder(reason=reason, until=now + time, set_at=now)
    _write(file, ControlState(maintenance=order, log_level=_read(file).log_level))
    click.echo(f"maintenance is on until {_clock(order.until)}: {reason} (data folder {file.path.parent})")


@maintenance.command("off")
def maintenance_off() -> None:
    """End maintenance now."""
    file = _control_file()
    state = _read(file)
    _write(file, ControlState(log_level=state.log_level))
    was = "is off" if state.maintenance is not None else "was not on"
    click.echo(f"maintenance {was} (data folder {file.path.parent})")


@maintenance.command("status")
def maintenance_status() -> None:
    """Say whether maintenance is on, until when and why."""
    order = _read(ControlFile(load_settings().data_dir)).maintenance
    click.echo("off" if order is None else f"on until {_clock(order.until)}: {order.reason}")


@click.command("log-level")
@click.argument("level", type=click.Choice(LOG_LEVELS, case_sensitive=False))
@click.option("--for", "time", type=Duration(), default="30m", show_default=True, help="It ends by itself after this.")
def log_level(level: str, time: timedelta) -> None:
    """Change the log level of running processes for a while."""
    file = _control_file()
    order = LogLevelOrder(level=level.upper(), until=datetime.now(UTC) + time)
    _write(file, ControlState(maintenance=_read(file).maintenance, log_level=order))
    click.echo(f"log level {order.level} until {_clock(order.until)} (data folder {file.path.parent})")
