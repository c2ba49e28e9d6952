"""Figures that the store answers with: metrics, statements, changes, memory, the overview. See `model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """Base of all values here."""


# -- metrics --------------------------------------------------------------------------------------------------------


class Instrument(Row, frozen=True, gc=False):
    """One instrument: `kind` is counter|gauge|updown|histogram; `series` are how many it has.

    `last_ns` is the newest's moment, to ten minutes.
    """

    name: str
    kind: str
    unit: str
    description: str
    series: int
    last_ns: int


class Point(Row, frozen=True, gc=False):
    """A series in one step of time, which begins at `time_ns`.

    Gauges and up-down counters: `value` is the mean, with `low` and `high`. Counters: `value` is the rate per second.
    Histograms: `value` is the rate of measurements, with `mean` and the `p50`, `p95`, `p99` of that step, None without
    measurements.
    """

    time_ns: int
    value: float
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Exemplar(Row, frozen=True, gc=False):
    """A measurement that a run can be opened from."""

    time_ns: int
    value: float
    trace_id: str
    span_id: str


class Series(Row, frozen=True, gc=False):
    """The points of one series of an instrument, oldest first; `step_s` lies between two of them."""

    instrument: Instrument
    attributes: Mapping[str, Any]
    step_s: float
    points: tuple[Point, ...]
    exemplars: tuple[Exemplar, ...] = ()


# -- statements -----------------------------------------------------------------------------------------------------


class StatementRow(Row, frozen=True, gc=False):
    """A database statement over a span of time: `text` (literals left out) and `summary`, as far as the spans tell."""

    id: str
    text: str
    summary: str
    system: str
    namespace: str
    count: int
    errors: int
    total_s: float
    max_s: float
    runs: int
    last_ns: int
    last_trace_id: str

    @property
    def mean_s(self) -> float:
        """Mean duration."""
        return self.total_s / self.count if self.count else 0.0


class RepeatedRow(Row, frozen=True, gc=False):
    """A statement that single runs of a page execute again and again (N+1).

    `runs` did so, `most` times the worst of them, which is `trace_id`; `count` and `total_s` are of all of them.
    """

    statement_id: str
    text: str
    page: str
    runs: int
    most: int
    count: int
    total_s: float
    trace_id: str
    last_ns: int


# -- health, alerts, memory -----------------------------------------------------------------------------------------


class Transition(Row, frozen=True, gc=False):
    """A change that was logged as an event: `kind` is health|alert|maintenance|audit.

    `name` is the check's, the rule's or the event's; `old` and `new` its states, as far as it has any.
    """

    time_ns: int
    kind: str
    event: str
    name: str
    old: str
    new: str
    message: str
    trace_id: str
    attributes: Mapping[str, Any]


class SessionMemoryRow(Row, frozen=True, gc=False):
    """What one session held when memory was last sampled, in bytes."""

    session_id: str
    time_ns: int
    bytes: int
    session_state_bytes: int
    uploads_bytes: int


class Memory(Row, frozen=True, gc=False):
    """Where memory goes: one series for each holder (session_state, cache, uploads, media, process), in bytes.

    `sessions` are the largest, where the application told.
    """

    holders: Mapping[str, Series]
    sessions: tuple[SessionMemoryRow, ...] = ()


# -- overview -------------------------------------------------------------------------------------------------------


class RunStep(Row, frozen=True, gc=False):
    """The runs that ended in one step of time: how many, how many failed, and their durations; None without runs."""

    time_ns: int
    runs: int
    failed: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class PageRow(Row, frozen=True, gc=False):
    """The runs of one page of the application."""

    page: str
    runs: int
    failed: int
    p50_s: float | None
    p95_s: float | None
    total_s: float


class ErrorRow(Row, frozen=True, gc=False):
    """Failed runs of one page with one type of error; `trace_id` is the newest's."""

    error_type: str
    message: str
    page: str
    count: int
    last_ns: int
    trace_id: str


class Overview(Row, frozen=True, gc=False):
    """What happened from `since_ns` to `until_ns`, in steps of `step_s`. Percentiles are within 5 %."""

    since_ns: int
    until_ns: int
    step_s: float
    runs: int
    failed: int
    runs_per_s: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    sessions: int
    steps: tuple[RunStep, ...]
    pages: tuple[PageRow, ...]
    errors: tuple[ErrorRow, ...]
    log_levels: Mapping[str, int]


class StoreFacts(Row, frozen=True, gc=False):
    """What the folder holds: `problems` has one line for each file that can't be read."""

    files: int
    size_bytes: int
    oldest_ns: int | None
    newest_ns: int | None
    spans: int
    logs: int
    problems: tuple[str, ...] = ()
