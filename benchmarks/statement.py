"""What a statement costs: plain, with the contributed instrumentation, with ours; on SQLite and on PostgreSQL.

Each way runs in a process of its own, in turns, with a batch processor that exports to nowhere. Instruments are read by
nobody: the contributed instrumentation's of the SDK's meter provider with one reader, ours of the one that an
application of ours has, with its two readers (OTLP and the scrape). The lowest turn counts, in CPU time of the process,
so that a busy machine changes little.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

STATEMENTS = 1_000
TURNS = 3
WAYS = ("plain", "contributed", "ours")


def child(way: str, url: str) -> None:
    """Measure one way: microseconds for a statement on an open connection, and for one with its connection."""
    import sqlalchemy
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    if way == "ours":
        from otel.sdk import OwnMeterProvider

        readers = [InMemoryMetricReader(), InMemoryMetricReader()]
        meters = OwnMeterProvider(readers, shutdown_on_exit=False)
        from otel.instrumentation.sqlalchemy_instrumentor import SQLALCHEMY

        SQLALCHEMY.instrument(tracer_provider=tracers, meter_provider=meters)
    elif way == "contributed":
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http,database"
        SQLAlchemyInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters, skip_dep_check=True)
    engine = sqlalchemy.create_engine(url)
    statement = sqlalchemy.text("SELECT 1")

    def alone() -> None:
        with engine.connect() as connection:
            began_s = time.process_time()
            for _ in range(STATEMENTS):
                connection.execute(statement)
            results.append((time.process_time() - began_s) / STATEMENTS * 1e6)

    def connected() -> None:
        began_s = time.process_time()
        for _ in range(STATEMENTS):
            with engine.connect() as connection:
                connection.execute(statement)
        results.append((time.process_time() - began_s) / STATEMENTS * 1e6)

    results: list[float] = []
    alone()
    results.clear()
    alone()
    connected()
    print(json.dumps(results))


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """The URLs to measure with."""
    from tests.support.backends import postgres

    running = postgres.__wrapped__()  # type: ignore[attr-defined]
    server = next(running)
    try:
        yield {"SQLite": "sqlite://", "PostgreSQL": server.url()}
    finally:
        next(running, None)


def main() -> None:
    """Print the table."""
    with databases() as urls:
        for database, url in urls.items():
            found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
            for _ in range(TURNS):
                for way in WAYS:
                    command = [sys.executable, __file__, way, url]
                    found[way].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
            for index, what in enumerate(("SELECT 1", "connect and SELECT 1")):
                lowest = {way: min(turn[index] for turn in turns) for way, turns in found.items()}
                plain, contributed, ours = (lowest[way] for way in WAYS)
                print(
                    f"{database:10} {what:20} plain {plain:6.1f} µs  contributed {contributed:6.1f} µs  "
                    f"ours {ours:6.1f} µs  added by ours / by contributed {(ours - plain) / (contributed - plain):.2f}"
                )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], sys.argv[2])
    else:
        main()
