"""The same two calls, ours and the stock SDK's: end a span with three attributes, emit a log record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Producer:
    """`span` and `log` emit one record that carries a number; `end` flushes and stops within some seconds."""

    span: Callable[[int], None]
    log: Callable[[int], None]
    end: Callable[[float], None]


def producer_of(kind: str, endpoint: str, folder: Path) -> Producer:
    """Ours or the stock SDK's."""
    return ours(endpoint, folder) if kind == "ours" else stock(endpoint)


def _span_call(tracer: Any) -> Callable[[int], None]:
    def span(number: int) -> None:
        tracer.start_span(str(number), attributes={"a": 1, "b": "two", "c": 3.0}).end()

    return span


def ours(endpoint: str, folder: Path) -> Producer:
    """Our pipeline with its spool."""
    from otel.config import TelemetryConfig
    from otel.providers import install
    from otel.records import LogFact

    config = TelemetryConfig.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, data_dir=folder)
    telemetry = install(config)
    sink = telemetry.log_sink
    assert sink is not None

    def log(number: int) -> None:
        sink(LogFact(time.time_ns(), 9, "INFO", str(number), {"a": 1}, None, 0, 0, 0, "bench"))

    def end(seconds: float) -> None:
        telemetry.flush(seconds)
        telemetry.shutdown(seconds)

    return Producer(_span_call(telemetry.tracer_provider.get_tracer("bench")), log, end)


def stock(endpoint: str) -> Producer:
    """The SDK's batch processors with its exporters by HTTP, as they come."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{endpoint}/v1/logs")))
    logger = loggers.get_logger("bench")

    def log(number: int) -> None:
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body=str(number),
                attributes={"a": 1},
            )
        )

    def end(seconds: float) -> None:
        tracers.force_flush(int(seconds * 1000))
        loggers.force_flush(int(seconds * 1000))
        tracers.shutdown()
        loggers.shutdown()

    return Producer(_span_call(tracers.get_tracer("bench")), log, end)
