"""The SDK's classes as the pipeline needs them: adapters that `providers.py` puts together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider, sampling

from otel.config import HistogramAggregation, Limits, Sampler, Temporality
from otel.encoding import data_points


class QuickResource(Resource):
    """A resource that is hashed once: the encoders group every single record by its resource."""

    def __init__(self, attributes: Mapping[str, Any], schema_url: str | None = None) -> None:
        super().__init__(attributes, schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class SpanTap(SpanProcessor):
    """Hands every finished span to `put`, and does nothing else on the caller's path: `on_end` is `put` itself."""

    def __init__(self, put: Callable[[ReadableSpan], None] | None) -> None:
        self._put = put
        self._ancestors: tuple[Resource, ...] = ()
        if put is not None:
            self.on_end = put  # type: ignore[method-assign, assignment]

    def begin_in_child(self, inherited: Resource) -> None:
        """Leave spans of this resource alone: they were begun in the parent, which ends and sends them."""
        self._ancestors = (*self._ancestors, inherited)
        if self._put is not None:
            self.on_end = self._put_own  # type: ignore[method-assign]

    def _put_own(self, span: ReadableSpan) -> None:
        if self._put is not None and not any(span.resource is each for each in self._ancestors):
            self._put(span)


class OwnTracerProvider(TracerProvider):
    """A tracer provider whose resource `begin_in_child` swaps, together with everything else's."""

    def _handle_fork(self) -> None:
        """The SDK's own reaction to a fork runs every resource detector in the child; ours is told."""

    def begin_in_child(self, resource: Resource) -> None:
        """In a forked child: new locks, and the child's resource for every tracer."""
        self._tracers_lock = threading.Lock()
        self._resource = resource
        for tracer in self._tracers.values():
            tracer._set_resource(resource)


class MeasurementRoutes:
    """Where each set of attributes goes: the SDK hashes and compares it anew for every measurement and every reader.

    Two readers (OTLP and the scrape) each keep an aggregation of their own, with its own temporality, exemplars and
    last value; what is shared is finding them. A set that isn't made of plain values goes the SDK's own way.

    Arguments:
        consumer: the SDK's; what it has made is used as it is.
    """

    def __init__(self, consumer: Any) -> None:
        from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

        self._consumer = consumer
        self._hash = _hash_attributes
        self._filter = consumer._sdk_config.exemplar_filter.should_sample
        self._known: tuple[Any, dict[Any, tuple[Any, ...]]] = (consumer._reader_storages, {})

    def consume(self, measurement: Any) -> None:
        """Take one measurement, in place of the consumer's `consume_measurement`."""
        instrument, attributes = measurement.instrument, measurement.attributes
        storages = self._consumer._reader_storages  # another object whenever a reader comes or goes
        known = self._known
        if known[0] is not storages or len(known[1]) >= MAX_ROUTES:
            known = self._known = (storages, {})
        sampled = self._filter(measurement.value, measurement.time_unix_nano, attributes, measurement.context)
        try:
            # 1, 1.0 and True are equal, and are three sets all the same.
            key = (instrument, *attributes.items(), *map(type, attributes.values())) if attributes else instrument
            found = known[1].get(key)
        except TypeError:
            key = found = None
        if found is not None:
            for aggregation in found:
                aggregation.aggregate(measurement, sampled)
            return
        for storage in storages.values():
            storage.consume_measurement(measurement, sampled)
        if key is not None and all(type(each) in _PLAIN for each in (attributes or {}).values()):
            known[1][key] = tuple(self._find(storages, instrument, attributes or {}))

    def _find(self, storages: Any, instrument: Any, attributes: Mapping[str, Any]) -> Iterator[Any]:
        """The aggregations that have just taken a measurement of these attributes."""
        for storage in storages.values():
            for match in storage._get_or_init_view_instrument_match(instrument):
                kept = match._view._attribute_keys
                left = {name: each for name, each in attributes.items() if kept is None or name in kept}
                yield match._attributes_aggregation[self._hash(left)]


#: Sets of attributes, of all instruments together, whose way is remembered.
MAX_ROUTES: Final = 10_000
_PLAIN: Final = frozenset({str, bool, int, float})


