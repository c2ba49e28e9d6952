"""What users did: each session as a timeline of its reruns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otel.store.model import RunRow
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.desk import NotFound, Room
from streamlit_extension.viewer.waterfall import Mark


def show_all(room: Room) -> Answer:
    """Sessions, the one that ran last first."""
    found = room.reader.sessions(limit=50, cursor=room.ask.get("cursor"))
    return room.page("sessions.html", title="Sessions", found=found)


@dataclass(frozen=True, slots=True)
class Moment:
    """A run on the timeline.

    `share` is its duration beside the longest's, 0 to 1; `pause_s` lies between the run before and its start.
    """

    run: RunRow
    mark: Mark
    share: float
    pause_s: float | None


def moments(runs: Sequence[RunRow]) -> list[Moment]:
    """Runs, oldest first, placed on the time from the first one's start to the last one's end."""
    if not runs:
        return []
    start = runs[0].start_ns
    length = max(1, max(_end(run) for run in runs) - start)
    longest = max(run.duration_s for run in runs) or 1.0
    found: list[Moment] = []
    before: int | None = None
    for run in runs:
        left = min(100.0, max(0.0, 100 * (run.start_ns - start) / length))
        width = min(100.0 - left, max(0.0, 100 * run.duration_s * 1e9 / length))
        pause = None if before is None else max(0.0, (run.start_ns - before) / 1e9)
        found.append(Moment(run, Mark(round(left, 3), round(width, 3)), run.duration_s / longest, pause))
        before = _end(run)
    return found


def _end(run: RunRow) -> int:
    return run.start_ns + int(run.duration_s * 1e9)


def show(room: Room, session_id: str) -> Answer:
    """One session."""
    session = room.reader.session(session_id)
    if session is None:
        raise NotFound("No session of this id is kept. It may be older than what the store keeps.")
    found = room.reader.session_runs(session_id, limit=200, cursor=room.ask.get("cursor"))
    runs = sorted(found.items, key=lambda run: run.start_ns)
    return room.page("session.html", title="Session", session=session, moments=moments(runs), found=found)
