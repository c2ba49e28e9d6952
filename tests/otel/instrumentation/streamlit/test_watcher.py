"""The watcher by itself: what it decides, what it puts in place, and that it takes all of it away."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, get_current_span
from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from streamlit.runtime import app_session, fragment
from streamlit.runtime.scriptrunner import (
    RerunData,
    RerunException,
    ScriptRunnerEvent,
    StopException,
    exec_code,
    script_runner,
)
from streamlit.runtime.state import session_state

from otel.instrumentation.streamlit import WATCHER, RunOutcome, RunTrigger, ScriptRun, StreamlitInstrumentor, seams
from otel.instrumentation.streamlit.events import hear, leave
from otel.instrumentation.streamlit.model import RunRequest, RunStart, Session, trigger_of, widgets_changed
from otel.instrumentation.streamlit.tracing import RunTelemetry
from otel.instrumentation.streamlit.watcher import RunWatcher
from streamlit_extension import current_trace_id


class Runner:
    """Stands where Streamlit's runner stands as the sender of events."""

    def __init__(self, session_id: str = "s1") -> None:
        self._session_id = session_id
        self._main_script_path = "my_app.py"
        self.on_event: Any = None
        self.stops = 0

    def request_stop(self) -> None:
        """Count."""
        self.stops += 1


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The instrumentor is on; finished spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    was_watching = WATCHER.watching
    StreamlitInstrumentor().instrument(
        tracer_provider=provider, meter_provider=MeterProvider([InMemoryMetricReader()]), memory_interval_s=0
    )
    yield exporter
    StreamlitInstrumentor().uninstrument()
    assert WATCHER.watching is was_watching


def started(runner: Runner, **payload: Any) -> None:
    """Streamlit's first event of a run."""
    pages = {"p": {"page_name": "", "script_path": "my_app.py"}}
    WATCHER.receiver(runner, event=ScriptRunnerEvent.SCRIPT_STARTED, page_script_hash="p", pages=pages, **payload)


def stopped(runner: Runner, event: ScriptRunnerEvent = ScriptRunnerEvent.SCRIPT_STOPPED_WITH_SUCCESS) -> None:
    """Streamlit's last event of a run."""
    WATCHER.receiver(runner, event=event)


def outcomes(exporter: InMemorySpanExporter) -> list[Any]:
    """Of the finished runs, in order."""
    return [(each.attributes or {})["streamlit.run.outcome"] for each in exporter.get_finished_spans()]


def test_two_starts_before_one_end_are_two_runs(spans: InMemorySpanExporter) -> None:
    """A run pre-empted before its first line is closed when the next begins, and the context is the next one's."""
    runner = Runner()
    started(runner)
    first = current_trace_id()
    started(runner)
    second = current_trace_id()
    assert first and second and first != second
    stopped(runner)
    assert get_current_span() is INVALID_SPAN
    assert current_trace_id() is None
    assert outcomes(spans) == ["rerun", "success"]
    assert [format(each.context.trace_id, "032x") for each in spans.get_finished_spans() if each.context] == [
        first,
        second,
    ]
    assert WATCHER.active_sessions == ()


def test_a_thread_that_dies_ends_its_run(spans: InMemorySpanExporter) -> None:
    """The end of the thread ends what has had no event, once."""
    runner = Runner()
    started(runner)
    WATCHER.thread_ended(runner)
    stopped(runner, ScriptRunnerEvent.SHUTDOWN)
    assert outcomes(spans) == ["stopped"]


