"""A real Streamlit server of its own process whose telemetry can be read: spans, log records and metrics."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ROOT, Server, Start

#: The SDK as it comes, with exporters that write one JSON line for each record, in front of `streamlit run`.
LAUNCHER = """
import json, logging, os, sys, threading, warnings
sys.path.insert(0, {root!r})
out = open(os.environ["TELEMETRY"], "a", buffering=1)
lock = threading.Lock()

def write(kind, **fields):
    with lock:
        out.write(json.dumps({{"kind": kind, **fields}}, default=str) + "\\n")

def warned(message, category, *args, **kwargs):  # what uvicorn and Streamlit say of their own dependencies is not ours
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
        write("warning", text=str(message))

warnings.showwarning = warned

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

class Spans(SpanExporter):
    def export(self, spans):
        for span in spans:
            write(
                "span", name=span.name, span_kind=span.kind.name, trace=format(span.context.trace_id, "032x"),
                id=format(span.context.span_id, "016x"), parent=span.parent and format(span.parent.span_id, "016x"),
                attributes=dict(span.attributes), status=span.status.status_code.name, description=span.status.description,
                events=[{{"name": e.name, "attributes": dict(e.attributes)}} for e in span.events],
                links=[format(link.context.trace_id, "032x") for link in span.links], scope=span.instrumentation_scope.name,
            )
        return SpanExportResult.SUCCESS

class Metrics(MetricExporter):
    def export(self, data, timeout_millis=0, **kwargs):
        found = {{}}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        {{
                            "attributes": dict(point.attributes), "value": getattr(point, "value", None),
                            "count": getattr(point, "count", None), "bounds": getattr(point, "explicit_bounds", None),
                            "scale": getattr(point, "scale", None), "unit": metric.unit,
                            "exemplars": [format(e.trace_id, "032x") for e in point.exemplars if e.trace_id],
                        }}
                        for point in metric.data.data_points
                    ]
        write("metrics", metrics=found)
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=0): return True
    def shutdown(self, timeout_millis=0, **kwargs): pass

make = logging.getLogRecordFactory()

def record_made(*args, **kwargs):  # sees each record once; each of Streamlit's loggers has handlers of its own
    record = make(*args, **kwargs)
    context = trace.get_current_span().get_span_context()
    write(
        "log", logger=record.name, level=record.levelname, message=record.getMessage(),
        trace=format(context.trace_id, "032x") if context.is_valid else None,
        span=format(context.span_id, "016x") if context.is_valid else None,
        error=record.exc_info and record.exc_info[0] and record.exc_info[0].__name__,
    )
    return record

logging.setLogRecordFactory(record_made)
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(Spans()))
trace.set_tracer_provider(tracers)
if os.environ.get("EXPONENTIAL"):
    from opentelemetry.sdk.metrics import Histogram
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
    exporter = Metrics(preferred_aggregation={{Histogram: ExponentialBucketHistogramAggregation()}})
else:
    exporter = Metrics()
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=200)]))
logging.getLogger("user").setLevel(logging.INFO)

from otel.instrumentation.streamlit import WATCHER, StreamlitInstrumentor
StreamlitInstrumentor().instrument(error_reference=True, memory_interval_s=float(os.environ.get("MEMORY_S", "30")))
{more}
from streamlit.web.cli import main
main(sys.argv[1:], standalone_mode=False)
"""


@dataclass
class Traced:
    """A running server and what it has recorded so far."""

    server: Server
    file: Path
    _seen: int = field(default=0)

    @property
    def url(self) -> str:
        """Its root."""
        return self.server.url

    def records(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind: span, log, metrics, warning, or one that the test's own code writes."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["kind"] == kind]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Finished spans in the order of their ends."""
        return self.records("span")

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The spans of script runs."""
        return [each for each in self.spans if each["name"].startswith("script_run")]

    def wait_for(self, accept: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Wait until `accept` returns something true, which is returned."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = accept()
            if found:
                return found
            if self.server.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"it never was so\n{self.spans[-5:]}\n{self.server.output[-4000:]}")

    def metric(self, name: str) -> list[dict[str, Any]]:
        """The newest data points of a metric."""
        for record in reversed(self.records("metrics")):
            if name in record["metrics"]:
                return list(record["metrics"][name])
        return []


StartTraced = Callable[..., Traced]


@pytest.fixture
def trace_server(serve: Start, tmp_path: Path) -> StartTraced:
    """Starts `streamlit run` with our instrumentor: `trace_server(script, more="code before the start")`."""
    started = 0

    def start(script: Path, *options: str, more: str = "", env: dict[str, str] | None = None) -> Traced:
        nonlocal started
        started += 1
        launcher, file = tmp_path / f"launch-{started}.py", tmp_path / f"telemetry-{started}.jsonl"
        launcher.write_text(LAUNCHER.format(root=str(ROOT), more=more))
        words = [sys.executable, "-W", "default", str(launcher), "run", str(script), *options]
        server = serve(
            script,
            command=words,
            env={"TELEMETRY": str(file), "STREAMLIT_LOGGER_ENABLE_RICH": "false", **(env or {})},
            ready="/_stcore/health",
        )
        return Traced(server, file)

    return start
