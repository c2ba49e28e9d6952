"""Telemetry for the store: finished spans, log records and metrics, as the pipeline hands them over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel.encoding import data_points
from otel.records import Batch, LogFact, Signal

RESOURCE = Resource({"service.name": "shop"})
SCOPE = InstrumentationScope("tests")
SECOND = 10**9


def now_ns() -> int:
    """This moment."""
    return time.time_ns()


def context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    """The place of a span."""
    return SpanContext(trace_id, span_id, remote, TraceFlags(1))


def span(
    trace_id: int,
    span_id: int,
    name: str = "work",
    *,
    parent_id: int | None = None,
    start_ns: int | None = None,
    seconds: float = 0.01,
    attributes: Mapping[str, Any] | None = None,
    events: Sequence[Event] = (),
    links: Sequence[Link] = (),
    failed: bool = False,
    kind: SpanKind = SpanKind.INTERNAL,
) -> ReadableSpan:
    """A finished span."""
    start = now_ns() if start_ns is None else start_ns
    return ReadableSpan(
        name,
        context=context(trace_id, span_id),
        parent=None if parent_id is None else context(trace_id, parent_id),
        resource=RESOURCE,
        attributes=attributes or {},
        events=events,
        links=links,
        kind=kind,
        status=Status(StatusCode.ERROR, "ValueError") if failed else Status(),
        start_time=start,
        end_time=start + int(seconds * SECOND),
        instrumentation_scope=SCOPE,
    )


def query(trace_id: int, span_id: int, text: str, *, parent_id: int, **options: Any) -> ReadableSpan:
    """The span of a statement."""
    summary = " ".join(text.split()[:1] + text.split()[-1:])
    attributes = {
        "db.system.name": "sqlite",
        "db.query.text": text,
        "db.query.summary": summary,
        "db.namespace": "shop.db",
    }
    return span(trace_id, span_id, summary, parent_id=parent_id, attributes=attributes, kind=SpanKind.CLIENT, **options)


def run(
    trace_id: int,
    *,
    session: str = "s1",
    page: str = "home",
    outcome: str = "success",
    trigger: str = "widget",
    run_type: str = "full",
    queries: Iterable[str] = (),
    start_ns: int | None = None,
    seconds: float = 0.1,
    error: str = "",
    before: SpanContext | None = None,
) -> list[ReadableSpan]:
    """The spans of one run of a script, in the order in which they end."""
    start = now_ns() - int(seconds * SECOND) if start_ns is None else start_ns
    root = (trace_id & 0xFFFFFFFF) * 1000 + 1
    spans = [
        query(trace_id, root + 1 + i, text, parent_id=root, start_ns=start + i * 1000, seconds=0.001)
        for i, text in enumerate(queries)
    ]
    attributes = {
        "session.id": session,
        "streamlit.run.type": run_type,
        "streamlit.run.trigger": trigger,
        "streamlit.run.outcome": outcome,
        "app.screen.name": page,
    }
    events: tuple[Event, ...] = ()
    if error:
        attributes["error.type"] = error
        events = (
            Event(
                "exception",
                {"exception.type": error, "exception.message": f"{error} happened", "exception.stacktrace": "…"},
                start,
            ),
        )
    spans.append(
        span(
            trace_id,
            root,
            f"script_run {page}",
            start_ns=start,
            seconds=seconds,
            attributes=attributes,
            events=events,
            links=() if before is None else (Link(before),),
            failed=bool(error),
            kind=SpanKind.SERVER,
        )
    )
    return spans


def fact(body: str = "hello", *, time_ns: int | None = None, **options: Any) -> LogFact:
    """A log record."""
    values: dict[str, Any] = {
        "timestamp_ns": now_ns() if time_ns is None else time_ns,
        "severity_number": 9,
        "severity_text": "INFO",
        "body": body,
        "attributes": {},
        "event_name": None,
        "trace_id": 0,
        "span_id": 0,
        "trace_flags": 0,
        "scope": "app.orders",
    }
    return LogFact(**{**values, **options})


def traces_batch(spans: Sequence[ReadableSpan]) -> Batch:
    """A batch of spans."""
    return Batch(Signal.TRACES, spans, b"", len(spans))


def logs_batch(facts: Sequence[LogFact]) -> Batch:
    """A batch of log records."""
    return Batch(Signal.LOGS, facts, b"", len(facts))


class Meters:
    """A meter whose collections are batches; `cumulative` or by difference."""

    def __init__(self, resource: Resource = RESOURCE, *, temporality: Any = None) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality=temporality or {})
        self.provider = MeterProvider([self.reader], resource=resource, shutdown_on_exit=False)
        self.meter = self.provider.get_meter("tests")

    def collect(self) -> Batch:
        """One collection."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return Batch(Signal.METRICS, [data], b"", data_points(data))
