"""Watches script runs and sessions by Streamlit's own events: for health, for the drain, and for telemetry."""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from otel.containment import contained, log_contained
from otel.instrumentation.patching import replace_attribute
from otel.instrumentation.streamlit import reading, seams
from otel.instrumentation.streamlit.events import EventsHeard, events_of, leave
from otel.instrumentation.streamlit.model import (
    ENDS,
    OpenRun,
    RunListener,
    RunOutcome,
    RunRequest,
    RunStart,
    RunTracer,
    ScriptRun,
    Session,
    outcome_of,
    trigger_of,
)

_logger = logging.getLogger("otel.instrumentation.streamlit")

#: The run that the caller's code belongs to; Streamlit copies it to the threads of parallel fragments.
_current: ContextVar[OpenRun | None] = ContextVar("streamlit_run", default=None)


@dataclass(slots=True, weakref_slot=True)
class RunWatcher:
    """One observer for the process; `watch` and `unwatch` are exact inverses, and watching twice adds nothing.

    Listeners and the tracer are called on script threads and their failures are contained. The state of a run belongs
    to its runner: a runner runs on one thread, one run after the other, and a run can be pre-empted before its first
    line, so that the next one's start comes before its end.
    """

    tracer: RunTracer | None = None
    #: Is called where Streamlit has shown the user an uncaught error, with the run's handle and `compiled=`.
    on_error_shown: Callable[..., object] | None = None
    #: Is called when a session begins.
    on_session: Callable[[], object] | None = None
    _listeners: list[RunListener] = field(default_factory=list)
    _runners: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    _open: weakref.WeakKeyDictionary[Any, OpenRun] = field(default_factory=weakref.WeakKeyDictionary)
    _requests: weakref.WeakKeyDictionary[Any, RunRequest] = field(default_factory=weakref.WeakKeyDictionary)
    _sessions: dict[str, Session] = field(default_factory=dict)
    #: Ids of sessions that ended a short while ago: a run of theirs may still be starting.
    _ended: deque[str] = field(default_factory=lambda: deque(maxlen=256))
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _hidden_sessions: set[str] = field(default_factory=set)
    _undo: list[Callable[[], None]] = field(default_factory=list)
    _refusing: bool = False

    @property
    def watching(self) -> bool:
        """Whether it watches now."""
        return bool(self._undo)

    def watch(self) -> None:
        """Start watching; a missing seam is logged once and the rest still works."""
        if self._undo:
            return
        for name, patch in seams.PATCHES.items():
            try:
                patch(self, self._replace)
            except (ImportError, AttributeError, ValueError) as error:
                _logger.warning("Streamlit's %s can't be watched: %s", name, error, extra={"event": "seam.missing"})

    def unwatch(self) -> None:
        """Put everything back as it was found; runs under way are no longer seen."""
        while self._undo:
            self._undo.pop()()
        with self._changed:
            runs, runners = list(self._open.values()), list(self._runners)
            for each in (self._open, self._requests, self._runners, self._sessions, self._ended):
                each.clear()
            self._changed.notify_all()
        for runner in runners:
            with contained("a script runner could not be left"):
                leave(runner, self.receiver)
        for run in runs:
            self._finish(run, RunOutcome.STOPPED, run.start.page_script_hash, run.screen)

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append(replace_attribute(owner, name, value))

    # -- what Streamlit tells -----------------------------------------------------------------------------------

    def receiver(self, sender: Any, event: Any = None, **payload: Any) -> None:
        """Hears of what `ScriptRunner.on_event` tells, which is also every element that comes beside a script."""
        if event is seams.ELEMENT or not self._undo:
            return
        try:
            self._on_event(sender, event.name, payload)
        except Exception as error:
            log_contained("a script run's event could not be read", error)

    def _on_event(self, runner: Any, name: str, payload: Mapping[str, Any]) -> None:
        if name == "SCRIPT_STARTED":
            self._started(runner, payload)
        elif name in ENDS:
            error = payload.get("exception")
            if error is not None:
                self.failed(error)
                self.error_shown(compiled=False)
            elif name == "SHUTDOWN":
                self.died(sys.exc_info()[1])
            self._stopped(runner, ENDS[name])

    def runner_created(self, runner: Any) -> None:
        """A session has got another runner; runs of the one before are stopped for it."""
        session_id = runner._session_id
        with self._changed:
            self._runners.add(runner)
            self._session_of(session_id).runner = weakref.ref(runner)

    def requested(self, runner: Any, request: RunRequest) -> None:
        """A run was asked for, of a runner that waits, works or is new."""
        with self._changed:
            self._requests[runner] = request

    def _session_of(self, session_id: str) -> Session:
        """The session's state; that of one which has ended is forgotten with the caller. Called under the lock."""
        session = self._sessions.get(session_id)
        if session is None:
            session = Session(time.monotonic())
            if session_id not in self._ended:
                self._sessions[session_id] = session
        return session

    def _started(self, runner: Any, payload: Mapping[str, Any]) -> None:
        session_id = runner._session_id
        self._stopped(runner, RunOutcome.RERUN)  # a run pre-empted before its first line has no end of its own
        page = payload.get("page_script_hash") or ""
        screen = reading.screen_name(runner, page, payload.get("pages"))
        with self._changed:
            session = self._session_of(session_id)
            request = self._requests.pop(runner, None)
            refusing = self._refusing
        start = RunStart(session_id, page, tuple(payload.get("fragment_ids_this_run") or ()), request)
        trigger = trigger_of(start, session)
        run = OpenRun(start, trigger, screen, time.perf_counter(), session, self.tracer)
        run.events, run.thread = events_of(runner, self.receiver), threading.get_ident()
        with self._changed:
            self._open[runner] = run
        _current.set(run)
        session.runs, session.source_changed = session.runs + 1, False
        if request is not None and request.widget_states is not None:
            session.widget_states = request.widget_states
        if run.tracer is not None:
            try:
                run.handle = run.tracer.run_started(start, trigger, screen, session)
            except Exception as error:
                log_contained("a run's telemetry could not begin", error)
        if refusing:
            runner.request_stop()

    def _stopped(self, runner: Any, outcome: RunOutcome) -> None:
        run = self._open.get(runner)
        if run is None:
            return
        self._end(runner, run, outcome)
        with self._changed:  # only now is it idle: whoever waits for that flushes what the run has left
            self._open.pop(runner, None)
            self._changed.notify_all()

    def _end(self, runner: Any, run: OpenRun, outcome: RunOutcome) -> None:
        page = reading.page_script_hash() or run.start.page_script_hash
        run.session.page_script_hash = page
        outcome = outcome_of(run, outcome, lambda: run.session.has_other_runner(runner))
        screen = run.screen if page == run.start.page_script_hash and run.screen else ""
        self._finish(run, outcome, page, reading.screen_name(runner, page) or screen)

    def _finish(self, run: OpenRun, outcome: RunOutcome, page: str, screen: str) -> None:
        _current.set(None)
        with self._changed:
            if run.ended:
                return
            run.ended, run.errors = True, ()
        ids = (run.start.session_id, page, run.start.fragment_ids)
        duration_s, trace_id = time.perf_counter() - run.started_s, getattr(run.handle, "trace_id", None)
        fact = ScriptRun(*ids, outcome, duration_s, run.error_type, run.trigger, screen, trace_id)
        if run.tracer is not None and run.handle is not None:
            try:
                run.tracer.run_finished(run.handle, fact)
            except Exception as error:
                log_contained("a run's telemetry could not be ended", error)
        for listener in self._listeners:
            try:
                listener(fact)
            except Exception as error:
                log_contained("a listener of script runs failed", error)

    def events_of_this_thread(self) -> EventsHeard | None:
        """Those of the current run's runner, where the caller is on the run's own thread."""
        run = _current.get()
        return run.events if run is not None and run.thread == threading.get_ident() else None

    def thread_ended(self, runner: Any) -> None:
        """The runner's thread has ended, by whatever reason (`sys.exit` in a script leaves no event)."""
        self._stopped(runner, RunOutcome.STOPPED)

    def function_ended(self, rerun: bool, stopped: bool) -> None:
        """The run's function has ended for another run, or by `st.stop`, the user or another runner."""
        run = _current.get()
        if run is not None:
            run.rerun, run.stopped = rerun, stopped

    def failed(self, error: BaseException) -> None:
        """An uncaught error of a script, a callback, a fragment or the compiler; each is told once."""
        run = _current.get()
        if run is None or run.ended:
            return
        with self._changed:
            if any(each is error for each in run.errors):
                return
            run.errors = (*run.errors, error)
            first = run.error_type is None
            if first:
                run.error_type, run.failure = type(error).__name__, reading.failure_of(error)
        if run.tracer is not None and run.handle is not None:
            run.tracer.run_failed(run.handle, error, first)

    def died(self, error: BaseException | None) -> None:
        """What ends the script's thread, if anything does: what is no `Exception` is told by nobody else."""
        run = _current.get()
        if error is not None and run is not None and not run.ended and not reading.is_meant_to_end(error):
            self.failed(error)
            _logger.error("Uncaught app execution", exc_info=error)

    def error_shown(self, *, compiled: bool = True) -> None:
        """The user has been told of an error of the current run: show its reference too.

        Arguments:
            compiled: False where the script could not be compiled.
        """
        run = _current.get()
        if self.on_error_shown is not None and run is not None and run.handle is not None:
            with contained("an error's reference could not be shown"):
                self.on_error_shown(run.handle, compiled=compiled)

    # -- sessions -----------------------------------------------------------------------------------------------

    def session_began(self, session_id: str) -> None:
        """A browser has opened the application, or has come back to its session."""
        with self._changed:
            self._session_of(session_id).left_s = None
        if self.on_session is not None:
            self.on_session()

    def session_left(self, session_id: str) -> None:
        """The session's browser has gone; it may come back for a while."""
        with self._changed:
            session = self._sessions.get(session_id)
            if session is not None and session.left_s is None:
                session.left_s = time.monotonic()

    def session_ended(self, session_id: str) -> None:
        """Streamlit has given the session up."""
        with self._changed:
            session = self._sessions.pop(session_id, None)
            self._ended.append(session_id)
            hidden = session_id in self._hidden_sessions
        if session is not None and self.tracer is not None and not hidden:
            ended_s = session.left_s if session.left_s is not None else time.monotonic()
            self.tracer.session_ended(session, ended_s - session.started_s)

    def end_sessions(self) -> None:
        """The process ends, and every session with it: telemetry is over before Streamlit gives them up."""
        for session_id in tuple(self._sessions):
            self.session_ended(session_id)

    def source_changed(self, session_id: str) -> None:
        """A file of the script has changed; the session's next run may come from it."""
        with self._changed:
            session = self._sessions.get(session_id)
            if session is not None:
                session.source_changed = True

    # -- who listens --------------------------------------------------------------------------------------------

    def add_listener(self, listener: RunListener) -> None:
        """Tell `listener` of every finished run from now on; adding it again changes nothing."""
        if listener not in self._listeners:
            self._listeners = [*self._listeners, listener]

    def remove_listener(self, listener: RunListener) -> None:
        """Tell `listener` no more."""
        self._listeners = [each for each in self._listeners if each != listener]

    # -- who runs, and the drain --------------------------------------------------------------------------------

    @property
    def active_sessions(self) -> tuple[str, ...]:
        """Ids of the sessions whose script is running now, without hidden ones."""
        with self._changed:
            running = [run.start.session_id for run in self._open.values()]
            return tuple(each for each in running if each not in self._hidden_sessions)

    def is_hidden(self, session_id: str) -> bool:
        """Whether a session is nobody's (the health canary's own)."""
        return session_id in self._hidden_sessions

    @property
    def hidden_sessions(self) -> int:
        """How many sessions are nobody's."""
        return len(self._hidden_sessions)

    def hide_session(self, session_id: str) -> None:
        """Don't count this session as a user's (the health canary's own)."""
        with self._changed:
            self._hidden_sessions.add(session_id)

    def unhide_session(self, session_id: str) -> None:
        """Forget a hidden session that has ended."""
        with self._changed:
            self._hidden_sessions.discard(session_id)

    def refuse_new_runs(self, refuse: bool = True) -> None:
        """Let each run that starts from now on end at its first Streamlit call."""
        with self._changed:
            self._refusing = refuse

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no user's script runs; False when `timeout_s` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(run.start.session_id in self._hidden_sessions for run in self._open.values()), timeout_s
            )

    def stop_active_runs(self) -> tuple[str, ...]:
        """Ask every running script to end at its next Streamlit call; returns the sessions concerned."""
        with self._changed:
            runs = list(self._open.items())
        for runner, _ in runs:
            with contained("a script could not be stopped"):
                runner.request_stop()
        return tuple(run.start.session_id for _, run in runs)