def test_each_error_is_one_event_and_the_first_names_the_run(spans: InMemorySpanExporter) -> None:
    """The same error told twice is one; another one is one more; one that can't be printed is told by its type."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    runner = Runner()
    started(runner)
    error = ValueError("first")
    for each in (error, error, Mute()):
        WATCHER.failed(each)
    stopped(runner)
    WATCHER.failed(KeyError("too late"))
    (span,) = spans.get_finished_spans()
    assert [(each.attributes or {})["exception.message"] for each in span.events] == ["first", ""]
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert outcomes(spans) == ["error"]


def test_an_error_that_died_hides_none_that_takes_its_place(spans: InMemorySpanExporter) -> None:
    """Parallel fragments fail one after another: an error in the memory of one that is gone is another one."""
    runner = Runner()
    started(runner)
    for number in range(50):
        WATCHER.failed(ValueError(number))
    assert (run := WATCHER._open.get(runner)) is not None
    stopped(runner)
    (span,) = spans.get_finished_spans()
    assert len(span.events) == 50
    assert run.errors == ()


@pytest.mark.parametrize("event", [True, False])
def test_what_is_no_exception_and_ends_a_thread_is_an_error(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, event: bool
) -> None:
    """A cancelled task, say: Streamlit tells nobody; it is told once, by Streamlit's last event or by the thread."""
    runner = Runner()
    started(runner)
    trace_id = current_trace_id()
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError as error:
        if event:
            stopped(runner, ScriptRunnerEvent.SHUTDOWN)
        WATCHER.died(error)
        WATCHER.thread_ended(runner)
    (span,) = spans.get_finished_spans()
    assert outcomes(spans) == ["error"]
    assert (span.attributes or {})["error.type"] == "CancelledError"
    assert [each.exc_info[0].__name__ for each in caplog.records if each.exc_info and each.exc_info[0]] == [
        "CancelledError"
    ]
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == trace_id


@pytest.mark.parametrize("error", [SystemExit(3), StopException(), RerunException(RerunData())])
def test_what_is_meant_to_end_a_script_is_no_error(spans: InMemorySpanExporter, error: BaseException) -> None:
    """`sys.exit`, and what Streamlit raises for itself."""
    runner = Runner()
    started(runner)
    WATCHER.died(error)
    WATCHER.thread_ended(runner)
    assert outcomes(spans) == ["stopped"]


def test_a_session_that_has_ended_is_forgotten(spans: InMemorySpanExporter) -> None:
    """A run that still starts after its session's end leaves no state behind."""
    WATCHER.session_began("gone")
    WATCHER.session_ended("gone")
    runner = Runner("gone")
    started(runner)
    stopped(runner)
    assert "gone" not in WATCHER._sessions
    assert outcomes(spans) == ["success"]


