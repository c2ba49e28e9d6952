"""The producers' side beside the stock processors, in one run: `python benchmarks/pipeline.py [--rounds N]`.

Printed are the median call of each, in microseconds less the clock's own, and what a burst of 20,000 spans and 20,000
log records in a tight loop loses, with a receiver that takes everything at once.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel.destinations import ListDestination
from otel.encoding import OtlpEncoder
from otel.ledger import Ledger
from otel.pipeline import Pipeline
from otel.records import LogFact, Signal
from otel.sdk import QuickResource, SpanTap

BURST = 20_000
ATTRIBUTES: dict[str, int | str | float] = {"client.id": 17, "project": "north wing", "share": 0.25}


def median_us(call: Callable[[Any], object], values: Sequence[Any]) -> float:
    """The median call in microseconds."""
    times = []
    for value in values:
        began = time.perf_counter_ns()
        call(value)
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


def a_fact() -> LogFact:
    """A log record as our logging makes it."""
    return LogFact(time.time_ns(), 9, "INFO", "project opened", ATTRIBUTES, None, 1, 2, 1, "app")


def calls(rounds: int) -> None:
    """Measure in turn, so that a busy machine hits all alike."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark")
    spans = []
    for _ in range(2000):
        span = tracer.start_span("work", attributes=ATTRIBUTES)
        span.end()
        spans.append(span._readable_span())  # type: ignore[attr-defined]
    facts = [a_fact() for _ in range(2000)]
    stock_spans = BatchSpanProcessor(InMemorySpanExporter(), max_queue_size=10**6)
    stock_logs = BatchLogRecordProcessor(InMemoryLogRecordExporter(), max_queue_size=10**6)  # type: ignore[no-untyped-call]
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(stock_logs)
    logger = loggers.get_logger("benchmark")
    ledger = Ledger()
    pipeline = Pipeline(ledger, ListDestination(ledger), OtlpEncoder(QuickResource({})))
    tap = SpanTap(pipeline.put_span)
    record = LogRecord(body="project opened", severity_number=SeverityNumber.INFO, attributes=ATTRIBUTES)
    ways: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "the clock": (lambda _: None, spans),
        "span: BatchSpanProcessor.on_end": (stock_spans.on_end, spans),
        "span: ours": (tap.on_end, spans),
        "log: SDK logger and BatchLogRecordProcessor": (lambda _: logger.emit(record), facts),
        "log: ours": (pipeline.put_log, facts),
    }
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (call, values) in ways.items():
            figures[name].append(median_us(call, values))
            pipeline.flush(30)
    clock = statistics.median(figures.pop("the clock"))
    print(f"{'':46} {'us a call':>10}")
    for name, values in figures.items():
        print(f"{name:46} {statistics.median(values) - clock:10.2f}")
    pipeline.shutdown(10)
    stock_spans.shutdown()  # type: ignore[no-untyped-call]
    stock_logs.shutdown()  # type: ignore[no-untyped-call]


def burst() -> None:
    """What 20,000 of each in a tight loop lose."""
    exporter = InMemorySpanExporter()
    stock = TracerProvider(shutdown_on_exit=False)
    stock.add_span_processor(BatchSpanProcessor(exporter))
    ledger = Ledger()
    destination = ListDestination(ledger)
    pipeline = Pipeline(ledger, destination, OtlpEncoder(QuickResource({})))
    ours = TracerProvider(shutdown_on_exit=False)
    ours.add_span_processor(SpanTap(pipeline.put_span))
    for provider in (stock, ours):
        tracer = provider.get_tracer("benchmark")
        for _ in range(BURST):
            tracer.start_span("work", attributes=ATTRIBUTES).end()
            if provider is ours:
                pipeline.put_log(a_fact())
    stock.force_flush()
    pipeline.flush(120)
    print(f"\n{'burst of 20,000':46} {'lost':>10}")
    print(f"{'spans: BatchSpanProcessor':46} {BURST - len(exporter.get_finished_spans()):10}")
    for signal in (Signal.TRACES, Signal.LOGS):
        print(f"{signal + ': ours':46} {BURST - len(destination.records(signal)):10}")
    pipeline.shutdown(10)
    stock.shutdown()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the stock queue says for every record that it is full
    calls(options.rounds)
    burst()


if __name__ == "__main__":
    main()
