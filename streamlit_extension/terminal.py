"""Text of telemetry in a terminal: nothing in it moves the cursor, changes colours or hides what stands beside it."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import click

#: Control characters, those that turn the direction of writing, and separators that terminals break lines at.
_HARMFUL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_KNOWN: Final = {"\n": "\\n", "\r": "\\r", "\t": " "}


def harmless(text: str, most: int = 2000) -> str:
    """A text as one line that only shows itself, cut at `most` characters."""
    if len(text) > most:
        text = f"{text[:most]}…"
    return _HARMFUL.sub(lambda found: _KNOWN.get(found[0]) or _escaped(found[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def harmless_json(value: Any) -> str:
    """A value as one line of JSON in ASCII."""
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")


def moment(time_ns: int, *, milliseconds: bool = False) -> str:
    """A moment in the reader's zone."""
    try:
        found = datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return "?"
    return found.isoformat(sep=" ", timespec="milliseconds" if milliseconds else "seconds")[
        : 23 if milliseconds else 19
    ]


def iso(time_ns: int) -> str:
    """A moment as RFC 3339 in UTC."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, ValueError, OSError):
        return ""


def seconds(value: float) -> str:
    """A duration for people."""
    if value >= 60:
        return f"{value / 60:.1f} min"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.1f} ms" if value >= 0.001 else f"{value * 1e6:.0f} µs"


def say(line: str, **style: Any) -> None:
    """Write a line; whoever has closed the other end of a pipe ends the command quietly."""
    try:
        click.echo(click.style(line, **style) if style else line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
