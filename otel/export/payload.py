"""Encoded OTLP requests, taken apart: counted, split, written as JSON. Protobuf is imported when one is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from otel.imports import IMPORTS
from otel.records import Signal

#: The fields that lead from a request to its records. Metrics have one level more, the kind of data.
_PATHS: Final = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
}
_REJECTED: Final = {
    Signal.TRACES: "rejected_spans",
    Signal.LOGS: "rejected_log_records",
    Signal.METRICS: "rejected_data_points",
}
_LOADED: Final[dict[Signal, tuple[Any, Any]]] = {}
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def _messages(signal: Signal) -> tuple[Any, Any]:
    """The request and the response of a signal's service."""
    found = _LOADED.get(signal)
    if found is None:
        with IMPORTS:  # no fork in the middle of it
            found = _LOADED[signal] = _import(signal)
    return found


def _import(signal: Signal) -> tuple[Any, Any]:
    if signal is Signal.TRACES:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        return traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse
    if signal is Signal.LOGS:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

        return logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

    return metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse


def rejected(signal: Signal, response: bytes) -> int:
    """How many records a response says were not taken; 0 for one that can't be read: its status said success."""
    if not response:
        return 0
    response_type = _messages(signal)[1]
    from google.protobuf.message import DecodeError

    try:
        partial = response_type.FromString(response).partial_success
    except DecodeError:
        return 0
    return int(getattr(partial, _REJECTED[signal]))


def carve(signal: Signal, payload: bytes, most: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Cut a request in two: the first `most` records, and the rest; each with its number of records.

    Resources and scopes are repeated in both where they have records in both. Order is kept.
    """
    request = _messages(signal)[0]
    halves = request(), request()
    counts = [0, 0]
    made: dict[tuple[int, ...], Any] = {}
    for place, parents, record in _records(signal, request.FromString(payload)):
        which = 0 if counts[0] < most else 1
        counts[which] += 1
        _put(signal, halves[which], made, (which, *place), parents, record)
    return (halves[0].SerializeToString(), counts[0]), (halves[1].SerializeToString(), counts[1])


def _records(signal: Signal, request: Any) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...], Any]]:
    """Each record with the numbers and the messages of the resource, the scope and the metric that it belongs to."""
    outer, inner, leaf = _PATHS[signal]
    for i, resource in enumerate(getattr(request, outer)):
        for j, scope in enumerate(getattr(resource, inner)):
            for k, record in enumerate(getattr(scope, leaf)):
                if signal is not Signal.METRICS:
                    yield (i, j), (resource, scope), record
                    continue
                kind = record.WhichOneof("data")
                for point in getattr(record, kind).data_points if kind else ():
                    yield (i, j, k), (resource, scope, record), point


def _put(
    signal: Signal,
    target: Any,
    made: dict[tuple[int, ...], Any],
    place: tuple[int, ...],
    parents: tuple[Any, ...],
    record: Any,
) -> None:
    """Add a record to `target`, below copies of its parents that hold nothing but what was added."""
    children = getattr(target, _PATHS[signal][0])
    for depth, parent in enumerate(parents, 1):
        holder, field = _children(signal, depth, parent)
        key = place[: depth + 1]
        if key not in made:
            copy = made[key] = children.add()
            copy.CopyFrom(parent)
            _children(signal, depth, copy)[0].ClearField(field)
            if holder is not parent:
                _children(signal, depth, copy)[0].SetInParent()
        children = getattr(_children(signal, depth, made[key])[0], field)
    children.add().CopyFrom(record)


def _children(signal: Signal, depth: int, parent: Any) -> tuple[Any, str]:
    """The message, in a parent at a depth, that has the children, and the name of their field."""
    if depth < len(_PATHS[signal]):
        return parent, _PATHS[signal][depth]
    return getattr(parent, parent.WhichOneof("data")), "data_points"


def json_line(signal: Signal, payload: bytes) -> str:
    """A request as one line of OTLP JSON.

    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids in hexadecimal, enumerations as numbers.
    """
    from google.protobuf import json_format

    request = _messages(signal)[0].FromString(payload)
    tree = json_format.MessageToDict(request, use_integers_for_enums=True)
    _ids_to_hex(tree)
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False)


def _ids_to_hex(node: Any) -> None:
    if isinstance(node, list):
        for each in node:
            _ids_to_hex(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS and isinstance(value, str):
                node[key] = base64.b64decode(value).hex()
            else:
                _ids_to_hex(value)
