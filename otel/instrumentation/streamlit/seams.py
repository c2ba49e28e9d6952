"""Every internal name of Streamlit that is watched, each in one function; where one is missing the rest works on.

`reading.py` holds those that are only read. `seams()` says what can't be seen.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from otel.containment import contained
from otel.instrumentation.patching import unseen
from otel.instrumentation.streamlit import reading
from otel.instrumentation.streamlit.events import hear
from otel.instrumentation.streamlit.model import RunRequest

if TYPE_CHECKING:
    from otel.instrumentation.streamlit.watcher import RunWatcher

_logger = logging.getLogger("otel.instrumentation.streamlit")

Replace = Callable[[Any, str, Any], None]

#: Streamlit's event for each element that a script shows, of which there are too many to look at.
ELEMENT: Any = None
#: Set while Streamlit handles a changed file: what is asked for meanwhile comes from it.
_source = threading.local()


# -- patches: each puts its wrappers in place by `replace`, which knows how to take them away -----------------------


def _patch_runner(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner, ScriptRunnerEvent

    global ELEMENT  # noqa: PLW0603 - a constant that is known once Streamlit is imported
    ELEMENT = ScriptRunnerEvent.ENQUEUE_FORWARD_MSG
    original = ScriptRunner.__init__

    @functools.wraps(original)
    def init(runner: Any, *args: Any, **kwargs: Any) -> None:
        original(runner, *args, **kwargs)
        if watcher.watching:
            with contained("a script runner could not be watched"):
                hear(runner, watcher.receiver)
                watcher.runner_created(runner)
                first = kwargs.get("initial_rerun_data")
                if first is not None:
                    watcher.requested(runner, _request_of(first))

    replace(ScriptRunner, "__init__", init)


def _patch_threads(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    original = ScriptRunner._run_script_thread

    @unseen
    @functools.wraps(original)
    def run_script_thread(runner: Any) -> None:
        try:
            original(runner)
        except BaseException as error:
            with contained("the end of a script's thread could not be noted"):
                watcher.died(error)
            raise
        finally:
            with contained("the end of a script's thread could not be noted"):
                watcher.thread_ended(runner)

    replace(ScriptRunner, "_run_script_thread", run_script_thread)


def _patch_requests(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    original = ScriptRunner.request_rerun

    @functools.wraps(original)
    def request_rerun(runner: Any, rerun_data: Any) -> Any:
        accepted = original(runner, rerun_data)
        if accepted and watcher.watching:
            with contained("a request for a run could not be read"):
                watcher.requested(runner, _request_of(rerun_data))
        return accepted

    replace(ScriptRunner, "request_rerun", request_rerun)


def _request_of(rerun_data: Any) -> RunRequest:
    return RunRequest(
        widget_states=getattr(rerun_data, "widget_states", None),
        is_auto_rerun=bool(getattr(rerun_data, "is_auto_rerun", False)),
        from_source_change=getattr(_source, "changing", False),
    )


def _error_handlers() -> list[tuple[Any, str]]:
    """Streamlit hands each uncaught error of a script, callback or fragment to one function, imported by two modules.

    `handle_user_script_exception` in newer releases, `handle_uncaught_app_exception` in older ones.
    """
    from streamlit.runtime import fragment
    from streamlit.runtime.scriptrunner import exec_code

    names = ("handle_user_script_exception", "handle_uncaught_app_exception")
    found = [(module, name) for module in (exec_code, fragment) for name in names if hasattr(module, name)]
    if len({module for module, _ in found}) < 2:
        raise AttributeError("no handler of uncaught script errors")
    return found


def _patch_errors(watcher: RunWatcher, replace: Replace) -> None:
    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def handle(error: BaseException, *args: Any, **kwargs: Any) -> Any:
            with contained("a script error could not be recorded"):
                watcher.failed(error)
                if reading.errors_go_to_rich():  # then Streamlit itself makes no log record of it
                    _logger.error("Uncaught app execution", exc_info=error)
            return original(error, *args, **kwargs)

        return handle

    for module, name in _error_handlers():
        replace(module, name, recording(getattr(module, name)))


def _error_display() -> tuple[Any, str]:
    """The function that shows an uncaught error, unless the application's own `on_script_error` has done so."""
    from streamlit import error_util

    name = "show_uncaught_app_exception"
    return error_util, name if hasattr(error_util, name) else "_show_exception"


def _patch_display(watcher: RunWatcher, replace: Replace) -> None:
    module, name = _error_display()
    original = getattr(module, name)

    @functools.wraps(original)
    def show(error: BaseException) -> None:
        original(error)
        watcher.error_shown()

    replace(module, name, show)


