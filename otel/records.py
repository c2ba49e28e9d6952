"""What telemetry is made of before anybody encodes it: facts, and batches of them on their way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec


class Signal(StrEnum):
    """Kind of telemetry (`telemetry.signal`)."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


class DropReason(StrEnum):
    """Why a record was given up (`telemetry.reason`)."""

    MEMORY = "memory"  # the queue in memory was full
    SIZE = "size"  # the spool's size cap, oldest first
    AGE = "age"  # the spool's age cap
    REFUSED = "refused"  # the receiver will never take it (a permanent status)
    PARTIAL = "partial"  # the receiver took the rest of its batch (partial success)
    DISK = "disk"  # it could not be written
    DAMAGED = "damaged"  # it could not be read again
    ENCODING = "encoding"  # it could not be encoded
    SHUTDOWN = "shutdown"  # it was made after the last commit


class LogFact(msgspec.Struct, gc=False):
    """One log record, redacted by whoever made it; nobody changes it afterwards.

    A struct, because making one is a tenth of a log call for a dataclass and a thirtieth for this; it holds plain data,
    in which there are no cycles for the garbage collector to look for.

    `timestamp_ns` counts from the Unix epoch. `severity_number` is the log data model's (1 to 24), `severity_text` the
    level's name. Ids are 0 outside any span. `scope` is the logger's name. `size_bytes` is about what the record holds
    in memory, where its maker knows; 0 has it measured.
    """

    timestamp_ns: int
    severity_number: int
    severity_text: str
    body: str
    attributes: Mapping[str, Any]
    event_name: str | None
    trace_id: int
    span_id: int
    trace_flags: int
    scope: str
    size_bytes: int = 0


class LogSink(Protocol):
    """Takes log records on the caller's thread; only appends, never blocks, never raises."""

    def __call__(self, fact: LogFact, /) -> None:
        """Take one record."""


class Batch(msgspec.Struct):
    """Records of one signal on their way out.

    `records` are the SDK's finished spans, `LogFact`s, or the SDK's metric data, all redacted. `payload` is the
    serialized OTLP request (`Export…ServiceRequest`) that holds them, with their resource. `count` is the number of
    records (spans, log records, metric data points).
    """

    signal: Signal
    records: Sequence[Any]
    payload: bytes
    count: int


class Destination(Protocol):
    """Where the pipeline's worker puts batches: the spool, the embedded store, or a test's list."""

    def commit(self, batches: Sequence[Batch], /) -> None:
        """Return once `batches` are safe; called on the worker's thread alone.

        What it could not take it has counted itself; it never raises for a single batch's sake.
        """
