"""The only place that builds SDK providers, processors and exporters."""

from __future__ import annotations

from opentelemetry import trace


def install_tracer_provider(service_name: str, service_version: str, *, disabled: bool = False) -> None:
    """Make spans real, so that a health transition has a trace id; a provider that is already there is respected.

    Arguments:
        service_name, service_version: of the resource.
        disabled: the meaning of `OTEL_SDK_DISABLED`.
    """
    if disabled or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource({"service.name": service_name, "service.version": service_version})
    trace.set_tracer_provider(TracerProvider(resource=resource, shutdown_on_exit=False))