def test_a_listener_or_tracer_that_fails_breaks_nothing(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged by its type, and the others are still told."""
    found: list[ScriptRun] = []

    def fail(run: ScriptRun) -> None:
        raise OSError("password=hunter2")

    WATCHER.add_listener(fail)
    WATCHER.add_listener(found.append)
    try:
        runner = Runner()
        started(runner)
        stopped(runner)
    finally:
        WATCHER.remove_listener(fail)
        WATCHER.remove_listener(found.append)
    assert [each.outcome for each in found] == [RunOutcome.SUCCESS]
    assert found[0].screen == "my app"
    assert "OSError" in caplog.text
    assert "hunter2" not in caplog.text


#: Everything that is replaced somewhere.
PLACES = (
    *(script_runner.ScriptRunner, script_runner, exec_code, fragment, app_session.AppSession, session_state.WStates),
    *(session_state.SessionState, threading.Thread, threading.Timer, futures.ThreadPoolExecutor),
)


def test_uninstrumenting_is_the_exact_inverse() -> None:
    """Afterwards every class and module holds the very objects that it held before, and nothing is frozen."""
    WATCHER.unwatch()
    gc.unfreeze()
    before = [dict(vars(each)) for each in PLACES]
    for _ in range(3):
        instrumentor = StreamlitInstrumentor()
        instrumentor.instrument(memory_interval_s=60)
        WATCHER.session_began("s")
        assert "streamlit-memory-sampler" in [each.name for each in threading.enumerate()]
        assert [dict(vars(each)) for each in PLACES] != before
        instrumentor.uninstrument()
        assert [dict(vars(each)) for each in PLACES] == before
        assert "streamlit-memory-sampler" not in [each.name for each in threading.enumerate()]
        assert gc.get_freeze_count() == 0
    assert (WATCHER.tracer, WATCHER.on_session, WATCHER.on_error_shown) == (None, None, None)


def test_what_others_have_wrapped_meanwhile_stays() -> None:
    """Somebody who wrapped our wrapper keeps theirs, and ours passes everything on."""
    watcher = RunWatcher()
    watcher.watch()
    ours = app_session.AppSession.shutdown

    def theirs(session: Any) -> Any:
        return ours(session)

    app_session.AppSession.shutdown = theirs  # type: ignore[method-assign, assignment]
    try:
        watcher.unwatch()
        assert app_session.AppSession.shutdown is theirs
    finally:
        app_session.AppSession.shutdown = ours.__wrapped__  # type: ignore[attr-defined, method-assign]


@pytest.mark.parametrize(
    ("owner", "name", "seam"),
    [
        (script_runner, "exec_func_with_error_handling", "stopped runs"),
        (session_state.WStates, "call_callback", "widget callbacks"),
        (app_session.AppSession, "_on_source_file_changed", "changed files"),
        (script_runner.ScriptRunner, "_run_script_thread", "script threads"),
    ],
)
def test_a_missing_seam_is_named_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: Any, name: str, seam: str
) -> None:
    """What can't be watched is logged and told by `seams()`; everything else is watched."""
    watcher = RunWatcher()
    assert seams()[seam] is None
    monkeypatch.delattr(owner, name)
    assert seams()[seam] is not None
    watcher.watch()
    try:
        assert f"Streamlit's {seam} can't be watched" in caplog.text
        assert caplog.text.count("can't be watched") == 1
        assert watcher.watching
    finally:
        watcher.unwatch()


def request(**values: Any) -> RunRequest:
    """A request from the browser, with values of widgets."""
    states = WidgetStates(widgets=[WidgetState(id=name, **value) for name, value in values.items()])
    return RunRequest(widget_states=states)


START: Callable[..., RunStart] = lambda request=None, page="p", fragments=(): RunStart("s", page, fragments, request)  # noqa: E731
BEFORE = Session(0.0, runs=1, page_script_hash="p", widget_states=request(a={"int_value": 1}).widget_states)


@pytest.mark.parametrize(
    ("start", "session", "trigger"),
    [
        (START(request()), Session(0.0), RunTrigger.CONNECT),
        (START(), BEFORE, RunTrigger.RERUN),
        (START(request(a={"int_value": 1})), BEFORE, RunTrigger.OTHER),
        (START(request(a={"int_value": 2})), BEFORE, RunTrigger.WIDGET),
        (START(request(a={"int_value": 1}, b={"trigger_value": True})), BEFORE, RunTrigger.WIDGET),
        (START(request(), page="q"), BEFORE, RunTrigger.PAGE),
        (START(request(), fragments=("f",)), BEFORE, RunTrigger.WIDGET),
        (START(RunRequest(is_auto_rerun=True), fragments=("f",)), BEFORE, RunTrigger.TIMER),
        (START(RunRequest(from_source_change=True)), BEFORE, RunTrigger.SOURCE),
    ],
)
def test_the_trigger_of_a_run(start: RunStart, session: Session, trigger: RunTrigger) -> None:
    """What started a run, by what was asked for and by the session's run before."""
    assert trigger_of(start, session) is trigger


def test_a_changed_file_is_told_when_the_browser_asks_again() -> None:
    """Without run-on-save the browser's next plain request comes from the changed file."""
    session = Session(0.0, runs=1, page_script_hash="p", source_changed=True)
    assert trigger_of(START(request()), session) is RunTrigger.SOURCE


def test_widgets_that_move_or_vanish_have_not_changed() -> None:
    """Only a new value or a press is the user's doing."""
    one, two = {"int_value": 1}, {"int_value": 2}
    before = request(a=one, b=two).widget_states
    assert not widgets_changed(before, request(b=two, a=one).widget_states)
    assert not widgets_changed(before, request(b=two).widget_states)
    assert widgets_changed(before, request(a=two, b=two).widget_states)
    pressed = request(a={"trigger_value": True}).widget_states
    assert widgets_changed(pressed, pressed)


def test_the_entry_point_leads_to_the_instrumentor() -> None:
    """`opentelemetry-instrument` finds it."""
    (found,) = entry_points(group="opentelemetry_instrumentor", name="streamlit")
    assert found.load() is StreamlitInstrumentor
    assert found.load()().instrumentation_dependencies() == ("streamlit >= 1.57",)


@pytest.fixture
def own_watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWatcher]:
    """Watches, with a function of Streamlit's that only calls the script."""
    monkeypatch.setattr(
        script_runner, "exec_func_with_error_handling", lambda function, _context: (function(), True, None, False, None)
    )
    watcher = RunWatcher()
    watcher.watch()
    yield watcher
    watcher.unwatch()


