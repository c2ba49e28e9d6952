"""The trace that the caller is in, and code that shall leave none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context


def current_trace_id() -> str | None:
    """The active trace's id as 32 hex digits, or None outside any span."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


def suppressed_context(context: Context | None = None) -> Context:
    """`context` (default: the current one) in which instrumentations make nothing."""
    return context_api.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True, context)


def is_suppressed() -> bool:
    """Whether the caller's code shall leave no telemetry (a health check's own work, the canary)."""
    return bool(context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY))


@contextmanager
def suppressed() -> Iterator[None]:
    """Let nothing that is done inside make spans or metrics."""
    token = context_api.attach(suppressed_context())
    try:
        yield
    finally:
        context_api.detach(token)
