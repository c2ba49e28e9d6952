"""The trace that the caller is in."""

from __future__ import annotations

from opentelemetry import trace


def current_trace_id() -> str | None:
    """The active trace's id as 32 hex digits, or None outside any span."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None
