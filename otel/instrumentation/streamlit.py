"""What Streamlit does, as facts: script runs and caches.

The only file of `otel/` that knows Streamlit, and each internal name of it is touched in one function that has a
fallback: where a Streamlit has moved its internals, the application runs on and `seams()` says what can't be seen.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

_logger = logging.getLogger("otel.instrumentation.streamlit")


class RunOutcome(StrEnum):
    """How a script run ended (`streamlit.run.outcome`)."""

    SUCCESS = "success"
    RERUN = "rerun"
    ERROR = "error"
    COMPILE_ERROR = "compile_error"


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """One finished run of the script or of fragments of it.

    `duration_s` is in seconds, `error_type` the class name of the first uncaught exception. `page_script_hash` is
    Streamlit's own id of the page.
    """

    session_id: str
    page_script_hash: str
    fragment_ids: tuple[str, ...]
    outcome: RunOutcome
    duration_s: float
    error_type: str | None = None


class RunListener(Protocol):
    """Is told of each finished run, on the script's own thread."""

    def __call__(self, run: ScriptRun, /) -> None:
        """Take one finished run."""


@dataclass(slots=True)
class _OpenRun:
    session_id: str
    page_script_hash: str
    fragment_ids: tuple[str, ...]
    started_s: float
    thread_id: int
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Streamlit's own caches (`st.cache_data`, `st.cache_resource`), summed.

    `hits` and `misses` are None where this Streamlit does not count them. `used_bytes` and `budget_bytes` are None
    where unknown or unlimited. `functions` is the number of cached functions seen.
    """

    hits: int | None
    misses: int | None
    evictions: int | None
    used_bytes: int | None
    budget_bytes: int | None
    functions: int


def _error_name(error: object) -> str | None:
    return None if error is None else type(error).__name__


@dataclass(slots=True, weakref_slot=True)
class StreamlitInstrumentor:
    """Watches script runs by Streamlit's own events; `instrument` and `uninstrument` are exact inverses.

    One observer for the process: instrumenting twice adds nothing. Listeners are called on script threads and their
    failures are contained.
    """

    _listeners: list[RunListener] = field(default_factory=list)
    _open: weakref.WeakKeyDictionary[Any, _OpenRun] = field(default_factory=weakref.WeakKeyDictionary)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _hidden_sessions: set[str] = field(default_factory=set)
    _undo: list[Callable[[], None]] = field(default_factory=list)
    _refusing: bool = False

    def instrument(self) -> None:
        """Start watching; a missing seam is logged once and the rest still works."""
        if self._undo:
            return
        for name, patch in (("script runs", self._patch_runner), ("script errors", self._patch_errors)):
            try:
                patch()
            except (ImportError, AttributeError) as error:
                _logger.warning("Streamlit's %s can't be watched: %s", name, error, extra={"event": "seam.missing"})

    def uninstrument(self) -> None:
        """Put everything back as it was found."""
        while self._undo:
            self._undo.pop()()
        with self._changed:
            self._open.clear()
            self._changed.notify_all()

    def _patch_runner(self) -> None:
        from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

        original = ScriptRunner.__init__
        observer = self

        def init(runner: Any, *args: Any, **kwargs: Any) -> None:
            original(runner, *args, **kwargs)
            with _contained("a script runner could not be watched"):
                runner.on_event.connect(observer._on_event)

        self._replace(ScriptRunner, "__init__", init)

    def _patch_errors(self) -> None:
        """Streamlit hands each uncaught error of a script, callback or fragment to one function, by two names."""
        from streamlit.runtime import fragment
        from streamlit.runtime.scriptrunner import exec_code

        found = False
        for module in (exec_code, fragment):
            for name in ("handle_user_script_exception", "handle_uncaught_app_exception"):
                if hasattr(module, name):
                    self._replace(module, name, self._recording(getattr(module, name)))
                    found = True
        if not found:
            raise AttributeError("no handler of uncaught script errors")

    def _recording(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def handle(error: BaseException, *args: Any, **kwargs: Any) -> Any:
            with _contained("a script error could not be recorded"):
                self._record_error(error)
            return original(error, *args, **kwargs)

        return handle

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        previous = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, previous))

    # -- what Streamlit tells -----------------------------------------------------------------------------------

    def _on_event(self, sender: Any, event: Any = None, **payload: Any) -> None:
        with _contained("a script run's event could not be read"):
            match event.name:
                case "SCRIPT_STARTED":
                    self._started(sender, payload)
                case "SCRIPT_STOPPED_WITH_COMPILE_ERROR":
                    self._stopped(sender, RunOutcome.COMPILE_ERROR, _error_name(payload.get("exception")))
                case "SCRIPT_STOPPED_FOR_RERUN":
                    self._stopped(sender, RunOutcome.RERUN)
                case "SCRIPT_STOPPED_WITH_SUCCESS" | "FRAGMENT_STOPPED_WITH_SUCCESS" | "SHUTDOWN":
                    self._stopped(sender, RunOutcome.SUCCESS)

    def _started(self, runner: Any, payload: Mapping[str, Any]) -> None:
        self._stopped(runner, RunOutcome.RERUN)  # a run pre-empted before its first line has no end of its own
        run = _OpenRun(
            session_id=getattr(runner, "_session_id", ""),
            page_script_hash=payload.get("page_script_hash") or "",
            fragment_ids=tuple(payload.get("fragment_ids_this_run") or ()),
            started_s=time.perf_counter(),
            thread_id=threading.get_ident(),
        )
        with self._changed:
            self._open[runner] = run
            refusing = self._refusing
        if refusing:
            runner.request_stop()

    def _stopped(self, runner: Any, outcome: RunOutcome, error_type: str | None = None) -> None:
        with self._changed:
            run = self._open.pop(runner, None)
            if run is None:
                return
            self._changed.notify_all()
        if error_type is None:
            error_type = run.error_type
        if error_type is not None and outcome is not RunOutcome.COMPILE_ERROR:
            outcome = RunOutcome.ERROR
        fact = ScriptRun(
            run.session_id,
            run.page_script_hash,
            run.fragment_ids,
            outcome,
            time.perf_counter() - run.started_s,
            error_type,
        )
        for listener in tuple(self._listeners):
            with _contained("a listener of script runs failed"):
                listener(fact)

    def _record_error(self, error: BaseException) -> None:
        session_id = _current_session_id()
        thread_id = threading.get_ident()
        with self._changed:
            runs = [run for run in self._open.values() if run.session_id == session_id]
            own = [run for run in runs if run.thread_id == thread_id]
            for run in own or runs:
                if run.error_type is None:
                    run.error_type = type(error).__name__

    def add_listener(self, listener: RunListener) -> None:
        """Tell `listener` of every finished run from now on; adding it again changes nothing."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def remove_listener(self, listener: RunListener) -> None:
        """Tell `listener` no more."""
        self._listeners = [each for each in self._listeners if each != listener]

    @property
    def active_sessions(self) -> tuple[str, ...]:
        """Ids of the sessions whose script is running now, without hidden ones."""
        with self._changed:
            return tuple(run.session_id for run in self._open.values() if run.session_id not in self._hidden_sessions)

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
                lambda: all(run.session_id in self._hidden_sessions for run in self._open.values()), timeout_s
            )

    def stop_active_runs(self) -> tuple[str, ...]:
        """Ask every running script to end at its next Streamlit call; returns the sessions concerned."""
        with self._changed:
            runs = list(self._open.items())
        for runner, _ in runs:
            with _contained("a script could not be stopped"):
                runner.request_stop()
        return tuple(run.session_id for _, run in runs)


