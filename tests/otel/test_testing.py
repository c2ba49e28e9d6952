"""The public harness, used as users use it."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from opentelemetry import _logs, metrics, trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from streamlit.testing.v1 import AppTest

from otel import api_globals
from otel.guard import REDACTED
from otel.instrumentation.sqlalchemy_instrumentor import SQLALCHEMY
from otel.instrumentation.streamlit import StreamlitInstrumentor
from otel.logsink import current_log_sink
from otel.records import LogFact
from otel.testing import CapturedEvent, CapturedSpan, CapturedTelemetry, capture_telemetry
from streamlit_extension.logs.setup import configure_logging

#: As in an application: made when the module is imported, before any provider is there.
tracer = trace.get_tracer("app")
meter = metrics.get_meter("app")
made = meter.create_counter("reports.made", "{report}")
lengths = meter.create_histogram("reports.length", "By")


@pytest.fixture
def telemetry() -> Iterator[CapturedTelemetry]:
    """The fixture of the docstring."""
    with capture_telemetry() as captured:
        yield captured


def make_report(month: int) -> None:
    """What an application does."""
    with tracer.start_as_current_span("report", attributes={"report.month": month, "password": "hunter2"}) as span:
        span.add_event("begun", {"n": 1})
        with tracer.start_as_current_span("query", kind=trace.SpanKind.CLIENT):
            made.add(1, {"kind": "monthly"})
            lengths.record(10 * month)


@pytest.mark.parametrize("time_of_use", ["first", "second"])
def test_spans_and_metrics_are_captured_in_every_test(telemetry: CapturedTelemetry, time_of_use: str) -> None:
    """Tracers and counters that a module made at its import work in the first test and in every later one."""
    make_report(3)
    assert telemetry.tree() == [("report", [("query", [])])]
    assert telemetry.spans == [
        CapturedSpan(
            "report",
            attributes={"report.month": 3, "password": REDACTED},
            events=(CapturedEvent("begun", {"n": 1}),),
            scope="app",
        ),
        CapturedSpan("query", kind="CLIENT", parent="report", scope="app"),
    ]
    assert telemetry.span("query").trace_id == telemetry.span("report").trace_id
    assert telemetry.metric("reports.made").value(kind="monthly") == 1
    assert telemetry.metric("reports.made").unit == "{report}"
    assert telemetry.metric("reports.length").value() == {"count": 1, "sum": 30, "min": 30, "max": 30}


def test_errors_are_seen_with_their_status(telemetry: CapturedTelemetry) -> None:
    """A span that failed says how."""
    with pytest.raises(ZeroDivisionError), tracer.start_as_current_span("report"):
        _ = 1 / 0
    span = telemetry.span("report")
    assert (span.status, span.description) == ("ERROR", "ZeroDivisionError: division by zero")
    assert span.events[0].attributes["exception.type"] == "ZeroDivisionError"


def test_what_is_not_there_is_told_with_what_is(telemetry: CapturedTelemetry) -> None:
    """A failing test's message shows the names that there are."""
    make_report(1)
    made.add(1, {"kind": "yearly"})
    with pytest.raises(LookupError, match=r"0 spans are called 'raport'; there are \['report', 'query'\]"):
        telemetry.span("raport")
    with pytest.raises(LookupError, match=r"nothing has|has recorded nothing; there are .*reports\.made"):
        telemetry.metric("reports.mad")
    with pytest.raises(LookupError, match="2 points"):
        telemetry.metric("reports.made").value()


def test_log_records_are_captured(telemetry: CapturedTelemetry) -> None:
    """By the sink that the logging of this package writes to, and by OpenTelemetry's own API."""
    sink = current_log_sink()
    assert sink is not None
    sink(LogFact(time.time_ns(), 9, "INFO", "by the sink", {}, None, 0, 0, 0, "app"))
    _logs.get_logger("app").emit(body="by the API")
    assert [each.body for each in telemetry.logs] == ["by the sink", "by the API"]
    telemetry.clear()
    assert (telemetry.logs, telemetry.spans) == ([], [])


def test_threads_are_captured_too(telemetry: CapturedTelemetry) -> None:
    """Spans of other threads are there as soon as they have ended."""
    thread = threading.Thread(target=make_report, args=(1,))
    thread.start()
    thread.join()
    assert telemetry.tree() == [("report", [("query", [])])]


def test_everything_is_put_back() -> None:
    """Process-wide providers, the log sink, threads and handlers are what they were, after an error too."""

    def state() -> tuple[object, ...]:
        return (
            api_globals.TRACES.foreign(),
            api_globals.METRICS.foreign(),
            api_globals.LOGS.foreign(),
            current_log_sink(),
            threading.active_count(),
            list(logging.getLogger().handlers),
        )

    before = state()
    with pytest.raises(RuntimeError, match="active already"), capture_telemetry(), capture_telemetry():
        pass
    assert state() == before
    foreign = TracerProvider(shutdown_on_exit=False)
    undo = api_globals.TRACES.take(foreign)
    with capture_telemetry() as captured:
        with trace.get_tracer("inside").start_as_current_span("mine"):
            pass
        assert [span.name for span in captured.spans] == ["mine"]
    assert trace.get_tracer_provider() is foreign
    undo()
    assert state() == before


