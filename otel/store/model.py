"""What the store answers with, and what it is asked: rows, filters, pages.

Ids are lower-case hexadecimal (traces 32 digits, spans 16), moments are nanoseconds since the Unix epoch (`…_ns`),
durations are seconds (`…_s`). Every value is plain and immutable, and `msgspec.json.encode` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

#: Outcomes of a run that are failures (`streamlit.run.outcome`).
FAILED: Final = ("error", "compile_error")


class Row(msgspec.Struct, frozen=True, gc=False):
    """Base of all values here."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of an answer.

    `next` is the cursor of the page after it, "" when there is none. `complete` is False where the time for looking
    was over before the page was full: then `next` goes on from there.
    """

    items: tuple[T, ...] = ()
    next: str = ""
    complete: bool = True


# -- traces ---------------------------------------------------------------------------------------------------------


class SpanEvent(Row, frozen=True, gc=False):
    """Something that happened at one moment of a span; an error is named `exception`."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


class SpanLink(Row, frozen=True, gc=False):
    """Another span that a span points to; a run's is its session's previous run."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class SpanRow(Row, frozen=True, gc=False):
    """One span. `parent_id` is "" at a root.

    `kind` is internal|server|client|producer|consumer, `status` unset|ok|error. `resource` is a number that
    `Trace.resources` explains.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_text: str
    scope: str
    attributes: Mapping[str, Any]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    resource: int = 0

    @property
    def duration_s(self) -> float:
        """How long it took, at least 0: clocks may go back."""
        return max(0, self.end_ns - self.start_ns) / 1e9


class Trace(Row, frozen=True, gc=False):
    """One trace: `spans` by start, at most those asked for; `total` is how many there are.

    Parents may be missing, or form a circle, when telemetry is hostile: see `otel.store.tree`.
    """

    trace_id: str
    spans: tuple[SpanRow, ...]
    total: int
    resources: Mapping[int, Mapping[str, Any]]
    run: RunRow | None = None


class RunRow(Row, frozen=True, gc=False):
    """A trace's local root: a run of the script or of fragments of it, a request, or other work.

    `type` is full|fragment for runs, else request|other; `name` is the span's. Of runs alone: `session_id`, `page`,
    `trigger`, `outcome` (of others `error` or `success`). `spans`, `queries`, `query_s`, `errors` and `logs` count what
    the run holds; `repeats` is the count of its most repeated statement.
    """

    trace_id: str
    span_id: str
    name: str
    type: str
    session_id: str
    page: str
    trigger: str
    outcome: str
    start_ns: int
    duration_s: float
    error_type: str
    error_message: str
    spans: int
    queries: int
    query_s: float
    repeats: int
    errors: int

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.outcome in FAILED


class RunFilter(Row, frozen=True, gc=False):
    """Which runs; "" and None ask for nothing.

    `types` is full|fragment|request|other. `text` is looked for, without regard to case, in page, name, error, session,
    and names of spans and statements; each word has to be there. `since_ns` ≤ start < `until_ns`.
    """

    page: str = ""
    outcome: str = ""
    failed: bool = False
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    text: str = ""
    since_ns: int | None = None
    until_ns: int | None = None
    session_id: str = ""
    types: tuple[str, ...] = ("full", "fragment")


class SessionRow(Row, frozen=True, gc=False):
    """One user's session: its runs, how many failed, when the first began and the last ended."""

    session_id: str
    first_ns: int
    last_ns: int
    runs: int
    failed: int
    run_s: float
    last_page: str
    last_trace_id: str


# -- logs -----------------------------------------------------------------------------------------------------------


class LogRow(Row, frozen=True, gc=False):
    """One log record. `id` is unique in the store. `trace_id` and `span_id` are "" outside any span."""

    id: str
    time_ns: int
    severity: int
    level: str
    logger: str
    event: str
    message: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class LogQuery(Row, frozen=True, gc=False):
    """Which log records; all conditions hold together.

    `text`: words that all occur, `"a phrase"`, `word*`, `-word`, and fields: `trace_id:…`, `level:warning` (that or
    above), `logger:…`, `event:…`, `any.attribute:value`. Whatever else is typed is taken as words, never as syntax.
    `trace_id` may be a prefix of 4 digits or more. `min_severity` is the log data model's (9 info, 13 warning,
    17 error). `since_ns` ≤ time < `until_ns`.
    """

    text: str = ""
    trace_id: str = ""
    span_id: str = ""
    min_severity: int = 0
    logger: str = ""
    event: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None


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
