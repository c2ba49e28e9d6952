"""`doctor`: the report on a terminal, in a pipe or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Final

import click

from streamlit_extension.cli import UserError, load_settings
from streamlit_extension.doctor import Finding, examine

_WIDEST_NAME: Final = 44


@click.command("doctor")
@click.argument("script", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(script: str | None, as_json: bool) -> int:
    """Say what would not work here, and what to do about it; exit code 1 when something would not."""
    path = _script(script)
    findings = examine(load_settings(), path, os.environ)
    click.echo(to_json(findings) if as_json else "\n".join(to_text(findings)))
    return 1 if any(finding.remedy for finding in findings) else 0


def _script(script: str | None) -> Path | None:
    if script is None:
        return None
    path = Path(script)
    path = path / "streamlit_app.py" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"file does not exist: {path}")
    return path


def to_json(findings: list[Finding]) -> str:
    """Return `{"ok": …, "findings": [{section, name, value, remedy, origin}, …]}`."""
    ok = not any(finding.remedy for finding in findings)
    return json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2, ensure_ascii=False)


def to_text(findings: list[Finding]) -> Iterator[str]:
    """Yield aligned lines by section, then the problems; click takes the colours out where it is no terminal."""
    for section, group in groupby(findings, key=lambda finding: finding.section):
        rows = list(group)
        width = min(max(len(row.name) for row in rows), _WIDEST_NAME)
        yield click.style(section, bold=True)
        for row in rows:
            mark = click.style("!", fg="red") if row.remedy else " "
            origin = click.style(f"  ({row.origin})", dim=True) if row.origin else ""
            yield f"{mark} {row.name:<{width}}  {_shown(row.value)}{origin}"
        yield ""
    problems = [finding for finding in findings if finding.remedy]
    for problem in problems:
        yield click.style("problem: ", fg="red") + f"{problem.name}: {_shown(problem.value)}: {problem.remedy}"
    if not problems:
        yield click.style("everything that was looked at would work", fg="green")


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
