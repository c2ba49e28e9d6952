"""Script runs and sessions as values, and the pure decisions about them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from opentelemetry.trace import SpanContext

from otel.instrumentation.streamlit.events import EventsHeard


class RunOutcome(StrEnum):
    """How a script run ended (`streamlit.run.outcome`)."""

    SUCCESS = "success"
    RERUN = "rerun"
    STOPPED = "stopped"
    ERROR = "error"
    COMPILE_ERROR = "compile_error"


#: How a run ends by Streamlit's event; a stop for another run, by an error or by `st.stop` is told from other facts.
ENDS = {
    "SCRIPT_STOPPED_WITH_COMPILE_ERROR": RunOutcome.COMPILE_ERROR,
    "SCRIPT_STOPPED_FOR_RERUN": RunOutcome.RERUN,
    "SCRIPT_STOPPED_WITH_SUCCESS": RunOutcome.SUCCESS,
    "FRAGMENT_STOPPED_WITH_SUCCESS": RunOutcome.SUCCESS,
    "SHUTDOWN": RunOutcome.STOPPED,
}


class RunTrigger(StrEnum):
    """What started a script run (`streamlit.run.trigger`)."""

    CONNECT = "connect"
    WIDGET = "widget"
    RERUN = "rerun"
    PAGE = "page"
    TIMER = "timer"
    SOURCE = "source"
    OTHER = "other"


class RunType(StrEnum):
    """What a run runs (`streamlit.run.type`)."""

    FULL = "full"
    FRAGMENT = "fragment"


class RunRequest(msgspec.Struct, frozen=True):
    """What the browser or a changed file asked for; a run without one was asked for by the script itself.

    `widget_states` is Streamlit's message with the values of all widgets, or None.
    """

    widget_states: Any = None
    is_auto_rerun: bool = False
    from_source_change: bool = False


class RunStart(msgspec.Struct, frozen=True):
    """What is known of a run at its first moment."""

    session_id: str
    page_script_hash: str
    fragment_ids: tuple[str, ...]
    request: RunRequest | None

    @property
    def run_type(self) -> RunType:
        """Whether the whole script runs or fragments of it."""
        return RunType.FRAGMENT if self.fragment_ids else RunType.FULL


class ScriptRun(msgspec.Struct, frozen=True):
    """One finished run of the script or of fragments of it.

    `duration_s` is in seconds, `error_type` the class name of the first uncaught exception. `page_script_hash` is
    Streamlit's own id of the page, `screen` the page's name, `trace_id` (32 hex digits) of its trace, if it has one.
    """

    session_id: str
    page_script_hash: str
    fragment_ids: tuple[str, ...]
    outcome: RunOutcome
    duration_s: float
    error_type: str | None = None
    trigger: RunTrigger = RunTrigger.OTHER
    screen: str = ""
    trace_id: str | None = None


class Session(msgspec.Struct):
    """What the next run of a session is compared with; `runner` is the newest one, of which there can be several.

    Two runners may begin a run at the same moment: `last_run` is read and replaced under `lock`.
    """

    started_s: float
    runs: int = 0
    page_script_hash: str = ""
    widget_states: Any = None
    source_changed: bool = False
    left_s: float | None = None
    last_run: SpanContext | None = None
    runner: weakref.ref[Any] | None = None
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def has_other_runner(self, runner: Any) -> bool:
        """Whether `runner` has been superseded."""
        newest = self.runner() if self.runner is not None else None
        return newest is not None and newest is not runner


def trigger_of(start: RunStart, session: Session) -> RunTrigger:
    """What started this run, as seen from the session's run before.

    A change of page counts before the widget or the `st.switch_page` that brought it about; a fragment's own timer and
    a changed file count before both.
    """
    request = start.request
    if session.runs == 0:
        return RunTrigger.CONNECT
    if request is not None and request.from_source_change:
        return RunTrigger.SOURCE
    if request is not None and request.is_auto_rerun:
        return RunTrigger.TIMER
    if start.page_script_hash != session.page_script_hash and not start.fragment_ids:
        return RunTrigger.PAGE
    if request is None:
        return RunTrigger.RERUN
    if start.fragment_ids or widgets_changed(session.widget_states, request.widget_states):
        return RunTrigger.WIDGET
    return RunTrigger.SOURCE if session.source_changed else RunTrigger.OTHER


def widgets_changed(before: Any, now: Any) -> bool:
    """Whether a widget's value differs from the run before, or a button was pressed."""
    if now is None or not now.widgets:
        return False
    if before is None:
        return True
    if before != now and not _contains(before, now):
        return True
    return any(_is_trigger(each) for each in now.widgets)


def _contains(before: Any, now: Any) -> bool:
    """Whether each widget of `now` had the same value before; widgets come, go and change their places."""
    known = {each.id: each for each in before.widgets}
    return all(known.get(each.id) == each for each in now.widgets)


def _is_trigger(state: Any) -> bool:
    """A press counts each time: its value is gone after one run."""
    return str(state.WhichOneof("value") or "").endswith(("trigger_value", "chat_input_value"))


class RunListener(Protocol):
    """Is told of each finished run, on the script's own thread."""

    def __call__(self, run: ScriptRun, /) -> None:
        """Take one finished run."""


class RunTracer(Protocol):
    """Makes telemetry of runs; every method is called on a thread of the run's script."""

    def run_started(self, start: RunStart, trigger: RunTrigger, screen: str, session: Session) -> Any:
        """A run begins; returns what the other methods get back."""

    def run_failed(self, handle: Any, error: BaseException, first: bool) -> None:
        """An uncaught error of the run, the `first` one or another."""

    def run_finished(self, handle: Any, run: ScriptRun) -> None:
        """The run has ended."""

    def callback(self, function: Callable[..., Any]) -> AbstractContextManager[None]:
        """Wraps the call of a widget's callback."""

    def session_ended(self, session: Session, duration_s: float) -> None:
        """A session is over; `duration_s` until its browser left."""


class OpenRun(msgspec.Struct):
    """A run that has not ended.

    `rerun` and `stopped` say how the script's function ended, where that is known; `errors` holds the
    errors that were told until its end, so that none is told twice; `failure` is the outcome of the first. `events` are
    its runner's, `thread` the identifier of the thread that it runs on.
    """

    start: RunStart
    trigger: RunTrigger
    screen: str
    started_s: float
    session: Session
    tracer: RunTracer | None = None
    handle: Any = None
    error_type: str | None = None
    failure: RunOutcome = RunOutcome.ERROR
    errors: tuple[BaseException, ...] = ()
    rerun: bool = False
    stopped: bool = False
    ended: bool = False
    events: EventsHeard | None = None
    thread: int = 0


def outcome_of(run: OpenRun, told: RunOutcome, superseded: Callable[[], bool]) -> RunOutcome:
    """How a run ended.

    Arguments:
        told: the outcome by Streamlit's event.
        superseded: whether the session has got another runner meanwhile, which the run was stopped for.
    """
    if told is RunOutcome.COMPILE_ERROR:
        return told
    if run.error_type is not None:
        return run.failure
    if run.rerun:
        return RunOutcome.RERUN
    if run.stopped or told is RunOutcome.STOPPED:
        return RunOutcome.RERUN if superseded() else RunOutcome.STOPPED
    return told
