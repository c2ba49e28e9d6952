"""Test your own telemetry: everything that is made inside a `with` block, as values that can be compared.

    from otel.testing import capture_telemetry

    def test_a_report_is_traced() -> None:
        with capture_telemetry() as telemetry:
            make_report(month=3)
        assert telemetry.tree() == [("report", [("SELECT reports", [])])]
        assert telemetry.span("report").attributes == {"report.month": 3}
        assert telemetry.metric("reports.made").value() == 1

As a fixture:

    @pytest.fixture
    def telemetry() -> Iterator[CapturedTelemetry]:
        with capture_telemetry() as captured:
            yield captured

Instrumentors are given as arguments, are told to use the captured providers, and are taken out again:
`capture_telemetry(StreamlitInstrumentor(), SQLAlchemyInstrumentor())`. Spans, metrics and logs appear at once, without
a thread and without a network, redacted as they would leave. At the end of the block the process-wide providers are
what they were. Log records are those of `StructuredLogger`, of `logging` as far as they reach the root logger, and of
OpenTelemetry's logs API.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel import api_globals
from otel.cleaning import clean_metrics, clean_span
from otel.config import TelemetryConfig
from otel.log_bridge import FactHandler, FactLoggerProvider
from otel.logsink import current_log_sink, set_log_sink
from otel.providers import make_meter_provider, make_resource, make_tracer_provider
from otel.records import LogFact

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import TracerProvider

    from otel.sdk import OwnMeterProvider, OwnTracerProvider

__all__ = ["CapturedEvent", "CapturedMetric", "CapturedSpan", "CapturedTelemetry", "capture_telemetry"]


@dataclass(frozen=True)
class CapturedEvent:
    """An event of a span."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CapturedSpan:
    """A finished span. Two are equal when all but their ids and times are.

    `kind` and `status` are names as in `SpanKind` and `StatusCode`. `parent` is the name of the parent span, None for a
    root; `links` are the ids of the linked traces and spans. Times are in nanoseconds since the Unix epoch.
    """

    name: str
    kind: str = "INTERNAL"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    status: str = "UNSET"
    description: str | None = None
    events: tuple[CapturedEvent, ...] = ()
    parent: str | None = None
    scope: str = ""
    links: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    trace_id: int = field(default=0, compare=False)
    span_id: int = field(default=0, compare=False)
    parent_id: int | None = field(default=None, compare=False)
    start_ns: int = field(default=0, compare=False)
    end_ns: int = field(default=0, compare=False)


@dataclass(frozen=True)
class CapturedMetric:
    """What an instrument has recorded since the block began: one data point for each set of attributes.

    A point is a number, or for histograms a dict with `count`, `sum`, `min` and `max`.
    """

    name: str
    unit: str
    points: tuple[tuple[Mapping[str, Any], Any], ...]

    def value(self, **attributes: Any) -> Any:
        """The point of these attributes, written with `_` for `.` or given as a mapping: `value(**{"a.b": 1})`.

        Raises:
            LookupError: there is none, or more than one.
        """
        wanted = {name.replace(".", "_"): value for name, value in attributes.items()}
        found = [
            point
            for each, point in self.points
            if wanted.items() <= {name.replace(".", "_"): value for name, value in each.items()}.items()
        ]
        if len(found) != 1:
            raise LookupError(f"{len(found)} points of {self.name} have {attributes}; there are {self.points}")
        return found[0]


