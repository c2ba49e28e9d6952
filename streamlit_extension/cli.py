"""The commands. Every mistake of the user is one line on standard error and exit code 2.

Commands are imported when they are asked for: `--help` and `maintenance` never load Streamlit.
"""

from __future__ import annotations

import gc
import importlib
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from streamlit_extension.settings import Settings

PROGRAM: Final = "streamlit-extension"

# Name of a command: where it lives, and its line in the help.
COMMANDS: Final = {
    "run": ("streamlit_extension.cli_run:run", "Run a Streamlit script, unchanged and observable."),
    "demo": ("streamlit_extension.cli_run:demo", "Run the sample: clients, projects, tasks on a SQL database."),
    "doctor": ("streamlit_extension.cli_doctor:doctor", "Say what would not work here, and what to do about it."),
    "logs": ("streamlit_extension.cli_logs:logs", "Search and follow the log records that are kept."),
    "traces": ("streamlit_extension.cli_traces:traces", "List the newest runs, or draw one as a tree."),
    "link": ("streamlit_extension.cli_link:link", "Print a link that opens the telemetry page once."),
    "alerts": ("streamlit_extension.cli_alerts:alerts", "Send test messages to whom alerts go, and silence alerts."),
    "rules": ("streamlit_extension.cli_rules:rules", "Write the alerts as rules for Prometheus."),
    "maintenance": ("streamlit_extension.cli_control:maintenance", "Take running processes out of service, and back."),
    "log-level": (
        "streamlit_extension.cli_control:log_level",
        "Change the log level of running processes for a while.",
    ),
    "spool": ("streamlit_extension.cli_spool:spool", "Look at the telemetry that waits, send it now, write it out."),
}

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = timedelta(days=366)


class UserError(click.ClickException):
    """A mistake of the user: one line, exit code 2."""

    exit_code = 2


if TYPE_CHECKING:
    _ParamType = click.ParamType[timedelta]  # generic for type checkers only: older clicks can't be subscripted
else:
    _ParamType = click.ParamType


class Duration(_ParamType):
    """A time such as `30s`, `10m`, `2h` or `1d`, up to a year."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time; fails in one line that says what is allowed."""
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
        if match is not None:
            time = timedelta(**{_UNITS[match[2]]: int(match[1])})
            if timedelta() < time <= _LONGEST:
                return time
        self.fail(f"{value!r} is not a time such as 30s, 10m, 2h or 1d (at most a year)", param, ctx)


class OneLineGroup(click.Group):
    """A group whose errors are one line each, without a usage block or a traceback."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; ends the process with its exit code, or returns the code when not `standalone_mode`."""
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
            code = result if isinstance(result, int) else 0
        except click.ClickException as error:
            code = _complain(error.format_message())
        except click.Abort:
            code = 130
        except SystemExit as end:  # Streamlit's refusal of a sensitive option on the command line
            code = _complain(end.code) if isinstance(end.code, str) else int(end.code or 0)
        if standalone_mode:
            sys.exit(code)
        return code


class LazyGroup(OneLineGroup):
    """The commands of `COMMANDS`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help's list without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _complain(message: str) -> int:
    click.echo(f"{PROGRAM}: {' '.join(message.split())}", err=True)
    return UserError.exit_code


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from streamlit_extension.settings import package_version

        click.echo(f"{PROGRAM} {package_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, name=PROGRAM, invoke_without_command=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Health endpoints, telemetry and clean stops for a Streamlit application."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def load_settings() -> Settings:
    """Return the settings of this process; a bad one ends the command in one line."""
    from streamlit_extension.settings import Settings, SettingsError

    try:
        return Settings.load()
    except SettingsError as error:
        raise UserError(str(error)) from None


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    if sys.argv[1:2] in (["run"], ["demo"]):
        gc.disable()  # until it serves: what a start imports is no garbage, and looking for some takes a tenth of it
    cli.main(prog_name=PROGRAM)
    raise AssertionError("a standalone command ends the process")
