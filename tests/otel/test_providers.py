"""What `install` puts in place: all of it, for real receivers, and nothing where somebody else was first."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from otel import api_globals
from otel.collector import THREAD_NAME
from otel.config import Destinations, HistogramAggregation, OtlpTarget, Protocol, Sampler, TelemetryConfig, Temporality
from otel.destinations import ConsoleTap, ListDestination, Router
from otel.ledger import Ledger
from otel.pipeline import WORKER_NAME
from otel.providers import Telemetry, install
from otel.records import Batch, DropReason, LogFact, Signal
from tests.support.otlp import OtlpReceiver, Reply, attributes

ROOT = Path(__file__).parents[2]
SLOW = TelemetryConfig(service_name="shop", service_version="1.2", metric_interval_s=3600.0)


def fact(body: str = "hello") -> LogFact:
    """A log record."""
    return LogFact(time.time_ns(), 9, "INFO", body, {"n": 1}, None, 0, 0, 0, "test")


Install = Callable[..., Telemetry]


@pytest.fixture
def installed() -> Iterator[Install]:
    """Installs and takes out again; every thread has ended and every provider is as it was."""
    before = (api_globals.TRACES.foreign(), api_globals.METRICS.foreign(), api_globals.LOGS.foreign())
    made: list[Telemetry] = []

    def one(config: TelemetryConfig = SLOW, *args: Any, **options: Any) -> Telemetry:
        made.append(install(config, *args, **options))
        return made[-1]

    yield one
    for each in reversed(made):
        assert each.shutdown(10)
        each.uninstall()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {WORKER_NAME, THREAD_NAME}
    assert (api_globals.TRACES.foreign(), api_globals.METRICS.foreign(), api_globals.LOGS.foreign()) == before


def with_list(installed: Install, config: TelemetryConfig = SLOW) -> tuple[Telemetry, ListDestination]:
    """Telemetry whose batches go to a list."""
    ledger = Ledger()
    destination = ListDestination(ledger)
    return installed(config, destination, ledger=ledger), destination


def test_all_three_signals_reach_the_destination(installed: Install) -> None:
    """By the API's own calls: a span, a metric, a log record; flushed, each is there with the process's resource."""
    telemetry, destination = with_list(installed)
    with trace.get_tracer("test").start_as_current_span("here", attributes={"a": 1}):
        metrics.get_meter("test").create_counter("things").add(2)
    assert telemetry.log_sink is not None
    telemetry.log_sink(fact())
    assert telemetry.flush(10)
    [span] = destination.records(Signal.TRACES)
    assert (span.name, dict(span.attributes)) == ("here", {"a": 1})
    assert [each.body for each in destination.records(Signal.LOGS)] == ["hello"]
    [data] = destination.records(Signal.METRICS)
    names = {m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert {"things", "telemetry.emitted", "telemetry.queued"} <= names
    resource = dict(span.resource.attributes)
    assert (resource["service.name"], resource["service.version"]) == ("shop", "1.2")
    assert resource["telemetry.sdk.name"] == "opentelemetry"
    assert data.resource_metrics[0].resource is span.resource
    snapshot = telemetry.ledger.snapshot()
    assert all(account.balance == 0 and account.queued == 0 for account in snapshot.accounts.values())


def otlp_config(receiver: OtlpReceiver, **options: Any) -> TelemetryConfig:
    """What the standard variables give for a receiver."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=shop",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
    }
    return msgspec.structs.replace(TelemetryConfig.from_environment(environ, service_name="shop"), **options)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_real_receiver_gets_all_three_signals(installed: Install, protocol: str) -> None:
    """By HTTP and by gRPC, compressed, with headers and resource."""
    with OtlpReceiver(protocol) as receiver:
        telemetry = installed(otlp_config(receiver))
        with trace.get_tracer("test").start_as_current_span("here", attributes={"a": 1}):
            metrics.get_meter("test").create_counter("things").add(2, {"kind": "x"})
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact())
        assert telemetry.flush(20)
        assert [(span.name, attributes(span.attributes)) for span in receiver.spans] == [("here", {"a": 1})]
        assert [record.body.string_value for record in receiver.logs] == ["hello"]
        [things] = [metric for metric in receiver.metrics if metric.name == "things"]
        assert [(p.as_int, attributes(p.attributes)) for p in things.sum.data_points] == [(2, {"kind": "x"})]
        for signal in Signal:
            assert receiver.resources(signal)[0]["service.name"] == "shop"
        assert {request.headers["x-tenant"] for request in receiver.requests} == {"shop"}


