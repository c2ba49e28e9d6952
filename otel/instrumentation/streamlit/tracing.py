"""Spans and metrics of script runs: one trace for each run, linked to the session's previous one."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Token
from typing import Any

import msgspec
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from otel.guard import redact_text
from otel.instrumentation.streamlit.model import RunOutcome, RunStart, RunTrigger, RunType, ScriptRun, Session
from otel.names import RUN_BUCKETS, SESSION_BUCKETS, UNITS, Attribute, EventName, Metric, SpanName
from otel.trace_context import is_suppressed, suppressed_context

#: Name of the instrumentation scope.
SCOPE = "otel.instrumentation.streamlit"

# Plain strings: a `StrEnum`'s member is hashed and formatted by Python code, and these are used in every run.
_SESSION_ID = str(Attribute.SESSION_ID)
_TYPE = str(Attribute.RUN_TYPE)
_TRIGGER = str(Attribute.RUN_TRIGGER)
_OUTCOME = str(Attribute.RUN_OUTCOME)
_SCREEN = str(Attribute.APP_SCREEN_NAME)
_FRAGMENT = str(Attribute.FRAGMENT_ID)
_ERROR = str(Attribute.ERROR_TYPE)
_NAME = str(SpanName.SCRIPT_RUN).partition("{")[0]

_FULL, _OF_FRAGMENT = RunType.FULL.value, RunType.FRAGMENT.value

_HIDDEN = suppressed_context(Context())
_EMPTY = Context()


class RunHandle(msgspec.Struct):
    """A run's telemetry under way. `span` is None for a session that is nobody's."""

    span: Span | None
    context: Context
    token: Token[Context]
    run_type: str
    screen: str

    @property
    def trace_id(self) -> str | None:
        """The run's trace id, 32 hex digits."""
        context = self.span.get_span_context() if self.span is not None else None
        return format(context.trace_id, "032x") if context is not None and context.is_valid else None


class RunTelemetry:
    """A `RunTracer` that speaks to a tracer and a meter.

    Arguments:
        is_hidden: whether a session is nobody's: its runs leave no trace.
    """

    def __init__(self, tracer: Tracer, meter: Meter, is_hidden: Callable[[str], bool]) -> None:
        self._tracer = tracer
        self._is_hidden = is_hidden
        self._duration = meter.create_histogram(
            Metric.RUN_DURATION,
            unit=UNITS[Metric.RUN_DURATION],
            description="Duration of script runs",
            explicit_bucket_boundaries_advisory=RUN_BUCKETS,
        )
        #: The types of the runs under way, by their handles' ids: kept without a lock, counted when somebody asks.
        self._under_way: dict[int, str] = {}
        self._types: set[str] = set()
        self._pid = os.getpid()
        self._session_duration = meter.create_histogram(
            Metric.SESSION_DURATION,
            unit=UNITS[Metric.SESSION_DURATION],
            description="Time from a browser's first connection until it left for good",
            explicit_bucket_boundaries_advisory=SESSION_BUCKETS,
        )

    def run_started(self, start: RunStart, trigger: RunTrigger, screen: str, session: Session) -> RunHandle:
        """Begin a trace and make it the context of this thread."""
        run_type = _OF_FRAGMENT if start.fragment_ids else _FULL
        if self._is_hidden(start.session_id):
            return RunHandle(None, _HIDDEN, context_api.attach(_HIDDEN), run_type, screen)
        attributes = {
            _SESSION_ID: start.session_id,
            _TYPE: run_type,
            _TRIGGER: trigger._value_,
            _SCREEN: screen,
        }
        if start.fragment_ids:
            attributes[_FRAGMENT] = ",".join(start.fragment_ids)
        with session.lock:
            span = self._tracer.start_span(
                _NAME + screen,
                context=_EMPTY,
                kind=SpanKind.SERVER,
                attributes=attributes,
                links=(Link(session.last_run),) if session.last_run is not None else (),
            )
            session.last_run = span.get_span_context()
        context = set_span_in_context(span, _EMPTY)
        handle = RunHandle(span, context, context_api.attach(context), run_type, screen)
        self._under_way[id(handle)] = run_type
        self._types.add(run_type)
        return handle

    def run_failed(self, handle: RunHandle, error: BaseException, first: bool) -> None:
        """Record an uncaught error of the run; its `first` one is what the run failed by."""
        span = handle.span
        if span is None or not span.is_recording():
            return
        span.add_event(EventName.EXCEPTION.value, _described(error))
        if first:
            span.set_attribute(_ERROR, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))

    def run_finished(self, handle: RunHandle, run: ScriptRun) -> None:
        """End the trace and put the thread's context back."""
        span = handle.span
        try:
            if span is None:
                return
            self._under_way.pop(id(handle), None)
            outcome = run.outcome._value_
            attributes = {
                _TYPE: handle.run_type,
                _TRIGGER: run.trigger._value_,
                _OUTCOME: outcome,
                _SCREEN: run.screen,
            }
            if run.error_type and run.outcome in (RunOutcome.ERROR, RunOutcome.COMPILE_ERROR):
                attributes[_ERROR] = run.error_type
            if run.screen != handle.screen:  # the page was known only once its navigation had run
                span.update_name(_NAME + run.screen)
                span.set_attribute(_SCREEN, run.screen)
            span.set_attribute(_OUTCOME, outcome)
            self._duration.record(run.duration_s, attributes, context=handle.context)
            span.end()
        finally:
            _detach(handle.token)

    def under_way(self) -> dict[str, int]:
        """How many runs of each type there are now; a type that there was stays, with 0."""
        if self._pid != os.getpid():  # a forked child: these are the parent's
            self._pid, self._under_way, self._types = os.getpid(), {}, set()
        found = Counter(list(self._under_way.values()))
        return {run_type: found[run_type] for run_type in tuple(self._types)}

    def session_ended(self, session: Session, duration_s: float) -> None:
        """Record how long a session lasted."""
        if session.runs:
            self._session_duration.record(duration_s)

    @contextmanager
    def callback(self, function: Callable[..., Any]) -> Iterator[None]:
        """A span around a widget's callback."""
        if is_suppressed():
            yield
            return
        name = _name_of(function)
        module = getattr(function, "__module__", None)
        span = self._tracer.start_span(
            SpanName.CALLBACK.format(function=name),
            attributes={Attribute.CODE_FUNCTION_NAME: f"{module}.{name}" if module else name},
        )
        token = context_api.attach(set_span_in_context(span))
        try:
            yield
        except Exception as error:  # `st.rerun` and `st.stop` are none: they are told from errors by their base class
            span.set_attribute(_ERROR, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            _detach(token)
            span.end()


def _name_of(function: Any) -> str:
    """The function's qualified name; that of what a `functools.partial` wraps; that of an object's class."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__qualname__", None) or type(function).__name__).replace("<locals>.", "")


def _described(error: BaseException) -> dict[str, str]:
    """Attributes of an `exception` event (semantic conventions), redacted, whatever the error's own code does."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message, trace = str(error), "".join(traceback.format_exception(error))
    except Exception:
        message, trace = "", "".join(traceback.format_tb(error.__traceback__))
    return {
        Attribute.EXCEPTION_TYPE: name,
        Attribute.EXCEPTION_MESSAGE: redact_text(message),
        Attribute.EXCEPTION_STACKTRACE: redact_text(trace),
    }


def _detach(token: Token[Context]) -> None:
    """Put the context back where this is still the thread that it was attached on."""
    try:
        context_api._RUNTIME_CONTEXT.detach(token)  # `context_api.detach` logs a traceback where it fails
    except (ValueError, RuntimeError):
        pass
