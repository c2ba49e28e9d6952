"""The tests' own receiver, asked by the official exporters: what it says it got is what was sent."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.support.otlp import OtlpReceiver, Reply, attributes


def exporter_to(receiver: OtlpReceiver) -> SpanExporter:
    """The official exporter of the receiver's protocol."""
    if receiver.protocol == "grpc":
        return GrpcExporter(receiver.endpoint, insecure=True, timeout=2)
    return HttpExporter(f"{receiver.endpoint}/v1/traces", compression=Compression.Gzip, timeout=2)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_it_decodes_what_an_exporter_sends(protocol: str) -> None:
    """A span comes out with its name and attributes, by either protocol, compressed or not."""
    with OtlpReceiver(protocol) as receiver:
        exporter = exporter_to(receiver)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("test").start_as_current_span("here", attributes={"a": [1, 2], "b": "x"}):
            pass
        provider.shutdown()
        assert receiver.wait_for(lambda: len(receiver.spans) == 1)
        assert (receiver.spans[0].name, attributes(receiver.spans[0].attributes)) == ("here", {"a": [1, 2], "b": "x"})
        assert receiver.resources("traces")[0]["telemetry.sdk.language"] == "python"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_it_refuses_as_told_and_keeps_only_what_it_took(protocol: str) -> None:
    """A refused request is seen but not kept; the next one is answered as usual."""
    with OtlpReceiver(protocol) as receiver:
        receiver.fail(Reply(status=3 if protocol == "grpc" else 400))
        exporter = exporter_to(receiver)
        span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("here")
        span.end()
        assert exporter.export([span]) is SpanExportResult.FAILURE  # type: ignore[list-item]
        assert (len(receiver.requests), receiver.spans) == (1, [])
        assert exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
        assert [each.name for each in receiver.spans] == ["here"]
        exporter.shutdown()