def test_after_the_block_nothing_is_captured_and_the_rest_can_be_read() -> None:
    """What the block has captured stays as it was."""
    with capture_telemetry() as captured:
        make_report(1)
    make_report(2)
    assert len(captured.spans) == 2
    assert captured.metric("reports.made").value() == 1


def test_an_instrumentor_works_inside_the_block_alone() -> None:
    """SQLAlchemy's statements are spans of the captured providers, below the caller's span; afterwards it is out."""
    instrumentor = SQLAlchemyInstrumentor()
    with capture_telemetry(instrumentor, skip_dep_check=True) as captured:
        engine = sqlalchemy.create_engine("sqlite://")
        with tracer.start_as_current_span("outer"), engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
        engine.dispose()
    assert not instrumentor.is_instrumented_by_opentelemetry
    selects = [span for span in captured.spans if span.name.startswith("SELECT")]
    assert [(span.kind, span.parent) for span in selects] == [("CLIENT", "outer")]


def test_a_streamlit_script_is_tested_with_its_telemetry(telemetry: CapturedTelemetry) -> None:
    """Streamlit's own `AppTest` runs a script; what the script makes is there."""

    def script() -> None:
        import streamlit as st
        from opentelemetry import trace

        with trace.get_tracer("script").start_as_current_span("draw"):
            st.title("hello")

    app = AppTest.from_function(script).run()
    assert app.title[0].value == "hello"
    assert telemetry.span("draw").scope == "script"


def test_a_script_with_a_database_and_log_lines_is_captured_whole(telemetry: CapturedTelemetry) -> None:
    """Runs, statements, standard logging and structured lines of a script that knows nothing of the capture."""

    def script() -> None:
        import logging

        import sqlalchemy
        import streamlit as st

        from streamlit_extension import StructuredLogger

        with sqlalchemy.create_engine("sqlite://").connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 'x'"))
        logging.getLogger("app").warning("said", extra={"password": "hunter2", "n": 1})
        StructuredLogger(name="app").log_with_correlation("INFO", "told", n=2)
        if st.button("Fail"):
            raise ValueError("broken")

    telemetry.clear()
    with capturing(StreamlitInstrumentor(), SQLALCHEMY):
        app = AppTest.from_function(script).run()
        app.button[0].click().run()
    runs = [each for each in telemetry.spans if each.parent is None]
    assert [each.attributes["streamlit.run.outcome"] for each in runs] == ["success", "error"]
    assert [each.parent_id for each in telemetry.spans if each.name == "SELECT"] == [each.span_id for each in runs]
    found = [each for each in telemetry.logs if each.scope == "app"]
    assert {each.attributes["code.function.name"] for each in found} == {"script"}
    assert [
        (each.body, each.trace_id, {name: each.attributes[name] for name in each.attributes if "code." not in name})
        for each in found
    ] == [
        (body, each.trace_id, fields)
        for each in runs
        for body, fields in (("said", {"password": REDACTED, "n": 1}), ("told", {"n": 2}))
    ]


@contextmanager
def capturing(*instrumentors: Any) -> Iterator[None]:
    """Instrumentors that send to the capture that is active."""
    for each in instrumentors:
        each.instrument(skip_dep_check=True)
    try:
        yield
    finally:
        for each in instrumentors:
            each.uninstrument()


def test_a_record_that_leaves_as_a_line_too_is_captured_once(telemetry: CapturedTelemetry) -> None:
    """Where the process's logging is configured, its handler tells the sink."""
    lines = io.StringIO()
    configuration = configure_logging(stream=lines)
    try:
        logging.getLogger("app").warning("said")
    finally:
        configuration.restore()
    assert [each.body for each in telemetry.logs] == ["said"]
    assert lines.getvalue().count("said") == 1


def test_an_instrumentor_of_ours_that_was_active_stays_so() -> None:
    """The capture ends what it has begun, and nothing else."""
    SQLALCHEMY.instrument(skip_dep_check=True)
    try:
        with capture_telemetry(SQLALCHEMY):
            assert SQLALCHEMY.is_instrumented_by_opentelemetry
        assert SQLALCHEMY.is_instrumented_by_opentelemetry
    finally:
        SQLALCHEMY.uninstrument()
    with capture_telemetry(SQLALCHEMY, skip_dep_check=True):
        assert SQLALCHEMY.is_instrumented_by_opentelemetry
    assert not SQLALCHEMY.is_instrumented_by_opentelemetry
