"""What Jaeger's query API answers, as far as it is read; another shape is refused."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field


class Tag(Struct):
    """An attribute."""

    key: str
    value: Any = None


class Reference(Struct):
    """A parent or a link."""

    kind: str = field(name="refType", default="")
    trace_id: str = field(name="traceID", default="")
    span_id: str = field(name="spanID", default="")


class OneLog(Struct):
    """A span's event."""

    time_us: int = field(name="timestamp", default=0)
    fields: list[Tag] | None = None


class Process(Struct):
    """Who made spans."""

    service: str = field(name="serviceName", default="")
    tags: list[Tag] | None = None


class OneSpan(Struct):
    """A span."""

    trace_id: str = field(name="traceID")
    span_id: str = field(name="spanID")
    start_us: int = field(name="startTime")
    duration_us: int = field(name="duration", default=0)
    name: str = field(name="operationName", default="")
    process: str = field(name="processID", default="")
    references: list[Reference] | None = None
    tags: list[Tag] | None = None
    logs: list[OneLog] | None = None


class OneTrace(Struct):
    """A trace."""

    trace_id: str = field(name="traceID")
    spans: list[OneSpan]
    processes: dict[str, Process]


class Answer(Struct):
    """An answer: traces, or what is wrong."""

    data: list[OneTrace] | UnsetType | None = UNSET
    errors: list[Any] | None = None
