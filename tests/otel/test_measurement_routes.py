"""Measurements find their aggregations as the SDK's own way does, at one look-up for all readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel import sdk
from otel.sdk import OwnMeterProvider

VALUES = st.one_of(
    st.sampled_from(["", "x", "1", "ü"]),
    st.booleans(),
    st.integers(-1, 2),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.lists(st.integers(0, 1), max_size=2),
)
ATTRIBUTES = st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3))
CALLS = st.lists(
    st.tuples(st.sampled_from(["counter", "histogram", "gauge"]), st.integers(0, 9), ATTRIBUTES), max_size=30
)


def told(reader: InMemoryMetricReader) -> list[Any]:
    """What a reader collects, without times."""
    data = reader.get_metrics_data()
    found = []
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = [(name, type(each), each) for name, each in sorted((point.attributes or {}).items())]
                    value = getattr(point, "value", None)
                    found.append((metric.name, repr(attributes), value, getattr(point, "bucket_counts", None)))
    return sorted(found, key=repr)


class Measured:
    """One provider of either kind with two readers, and what calls its instruments."""

    def __init__(self, kind: type[MeterProvider], **more: Any) -> None:
        self.readers = [InMemoryMetricReader(), InMemoryMetricReader()]
        self.provider: Any = kind(self.readers, shutdown_on_exit=False, **more)
        meter = self.provider.get_meter("test")
        self.calls = {
            "counter": meter.create_counter("counter").add,
            "histogram": meter.create_histogram("histogram").record,
            "gauge": meter.create_gauge("gauge").set,
        }

    def call(self, name: str, value: int, attributes: Mapping[str, Any] | None) -> None:
        """One measurement."""
        self.calls[name](value, attributes)


@given(first=CALLS, second=CALLS)
def test_each_reader_is_told_what_the_sdk_would_tell_it(first: list[Any], second: list[Any]) -> None:
    """Whatever the attributes are - also those that are equal but of another type - and between two collections."""
    ours, stock = Measured(OwnMeterProvider), Measured(MeterProvider)
    for calls, readers in ((first, (0,)), (second, (0, 1))):
        for call in calls:
            ours.call(*call)
            stock.call(*call)
        for each in readers:
            assert told(ours.readers[each]) == told(stock.readers[each])


def test_views_keep_their_say() -> None:
    """Attributes that a view drops are one series, also once their way is known."""
    views = [View(instrument_name="counter", attribute_keys={"a"})]
    ours = Measured(OwnMeterProvider, views=views)
    for _ in range(3):
        ours.call("counter", 1, {"a": "x", "b": "1"})
        ours.call("counter", 1, {"a": "x", "b": "2"})
    assert [each[2] for each in told(ours.readers[0])] == [6]


def test_a_reader_that_comes_later_is_told_from_then_on() -> None:
    """Ways that are known before it came don't pass it by, and a reader that has gone holds nobody up."""
    ours = Measured(OwnMeterProvider)
    ours.call("counter", 1, {"a": "x"})
    ours.call("counter", 1, {"a": "x"})
    late = InMemoryMetricReader()
    ours.provider.add_metric_reader(late)
    ours.call("counter", 3, {"a": "x"})
    ours.provider.remove_metric_reader(ours.readers[1])
    ours.call("counter", 4, {"a": "x"})
    assert [each[2] for each in told(late)] == [7]
    assert [each[2] for each in told(ours.readers[0])] == [9]


def test_a_child_begins_from_nothing() -> None:
    """After `begin_in_child` nothing of the parent's is added to."""
    ours = Measured(OwnMeterProvider)
    ours.call("counter", 5, {"a": "x"})
    ours.call("counter", 5, {"a": "x"})
    ours.provider.begin_in_child(sdk.QuickResource({}))
    ours.call("counter", 2, {"a": "x"})
    assert [each[2] for each in told(ours.readers[0])] == [2]


def test_both_readers_get_exemplars() -> None:
    """Each reader keeps an exemplar of its own, with the trace that was active, also once the way is known."""
    ours = Measured(OwnMeterProvider)
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, False, TraceFlags(1)))
    for _ in range(2):
        ours.calls["histogram"](1, {"a": "x"}, set_span_in_context(span))
    for reader in ours.readers:
        data = reader.get_metrics_data()
        assert data is not None
        [point] = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        assert [each.trace_id for each in point.exemplars] == [0xABC]


def test_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    """More sets of attributes than are remembered are counted all the same."""
    monkeypatch.setattr(sdk, "MAX_ROUTES", 5)
    ours = Measured(OwnMeterProvider)
    for _ in range(3):
        for number in range(12):
            ours.call("counter", 1, {"a": number})
    assert [each[2] for each in told(ours.readers[0])] == [3] * 12
    assert len(ours.provider._measurement_consumer.consume_measurement.__self__._known[1]) <= 5