def _patch_ends(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.scriptrunner import script_runner

    original = script_runner.exec_func_with_error_handling  # type: ignore[attr-defined]

    @unseen
    @functools.wraps(original)
    def execute(*args: Any, **kwargs: Any) -> Any:
        events = watcher.events_of_this_thread()
        if events is None:
            result = original(*args, **kwargs)
        else:
            events.pause()
            try:
                result = original(*args, **kwargs)
            finally:
                events.resume()
        with contained("a script's end could not be read"):
            _, without_errors, rerun, premature_stop, *_ = result
            watcher.function_ended(rerun is not None, premature_stop and without_errors and rerun is None)
        return result

    replace(script_runner, "exec_func_with_error_handling", execute)


def _patch_callbacks(watcher: RunWatcher, replace: Replace) -> None:
    """A widget has one callback, called by the first method, or one for each event of a component, by the second."""
    from streamlit.runtime.state.session_state import SessionState, WStates

    one, many = WStates.call_callback, SessionState._execute_widget_callback
    parameters = many.__code__.co_varnames[: many.__code__.co_argcount]
    place = parameters.index("callback_fn") - 1

    @unseen
    @functools.wraps(one)
    def call_callback(states: Any, widget_id: str) -> Any:
        callback = getattr(states.widget_metadata.get(widget_id), "callback", None)
        if watcher.tracer is None or callback is None:
            return one(states, widget_id)
        with watcher.tracer.callback(callback):
            return one(states, widget_id)

    @unseen
    @functools.wraps(many)
    def execute_widget_callback(state: Any, *args: Any, **kwargs: Any) -> Any:
        callback = kwargs.get("callback_fn") or (args[place] if len(args) > place else None)
        if watcher.tracer is None or callback is None:
            return many(state, *args, **kwargs)
        with watcher.tracer.callback(callback):
            return many(state, *args, **kwargs)

    replace(WStates, "call_callback", call_callback)
    replace(SessionState, "_execute_widget_callback", execute_widget_callback)


def _patch_sessions(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.app_session import AppSession

    def told(name: str, tell: Callable[[str], None]) -> None:
        original = getattr(AppSession, name)

        @functools.wraps(original)
        def call(session: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(session, *args, **kwargs)
            if watcher.watching:
                with contained("a session could not be watched"):
                    tell(session.id)
            return result

        replace(AppSession, name, call)

    told("__init__", watcher.session_began)
    told("register_file_watchers", watcher.session_began)  # when a browser comes back; at first only with a watcher
    told("disconnect_file_watchers", watcher.session_left)
    told("shutdown", watcher.session_ended)


def _patch_sources(watcher: RunWatcher, replace: Replace) -> None:
    from streamlit.runtime.app_session import AppSession

    original = AppSession._on_source_file_changed

    @functools.wraps(original)
    def on_source_file_changed(session: Any, *args: Any, **kwargs: Any) -> Any:
        _source.changing = True
        try:
            return original(session, *args, **kwargs)
        finally:
            _source.changing = False
            with contained("a changed file could not be noted"):
                watcher.source_changed(session.id)

    replace(AppSession, "_on_source_file_changed", on_source_file_changed)


#: What is watched, and how.
PATCHES: Mapping[str, Callable[[RunWatcher, Replace], None]] = {
    "script runs": _patch_runner,
    "script threads": _patch_threads,
    "run requests": _patch_requests,
    "script errors": _patch_errors,
    "shown errors": _patch_display,
    "stopped runs": _patch_ends,
    "widget callbacks": _patch_callbacks,
    "sessions": _patch_sessions,
    "changed files": _patch_sources,
}


# -- what is there ---------------------------------------------------------------------------------------------------


def seams() -> Mapping[str, str | None]:
    """The internals of Streamlit that are relied on: None for each that is there, else what is lost without it."""

    def lost(probe: Callable[[], object], loss: str) -> str | None:
        try:
            probe()
        except (ImportError, AttributeError, ValueError):
            return loss
        return None

    return {
        "script runs": lost(_probe_runner, "runs are not seen: no script health, no drain of scripts, no spans"),
        "script threads": lost(_probe_threads, "a run that ends by sys.exit is not told on the oldest Streamlit"),
        "run requests": lost(_probe_requests, "what started a run is told as rerun"),
        "script errors": lost(_error_handlers, "a failing script is not told from a working one"),
        "shown errors": lost(_probe_display, "errors have no reference on the page"),
        "stopped runs": lost(_probe_ends, "a run ended by st.stop is told as a success"),
        "widget callbacks": lost(_probe_callbacks, "callbacks have no spans of their own"),
        "sessions": lost(_probe_sessions, "the duration of sessions is unknown"),
        "changed files": lost(_probe_sources, "a run after a changed file is told as another's"),
        "own routes": lost(_probe_routes, "requests for the application's own routes have no spans and no metrics"),
        "cache counters": lost(reading.read_cache_counters, "hit rates of Streamlit's caches are unknown"),
        "memory": lost(reading.probe_memory, "where memory goes is unknown"),
        "script context": lost(reading.current_session_id, "a call from inside a script can't be told"),
    }


def _probe_runner() -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner, ScriptRunnerEvent

    _ = ScriptRunner.__init__, ScriptRunner.request_stop, ScriptRunnerEvent.SCRIPT_STARTED


def _probe_threads() -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    _ = ScriptRunner._run_script_thread


def _probe_requests() -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    _ = ScriptRunner.request_rerun


def _probe_display() -> None:
    module, name = _error_display()
    getattr(module, name)


def _probe_ends() -> None:
    from streamlit.runtime.scriptrunner import script_runner

    _ = script_runner.exec_func_with_error_handling  # type: ignore[attr-defined]


def _probe_callbacks() -> None:
    from streamlit.runtime.state.session_state import SessionState, WStates

    _ = WStates.call_callback
    SessionState._execute_widget_callback.__code__.co_varnames.index("callback_fn")


def _probe_sessions() -> None:
    from streamlit.runtime.app_session import AppSession

    _ = AppSession.register_file_watchers, AppSession.disconnect_file_watchers, AppSession.shutdown


def _probe_routes() -> None:
    from streamlit.starlette import App

    if "_user_routes" not in App.__init__.__code__.co_names:  # one that is made changes the process's configuration
        raise AttributeError("the application's routes have moved")


def _probe_sources() -> None:
    from streamlit.runtime.app_session import AppSession

    _ = AppSession._on_source_file_changed
