"""`alerts`: test messages, and silences of running processes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from streamlit_extension.alerts.delivery import FailureReason, Sink, SinkError
from streamlit_extension.alerts.message import trial_notice
from streamlit_extension.alerts.model import NoticeKind, Silence
from streamlit_extension.alerts.rules import rules_from
from streamlit_extension.alerts.sinks import sinks_from
from streamlit_extension.alerts.state import DamagedFile, SilenceFile
from streamlit_extension.cli import Duration, UserError, load_settings
from streamlit_extension.data_folder import make_data_folder
from streamlit_extension.utils.structured_logging import configure_logging


@click.group(invoke_without_command=True)
@click.pass_context
def alerts(ctx: click.Context) -> None:
    """Send test messages, and silence alerts of running processes for a while."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@alerts.command("test")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=30.0, show_default=True, help="Seconds.")
def alerts_test(timeout_s: float) -> int:
    """Send a marked test message, and its end, to each configured sink; exit code 1 when one failed."""
    settings = load_settings()
    logs = configure_logging(
        log_format=settings.log_format, log_level=settings.log_level, service=settings.service_name
    )
    try:
        outcomes = try_sinks(sinks_from(settings), settings.service_name, timeout_s)
    finally:
        logs.restore()
    width = max(len(name) for name, _ in outcomes)
    for name, problem in outcomes:
        said = click.style("ok", fg="green") if problem is None else click.style(f"failed: {problem}", fg="red")
        click.echo(f"{name:<{width}}  {said}")
    if len(outcomes) == 1:
        click.echo("only the log is configured; the tables below [notify] name e-mail, Slack, PagerDuty and others")
    return 1 if any(problem is not None for _, problem in outcomes) else 0


def try_sinks(sinks: Sequence[Sink], service: str, timeout_s: float) -> list[tuple[str, str | None]]:
    """Send a test and its end to each sink at once; returns name and problem, None where both arrived."""
    now = time.time()
    instance = f"{socket.gethostname()}-test-{os.getpid()}"
    notices = [
        trial_notice(now, service=service, instance=instance, kind=kind)
        for kind in (NoticeKind.FIRED, NoticeKind.RESOLVED)
    ]
    problems: dict[str, str | None] = {sink.name: f"{FailureReason.TIMEOUT}: no answer yet" for sink in sinks}

    def send(sink: Sink) -> None:
        try:
            for notice in notices:
                sink.send(notice)
            problems[sink.name] = None
        except SinkError as error:
            problems[sink.name] = str(error)
        except Exception as error:
            problems[sink.name] = f"{FailureReason.INTERNAL}: {type(error).__name__}"

    threads = [threading.Thread(target=send, args=(sink,), name=f"stx-test-{sink.name}", daemon=True) for sink in sinks]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return [(sink.name, problems[sink.name]) for sink in sinks]


@alerts.command("silence")
@click.argument("rule", default="*")
@click.option("--reason", required=True, help="Why, for the messages and the audit log.")
@click.option("--for", "span", type=Duration(), default="1h", show_default=True, help="It ends by itself after this.")
def alerts_silence(rule: str, reason: str, span: timedelta) -> None:
    """Tell nobody of RULE's alerts for a while (by default of all); a firing one is acknowledged."""
    settings = load_settings()
    known = [each.name for each in rules_from(settings.alerts)]
    if rule not in ("*", *known):
        raise UserError(f"there is no rule {rule!r}; allowed: *, {', '.join(known)}")
    reason = " ".join(reason.split())[:500]
    if not reason:
        raise UserError("--reason is empty; say why")
    file = _file()
    now = time.time()
    held = [each for each in _current(file, now) if each.rule != rule]
    silence = Silence(rule, now + span.total_seconds(), reason, now)
    _write(file, [*held, silence])
    click.echo(f"{_named(rule)} silenced until {_clock(silence.until)}: {reason}")


@alerts.command("unsilence")
@click.argument("rule", default="*")
def alerts_unsilence(rule: str) -> None:
    """End the silence of RULE; without one, end all."""
    file = _file()
    held = _current(file, time.time())
    left = [each for each in held if rule not in ("*", each.rule)]
    _write(file, left)
    ended = len(held) - len(left)
    click.echo(f"{ended} silence{'' if ended == 1 else 's'} ended" if ended else f"{_named(rule)} not silenced")


@alerts.command("silences")
def alerts_silences() -> None:
    """List the silences that hold now."""
    held = _current(_file(), time.time())
    for each in held:
        click.echo(f"{each.rule}  until {_clock(each.until)}  {each.reason}")
    if not held:
        click.echo("none")


def _file() -> SilenceFile:
    folder = make_data_folder(load_settings())
    if folder.path is None:
        raise UserError(folder.reason)
    return SilenceFile(folder.path)


def _current(file: SilenceFile, now: float) -> list[Silence]:
    """Return what holds; a damaged file silences nothing and is replaced by the next write."""
    try:
        return [each for each in file.read() if now < each.until]
    except DamagedFile:
        return []
    except OSError as error:
        raise UserError(f"{file.path} can't be read: {error.strerror}") from None


def _write(file: SilenceFile, silences: list[Silence]) -> None:
    try:
        file.write(silences)
    except OSError as error:
        raise UserError(f"{file.path} can't be written: {error.strerror}") from None


def _named(rule: str) -> str:
    return "all alerts are" if rule == "*" else f"{rule} is"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