class CapturedTelemetry:
    """What was made since the block began; safe to read at any time, also while threads still run."""

    def __init__(self, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self._lock = threading.Lock()
        self._spans: list[ReadableSpan] = []
        self._logs: list[LogFact] = []
        self._metrics: Any = None
        self._reader: Any = None

    def clear(self) -> None:
        """Forget spans and logs so far; metrics go on counting."""
        with self._lock:
            self._spans.clear()
            self._logs.clear()

    @property
    def spans(self) -> list[CapturedSpan]:
        """Finished spans, in the order in which they began."""
        with self._lock:
            spans = sorted(self._spans, key=lambda span: span.start_time or 0)
        names = {span.context.span_id: span.name for span in spans if span.context}
        return [_captured(span, names) for span in spans]

    def span(self, name: str) -> CapturedSpan:
        """The one span of a name.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} spans are called {name!r}; there are {[span.name for span in self.spans]}")
        return found[0]

    def tree(self) -> list[Any]:
        """Names as they nest: `[("outer", [("inner", [])])]`, siblings in the order in which they began."""
        spans = self.spans
        known = {span.span_id for span in spans}

        def below(parent: int | None) -> list[Any]:
            return [
                (span.name, below(span.span_id))
                for span in spans
                if (span.parent_id if span.parent_id in known else None) == parent
            ]

        return below(None)

    @property
    def logs(self) -> list[LogFact]:
        """Log records, in order: of standard logging what reaches the root logger, by the levels that are set."""
        with self._lock:
            return list(self._logs)

    @property
    def metrics(self) -> dict[str, CapturedMetric]:
        """Every instrument that has recorded something, by name."""
        if self._reader is not None:
            self._reader.collect()
        data = self._metrics
        found: dict[str, CapturedMetric] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = tuple((dict(point.attributes or {}), _value(point)) for point in metric.data.data_points)
                    if points:
                        found[metric.name] = CapturedMetric(metric.name, metric.unit or "", points)
        return found

    def metric(self, name: str) -> CapturedMetric:
        """The instrument of a name.

        Raises:
            LookupError: it has recorded nothing.
        """
        found = self.metrics
        if name not in found:
            raise LookupError(f"{name} has recorded nothing; there are {sorted(found)}")
        return found[name]

    # -- filled by the providers --------------------------------------------------------------------------------

    def _put_span(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            with self._lock:
                self._spans.append(clean_span(span))

    def _put_log(self, fact: LogFact) -> None:
        with self._lock:
            self._logs.append(fact)

    def _put_metrics(self, data: Any, _count: int) -> None:
        self._metrics = clean_metrics(data)


def _captured(span: ReadableSpan, names: Mapping[int, str]) -> CapturedSpan:
    context, parent, scope = span.context, span.parent, span.instrumentation_scope
    return CapturedSpan(
        name=span.name,
        kind=span.kind.name,
        attributes=dict(span.attributes or {}),
        status=span.status.status_code.name,
        description=span.status.description,
        events=tuple(CapturedEvent(event.name, dict(event.attributes or {})) for event in span.events),
        parent=None if parent is None else names.get(parent.span_id, format(parent.span_id, "016x")),
        scope="" if scope is None else scope.name,
        links=tuple((link.context.trace_id, link.context.span_id) for link in span.links),
        trace_id=context.trace_id if context else 0,
        span_id=context.span_id if context else 0,
        parent_id=None if parent is None else parent.span_id,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
    )


def _value(point: Any) -> Any:
    if hasattr(point, "value"):
        return point.value
    return {"count": point.count, "sum": point.sum, "min": point.min, "max": point.max}


@dataclass
class _Harness:
    """Providers of all captures of this process, one after another.

    A tracer that a module made when it was imported stays bound to the first provider it met: so that one stays.
    """

    tracers: OwnTracerProvider
    meters: OwnMeterProvider
    current: CapturedTelemetry | None = None

    def put_span(self, span: ReadableSpan) -> None:
        if self.current is not None:
            self.current._put_span(span)


_harness: _Harness | None = None


def _the_harness() -> _Harness:
    global _harness  # noqa: PLW0603 - see the class
    if _harness is None:
        config = TelemetryConfig(service_name="test", store=False)
        resource = make_resource(config)
        tracers, _ = make_tracer_provider(config, resource, lambda span: _harness.put_span(span) if _harness else None)
        meters, _ = make_meter_provider(config, resource, None)
        _harness = _Harness(tracers, meters)
    return _harness


def _end_metrics(captured: CapturedTelemetry, meters: OwnMeterProvider) -> None:
    """Read a last time, so that a block's metrics can be looked at after it too."""
    reader, captured._reader = captured._reader, None
    reader.collect()
    meters.remove_metric_reader(reader)


@contextmanager
def capture_telemetry(*instrumentors: Any, **options: Any) -> Iterator[CapturedTelemetry]:
    """Capture what is made inside the block.

    Arguments:
        instrumentors: OpenTelemetry instrumentors that work inside the block alone; one that was active before is left
            as it is.
        options: for every instrumentor's `instrument` (`skip_dep_check=True`).

    Raises:
        RuntimeError: inside another capture.
    """
    from otel.sdk import PipelineReader

    harness = _the_harness()
    if harness.current is not None:
        raise RuntimeError("capture_telemetry() is active already; use what the outer block gives")
    captured = CapturedTelemetry(harness.tracers, harness.meters)
    reader = captured._reader = PipelineReader(captured._put_metrics)
    with ExitStack() as stack:
        stack.callback(setattr, harness, "current", None)
        harness.current = captured
        harness.meters.add_metric_reader(reader)
        stack.callback(_end_metrics, captured, harness.meters)
        stack.callback(api_globals.TRACES.take(harness.tracers))
        stack.callback(api_globals.METRICS.take(harness.meters))
        stack.callback(api_globals.LOGS.take(FactLoggerProvider(captured._put_log)))
        stack.callback(set_log_sink, current_log_sink())
        set_log_sink(captured._put_log)
        stack.enter_context(FactHandler(captured._put_log).on_root())
        for each in instrumentors:
            if not getattr(each, "is_instrumented_by_opentelemetry", False):
                each.instrument(tracer_provider=harness.tracers, meter_provider=harness.meters, **options)
                stack.callback(each.uninstrument)
        yield captured
