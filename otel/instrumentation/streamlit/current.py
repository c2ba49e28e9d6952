"""The run that the caller is in, and how many statements it has executed so far, for those who ask."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from opentelemetry import trace

_SYSTEM: Final = "db.system.name"
#: Traces whose statements are counted at the same time.
MAX_TRACES: Final = 1024


class RunNow(NamedTuple):
    """A run under way: its trace (32 hex digits), the seconds since it began, and its statements so far."""

    trace_id: str
    duration_s: float
    queries: int


class QueryCounter:
    """A span processor that counts finished statements by trace; the SDK calls it on the thread that ends a span."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing."""

    def _on_ending(self, span: Any) -> None:
        """Nothing."""

    def on_end(self, span: Any) -> None:
        """Count a statement, and forget a trace whose run has ended."""
        trace_id = span.context.trace_id
        if _SYSTEM in (span.attributes or ()):
            counts = self._counts
            counts[trace_id] = counts.get(trace_id, 0) + 1
            if len(counts) > MAX_TRACES:
                counts.popitem(last=False)
        elif span.parent is None:
            self._counts.pop(trace_id, None)

    def shutdown(self) -> None:
        """Forget all."""
        self._counts.clear()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    def of(self, trace_id: int) -> int:
        """How many statements of a trace have ended."""
        return self._counts.get(trace_id, 0)


_counter: tuple[Any, QueryCounter] | None = None


def count_queries() -> QueryCounter | None:
    """Count statements from now on; None where no provider of ours or the SDK's is in place."""
    global _counter  # noqa: PLW0603 - one counter for the process's provider
    provider = trace.get_tracer_provider()
    if _counter is not None and _counter[0] is provider:
        return _counter[1]
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        return None
    counter = QueryCounter()
    add(counter)
    _counter = provider, counter
    return counter


def current_run() -> RunNow | None:
    """The run that the caller is in, None outside of any or where runs leave no trace. Imports nothing new."""
    watcher = sys.modules.get("otel.instrumentation.streamlit.watcher")
    if watcher is None:
        return None
    run = watcher._current.get()
    trace_id = getattr(run.handle, "trace_id", None) if run is not None and not run.ended else None
    if run is None or trace_id is None:
        return None
    counter = count_queries()
    queries = 0 if counter is None else counter.of(int(trace_id, 16))
    return RunNow(trace_id, time.perf_counter() - run.started_s, queries)
