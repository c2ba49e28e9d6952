"""`rules`: the alerting and recording rules for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from streamlit_extension.alerts.fleet import Objectives, groups, render
from streamlit_extension.alerts.rules import rules_from
from streamlit_extension.cli import UserError, load_settings

_PERCENT = click.FloatRange(0, 100, min_open=True, max_open=True)


@click.command("rules")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, not to a terminal."
)
@click.option("--availability", type=_PERCENT, default=99.9, show_default=True, help="Per cent that must not fail.")
@click.option("--latency", type=_PERCENT, default=95.0, show_default=True, help="Per cent of reruns that are quick.")
@click.option(
    "--latency-s",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds that a quick rerun takes at most; a bound of the histogram.",
)
def rules(output: Path | None, availability: float, latency: float, latency_s: float) -> None:
    """Write Prometheus rules: this configuration's thresholds, error budgets, and absent data."""
    try:
        objectives = Objectives(availability, latency, latency_s)
    except ValueError as error:
        raise UserError(f"--latency-s: {error}") from None
    text = render(groups(rules_from(load_settings().alerts), objectives))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror}") from None
    click.echo(f"written to {output}")
