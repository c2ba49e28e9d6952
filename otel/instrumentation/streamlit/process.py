"""The one watcher of this process."""

from otel.instrumentation.streamlit.watcher import RunWatcher

WATCHER = RunWatcher()