def heard_runner(watcher: RunWatcher) -> Runner:
    """A runner that the watcher hears."""
    runner = Runner()
    runner.on_event = script_runner.Signal()  # type: ignore[attr-defined]
    hear(runner, watcher.receiver)
    watcher.runner_created(runner)
    return runner


def execute(function: Callable[[], object]) -> None:
    """Let Streamlit execute a script's function."""
    script_runner.exec_func_with_error_handling(function, None)  # type: ignore[attr-defined, arg-type]


class Heard:
    """A receiver of a runner's signal, as Streamlit's session is, that notes what has come before it was called."""

    def __init__(self, watcher: RunWatcher) -> None:
        self.watcher = watcher
        self.seen: list[tuple[str, int]] = []

    def on_event(self, _sender: Any, event: ScriptRunnerEvent, **_payload: Any) -> None:
        """Note the event, and how many runs are under way."""
        self.seen.append((event.name, len(self.watcher.active_sessions)))


def test_a_scripts_elements_are_for_streamlit_alone(own_watcher: RunWatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the script's function runs its signal is Streamlit's own; before and after the watcher hears first."""
    heard: list[str] = []
    original = RunWatcher.receiver

    def receiver(self: RunWatcher, sender: Any, **payload: Any) -> None:
        heard.append(payload["event"].name)
        original(self, sender, **payload)

    monkeypatch.setattr(RunWatcher, "receiver", receiver)
    runner, streamlit = heard_runner(own_watcher), Heard(own_watcher)
    signal = runner.on_event.signal
    runner.on_event.connect(streamlit.on_event)

    def script() -> None:
        runner.on_event.send(runner, event=ScriptRunnerEvent.ENQUEUE_FORWARD_MSG)

    runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STARTED, page_script_hash="p")
    execute(script)
    runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STOPPED_WITH_SUCCESS)
    assert streamlit.seen == [("SCRIPT_STARTED", 1), ("ENQUEUE_FORWARD_MSG", 1), ("SCRIPT_STOPPED_WITH_SUCCESS", 0)]
    assert heard == ["SCRIPT_STARTED", "SCRIPT_STOPPED_WITH_SUCCESS"]
    own_watcher.unwatch()
    assert runner.on_event is signal, "everything is as it was"


@pytest.mark.parametrize("before_us", [True, False])
def test_whoever_else_hears_of_a_runner_goes_on(own_watcher: RunWatcher, before_us: bool) -> None:
    """While a script runs, of which the watcher hears nothing, and after the watcher has left: in whatever order."""
    runner, heard = Runner(), list[str]()
    signal = runner.on_event = script_runner.Signal()  # type: ignore[attr-defined]

    def other(_sender: Any, event: ScriptRunnerEvent, **_payload: Any) -> None:
        heard.append(event.name)

    for receiver in (own_watcher.receiver, other) if before_us else (other, own_watcher.receiver):
        hear(runner, receiver)
    own_watcher.runner_created(runner)
    runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STARTED, page_script_hash="p")
    execute(lambda: runner.on_event.send(runner, event=ScriptRunnerEvent.ENQUEUE_FORWARD_MSG))
    assert len(own_watcher.active_sessions) == 1
    own_watcher.unwatch()
    runner.on_event.send(runner, event=ScriptRunnerEvent.SHUTDOWN)
    assert heard == ["SCRIPT_STARTED", "ENQUEUE_FORWARD_MSG", "SHUTDOWN"]
    assert runner.on_event.is_of(other) and runner.on_event.signal is signal
    leave(runner, own_watcher.receiver)  # who doesn't hear takes nobody off
    leave(runner, other)
    assert runner.on_event is signal


def test_a_script_that_ends_its_thread_is_heard_of(own_watcher: RunWatcher) -> None:
    """`sys.exit` passes through the script's function: what comes after it is heard again."""
    runner = heard_runner(own_watcher)
    runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STARTED, page_script_hash="p")
    with pytest.raises(SystemExit):
        execute(lambda: sys.exit(3))
    assert len(own_watcher.active_sessions) == 1
    runner.on_event.send(runner, event=ScriptRunnerEvent.SHUTDOWN)
    assert not own_watcher.active_sessions


