"""The questions that the store answers. Any process may ask, while others write and after they have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

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


class LogTail:
    """Follows what is written: each `poll` returns the records that came since the one before, oldest first."""

    def poll(self, limit: int = 500) -> list[LogRow]:
        """Return what is new, at most `limit`; what is left comes with the next call. Never waits."""
        raise NotImplementedError


class StoreReader:
    """Reads a store's folder (`data_dir / "store"`), which may not be there yet: then every answer is empty.

    Safe to call from any thread; each has read-only connections of its own. Nothing here raises for what the files
    hold: a file that can't be read is left out and named by `facts().problems`. Times that are not given mean
    everything that is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        """Close the connections of every thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def facts(self) -> StoreFacts:
        """What the folder holds."""
        raise NotImplementedError

    def overview(self, since_ns: int, until_ns: int, *, steps: int = 60) -> Overview:
        """What happened between two moments, in about `steps` steps of whole minutes (at least one)."""
        raise NotImplementedError

    # -- sessions and runs ------------------------------------------------------------------------------------------

    def sessions(self, *, since_ns: int | None = None, limit: int = 50, cursor: str = "") -> Page[SessionRow]:
        """Sessions, the one that ran last first."""
        raise NotImplementedError

    def session(self, session_id: str) -> SessionRow | None:
        """One session, None when it is not known."""
        raise NotImplementedError

    def session_runs(self, session_id: str, *, limit: int = 200, cursor: str = "") -> Page[RunRow]:
        """The runs of a session, newest first."""
        raise NotImplementedError

    def neighbours(self, run: RunRow) -> tuple[RunRow | None, RunRow | None]:
        """The previous and the next run of a run's session."""
        raise NotImplementedError

    def runs(self, filter_: RunFilter | None = None, *, limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Runs that a filter lets through, newest first."""
        raise NotImplementedError

    def pages(self) -> list[str]:
        """The names of all pages that ran, in order."""
        raise NotImplementedError

    # -- traces -----------------------------------------------------------------------------------------------------

    def trace(self, trace_id: str, *, limit: int = 10_000) -> Trace | None:
        """One trace by its full id, None when it is not known."""
        raise NotImplementedError

    def find_traces(self, prefix: str, *, limit: int = 20) -> list[RunRow]:
        """The roots of traces whose id begins with `prefix` (1 to 32 hexadecimal digits), newest first.

        A trace without a root (it still runs, or its root was not sampled here) has one made up of its first span.
        """
        raise NotImplementedError

    # -- logs -------------------------------------------------------------------------------------------------------

    def logs(
        self, query: LogQuery | None = None, *, limit: int = 100, cursor: str = "", newest_first: bool = True
    ) -> Page[LogRow]:
        """Log records, newest first or oldest first."""
        raise NotImplementedError

    def tail(self, query: LogQuery | None = None) -> LogTail:
        """Follow what is written from now on."""
        raise NotImplementedError

    # -- metrics ----------------------------------------------------------------------------------------------------

    def instruments(self) -> list[Instrument]:
        """Every instrument that was ever written, by name."""
        raise NotImplementedError

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
        raise NotImplementedError

    # -- statements -------------------------------------------------------------------------------------------------

    def statements(
        self, since_ns: int | None = None, until_ns: int | None = None, *, by: str = "total", limit: int = 50
    ) -> list[StatementRow]:
        """Statements, most first `by` total (time) | count | mean | max | errors. Times count in steps of ten minutes."""
        raise NotImplementedError

    def repeated(
        self, since_ns: int | None = None, until_ns: int | None = None, *, limit: int = 50
    ) -> list[RepeatedRow]:
        """Statements that single runs execute again and again (N+1), those that take most time first."""
        raise NotImplementedError

    def repeated_in(self, trace_id: str) -> list[RepeatedRow]:
        """The same of one run."""
        raise NotImplementedError

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
        raise NotImplementedError

    def memory(self, since_ns: int, until_ns: int, *, steps: int = 120) -> Memory:
        """Where memory went, and the largest sessions."""
        raise NotImplementedError