class OwnMeterProvider(MeterProvider):
    """A meter provider that begins from nothing in a forked child, and finds a measurement's aggregations once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with suppress(ImportError, AttributeError):  # an SDK that has moved its parts is left as it is
            consumer: Any = self._measurement_consumer
            consumer.consume_measurement = MeasurementRoutes(consumer).consume

    def _handle_fork(self) -> None:
        """As with the tracer provider."""

    def begin_in_child(self, resource: Resource) -> None:
        """In a forked child: new locks, the child's resource, and nothing of what the parent has measured."""
        self._lock = threading.Lock()
        self._meter_lock = threading.Lock()
        MeterProvider._all_metric_readers_lock = threading.Lock()
        for meter in self._meters.values():
            for name in ("_instrument_ids_lock", "_instrument_registration_lock"):
                setattr(meter, name, threading.Lock())
        for module in ("exponent_mapping", "logarithm_mapping"):
            loaded = sys.modules.get(f"opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.{module}")
            for each in vars(loaded).values() if loaded else ():
                if hasattr(each, "_mappings_lock"):
                    each._mappings_lock = threading.Lock()
        self._sdk_config.resource = resource
        consumer = self._measurement_consumer
        consumer._lock = threading.Lock()
        consumer._reader_storages = {
            reader: type(storage)(
                self._sdk_config, storage._instrument_class_temporality, storage._instrument_class_aggregation
            )
            for reader, storage in consumer._reader_storages.items()
        }


class PipelineReader(MetricReader):
    """Hands each collection and its number of data points to `put`; somebody else's clock calls `collect`."""

    def __init__(
        self,
        put: Callable[[MetricsData, int], None],
        temporality: Temporality = Temporality.CUMULATIVE,
        aggregation: HistogramAggregation = HistogramAggregation.EXPLICIT,
    ) -> None:
        super().__init__(
            preferred_temporality=_temporalities(temporality),
            preferred_aggregation=_AGGREGATIONS[aggregation],
        )
        self._put = put

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        count = data_points(metrics_data)
        if count:
            self._put(metrics_data, count)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is kept here."""


class ScrapeReader(MetricReader):
    """Reads when it is asked, cumulative and in explicit buckets, whatever is sent elsewhere."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=_temporalities(Temporality.CUMULATIVE))
        self._reading = threading.Lock()
        self._data: MetricsData | None = None

    def read(self, timeout_s: float) -> MetricsData | None:
        """Collect now, with a time limit in seconds; None where there is nothing. One caller at a time."""
        with self._reading:
            self._data = None
            self.collect(timeout_millis=1000 * timeout_s)
            data, self._data = self._data, None
            return data

    def begin_in_child(self) -> None:
        """In a forked child: a lock that nobody holds."""
        self._reading = threading.Lock()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._data = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is kept here."""


def attach_reader(provider: Any, reader: MetricReader) -> Callable[[], None] | None:
    """Let a reader read from a provider of the SDK's, ours or somebody else's.

    Returns what ends it; None where the provider can't be read.
    """
    try:
        provider.add_metric_reader(reader)
    except Exception:
        return None

    def detach() -> None:
        with suppress(Exception):
            provider.remove_metric_reader(reader)

    return detach


#: None is the SDK's default, explicit buckets with each instrument's own advice for their bounds.
_AGGREGATIONS: Final[dict[HistogramAggregation, dict[type, Aggregation] | None]] = {
    HistogramAggregation.EXPLICIT: None,
    HistogramAggregation.EXPONENTIAL: {Histogram: ExponentialBucketHistogramAggregation()},
}


def _temporalities(choice: Temporality) -> dict[type, AggregationTemporality]:
    """The preference's meaning for each kind of instrument (specification: OTLP metrics exporter)."""
    delta, cumulative = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
    synchronous = cumulative if choice is Temporality.CUMULATIVE else delta
    return {
        Counter: synchronous,
        Histogram: synchronous,
        ObservableCounter: delta if choice is Temporality.DELTA else cumulative,
        UpDownCounter: cumulative,
        ObservableUpDownCounter: cumulative,
        ObservableGauge: cumulative,
    }


def make_sampler(choice: Sampler, ratio: float) -> sampling.Sampler:
    """The SDK's sampler of a name."""
    root: sampling.Sampler
    if choice in (Sampler.RATIO, Sampler.PARENT_RATIO):
        root = sampling.TraceIdRatioBased(ratio)
    else:
        root = sampling.ALWAYS_OFF if choice.endswith("always_off") else sampling.ALWAYS_ON
    return sampling.ParentBased(root) if choice.startswith("parentbased") else root


def make_limits(limits: Limits) -> SpanLimits:
    """The SDK's limits, all given, so that it reads no variable itself."""

    def given(value: int | None) -> int:
        return SpanLimits.UNSET if value is None else value

    return SpanLimits(
        max_attributes=given(limits.span_attributes),
        max_events=given(limits.span_events),
        max_links=given(limits.span_links),
        max_span_attributes=given(limits.span_attributes),
        max_event_attributes=given(limits.event_attributes),
        max_link_attributes=given(limits.link_attributes),
        max_attribute_length=given(limits.attribute_length),
        max_span_attribute_length=given(limits.span_attribute_length),
    )


def remove_processor(provider: TracerProvider, processor: SpanProcessor) -> None:
    """Take a processor out of a provider again, which the SDK has no call for."""
    with suppress(AttributeError):
        active = provider._active_span_processor
        active._span_processors = tuple(each for each in active._span_processors if each is not processor)
