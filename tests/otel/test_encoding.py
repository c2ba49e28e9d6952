"""What leaves is what was made, without its secrets, as OTLP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, Status, StatusCode

from otel.cleaning import clean_metrics, clean_span
from otel.encoding import OtlpEncoder, data_points
from otel.guard import REDACTED
from otel.records import LogFact, Signal
from otel.sdk import QuickResource
from tests.support.otlp import attributes

RESOURCE = QuickResource({"service.name": "shop"})
SECRET_URL = "postgresql://user:hunter2@db/shop"


@pytest.fixture
def encode() -> OtlpEncoder:
    """An encoder for one resource."""
    return OtlpEncoder(RESOURCE)


def finished(name: str = "span", **options: Any) -> ReadableSpan:
    """A finished span."""
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    span = provider.get_tracer("scope", "1.0").start_span(name, **options)
    span.end()
    return span._readable_span()  # type: ignore[attr-defined,no-any-return]


def fact(body: str = "hello", **options: Any) -> LogFact:
    """A log record."""
    values: dict[str, Any] = {
        "timestamp_ns": 1_700_000_000_000_000_001,
        "severity_number": 13,
        "severity_text": "WARNING",
        "body": body,
        "attributes": {},
        "event_name": None,
        "trace_id": 0,
        "span_id": 0,
        "trace_flags": 0,
        "scope": "app.orders",
    }
    return LogFact(**{**values, **options})


def test_a_log_record_arrives_whole(encode: OtlpEncoder) -> None:
    """Every field of a fact is where the log data model has it; scopes and the resource are said once."""
    facts = [
        fact(
            attributes={"n": 1, "nested": {"a": [1, "x"]}},
            event_name="order.made",
            trace_id=7,
            span_id=8,
            trace_flags=1,
        ),
        fact("again"),
        fact("other", scope="app.users"),
    ]
    [batch], bad = encode(Signal.LOGS, facts)
    assert (bad, batch.count, batch.records) == (0, 3, facts)
    [resource] = ExportLogsServiceRequest.FromString(batch.payload).resource_logs
    assert attributes(resource.resource.attributes) == {"service.name": "shop"}
    assert [(each.scope.name, len(each.log_records)) for each in resource.scope_logs] == [
        ("app.orders", 2),
        ("app.users", 1),
    ]
    record = resource.scope_logs[0].log_records[0]
    assert record.time_unix_nano == record.observed_time_unix_nano == 1_700_000_000_000_000_001
    assert (record.severity_number, record.severity_text, record.body.string_value) == (13, "WARNING", "hello")
    assert (record.event_name, record.flags) == ("order.made", 1)
    assert (record.trace_id, record.span_id) == ((7).to_bytes(16, "big"), (8).to_bytes(8, "big"))
    assert attributes(record.attributes) == {"n": 1, "nested": {"a": [1, "x"]}}
    assert (resource.scope_logs[0].log_records[1].trace_id, resource.scope_logs[0].log_records[1].span_id) == (b"", b"")


def test_log_attributes_are_limited() -> None:
    """The limits of log records hold, and what was left out is counted."""
    encode = OtlpEncoder(RESOURCE, log_attribute_length=3, log_attributes=2)
    [batch], _ = encode(Signal.LOGS, [fact(attributes={"a": "12345", "b": 12345, "c": 1})])
    record = ExportLogsServiceRequest.FromString(batch.payload).resource_logs[0].scope_logs[0].log_records[0]
    assert (attributes(record.attributes), record.dropped_attributes_count) == ({"a": "123", "b": 12345}, 1)


def test_a_span_without_secrets_is_not_copied() -> None:
    """The rule is that nothing has to be replaced: then the span itself goes on."""
    span = finished(attributes={"a": "b", "list": ["x", "y"]}, links=[Link(finished().context, {"l": 1})])
    assert clean_span(span) is span


def test_every_text_of_a_span_is_redacted(encode: OtlpEncoder) -> None:
    """Name, attributes, events, links and status: by the attribute's name or by what its value looks like."""
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    link = Link(finished().context, {"token": "hunter2", "kept": 1})
    made = provider.get_tracer("scope").start_span(f"GET {SECRET_URL}", links=[link])
    made.set_attributes({"password": "hunter2", "url": SECRET_URL, "urls": [SECRET_URL, "plain"], "kept": "plain"})
    made.add_event(f"tried {SECRET_URL}", {"exception.message": f"no way to {SECRET_URL}", "n": 1})
    made.set_status(Status(StatusCode.ERROR, f"failed: {SECRET_URL}"))
    made.end()
    span = made._readable_span()  # type: ignore[attr-defined]
    [batch], bad = encode(Signal.TRACES, [span])
    assert (bad, b"hunter2" in batch.payload) == (0, False)
    [encoded] = ExportTraceServiceRequest.FromString(batch.payload).resource_spans[0].scope_spans[0].spans
    clean = f"postgresql://{REDACTED}@db/shop"
    assert attributes(encoded.attributes) == {
        "password": REDACTED,
        "url": clean,
        "urls": [clean, "plain"],
        "kept": "plain",
    }
    assert encoded.name == f"GET {clean}"
    assert encoded.events[0].name == f"tried {clean}"
    assert attributes(encoded.events[0].attributes) == {"exception.message": f"no way to {clean}", "n": 1}
    assert attributes(encoded.links[0].attributes) == {"token": REDACTED, "kept": 1}
    assert (encoded.status.message, encoded.status.code) == (f"failed: {clean}", 2)
    assert (encoded.trace_id, encoded.start_time_unix_nano, encoded.end_time_unix_nano) == (
        span.context.trace_id.to_bytes(16, "big"),
        span.start_time,
        span.end_time,
    )
    assert span.attributes["password"] == "hunter2", "the application's own span is left as it is"


