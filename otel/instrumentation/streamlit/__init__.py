"""What Streamlit does, as facts and as telemetry: script runs, sessions, caches, memory.

`WATCHER` sees runs and sessions and works without OpenTelemetry's SDK (health and the drain need it);
`StreamlitInstrumentor` makes spans and metrics of what it sees. `seams.py` and `reading.py` alone touch Streamlit's
internals.
"""

from typing import TYPE_CHECKING, Any

from otel.instrumentation.streamlit.memory import MemorySample, MemorySampler, SessionMemory
from otel.instrumentation.streamlit.model import RunOutcome, RunTrigger, RunType, ScriptRun
from otel.instrumentation.streamlit.process import WATCHER
from otel.instrumentation.streamlit.reading import CacheStatistics, cache_statistics, in_script_thread
from otel.instrumentation.streamlit.seams import seams
from otel.instrumentation.streamlit.telemetry import STREAMLIT
from otel.instrumentation.streamlit.watcher import RunWatcher

if TYPE_CHECKING:
    from otel.instrumentation.streamlit.instrumentor import StreamlitInstrumentor

__all__ = [
    "STREAMLIT",
    "WATCHER",
    "CacheStatistics",
    "MemorySample",
    "MemorySampler",
    "RunOutcome",
    "RunTrigger",
    "RunType",
    "RunWatcher",
    "ScriptRun",
    "SessionMemory",
    "StreamlitInstrumentor",
    "cache_statistics",
    "in_script_thread",
    "seams",
]


def __getattr__(name: str) -> Any:
    """Import the instrumentor once somebody asks for it: its base class is dear."""
    if name != "StreamlitInstrumentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from otel.instrumentation.streamlit.instrumentor import StreamlitInstrumentor

    return StreamlitInstrumentor
