"""A trace as an OTLP JSON request (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel.store.model import SpanRow, Trace

_KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_STATUS: Final = {"unset": 0, "ok": 1, "error": 2}


def export(trace: Trace) -> bytes:
    """Write `ExportTraceServiceRequest`: spans by resource, then by scope."""
    groups: dict[int, dict[str, list[Any]]] = {}
    for span in trace.spans:
        groups.setdefault(span.resource, {}).setdefault(span.scope, []).append(_span(span))
    request = {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(trace.resources.get(number, {}))},
                "scopeSpans": [{"scope": {"name": name}, "spans": spans} for name, spans in scopes.items()],
            }
            for number, scopes in groups.items()
        ]
    }
    return msgspec.json.format(msgspec.json.encode(request), indent=1)


def _span(span: SpanRow) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _KINDS.get(span.kind, 0),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": each.name, "timeUnixNano": str(each.time_ns), "attributes": _attributes(each.attributes)}
            for each in span.events
        ],
        "links": [
            {"traceId": each.trace_id, "spanId": each.span_id, "attributes": _attributes(each.attributes)}
            for each in span.links
        ],
        "status": {"code": _STATUS.get(span.status, 0), **({"message": span.status_text} if span.status_text else {})},
    }
    if span.parent_id:
        made["parentSpanId"] = span.parent_id
    return made


def _attributes(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": str(name), "value": _value(value)} for name, value in given.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if abs(value) < float("inf") else str(value)}  # NaN compares as neither
    if isinstance(value, bytes):
        return {"bytesValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {} if value is None else {"stringValue": str(value)}
