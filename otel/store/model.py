"""What the store answers with, and what it is asked: rows, filters, pages.

Ids are lower-case hexadecimal (traces 32 digits, spans 16), moments are nanoseconds since the Unix epoch (`…_ns`),
durations are seconds (`…_s`). Every value is plain and immutable, and `msgspec.json.encode` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from otel.store.figures import (
    ErrorRow,
    Exemplar,
    Instrument,
    Memory,
    Overview,
    PageRow,
    Point,
    RepeatedRow,
    Row,
    RunStep,
    Series,
    SessionMemoryRow,
    StatementRow,
    StoreFacts,
    Transition,
)

__all__ = [
    "FAILED",
    "ErrorRow",
    "Exemplar",
    "Instrument",
    "LogQuery",
    "LogRow",
    "Memory",
    "Overview",
    "Page",
    "PageRow",
    "Point",
    "RepeatedRow",
    "RunFilter",
    "RunRow",
    "RunStep",
    "Series",
    "SessionMemoryRow",
    "SessionRow",
    "SpanEvent",
    "SpanLink",
    "SpanRow",
    "StatementRow",
    "StoreFacts",
    "Trace",
    "Transition",
]

T = TypeVar("T")

#: Outcomes of a run that are failures (`streamlit.run.outcome`).
FAILED: Final = ("error", "compile_error")


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
