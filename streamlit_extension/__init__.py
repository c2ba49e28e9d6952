"""The observability layer for Streamlit applications in production."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otel.collection import no_collection

if TYPE_CHECKING:
    from otel.trace_context import current_trace_id
    from streamlit_extension.alerts.breaker import circuit_breaker
    from streamlit_extension.alerts.engine_breaker import protect_engine
    from streamlit_extension.app import create_app
    from streamlit_extension.badge import telemetry_badge
    from streamlit_extension.endpoints.health import HealthCheckEndpoint
    from streamlit_extension.health.checker import ComponentChecker
    from streamlit_extension.health.model import HealthResponse, HealthStatus
    from streamlit_extension.monitoring.track import track
    from streamlit_extension.utils.graceful_shutdown import GracefulShutdownHandler, ShutdownPhase
    from streamlit_extension.utils.monitoring import THRESHOLDS, AlertManager, MetricsCollector, SystemMonitor
    from streamlit_extension.utils.structured_logging import LogFormat, LogLevel, StructuredLogger

__version__ = "0.1.0"

#: Public name → module. Looked up at first use, so that importing this package inside a script costs nothing.
_HOMES = {
    "AlertManager": "streamlit_extension.utils.monitoring",
    "ComponentChecker": "streamlit_extension.health.checker",
    "GracefulShutdownHandler": "streamlit_extension.utils.graceful_shutdown",
    "HealthCheckEndpoint": "streamlit_extension.endpoints.health",
    "HealthResponse": "streamlit_extension.health.model",
    "HealthStatus": "streamlit_extension.health.model",
    "LogFormat": "streamlit_extension.utils.structured_logging",
    "LogLevel": "streamlit_extension.utils.structured_logging",
    "ShutdownPhase": "streamlit_extension.utils.graceful_shutdown",
    "MetricsCollector": "streamlit_extension.utils.monitoring",
    "StructuredLogger": "streamlit_extension.utils.structured_logging",
    "SystemMonitor": "streamlit_extension.utils.monitoring",
    "THRESHOLDS": "streamlit_extension.utils.monitoring",
    "circuit_breaker": "streamlit_extension.alerts.breaker",
    "create_app": "streamlit_extension.app",
    "current_trace_id": "otel.trace_context",
    "protect_engine": "streamlit_extension.alerts.engine_breaker",
    "telemetry_badge": "streamlit_extension.badge",
    "track": "streamlit_extension.monitoring.track",
}

__all__ = [
    "THRESHOLDS",
    "AlertManager",
    "ComponentChecker",
    "GracefulShutdownHandler",
    "HealthCheckEndpoint",
    "HealthResponse",
    "HealthStatus",
    "LogFormat",
    "LogLevel",
    "MetricsCollector",
    "ShutdownPhase",
    "StructuredLogger",
    "SystemMonitor",
    "circuit_breaker",
    "create_app",
    "current_trace_id",
    "protect_engine",
    "telemetry_badge",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with no_collection():
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