def test_what_a_receiver_refuses_is_counted(installed: Install) -> None:
    """A batch that the receiver will never take is lost, and said to be."""
    with OtlpReceiver() as receiver:
        telemetry = installed(otlp_config(receiver))
        receiver.otherwise = Reply(400)
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact())
        assert telemetry.flush(10)
        account = telemetry.ledger.snapshot()[Signal.LOGS]
        assert account.dropped == {DropReason.REFUSED: 1}


def test_flush_and_shutdown_are_bounded_with_a_silent_receiver() -> None:
    """A collector that never answers holds nobody up: both return within what they were given."""
    with OtlpReceiver() as receiver:
        receiver.otherwise = Reply(delay_s=3600)
        telemetry = install(otlp_config(receiver))
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact())
        began = time.monotonic()
        assert not telemetry.flush(0.3)
        telemetry.shutdown(0.3)
        assert time.monotonic() - began < 5
        telemetry.uninstall()
    for thread in threading.enumerate():  # the receiver has hung up: the worker ends
        if thread.name == WORKER_NAME:
            thread.join(20)
            assert not thread.is_alive()


def test_flush_is_bounded_when_a_callback_hangs(installed: Install) -> None:
    """An observable instrument that never returns costs its own collection, not the records that wait."""
    telemetry, destination = with_list(installed)
    release = threading.Event()

    def hang(_: object) -> list[metrics.Observation]:
        release.wait()
        return []

    metrics.get_meter("test").create_observable_gauge("hangs", [hang])
    with trace.get_tracer("test").start_as_current_span("here"):
        pass
    began = time.monotonic()
    assert not telemetry.flush(0.5)
    assert time.monotonic() - began < 5
    assert [span.name for span in destination.records(Signal.TRACES)] == ["here"]
    release.set()


def test_metrics_are_collected_every_interval(installed: Install) -> None:
    """Nobody has to ask: OTEL_METRIC_EXPORT_INTERVAL is kept."""
    telemetry, destination = with_list(installed, msgspec.structs.replace(SLOW, metric_interval_s=0.02))
    telemetry.meter_provider.get_meter("test").create_counter("things").add(1)
    assert destination.wait_for(lambda: len([b for b in destination.batches if b.signal is Signal.METRICS]) >= 3, 20)


def test_sampling_thins_traces_alone(installed: Install) -> None:
    """With a sampler that keeps nothing, logs and metrics stay, and the trace still has an id."""
    telemetry, destination = with_list(installed, msgspec.structs.replace(SLOW, sampler=Sampler.ALWAYS_OFF))
    with trace.get_tracer("test").start_as_current_span("gone") as span:
        assert span.get_span_context().is_valid
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact())
        metrics.get_meter("test").create_counter("things").add(1)
    assert telemetry.flush(10)
    assert destination.records(Signal.TRACES) == []
    assert len(destination.records(Signal.LOGS)) == 1
    assert len(destination.records(Signal.METRICS)) == 1


def test_a_ratio_keeps_about_its_share(installed: Install) -> None:
    """A quarter of many traces, decided at their roots."""
    config = msgspec.structs.replace(SLOW, sampler=Sampler.PARENT_RATIO, sampler_ratio=0.25)
    telemetry, destination = with_list(installed, config)
    for _ in range(2000):
        with (
            trace.get_tracer("test").start_as_current_span("root"),
            trace.get_tracer("test").start_as_current_span("x"),
        ):
            pass
    assert telemetry.flush(20)
    spans = destination.records(Signal.TRACES)
    traces = {span.context.trace_id for span in spans}
    assert len(spans) == 2 * len(traces)
    assert 350 <= len(traces) <= 650


