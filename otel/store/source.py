"""Who answers questions about logs and traces: the embedded store, or another back end that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from otel.store.model import LogQuery, LogRow, Page, RunFilter, RunRow, Trace


class Tail(Protocol):
    """Follows log records."""

    def poll(self, limit: int = 500, /) -> list[LogRow]:
        """Return what has come since the call before, oldest first; never waits."""


class TelemetrySource(Protocol):
    """What the commands ask. `StoreReader` is one; a collector's back end can be another.

    All arguments and answers are `otel.store.model`'s; what a back end can't filter by it filters itself.
    """

    def logs(
        self, query: LogQuery | None = None, *, limit: int = 100, cursor: str = "", newest_first: bool = True
    ) -> Page[LogRow]:
        """Log records, page by page."""

    def tail(self, query: LogQuery | None = None) -> Tail:
        """Follow what is written from now on."""

    def runs(self, filter_: RunFilter | None = None, *, limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Runs, newest first."""

    def find_traces(self, prefix: str, *, limit: int = 20) -> list[RunRow]:
        """The roots of traces whose id begins with `prefix`, newest first."""

    def trace(self, trace_id: str, *, limit: int = 10_000) -> Trace | None:
        """One trace, None when it is not known."""


def source_of(data_dir: Path) -> TelemetrySource | None:
    """Who answers for the application whose data folder this is; None where nothing is kept."""
    from otel.store import FOLDER
    from otel.store.reader import StoreReader

    folder = data_dir / FOLDER
    return StoreReader(folder) if folder.is_dir() else None
