"""From finished records to OTLP requests, on the worker's thread: redacted first, then by the official encoders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry._logs import SeverityNumber

from otel.cleaning import clean_metrics, clean_span
from otel.imports import IMPORTS
from otel.quiet import OncePerMinute
from otel.records import Batch, LogFact, Signal

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

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
            try:
                from otel.span_encoding import encode_spans
            except (ImportError, AttributeError):  # an encoder that has moved its parts is used as it is
                from opentelemetry.exporter.otlp.proto.common import trace_encoder

                return trace_encoder.encode_spans
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


def _as_it_is(fact: LogFact) -> LogFact:
    """A log fact was redacted by whoever made it."""
    return fact


_REDACT: Final[dict[Signal, Callable[[Any], Any]]] = {
    Signal.TRACES: clean_span,
    Signal.METRICS: clean_metrics,
    Signal.LOGS: _as_it_is,
}
