"""The questions that the store answers. Any process may ask, while others write and after they have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from otel.names import Metric
from otel.store import logs, overview, runs, series, spans, statements
from otel.store.history import facts, largest_sessions, transitions
from otel.store.logs import LogTail
from otel.store.model import (
    Instrument,
    LogQuery,
    LogRow,
    Memory,
    Overview,
    Page,
    RepeatedRow,
    RunFilter,
    RunRow,
    Series,
    SessionRow,
    StatementRow,
    StoreFacts,
    Trace,
    Transition,
)
from otel.store.shards import Shards

__all__ = ["HOLDERS", "LogTail", "StoreReader"]


#: Holder of memory → the metric that tells it.
HOLDERS: Final = {
    "session_state": Metric.MEMORY_SESSION_STATE,
    "cache": Metric.MEMORY_CACHE,
    "uploads": Metric.MEMORY_UPLOADS,
    "media": Metric.MEMORY_MEDIA,
    "process": Metric.PROCESS_MEMORY_USAGE,
}


class StoreReader:
    """Reads a store's folder (`data_dir / "store"`), which may not be there yet: then every answer is empty.

    Safe to call from any thread; each has read-only connections of its own. Nothing here raises for what the files
    hold: a file that can't be read is left out and named by `facts().problems`. Times that are not given mean
    everything that is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._shards = Shards(folder)

    def close(self) -> None:
        """Close the connections of every thread."""
        self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def facts(self) -> StoreFacts:
        """What the folder holds."""
        return facts(self._shards)

    def overview(self, since_ns: int, until_ns: int, *, steps: int = 60) -> Overview:
        """What happened between two moments, in about `steps` steps of whole minutes (at least one)."""
        return overview.overview(self._shards, since_ns, until_ns, steps)

    # -- sessions and runs ------------------------------------------------------------------------------------------

    def sessions(self, *, since_ns: int | None = None, limit: int = 50, cursor: str = "") -> Page[SessionRow]:
        """Sessions, the one that ran last first."""
        return runs.sessions(self._shards, since_ns, limit, cursor)

    def session(self, session_id: str) -> SessionRow | None:
        """One session, None when it is not known."""
        return runs.session(self._shards, session_id)

    def session_runs(self, session_id: str, *, limit: int = 200, cursor: str = "") -> Page[RunRow]:
        """The runs of a session, newest first."""
        return self.runs(RunFilter(session_id=session_id), limit=limit, cursor=cursor)

    def neighbours(self, run: RunRow) -> tuple[RunRow | None, RunRow | None]:
        """The previous and the next run of a run's session."""
        return runs.neighbours(self._shards, run)

    def runs(self, filter_: RunFilter | None = None, *, limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Runs that a filter lets through, newest first."""
        return runs.search(self._shards, filter_ or RunFilter(), limit, cursor)

    def pages(self) -> list[str]:
        """The names of all pages that ran, in order."""
        return runs.pages(self._shards)

    # -- traces -----------------------------------------------------------------------------------------------------

    def trace(self, trace_id: str, *, limit: int = 10_000) -> Trace | None:
        """One trace by its full id, None when it is not known."""
        return spans.trace(self._shards, trace_id, limit)

    def find_traces(self, prefix: str, *, limit: int = 20) -> list[RunRow]:
        """The roots of traces whose id begins with `prefix` (1 to 32 hexadecimal digits), newest first.

        A trace without a root (it still runs, or its root was not sampled here) has one made up of its first span.
        """
        return runs.find(self._shards, prefix, limit)

    # -- logs -------------------------------------------------------------------------------------------------------

    def logs(
        self, query: LogQuery | None = None, *, limit: int = 100, cursor: str = "", newest_first: bool = True
    ) -> Page[LogRow]:
        """Log records, newest first or oldest first."""
        return logs.search(self._shards, query or LogQuery(), limit, cursor, newest_first)

    def tail(self, query: LogQuery | None = None) -> LogTail:
        """Follow what is written from now on."""
        return LogTail(self._shards, query or LogQuery())

    # -- metrics ----------------------------------------------------------------------------------------------------

    def instruments(self) -> list[Instrument]:
        """Every instrument that was ever written, by name."""
        return series.instruments(self._shards)

    def series(
        self,
        name: str,
        since_ns: int,
        until_ns: int,
        *,
        attributes: Mapping[str, str] | None = None,
        steps: int = 120,
        limit: int = 50,
    ) -> list[Series]:
        """The series of an instrument that have these attributes, in about `steps` steps; those with most come first.

        Several processes' series of the same attributes are added up; of gauges the mean is taken.
        """
        return series.series(self._shards, name, since_ns, until_ns, attributes, steps, limit)

    # -- statements -------------------------------------------------------------------------------------------------

    def statements(
        self, since_ns: int | None = None, until_ns: int | None = None, *, by: str = "total", limit: int = 50
    ) -> list[StatementRow]:
        """Statements, those with most first, `by` total (time) | count | mean | max | errors.

        Times count in steps of ten minutes.
        """
        return statements.statements(self._shards, since_ns, until_ns, by, limit)

    def repeated(
        self, since_ns: int | None = None, until_ns: int | None = None, *, limit: int = 50
    ) -> list[RepeatedRow]:
        """Statements that single runs execute again and again (N+1), those that take most time first."""
        return statements.repeated(self._shards, since_ns, until_ns, limit)

    def repeated_in(self, trace_id: str) -> list[RepeatedRow]:
        """The same of one run."""
        return statements.repeated_in(self._shards, trace_id)

    # -- health, alerts, memory -------------------------------------------------------------------------------------

    def transitions(
        self,
        kinds: Sequence[str] = (),
        *,
        name: str = "",
        since_ns: int | None = None,
        limit: int = 100,
        cursor: str = "",
    ) -> Page[Transition]:
        """Changes of health, alerts and maintenance, newest first."""
        return transitions(self._shards, kinds, name, since_ns, limit, cursor)

    def memory(self, since_ns: int, until_ns: int, *, steps: int = 120) -> Memory:
        """Where memory went, and the largest sessions."""
        found = {}
        for holder, metric in HOLDERS.items():
            one = self.series(metric, since_ns, until_ns, steps=steps, limit=1)
            if one:
                found[holder] = one[0]
        return Memory(found, largest_sessions(self._shards))
