"""Who answers where back ends are configured: VictoriaLogs for logs, Jaeger for traces, else the embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel.store.model import LogQuery, LogRow, Page, RunFilter, RunRow, Trace
from streamlit_extension.remote.asking import RemoteError
from streamlit_extension.remote.jaeger import Jaeger
from streamlit_extension.remote.victorialogs import VictoriaLogs

if TYPE_CHECKING:
    from otel.store.source import Tail, TelemetrySource
    from streamlit_extension.settings import Settings


class RemoteSource:
    """A `TelemetrySource` of two halves.

    Arguments: who answers for logs and for traces, None where nobody does; the service that both are asked for.
    """

    def __init__(
        self, logs: VictoriaLogs | TelemetrySource | None, traces: Jaeger | TelemetrySource | None, service: str = ""
    ) -> None:
        self.service = service
        self._logs = logs
        self._traces = traces

    def logs(
        self, query: LogQuery | None = None, *, limit: int = 100, cursor: str = "", newest_first: bool = True
    ) -> Page[LogRow]:
        """Log records, page by page."""
        return self._of_logs().logs(query, limit=limit, cursor=cursor, newest_first=newest_first)

    def tail(self, query: LogQuery | None = None) -> Tail:
        """Follow what is written from now on."""
        return self._of_logs().tail(query)

    def runs(self, filter_: RunFilter | None = None, *, limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Runs, newest first."""
        return self._of_traces().runs(filter_, limit=limit, cursor=cursor)

    def find_traces(self, prefix: str, *, limit: int = 20) -> list[RunRow]:
        """The roots of traces whose id begins with `prefix`."""
        return self._of_traces().find_traces(prefix, limit=limit)

    def trace(self, trace_id: str, *, limit: int = 10_000) -> Trace | None:
        """One trace, None when it is not known."""
        return self._of_traces().trace(trace_id, limit=limit)

    def _of_logs(self) -> VictoriaLogs | TelemetrySource:
        if self._logs is None:
            raise RemoteError("no logs are kept here; query.victorialogs_url (STX_QUERY__VICTORIALOGS_URL) names where")
        return self._logs

    def _of_traces(self) -> Jaeger | TelemetrySource:
        if self._traces is None:
            raise RemoteError("no traces are kept here; query.jaeger_url (STX_QUERY__JAEGER_URL) names where")
        return self._traces


def remote_source(settings: Settings, embedded: TelemetrySource | None) -> RemoteSource | None:
    """Who answers by the settings of `[query]`; None where nothing is set there."""
    query = settings.query
    if query.jaeger_url is None and query.victorialogs_url is None:
        return None
    service = settings.service_name
    return RemoteSource(
        embedded if query.victorialogs_url is None else VictoriaLogs(query.victorialogs_url, service),
        embedded if query.jaeger_url is None else Jaeger(query.jaeger_url, service),
        service,
    )