def test_metric_attributes_are_redacted(encode: OtlpEncoder) -> None:
    """A data point's values go through the same chain; points without secrets are not copied."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
    counter = provider.get_meter("scope").create_counter("requests", "{request}")
    counter.add(1, {"kept": "plain"})
    data = reader.get_metrics_data()
    assert data is not None
    assert clean_metrics(data) is data
    counter.add(2, {"url": SECRET_URL})
    data = reader.get_metrics_data()
    assert data is not None
    [batch], _ = encode(Signal.METRICS, [data])
    assert (batch.count, data_points(data), b"hunter2" in batch.payload) == (2, 2, False)
    [metric] = ExportMetricsServiceRequest.FromString(batch.payload).resource_metrics[0].scope_metrics[0].metrics
    assert {str(attributes(point.attributes)): point.as_int for point in metric.sum.data_points} == {
        "{'kept': 'plain'}": 1,
        f"{{'url': 'postgresql://{REDACTED}@db/shop'}}": 2,
    }
    provider.shutdown()


def test_one_bad_record_costs_itself_alone(encode: OtlpEncoder) -> None:
    """A body that is no text, a severity that does not exist: the others go in one batch."""
    good = [fact(str(number)) for number in range(5)]
    bad_ones = [fact(object()), fact(severity_number=99), fact(timestamp_ns=-1)]  # type: ignore[arg-type]
    [batch], bad = encode(Signal.LOGS, [*good[:2], *bad_ones, *good[2:]])
    assert (bad, batch.count) == (3, 5)
    message = ExportLogsServiceRequest.FromString(batch.payload)
    found = [
        record.body.string_value
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert found == ["0", "1", "2", "3", "4"]


def test_half_a_character_is_no_reason_to_lose_a_span(encode: OtlpEncoder) -> None:
    """A lone surrogate has no UTF-8 form; it is replaced in a name and spelled out in a value."""
    [batch], bad = encode(Signal.TRACES, [finished("bro\udc80ken", attributes={"a": "b\ud800c", "b": "größe"})])
    [span] = ExportTraceServiceRequest.FromString(batch.payload).resource_spans[0].scope_spans[0].spans
    assert (bad, span.name) == (0, "bro?ken")
    assert attributes(span.attributes) == {"a": r"b\ud800c", "b": "größe"}, "the guard spells it"


def test_a_resource_is_hashed_once() -> None:
    """Equal to the SDK's own and grouped like it, at the cost of a look-up."""
    from opentelemetry.sdk.resources import Resource

    values = {str(number): "x" * 100 for number in range(20)}
    assert QuickResource(values) == Resource(values)
    assert hash(QuickResource(values)) == hash(Resource(values))


def test_the_clock_of_a_record_is_its_own(encode: OtlpEncoder) -> None:
    """What is encoded later keeps the time at which it was made."""
    now = time.time_ns()
    [batch], _ = encode(Signal.LOGS, [fact(timestamp_ns=now)])
    record = ExportLogsServiceRequest.FromString(batch.payload).resource_logs[0].scope_logs[0].log_records[0]
    assert record.time_unix_nano == now
