"""What Streamlit does, as facts and as telemetry: script runs, sessions, caches, memory.

`WATCHER` sees runs and sessions and works without OpenTelemetry's SDK (health and the drain need it);
`StreamlitInstrumentor` makes spans and metrics of what it sees. `seams.py` and `reading.py` alone touch Streamlit's
internals.
"""

from otel.instrumentation.streamlit.instrumentor import StreamlitInstrumentor
from otel.instrumentation.streamlit.memory import MemorySample, MemorySampler, SessionMemory
from otel.instrumentation.streamlit.model import RunOutcome, RunTrigger, RunType, ScriptRun
from otel.instrumentation.streamlit.process import WATCHER
from otel.instrumentation.streamlit.reading import CacheStatistics, cache_statistics, in_script_thread
from otel.instrumentation.streamlit.seams import seams
from otel.instrumentation.streamlit.watcher import RunWatcher

__all__ = [
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
