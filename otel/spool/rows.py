"""What lies in a spool: rows, each one encoded request with the number of its records."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from otel.ledger import Source
from otel.records import Batch, Signal

#: What a row costs beside its payload, in bytes: SQLite's own, rounded up.
ROW_BYTES = 96


class Row(msgspec.Struct, frozen=True):
    """One batch on its way out.

    `id` grows in the order of committing, over all signals. `count` is the number of records in `payload`, `created_s`
    the wall time of committing, in seconds since the Unix epoch.
    """

    id: int
    signal: Signal
    count: int
    created_s: float
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """What it counts against the cap."""
        return len(self.payload) + ROW_BYTES

    @property
    def checksum(self) -> int:
        """Over everything that is sent or counted: SQLite has none of its own for what is checkpointed."""
        return zlib.crc32(self.payload, zlib.crc32(f"{self.id} {self.signal} {self.count}".encode()))

    def without(self, payload: bytes, count: int) -> Row:
        """The same row when only `payload` with `count` records is left of it."""
        return replace(self, payload=payload, count=count)


def row_of(batch: Batch, row_id: int, now_s: float) -> Row:
    """A row for a batch."""
    return Row(row_id, batch.signal, batch.count, now_s, batch.payload)


class Waiting(msgspec.Struct):
    """How much of one signal waits: records, rows, bytes against the cap."""

    records: int = 0
    rows: int = 0
    size_bytes: int = 0

    def add(self, row: Row, sign: int = 1) -> None:
        """Count one row in, or out with `sign` -1."""
        self.records += sign * row.count
        self.rows += sign
        self.size_bytes += sign * row.size_bytes


class DamagedRow(Exception):
    """A row was read, but not as it was written. `records` is what it says it holds."""

    def __init__(self, row: Row) -> None:
        super().__init__("the checksum does not match")
        self.row = row


class Segment(Protocol):
    """A piece of the spool: a file, or memory where there is none. All calls are made inside the gate."""

    source: Source
    waiting: Mapping[Signal, Waiting]

    def append(self, rows: Sequence[Row], /) -> None:
        """Add rows with higher ids than any before, all or none."""

    def head(self, signal: Signal, after_id: int = 0, /) -> Row | None:
        """The oldest row of a signal with an id above `after_id`."""

    def remove(self, row: Row, /) -> None:
        """Take a row out; afterwards it is never returned again, whatever the disk says."""

    def shrink(self, row: Row, left: Row, /) -> None:
        """Replace a row by what is left of it."""

    def ages(self) -> Mapping[Signal, float]:
        """`created_s` of the oldest row of each signal that has one."""


class Held(msgspec.Struct, frozen=True):
    """A row that is being sent, and where it lies."""

    segment: Segment
    row: Row


def chunks(rows: Sequence[Row], size_bytes: int) -> Iterator[list[Row]]:
    """Rows in lists of about `size_bytes`."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += row.size_bytes
        if size >= size_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
