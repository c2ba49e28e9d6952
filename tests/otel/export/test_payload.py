"""Requests taken apart: split without loss, written as OTLP JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel.export import payload
from otel.records import Signal
from tests.support.spooling import ids_of, request


@given(
    st.sampled_from(list(Signal)),
    st.lists(st.lists(st.integers(1, 2**40), max_size=4), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_a_cut_loses_nothing_and_keeps_the_order(signal: Signal, groups: list[list[int]], most: int) -> None:
    """First part and rest together are what was there, however many resources it had."""
    whole = b"".join(request(signal, ids) for ids in groups)
    ids = [each for group in groups for each in group]
    (first, taken), (rest, left) = payload.carve(signal, whole, most)
    assert taken == min(most, len(ids))
    assert left == len(ids) - taken
    assert ids_of(signal, first) == ids[:most]
    assert ids_of(signal, rest) == ids[most:]


def test_a_cut_repeats_resource_scope_and_metric() -> None:
    """Each part tells as much about its records as the whole did."""
    whole = ExportMetricsServiceRequest()
    resource = whole.resource_metrics.add(schema_url="https://resource")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_metrics.add(schema_url="https://scope")
    scope.scope.name = "meter"
    scope.metrics.add(name="empty")
    total = scope.metrics.add(name="total", unit="s", description="all")
    total.sum.aggregation_temporality = 2
    total.sum.is_monotonic = True
    for each in range(3):
        total.sum.data_points.add(as_int=each)
    (first, _), (rest, left) = payload.carve(Signal.METRICS, whole.SerializeToString(), 1)
    assert left == 2
    for part, values in ((first, [0]), (rest, [1, 2])):
        found = ExportMetricsServiceRequest.FromString(part)
        copy = found.resource_metrics[0]
        assert (copy.schema_url, copy.resource) == ("https://resource", resource.resource)
        inner = copy.scope_metrics[0]
        assert (inner.schema_url, inner.scope.name) == ("https://scope", "meter")
        metric = inner.metrics[0]
        assert (metric.name, metric.unit, metric.description) == ("total", "s", "all")
        assert (metric.sum.aggregation_temporality, metric.sum.is_monotonic) == (2, True)
        assert [point.as_int for point in metric.sum.data_points] == values


def strings(node: Any) -> Any:
    """Every value in a JSON tree with its key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from strings(value)
    elif isinstance(node, list):
        for each in node:
            yield from strings(each)


@pytest.mark.parametrize("signal", list(Signal))
def test_a_json_line_is_otlp_json(signal: Signal) -> None:
    """One line, lower camel case, ids in hexadecimal, enumerations as numbers."""
    line = payload.json_line(signal, request(signal, [10, 11]))
    assert "\n" not in line
    tree = json.loads(line)
    assert list(tree) == {"traces": ["resourceSpans"], "logs": ["resourceLogs"], "metrics": ["resourceMetrics"]}[signal]
    if signal is Signal.TRACES:
        found = list(strings(tree))
        assert [value for key, value in found if key == "traceId"] == [f"{10:032x}", f"{11:032x}"]
        assert [value for key, value in found if key == "spanId"] == [f"{10:016x}", f"{11:016x}"]


def test_enumerations_are_numbers_in_json() -> None:
    """The protocol's JSON forbids their names."""
    whole = ExportTraceServiceRequest()
    span = whole.resource_spans.add().scope_spans.add().spans.add(name="x", kind=2)
    span.status.code = 2
    tree = json.loads(payload.json_line(Signal.TRACES, whole.SerializeToString()))
    found = tree["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (found["kind"], found["status"]["code"]) == (2, 2)