def test_temporality_and_histograms_are_as_asked(installed: Install) -> None:
    """Delta counters begin anew with each collection; exponential histograms have a scale."""
    config = msgspec.structs.replace(
        SLOW, temporality=Temporality.DELTA, histogram_aggregation=HistogramAggregation.EXPONENTIAL
    )
    telemetry, destination = with_list(installed, config)
    counter = metrics.get_meter("test").create_counter("things")
    metrics.get_meter("test").create_histogram("lengths").record(3)
    for amount in (5, 7):
        counter.add(amount)
        assert telemetry.flush(10)
    found = [
        point.value
        for data in destination.records(Signal.METRICS)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "things"
        for point in metric.data.data_points
    ]
    assert found == [5, 7]
    assert "ExponentialHistogram" in {
        type(metric.data).__name__
        for data in destination.records(Signal.METRICS)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_span_limits_are_as_asked(installed: Install) -> None:
    """No variable is read a second time: the limits come from the configuration."""
    limits = msgspec.structs.replace(SLOW.limits, span_attributes=1, span_attribute_length=2)
    telemetry, destination = with_list(installed, msgspec.structs.replace(SLOW, limits=limits))
    with trace.get_tracer("test").start_as_current_span("here", attributes={"a": "12345"}):
        pass
    assert telemetry.flush(10)
    assert dict(destination.records(Signal.TRACES)[0].attributes) == {"a": "12"}


def test_disabled_makes_nothing(installed: Install) -> None:
    """OTEL_SDK_DISABLED: calls still work and nothing is kept."""
    telemetry = installed(msgspec.structs.replace(SLOW, disabled=True))
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("gone") as span:
        assert not span.is_recording()
    assert telemetry.log_sink is None
    assert telemetry.flush(1)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_with_nowhere_to_go_spans_have_ids_and_nothing_is_queued(installed: Install) -> None:
    """Neither a collector nor a store that takes records: no queue, no thread, but ids for log lines."""
    telemetry = installed(SLOW)
    with trace.get_tracer("test").start_as_current_span("here") as span:
        assert span.get_span_context().is_valid
    assert (telemetry.pipeline, telemetry.log_sink) == (None, None)
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({WORKER_NAME, THREAD_NAME})


def test_a_signal_that_is_off_is_not_queued(installed: Install) -> None:
    """OTEL_LOGS_EXPORTER=none: traces go on, log records are lines alone."""
    with OtlpReceiver() as receiver:
        telemetry = installed(otlp_config(receiver, logs=Destinations()))
        assert telemetry.log_sink is None
        with trace.get_tracer("test").start_as_current_span("here"):
            pass
        assert telemetry.flush(20)
        assert [span.name for span in receiver.spans] == ["here"]


def test_providers_that_are_there_are_respected() -> None:
    """Instruments go to what somebody else has set up, log records too; ours is not built, nothing is sent twice."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    theirs = (TracerProvider(shutdown_on_exit=False), MeterProvider(shutdown_on_exit=False), loggers)
    undo = [
        place.take(provider)
        for place, provider in zip((api_globals.TRACES, api_globals.METRICS, api_globals.LOGS), theirs, strict=True)
    ]
    try:
        ledger = Ledger()
        telemetry = install(SLOW, ListDestination(ledger), ledger=ledger)
        assert (telemetry.tracer_provider, telemetry.meter_provider) == theirs[:2]
        assert telemetry.pipeline is None
        assert telemetry.log_sink is not None
        telemetry.log_sink(LogFact(5, 13, "WARNING", "hello", {"n": 1}, "event", 0xA, 0xB, 1, "scope"))
        [kept] = exporter.get_finished_logs()
        record = kept.log_record
        assert (record.body, record.event_name, record.trace_id, record.span_id) == ("hello", "event", 0xA, 0xB)
        assert telemetry.flush(1) and telemetry.shutdown(1)
        telemetry.uninstall()
        assert trace.get_tracer_provider() is theirs[0]
        assert metrics.get_meter_provider() is theirs[1]
    finally:
        for each in undo:
            each()
        for provider in theirs:
            provider.shutdown()


def test_a_foreign_tracer_provider_leaves_the_other_signals_to_us(installed: Install) -> None:
    """Each signal is decided for itself."""
    foreign = TracerProvider(shutdown_on_exit=False)
    undo = api_globals.TRACES.take(foreign)
    try:
        ledger = Ledger()
        destination = ListDestination(ledger)
        telemetry = install(SLOW, destination, ledger=ledger)
        with trace.get_tracer("test").start_as_current_span("theirs"):
            pass
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact())
        assert telemetry.flush(10)
        assert destination.records(Signal.TRACES) == []
        assert len(destination.records(Signal.LOGS)) == 1
        assert telemetry.shutdown(10)
        telemetry.uninstall()
    finally:
        undo()


def test_installing_again_after_the_end_works(installed: Install) -> None:
    """A process that starts an application twice has working telemetry twice."""
    for name in ("first", "second"):
        ledger = Ledger()
        destination = ListDestination(ledger)
        telemetry = install(SLOW, destination, ledger=ledger)
        with trace.get_tracer("test").start_as_current_span(name):
            metrics.get_meter("test").create_counter("things").add(1)
        assert telemetry.flush(10)
        assert [span.name for span in destination.records(Signal.TRACES)] == [name]
        assert telemetry.shutdown(10)
        telemetry.uninstall()


def test_users_of_the_logs_api_are_heard_and_redacted(installed: Install) -> None:
    """A record by OpenTelemetry's own logger goes the same way as every other."""
    _, destination = with_list(installed)
    logger = _logs.get_logger("mine")
    logger.emit(body="hello", severity_number=_logs.SeverityNumber.ERROR, attributes={"password": "hunter2", "n": 1})
    assert destination.wait_for(lambda: len(destination.records(Signal.LOGS)) == 1, 10)
    [record] = destination.records(Signal.LOGS)
    assert (record.body, record.severity_number, record.scope) == ("hello", 17, "mine")
    assert record.attributes == {"password": "[REDACTED]", "n": 1}


def test_the_console_alone_counts_as_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    """OTEL_*_EXPORTER=console writes one line a record, on the worker's thread."""
    ledger = Ledger()
    router = Router(ledger, {}, {Signal.LOGS: [ConsoleTap()]})
    assert router.signals == {Signal.LOGS}
    ledger.queued(Signal.LOGS, 1)
    router.commit([Batch(Signal.LOGS, [fact("on the console")], b"", 1)])
    assert ledger.snapshot()[Signal.LOGS].delivered == 1
    assert '"body": "on the console"' in capsys.readouterr().out


def test_a_tap_that_fails_costs_nothing() -> None:
    """The destination gets the batch all the same."""
    ledger = Ledger()
    destination = ListDestination(ledger)

    def fail(_: Batch) -> None:
        raise OSError

    router = Router(ledger, {Signal.LOGS: destination}, {Signal.LOGS: [fail]})
    ledger.queued(Signal.LOGS, 1)
    router.commit([Batch(Signal.LOGS, [fact()], b"", 1)])
    assert len(destination.batches) == 1


def test_grpc_is_imported_only_when_it_is_asked_for() -> None:
    """An application that speaks HTTP doesn't pay for gRPC, and one without an endpoint for no exporter at all."""
    code = """
import sys
from otel.config import TelemetryConfig
from otel.providers import install
from opentelemetry import trace
environ = dict(each.split("=", 1) for each in sys.argv[1:])
telemetry = install(TelemetryConfig.from_environment(environ))
with trace.get_tracer("x").start_as_current_span("x"):
    pass
telemetry.flush(5)
telemetry.shutdown(5)
print(*sorted(name for name in ("grpc", "requests", "urllib3", "google.protobuf") if name in sys.modules))
"""
    with OtlpReceiver() as receiver:
        found = [
            subprocess.run(
                [sys.executable, "-c", code, *environ], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
            ).stdout.split()
            for environ in ([], [f"OTEL_EXPORTER_OTLP_ENDPOINT={receiver.endpoint}"])
        ]
        assert found == [[], ["google.protobuf"]]
        assert [span.name for span in receiver.spans] == ["x"]


def test_the_target_says_how_grpc_is_spoken() -> None:
    """A configuration for gRPC over TLS is told from a plain one."""
    assert not OtlpTarget("https://c:4317", Protocol.GRPC).insecure
