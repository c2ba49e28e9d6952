"""Requests that somebody else traces too: their span is the request's, and a second one would count it twice.

The contributed instrumentations of ASGI, Starlette and FastAPI stand around us or inside of us; FastAPI of 0.165 and
newer, when it is around us, and middleware of the application's own, are told by the span that is current.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.trace import Span, SpanKind

#: Scopes of instrumentations that measure the duration of requests, too.
_MEASURING = ("opentelemetry.instrumentation.", "fastapi")
_MIDDLEWARE = "opentelemetry.instrumentation.asgi"
_STREAMLITS_OWN = "/_stcore/"
#: Applications in applications that are looked into.
_MAX_DEPTH = 10


def span_around() -> Span | None:
    """The span that somebody around us has made for this request, or None."""
    span = trace.get_current_span()
    context = span.get_span_context()
    if not context.is_valid or context.is_remote or getattr(span, "kind", SpanKind.SERVER) is not SpanKind.SERVER:
        return None
    return span


def measures(span: Span) -> bool:
    """Whether who has made `span` measures the request's duration too; of one that was not sampled it is assumed."""
    scope = getattr(span, "instrumentation_scope", None)
    return scope is None or scope.name.startswith(_MEASURING)


def is_traced_inside(app: Any) -> bool:
    """Whether an instrumentation inside of `app` makes spans and metrics of its requests."""
    for _ in range(_MAX_DEPTH):
        if type(app).__module__ == _MIDDLEWARE or getattr(app, "_is_instrumented_by_opentelemetry", False) is True:
            return True
        inner = getattr(app, "app", None) or getattr(app, "_starlette_app", None)
        if inner is None:
            return False
        app = inner
    return False


def streamlits_own(scope: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside it, an instrumentation within us makes nothing of what Streamlit's browsers ask: frames, above all."""
    return suppress_http_instrumentation() if _STREAMLITS_OWN in str(scope.get("path", "")) else nullcontext()
