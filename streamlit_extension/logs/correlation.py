"""Which trace and span a record belongs to; outside any span, a correlation of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import msgspec
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, get_current

#: The key under which a context holds its span: the one of a context that holds nothing else.
_SPAN_KEY: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))


class Ids(msgspec.Struct, frozen=True):
    """The ids of a record, as numbers and as they are written (32 and 16 hex digits)."""

    trace_id: int
    span_id: int
    flags: int
    trace: str
    span: str
    json: str


NO_IDS: Final = Ids(0, 0, 0, "", "", "")

_own: ContextVar[Ids | None] = ContextVar("stx_correlation", default=None)
# Not the module's generator: a script that seeds it for its figures would get the same ids in every run.
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
#: The context that was asked for last, with the answer; a run's records come one after another in the same.
_last: tuple[Context | None, tuple[Ids | None, bool]] = (None, (None, False))


def _ids(trace_id: int, span_id: int, flags: int) -> Ids:
    written, span = f"{trace_id:032x}", f"{span_id:016x}"
    return Ids(trace_id, span_id, flags, written, span, f',"trace_id":"{written}","span_id":"{span}"')


def new_ids() -> Ids:
    """Random ids that belong to no span."""
    return _ids(_random.getrandbits(128) or 1, _random.getrandbits(64) or 1, 0)


def current_ids() -> tuple[Ids | None, bool]:
    """The ids of the active span or correlation, None outside both; and whether telemetry is suppressed here."""
    global _last  # noqa: PLW0603 - one tuple, replaced as a whole: any thread may read it at any time
    context = get_current()
    last = _last
    if last[0] is context:
        return last[1]
    suppressed = bool(context.get(_SUPPRESS_INSTRUMENTATION_KEY))
    span = context.get(_SPAN_KEY)
    about = span.get_span_context() if isinstance(span, trace.Span) else None
    if about is None or not about.is_valid:
        return _own.get(), suppressed
    found = _ids(about.trace_id, about.span_id, int(about.trace_flags)), suppressed
    _last = (context, found)
    return found


@contextmanager
def correlation() -> Iterator[str]:
    """Records made inside, outside any span, belong together; gives their trace id. One inside another is the same."""
    ids = _own.get() or new_ids()
    token = _own.set(ids)
    try:
        yield ids.trace
    finally:
        _own.reset(token)
