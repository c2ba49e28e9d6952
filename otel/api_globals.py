"""OpenTelemetry's process-wide providers: who has set them, and setting them so that it can be undone.

The API lets each be set once and never again. A process that starts an application twice, and tests above all, need
them back as they were: that takes names of the API that begin with an underscore, all of them here. Where one is
missing, what was set stays set.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import _internal as logs_module
from opentelemetry.metrics import _internal as metrics_module
from opentelemetry.util._once import Once


class _Global(msgspec.Struct, frozen=True):
    """One process-wide provider: where it is kept and how it is set and read."""

    module: Any
    name: str
    proxy: type
    read: Callable[[], Any]
    set: Callable[[Any], None]

    def foreign(self) -> Any | None:
        """The provider that somebody has set, None for the API's own placeholder."""
        provider = self.read()
        return None if isinstance(provider, self.proxy) else provider

    def take(self, provider: Any) -> Callable[[], None]:
        """Set `provider`, whoever was set before; returns what puts that one back."""
        before = getattr(self.module, self.name, None)
        self._put(None)
        self.set(provider)

        def undo() -> None:
            if getattr(self.module, self.name, None) is provider:
                self._put(before)

        return undo

    def _put(self, provider: Any | None) -> None:
        with suppress(AttributeError):
            once = Once()
            if provider is not None:
                once.do_once(lambda: None)
            placeholder: Any = getattr(self.module, f"_PROXY{self.name}", None)
            if hasattr(placeholder, "_real_meter_provider"):
                # Meters that were made by the placeholder are bound to the next provider that is set.
                placeholder._real_meter_provider = provider
            setattr(self.module, self.name, provider)
            setattr(self.module, f"{self.name}_SET_ONCE", once)


TRACES = _Global(
    trace, "_TRACER_PROVIDER", trace.ProxyTracerProvider, trace.get_tracer_provider, trace.set_tracer_provider
)
METRICS = _Global(
    metrics_module,
    "_METER_PROVIDER",
    metrics_module._ProxyMeterProvider,
    metrics.get_meter_provider,
    metrics.set_meter_provider,
)
LOGS = _Global(
    logs_module,
    "_LOGGER_PROVIDER",
    logs_module.ProxyLoggerProvider,
    _logs.get_logger_provider,
    _logs.set_logger_provider,
)
