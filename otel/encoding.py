"""From finished records to OTLP requests, on the worker's thread: redacted first, then by the official encoders."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry._logs import SeverityNumber
from opentelemetry.attributes import BoundedAttributes

from otel.guard import redact_text, redact_value
from otel.imports import IMPORTS
from otel.quiet import OncePerMinute
from otel.records import Batch, LogFact, Signal

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, Status

#: Loggers of the encoders: each attribute that they can't encode is a line of theirs.
_ENCODERS: Final = (
    "opentelemetry.exporter.otlp.proto.common._internal",
    "opentelemetry.exporter.otlp.proto.common._internal.metrics_encoder",
)


class OtlpEncoder:
    """Turns spans, `LogFact`s and metric data into OTLP requests, redacted.

    Arguments:
        resource: of log records; spans and metrics carry their provider's.
        log_attribute_length, log_attributes: bounds of one log record, None for none.
        encoded: signals whose batches get their request; those of others are only redacted.

    A record that can't be encoded is left out alone. The encoders are imported with the first record.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        log_attribute_length: int | None = None,
        log_attributes: int | None = 128,
        encoded: frozenset[Signal] = frozenset(Signal),
    ) -> None:
        self.resource = resource
        self._log_length = log_attribute_length
        self._log_count = log_attributes
        self._encoded = encoded
        self._encoders: dict[Signal, Callable[[Sequence[Any]], Any]] = {}

    def __call__(self, signal: Signal, records: Sequence[Any]) -> tuple[list[Batch], int]:
        """The batches of `records`, and how many records could not be encoded."""
        clean: list[Any] = []
        bad = 0
        redact = _REDACT[signal]
        for record in records:
            try:
                clean.append(redact(record))
            except Exception:
                bad += _count(signal, record)
        try:
            return [self._batch(signal, clean)] if clean else [], bad
        except Exception:  # one of them: find out which
            batches = []
            for record in clean:
                try:
                    batches.append(self._batch(signal, [record]))
                except Exception:
                    bad += _count(signal, record)
            return _merged(signal, batches), bad

    def _batch(self, signal: Signal, records: list[Any]) -> Batch:
        payload = self._encoder(signal)(records).SerializeToString() if signal in self._encoded else b""
        return Batch(signal, records, payload, sum(_count(signal, each) for each in records))

    def _encoder(self, signal: Signal) -> Callable[[Sequence[Any]], Any]:
        found = self._encoders.get(signal)
        if found is None:
            with IMPORTS:
                found = self._encoders[signal] = self._import(signal)
        return found

    def _import(self, signal: Signal) -> Callable[[Sequence[Any]], Any]:
        for name in _ENCODERS:
            logger = logging.getLogger(name)
            if not any(isinstance(each, OncePerMinute) for each in logger.filters):
                logger.addFilter(OncePerMinute())
        if signal is Signal.TRACES:
            from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

            return encode_spans
        if signal is Signal.METRICS:
            from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

            return lambda records: encode_metrics(records[0])
        from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

        return lambda facts: encode_logs([self._readable(fact) for fact in facts])

    def _readable(self, fact: LogFact) -> Any:
        attributes: Mapping[str, Any] = fact.attributes
        dropped = 0
        if self._log_count is not None and len(attributes) > self._log_count:
            dropped = len(attributes) - self._log_count
            attributes = dict(islice(attributes.items(), self._log_count))
        if self._log_length is not None:
            limit = self._log_length
            attributes = {k: v[:limit] if isinstance(v, str) else v for k, v in attributes.items()}
        return _ReadableLog(_LogRecord(fact, attributes), self.resource, _Scope(fact.scope), dropped)


class _Scope(NamedTuple):
    """What the log encoder reads of an instrumentation scope."""

    name: str
    version: str | None = None
    schema_url: str | None = None
    attributes: None = None


class _ReadableLog(NamedTuple):
    """What the log encoder reads of the SDK's `ReadableLogRecord`."""

    log_record: _LogRecord
    resource: Resource
    instrumentation_scope: _Scope
    dropped_attributes: int


class _LogRecord:
    """What the log encoder reads of the API's `LogRecord`, out of a fact."""

    __slots__ = (
        "attributes",
        "body",
        "event_name",
        "observed_timestamp",
        "severity_number",
        "severity_text",
        "span_id",
        "timestamp",
        "trace_flags",
        "trace_id",
    )

    def __init__(self, fact: LogFact, attributes: Mapping[str, Any]) -> None:
        self.timestamp = self.observed_timestamp = fact.timestamp_ns
        self.severity_number = SeverityNumber(fact.severity_number)
        self.severity_text = fact.severity_text
        self.body = fact.body
        self.attributes = attributes
        self.event_name = fact.event_name
        self.trace_id = fact.trace_id
        self.span_id = fact.span_id
        self.trace_flags = fact.trace_flags


def _count(signal: Signal, record: Any) -> int:
    return data_points(record) if signal is Signal.METRICS else 1


