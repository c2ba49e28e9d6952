"""A span and a duration for each statement, from the three methods through which SQLAlchemy executes all of them.

They are wrapped on the class: engines that are there, and those to come. The events of engines would do too, at a
higher price: with one listener SQLAlchemy prepares all of its events for each statement, and tells them no errors of
its own set-up. A span is made once its statement has ended, with the time at which it began: it is never the current
one, costs one call, and can't be left open.
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

from otel.instrumentation.patching import patch_method
from otel.instrumentation.sqlalchemy_database import Databases, note_failure
from otel.names import Attribute

_BATCH_SIZE, _ERROR_TYPE = Attribute.DB_BATCH_SIZE.value, Attribute.ERROR_TYPE.value
_STATUS_CODE = Attribute.DB_STATUS_CODE.value
_ERROR = Status(StatusCode.ERROR)


class StatementWatch:
    """Watches the statements of all engines.

    Arguments:
        databases: what is told of each database.
        tracer: makes the spans, or None where somebody else makes them already.
        duration: takes how long each statement took, in seconds.
    """

    def __init__(self, databases: Databases, tracer: Tracer | None, duration: Histogram) -> None:
        self._databases = databases
        self._tracer = tracer
        self._duration = duration
        self._active = False
        self._batch_style: Any = None

    def install(self) -> Callable[[], None]:
        """Watch from now on; returns what ends it and leaves nothing behind.

        Raises:
            AttributeError: this SQLAlchemy executes its statements in another way.
        """
        from sqlalchemy.engine import Connection
        from sqlalchemy.engine.interfaces import ExecuteStyle

        self._batch_style = ExecuteStyle.EXECUTEMANY
        undoes: list[Callable[[], None]] = []

        def undo() -> None:
            self._active = False
            while undoes:
                undoes.pop()()

        try:
            undoes.append(patch_method(Connection, "_exec_single_context", self._watch_statement))
            undoes.append(patch_method(Connection, "_exec_insertmany_context", self._watch_rows))
            undoes.append(patch_method(Connection, "_cursor_execute", self._watch_default))
        except AttributeError:
            undo()
            raise
        self._active = True
        return undo

    def _watch_statement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A statement, for one set of parameters or by `executemany` for several."""

        def exec_single_context(conn: Any, dialect: Any, context: Any, statement: Any, parameters: Any) -> Any:
            if not self._active or context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
                return original(conn, dialect, context, statement, parameters)
            began_ns = time.perf_counter_ns()
            try:
                result = original(conn, dialect, context, statement, parameters)
            except BaseException as error:
                self._tell(conn, context.statement, self._batch_size(context), began_ns, error)
                raise
            self._tell(conn, context.statement, self._batch_size(context), began_ns, None)
            return result

        return exec_single_context

    def _watch_rows(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Many rows by few statements (`insertmanyvalues`): one span; one row's text stands for any number of rows."""

        def exec_insertmany_context(conn: Any, dialect: Any, context: Any) -> Any:
            if not self._active or context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
                return original(conn, dialect, context)
            began_ns = time.perf_counter_ns()
            try:
                result = original(conn, dialect, context)
            except BaseException as error:
                self._tell(conn, context.statement, 0, began_ns, error)
                raise
            self._tell(conn, context.statement, 0, began_ns, None)
            return result

        return exec_insertmany_context

    def _watch_default(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A statement on behalf of another one: a sequence, a column's default."""

        def cursor_execute(conn: Any, cursor: Any, statement: str, *args: Any, **kwargs: Any) -> None:
            if not self._active or context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
                original(conn, cursor, statement, *args, **kwargs)
                return
            began_ns = time.perf_counter_ns()
            try:
                original(conn, cursor, statement, *args, **kwargs)
            except BaseException as error:
                self._tell(conn, statement, 0, began_ns, error)
                raise
            self._tell(conn, statement, 0, began_ns, None)

        return cursor_execute

    def _batch_size(self, context: Any) -> int:
        return len(context.parameters) if context.execute_style is self._batch_style else 0

    def _tell(self, conn: Any, statement: str, size: int, began_ns: int, error: BaseException | None) -> None:
        took_ns = time.perf_counter_ns() - began_ns
        try:
            told = self._databases.of(conn.engine).told(statement, batch=size > 1)
            span_attributes, metric_attributes = told.span, told.metric
            if size > 1:
                span_attributes = {**span_attributes, _BATCH_SIZE: size}
            if error is not None:
                facts = error_facts(error, conn.dialect)
                span_attributes, metric_attributes = {**span_attributes, **facts}, {**metric_attributes, **facts}
            exemplar_context = None
            if self._tracer is not None:
                end_ns = time.time_ns()
                span = self._tracer.start_span(
                    told.span_name, None, SpanKind.CLIENT, span_attributes, start_time=end_ns - took_ns
                )
                if error is not None:
                    span.set_status(_ERROR)
                span.end(end_ns)
                exemplar_context = trace.set_span_in_context(span)
            self._duration.record(took_ns / 1e9, metric_attributes, exemplar_context)
        except Exception as failure:
            note_failure(failure)


def error_facts(error: BaseException, dialect: Any) -> dict[str, str]:
    """`error.type` and, where the database told one, `db.response.status_code`; never the error's text.

    The driver's own error is looked at, whether SQLAlchemy or a listener of the application's has wrapped it.
    """
    driver_error = dialect.loaded_dbapi.Error
    for each in (getattr(error, "orig", None), error.__cause__, error):
        if isinstance(each, driver_error):
            code = status_code(each)
            return {_ERROR_TYPE: code or _type_name(each)} | ({_STATUS_CODE: code} if code else {})
    return {_ERROR_TYPE: _type_name(error)}


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
