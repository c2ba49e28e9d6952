"""What a span, a counter and a histogram cost, ours beside the stock SDK: `python benchmarks/instruments.py`.

Each is a process of its own with the same calls inside a span, exporting by OTLP to a receiver of the benchmark's own;
they take turns, round by round. "Caller" is the time of the calling thread, "CPU" what the whole process has used when
all of it is out, worker threads included; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collector import Counting

ROOT = str(Path(__file__).parents[1])
OURS = """
from pathlib import Path
from otel.config import TelemetryConfig
from otel.providers import install
telemetry = install(TelemetryConfig.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, data_dir=Path(FOLDER)))
tracers, meters = telemetry.tracer_provider, telemetry.meter_provider
finish = lambda: telemetry.flush(60)
"""
STOCK = """
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(ENDPOINT + "/v1/traces"), max_queue_size=10**6))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(ENDPOINT + "/v1/metrics"))])
finish = lambda: (tracers.force_flush(60_000), meters.force_flush(60_000))
"""
DRIVER = """
import os, sys, time
ENDPOINT, FOLDER, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
{program}
tracer, meter = tracers.get_tracer("benchmark"), meters.get_meter("benchmark")
counter = meter.create_counter("orders")
histogram = meter.create_histogram("wait", unit="s")
attributes = {{"page": "clients", "kind": "open", "ok": True}}
def span(n):
    with tracer.start_as_current_span("work", attributes=attributes): pass
def count(n): counter.add(1, attributes)
def record(n): histogram.record(n * 0.001, attributes)
with tracer.start_as_current_span("run"):
    for line in sys.stdin:
        call = globals()[line.strip()]
        process, caller = time.process_time(), time.thread_time()
        for n in range(calls): call(n)
        caller = time.thread_time() - caller
        finish()
        print(caller, time.process_time() - process, flush=True)
os._exit(0)
"""
CALLS = ("span", "count", "record")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Counting() as receiver:
        processes = {}
        for label, program in (("ours", OURS), ("stock SDK", STOCK)):
            words = [sys.executable, "-c", DRIVER.format(program=program), receiver.endpoint, folder]
            processes[label] = subprocess.Popen(
                [*words, str(options.calls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
        for number in range(options.rounds + 1):
            for call in CALLS:
                for label, process in processes.items():
                    assert process.stdin is not None
                    assert process.stdout is not None
                    process.stdin.write(f"{call}\n")
                    process.stdin.flush()
                    caller, total = map(float, process.stdout.readline().split())
                    if number:  # the first round warms up
                        figures.setdefault((call, label), []).append((caller, total))
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
    print(f"{'':20} {'caller us':>10} {'ratio':>7} {'CPU us':>10} {'ratio':>7}")
    for (call, label), rounds in figures.items():
        line = f"{call + ': ' + label:20}"
        for each in (0, 1):
            ratios = [one[each] / other[each] for one, other in zip(rounds, figures[call, "stock SDK"], strict=True)]
            us = statistics.median(found[each] for found in rounds) / options.calls * 1e6
            line += f" {us:10.2f} {statistics.median(ratios):7.2f}"
        print(line)


if __name__ == "__main__":
    main()