def data_points(data: MetricsData) -> int:
    """The number of data points in one collection."""
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def _merged(signal: Signal, batches: list[Batch]) -> list[Batch]:
    """One batch out of many: requests of protobuf messages may be put one behind the other."""
    if signal is Signal.METRICS or len(batches) < 2:
        return batches
    records = [record for batch in batches for record in batch.records]
    return [Batch(signal, records, b"".join(batch.payload for batch in batches), len(records))]


# Redaction: each of these gives its argument back where nothing had to be replaced: then nothing is copied.


def clean_attributes(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Attributes as they may leave; the same object where nothing had to be replaced."""
    if not attributes:
        return attributes
    changed = {}
    plain: Mapping[str, Any] = getattr(attributes, "_dict", attributes)  # ended: nobody writes to it any more
    for key, value in plain.items():
        clean = _clean_value(key, value)
        if clean is not value:
            changed[key] = clean
    if not changed:
        return attributes
    result = BoundedAttributes(attributes={**attributes, **changed}, immutable=True)
    result.dropped = getattr(attributes, "dropped", 0)
    return result


def _clean_value(key: str, value: Any) -> Any:
    clean = redact_value(key, value)
    if isinstance(clean, str):
        clean = _encodable(clean)
        return value if clean == value else clean
    if isinstance(value, tuple):  # the guard makes lists
        clean = tuple(_encodable(each) if isinstance(each, str) else each for each in clean)
        return value if clean == value else clean
    return clean


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 (and so protobuf) has no form for."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _clean_text(text: str) -> str:
    return _encodable(redact_text(text))


def clean_span(span: ReadableSpan) -> ReadableSpan:
    """A span as it may leave."""
    attributes = clean_attributes(span._attributes)
    events = _clean_each(span.events, _clean_event)
    links = _clean_each(span.links, _clean_link)
    status = _clean_status(span.status)
    name = _clean_text(span.name)
    if (
        attributes is span._attributes
        and events is None
        and links is None
        and status is span.status
        and name == span.name
    ):
        return span
    from opentelemetry.sdk.trace import ReadableSpan

    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=span._events if events is None else events,
        links=span._links if links is None else links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _clean_each(items: Sequence[Any], clean: Callable[[Any], Any]) -> list[Any] | None:
    """The cleaned items, None where none had to be changed."""
    if not items:
        return None
    found = [clean(each) for each in items]
    return None if all(new is old for new, old in zip(found, items, strict=True)) else found


def _clean_event(event: Event) -> Event:
    attributes = clean_attributes(event.attributes)
    name = _clean_text(event.name)
    if attributes is event.attributes and name == event.name:
        return event
    from opentelemetry.sdk.trace import Event

    return Event(name, attributes, event.timestamp)


def _clean_link(link: Link) -> Link:
    attributes = clean_attributes(link.attributes)
    if attributes is link.attributes:
        return link
    from opentelemetry.trace import Link

    return Link(link.context, attributes)


def _clean_status(status: Status) -> Status:
    description = status.description
    if not description or (clean := _clean_text(description)) == description:
        return status
    from opentelemetry.trace import Status

    return Status(status.status_code, clean)


def clean_metrics(data: MetricsData) -> MetricsData:
    """Metrics as they may leave; attribute values are looked at, exemplars' too."""
    resources = _clean_each(data.resource_metrics, _clean_resource_metrics)
    return data if resources is None else dataclasses.replace(data, resource_metrics=resources)


def _clean_resource_metrics(each: Any) -> Any:
    scopes = _clean_each(each.scope_metrics, _clean_scope_metrics)
    return each if scopes is None else dataclasses.replace(each, scope_metrics=scopes)


def _clean_scope_metrics(each: Any) -> Any:
    metrics = _clean_each(each.metrics, _clean_metric)
    return each if metrics is None else dataclasses.replace(each, metrics=metrics)


def _clean_metric(metric: Any) -> Any:
    points = _clean_each(metric.data.data_points, _clean_point)
    if points is None:
        return metric
    return dataclasses.replace(metric, data=dataclasses.replace(metric.data, data_points=points))


def _clean_point(point: Any) -> Any:
    attributes = clean_attributes(point.attributes)
    exemplars = _clean_each(getattr(point, "exemplars", ()), _clean_exemplar)
    if attributes is point.attributes and exemplars is None:
        return point
    return dataclasses.replace(
        point, attributes=attributes, exemplars=point.exemplars if exemplars is None else exemplars
    )


def _clean_exemplar(exemplar: Any) -> Any:
    attributes = clean_attributes(exemplar.filtered_attributes)
    unchanged = attributes is exemplar.filtered_attributes
    return exemplar if unchanged else dataclasses.replace(exemplar, filtered_attributes=attributes)


def _as_it_is(fact: LogFact) -> LogFact:
    """A log fact was redacted by whoever made it."""
    return fact


_REDACT: Final[dict[Signal, Callable[[Any], Any]]] = {
    Signal.TRACES: clean_span,
    Signal.METRICS: clean_metrics,
    Signal.LOGS: _as_it_is,
}
