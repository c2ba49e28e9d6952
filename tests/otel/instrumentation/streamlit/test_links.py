"""Runs of one session that begin at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult

from otel.instrumentation.streamlit.model import RunOutcome, RunStart, RunTrigger, ScriptRun, Session
from otel.instrumentation.streamlit.tracing import RunTelemetry


class SlowSampler(Sampler):
    """Holds a span's start until a second one has come this far too, or half a second."""

    def __init__(self) -> None:
        self.together = threading.Barrier(2)

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Wait, then sample."""
        try:
            self.together.wait(0.5)
        except threading.BrokenBarrierError:
            pass
        return ALWAYS_ON.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """Its name."""
        return "slow"


def links(spans: Sequence[Any]) -> list[int]:
    """Trace ids that spans are linked to."""
    return [link.context.trace_id for span in spans for link in span.links]


def test_two_runs_that_begin_together_form_one_chain() -> None:
    """Two runners of a session start at once: one is linked to the other, never both to the same run."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=SlowSampler())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = RunTelemetry(provider.get_tracer("test"), MeterProvider().get_meter("test"), lambda _: False)
    session = Session(0.0)
    start = RunStart("s", "page", (), None)

    def run() -> None:
        handle = telemetry.run_started(start, RunTrigger.CONNECT, "page", session)
        telemetry.run_finished(handle, ScriptRun("s", "page", (), RunOutcome.SUCCESS, 0.1, screen="page"))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    first, second = sorted(exporter.get_finished_spans(), key=lambda span: len(span.links))
    assert links([first]) == []
    assert links([second]) == [first.context.trace_id]
