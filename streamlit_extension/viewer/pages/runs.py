"""Runs: the list with its filters."""

from __future__ import annotations

import re
from typing import Final

from otel.store.model import RunFilter
from streamlit_extension.viewer import text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import Room

#: What a run can be, by the word in the address.
KINDS: Final = {
    "": ("full", "fragment"),
    "full": ("full",),
    "fragment": ("fragment",),
    "request": ("request",),
    "other": ("other",),
    "all": ("full", "fragment", "request", "other"),
}
OUTCOMES: Final = ("failed", "success", "rerun", "stopped", "error", "compile_error")
_LENGTH: Final = re.compile(r"(\d{1,7}(?:\.\d{1,6})?)\s*(us|µs|ms|s|min|m)?")
_FACTORS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, None: 1e-3}


def seconds(words: str) -> float | None:
    """`200ms`, `1.5s`, `2m`, and plain milliseconds; None for anything else."""
    match = _LENGTH.fullmatch(words.strip())
    return None if match is None else float(match[1]) * _FACTORS[match[2]]


def filter_of(room: Room) -> RunFilter:
    """What the address asks for."""
    ask = room.ask
    outcome = ask.get("outcome")
    return RunFilter(
        page=ask.get("page"),
        outcome="" if outcome == "failed" else outcome,
        failed=outcome == "failed",
        min_duration_s=seconds(ask.get("min")),
        max_duration_s=seconds(ask.get("max")),
        text=ask.get("q"),
        since_ns=text.since_ns(ask.get("since"), room.now_ns),
        until_ns=text.since_ns(ask.get("until"), room.now_ns),
        session_id=ask.get("session"),
        types=KINDS.get(ask.get("kind"), KINDS[""]),
    )


def show_all(room: Room) -> Answer:
    """Runs that the filters let through, newest first."""
    found = room.reader.runs(filter_of(room), limit=50, cursor=room.ask.get("cursor"))
    longest = max((run.duration_s for run in found.items), default=0.0) or 1.0
    names = ("page", "outcome", "min", "max", "q", "since", "until", "session", "kind")
    return room.page(
        "runs.html",
        title="Runs",
        found=found,
        longest=longest,
        pages=room.reader.pages(),
        outcomes=OUTCOMES,
        kinds=tuple(KINDS),
        filtered=any(room.ask.get(name) for name in names),
    )