INSTRUMENTOR = StreamlitInstrumentor()


@contextmanager
def _contained(message: str) -> Iterator[None]:
    """Telemetry never breaks its host: what fails here is logged, without its text, and goes no further."""
    try:
        yield
    except Exception as error:
        _logger.warning("%s: %s", message, type(error).__name__, extra={"event": "telemetry.internal_error"})


def _current_session_id() -> str | None:
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx(suppress_warning=True)
    return None if context is None else context.session_id


def in_script_thread() -> bool:
    """Whether the caller runs inside a Streamlit script (a rerun, a callback, a fragment)."""
    try:
        return _current_session_id() is not None
    except (ImportError, AttributeError):
        return False


def cache_statistics() -> CacheStatistics | None:
    """Streamlit's cache counters, or None where nothing is cached yet or the seam is missing."""
    try:
        return _read_cache_counters()
    except (ImportError, AttributeError):
        return None


def _read_cache_counters() -> CacheStatistics | None:
    from streamlit.runtime.caching.cache_metrics import get_cache_metrics
    from streamlit.runtime.caching.global_cache_budget import get_global_cache_budget

    families = get_cache_metrics().get_stats(("cache_lookups", "cache_evictions"))
    lookups: dict[str, int] = {"hit": 0, "miss": 0}
    functions: set[tuple[tuple[str, str], ...]] = set()
    for stat in families.get("cache_lookups", ()):
        labels = dict(stat.labels or {})  # type: ignore[attr-defined]
        lookups[labels.pop("result", "miss")] += stat.value  # type: ignore[attr-defined]
        functions.add(tuple(sorted(labels.items())))
    if not functions:
        return None
    evictions = sum(stat.value for stat in families.get("cache_evictions", ()))  # type: ignore[attr-defined]
    budget = get_global_cache_budget()
    used = budget.total_bytes if budget.is_enabled else None
    return CacheStatistics(lookups["hit"], lookups["miss"], evictions, used, budget.max_bytes, len(functions))


def seams() -> Mapping[str, str | None]:
    """The internals of Streamlit that are relied on: None for each that is there, else what is lost without it."""

    def lost(probe: Callable[[], object], loss: str) -> str | None:
        try:
            probe()
        except (ImportError, AttributeError):
            return loss
        return None

    return {
        "script runs": lost(_probe_runner, "runs are not seen: no script health, no drain of running scripts"),
        "script errors": lost(_probe_errors, "a failing script is not told from a working one"),
        "cache counters": lost(_read_cache_counters, "hit rates of Streamlit's caches are unknown"),
        "script context": lost(_current_session_id, "a call from inside a script can't be told"),
    }


def _probe_runner() -> None:
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner, ScriptRunnerEvent

    _ = ScriptRunner.__init__, ScriptRunner.request_stop, ScriptRunnerEvent.SCRIPT_STARTED


def _probe_errors() -> None:
    from streamlit.runtime.scriptrunner import exec_code

    if not hasattr(exec_code, "handle_user_script_exception"):
        _ = exec_code.handle_uncaught_app_exception  # type: ignore[attr-defined]