def test_another_thread_of_a_run_makes_nobody_deaf(own_watcher: RunWatcher) -> None:
    """A parallel fragment's function, which may end after its run has, has no say over the run's signal."""
    runner = heard_runner(own_watcher)
    runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STARTED, page_script_hash="p")
    copied = contextvars.copy_context()

    def end_meanwhile() -> None:
        runner.on_event.send(runner, event=ScriptRunnerEvent.SCRIPT_STOPPED_WITH_SUCCESS)

    def fragment() -> None:
        ending = threading.Thread(target=end_meanwhile)
        ending.start()
        ending.join()

    thread = threading.Thread(target=lambda: copied.run(execute, fragment))
    thread.start()
    thread.join()
    assert own_watcher.active_sessions == ()


def test_runs_under_way_are_counted_by_type() -> None:
    """A type that there was is told with 0; a session that is nobody's is not counted."""
    telemetry = RunTelemetry(
        TracerProvider().get_tracer("t"), MeterProvider().get_meter("m"), lambda each: each == "no"
    )
    first, second = Session(0.0), Session(0.0)

    def begin(session: Session, session_id: str = "s1", fragments: tuple[str, ...] = ()) -> Any:
        return telemetry.run_started(RunStart(session_id, "p", fragments, None), RunTrigger.OTHER, "page", session)

    def end(handle: Any) -> None:
        telemetry.run_finished(handle, ScriptRun("s1", "p", (), RunOutcome.SUCCESS, 0.1, screen="page"))

    assert telemetry.under_way() == {}
    handles = [begin(first), begin(second), begin(first, fragments=("f",)), begin(Session(0.0), "no")]
    assert telemetry.under_way() == {"full": 2, "fragment": 1}
    for handle in reversed(handles):
        end(handle)
    assert telemetry.under_way() == {"full": 0, "fragment": 0}


FORKING = """
import os
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from otel.instrumentation.streamlit import RunTrigger
from otel.instrumentation.streamlit.model import RunStart, Session
from otel.instrumentation.streamlit.tracing import RunTelemetry

telemetry = RunTelemetry(TracerProvider().get_tracer("t"), MeterProvider().get_meter("m"), lambda _: False)
telemetry.run_started(RunStart("s1", "p", (), None), RunTrigger.OTHER, "page", Session(0.0))
reading, writing = os.pipe()
child = os.fork()
if not child:
    try:
        os.write(writing, repr(telemetry.under_way()).encode())
    finally:
        os._exit(0)
os.waitpid(child, 0)
os.close(writing)
print(telemetry.under_way(), os.read(reading, 100).decode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_no_runs_under_way() -> None:
    """They are its parent's, which counts them as before."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(
        [sys.executable, "-c", FORKING], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "{'full': 1} {}\n", done.stderr
