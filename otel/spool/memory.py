"""Where rows wait while no disk takes them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from otel.ledger import Source
from otel.records import Signal
from otel.spool.rows import Row, Waiting


class MemorySegment:
    """Rows in memory, in the order of their ids; what is here counts as queued, not as spooled."""

    source: Source = "queued"

    def __init__(self) -> None:
        self._rows: dict[Signal, OrderedDict[int, Row]] = {signal: OrderedDict() for signal in Signal}
        self.waiting: Mapping[Signal, Waiting] = {signal: Waiting() for signal in Signal}

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        for row in rows:
            self._rows[row.signal][row.id] = row
            self.waiting[row.signal].add(row)

    def head(self, signal: Signal, after_id: int = 0) -> Row | None:
        """The oldest row of a signal with an id above `after_id`."""
        return next((row for row_id, row in self._rows[signal].items() if row_id > after_id), None)

    def remove(self, row: Row) -> None:
        """Take a row out."""
        gone = self._rows[row.signal].pop(row.id, None)
        if gone is not None:
            self.waiting[row.signal].add(gone, -1)

    def shrink(self, row: Row, left: Row) -> None:
        """Replace a row by what is left of it, in its place."""
        self.waiting[row.signal].add(row, -1)
        self._rows[row.signal][row.id] = left
        self.waiting[row.signal].add(left)

    def ages(self) -> Mapping[Signal, float]:
        """`created_s` of the oldest row of each signal that has one."""
        return {signal: next(iter(rows.values())).created_s for signal, rows in self._rows.items() if rows}

    def rows(self) -> list[Row]:
        """All rows, oldest first."""
        return sorted((row for rows in self._rows.values() for row in rows.values()), key=lambda row: row.id)
