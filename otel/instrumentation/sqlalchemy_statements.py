"""A span and a duration for each statement, from the events of SQLAlchemy's engines.

One listener for all engines, on the class: engines that are there, and those to come. A span is made once its
statement has ended, with the time at which it began: it is never the current one, costs one call, and can't be left
open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.metrics import Histogram
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from otel.instrumentation.sqlalchemy_database import Databases, note_failure
from otel.names import Attribute

#: Where an execution's beginning is kept: on SQLAlchemy's own object for this execution, which dies with it.
_BEGAN = "_otel_began"
_ERROR = Status(StatusCode.ERROR)


class StatementEvents:
    """Listens to all engines.

    Arguments:
        databases: what is told of each database.
        tracer: makes the spans, or None where somebody else makes them already.
        duration: takes how long each statement took, in seconds.
    """

    def __init__(self, databases: Databases, tracer: Tracer | None, duration: Histogram) -> None:
        self._databases = databases
        self._tracer = tracer
        self._duration = duration
        self._batch_style: Any = None
        self._rows_style: Any = None

    def install(self) -> Callable[[], None]:
        """Listen from now on; returns what ends it and leaves nothing behind."""
        from sqlalchemy import event
        from sqlalchemy.engine import Dialect, Engine
        from sqlalchemy.engine.interfaces import ExecuteStyle

        self._batch_style, self._rows_style = ExecuteStyle.EXECUTEMANY, ExecuteStyle.INSERTMANYVALUES
        # SQLAlchemy marks the classes for good with the first listener; the marks are put back with the last one.
        marks = [(each, each._has_events) for each in (Engine, Dialect)]
        listeners: list[tuple[str, Callable[..., Any], dict[str, bool]]] = [
            ("before_cursor_execute", self.before, {"retval": True}),
            ("after_cursor_execute", self.after, {}),
            ("handle_error", self.failed, {}),
        ]
        for name, function, options in listeners:
            event.listen(Engine, name, function, **options)

        def undo() -> None:
            for name, function, _ in listeners:
                event.remove(Engine, name, function)
            for owner, mark in marks:
                _unmark(owner, mark)

        return undo

    def before(
        self, _conn: Any, _cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        """A statement begins."""
        if context is not None and not context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
            try:
                told_as, size = statement, 0
                if executemany:
                    if context.execute_style is self._batch_style:
                        size = len(parameters)
                    elif context.execute_style is self._rows_style:
                        told_as = context.statement  # one row's text stands for a text of any number of rows
                setattr(context, _BEGAN, (time.perf_counter_ns(), told_as, size))
            except Exception as error:
                note_failure(error)
        return statement, parameters

    def after(
        self, conn: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _executemany: bool
    ) -> None:
        """A statement has ended well."""
        if context is not None and (began := context.__dict__.pop(_BEGAN, None)) is not None:
            try:
                self._tell(conn.engine, began, None, None)
            except Exception as error:
                note_failure(error)

    def failed(self, failure: Any) -> None:
        """Something has failed; a statement only where one is under way."""
        context = failure.execution_context
        if context is not None and (began := context.__dict__.pop(_BEGAN, None)) is not None:
            try:
                error = failure.original_exception
                code = status_code(error) if failure.sqlalchemy_exception is not None else None
                self._tell(failure.engine, began, code or _type_name(error), code)
            except Exception as error:
                note_failure(error)

    def _tell(self, engine: Any, began: tuple[int, str, int], error_type: str | None, code: str | None) -> None:
        took_ns = time.perf_counter_ns() - began[0]
        end_ns = time.time_ns()
        size = began[2]
        told = self._databases.of(engine).told(began[1], batch=size > 1)
        span_attributes, metric_attributes = told.span, told.metric
        if size > 1:
            span_attributes = {**span_attributes, Attribute.DB_BATCH_SIZE.value: size}
        if error_type is not None:
            extra = {Attribute.ERROR_TYPE.value: error_type}
            if code is not None:
                extra[Attribute.DB_STATUS_CODE.value] = code
            span_attributes, metric_attributes = {**span_attributes, **extra}, {**metric_attributes, **extra}
        exemplar_context = None
        if self._tracer is not None:
            span = self._tracer.start_span(
                told.span_name, kind=SpanKind.CLIENT, attributes=span_attributes, start_time=end_ns - took_ns
            )
            if span.is_recording():
                if error_type is not None:
                    span.set_status(_ERROR)
                span.end(end_ns)
                exemplar_context = trace.set_span_in_context(span)
        self._duration.record(took_ns / 1e9, metric_attributes, exemplar_context)


def _unmark(owner: Any, mark: bool) -> None:
    """Put `_has_events` back, unless somebody else listens on the class by now."""
    try:
        events = owner.dispatch
        if not any(getattr(events, name)._clslevel.get(owner) for name in events._event_names):
            owner._has_events = mark
    except AttributeError:  # the mark stays: it costs a look at a list that is empty
        pass


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def status_code(error: BaseException) -> str | None:
    """The database's own code for an error: SQLSTATE, SQLite's name, Oracle's and MySQL's number, or None."""
    for name in ("sqlstate", "pgcode", "sqlite_errorname", "full_code"):
        value = getattr(error, name, None)
        if isinstance(value, str) and value:
            return value
    first = error.args[0] if error.args else None
    if isinstance(first, int) and not isinstance(first, bool):
        return str(first)
    if isinstance(first, str) and len(first) == 5 and first.isalnum():
        return first
    code = getattr(first, "full_code", None)
    return code if isinstance(code, str) and code else None
