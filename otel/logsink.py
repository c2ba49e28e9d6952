"""Where log records go besides their lines: one sink for the process, set by whoever ships telemetry."""

from __future__ import annotations

from otel.records import LogSink

_sink: LogSink | None = None

#: Loggers of the export path: their records would feed the queue that they complain about.
_EXPORT_PATH = ("opentelemetry", "otel.export", "otel.spool", "urllib3", "requests", "grpc")


def set_log_sink(sink: LogSink | None) -> None:
    """Hand every log record to `sink` from now on; None: records leave as lines alone."""
    global _sink  # noqa: PLW0603 - the one sink of the process
    _sink = sink


def current_log_sink() -> LogSink | None:
    """The sink that takes log records now, None where they leave as lines alone."""
    return _sink


def is_export_path(logger_name: str) -> bool:
    """Whether records of this logger are never exported (`opentelemetry…`, `otel.spool`, `urllib3`, …)."""
    return any(logger_name == name or logger_name.startswith((f"{name}.", f"{name}_")) for name in _EXPORT_PATH)
