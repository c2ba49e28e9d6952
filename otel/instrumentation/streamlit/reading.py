"""Every internal name of Streamlit that is only read, each in one function that has a fallback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from otel.instrumentation.streamlit.model import RunOutcome

#: Where Streamlit compiles the main script and pages.
_COMPILER = "streamlit.runtime.scriptrunner.script_cache"


class CacheStatistics(msgspec.Struct, frozen=True):
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


# -- the run of this thread ------------------------------------------------------------------------------------------


def screen_name(runner: Any, page_script_hash: str, pages: Mapping[str, Any] | None = None) -> str:
    """The page's name as its navigation shows it; that of the script in an application of one page."""
    try:
        known = runner._pages_manager.get_pages() if pages is None else pages
        page = known.get(page_script_hash) or {}
        return str(page.get("page_name") or _script_name(page.get("script_path") or runner._main_script_path))
    except Exception:
        return ""


@lru_cache(256)
def _script_name(path: str) -> str:
    return Path(path).stem.replace("_", " ").strip()


def _context() -> Any:
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    return get_script_run_ctx(suppress_warning=True)


def page_script_hash() -> str | None:
    """Id of the page that this thread's run has shown."""
    try:
        return getattr(_context(), "page_script_hash", None)
    except (ImportError, AttributeError):
        return None


def current_session_id() -> str | None:
    """Id of the session whose script this thread runs; None outside a script."""
    context = _context()
    return None if context is None else context.session_id


def in_script_thread() -> bool:
    """Whether the caller runs inside a Streamlit script (a rerun, a callback, a fragment)."""
    try:
        return current_session_id() is not None
    except (ImportError, AttributeError):
        return False


def is_meant_to_end(error: BaseException) -> bool:
    """Whether an error was raised to end a script, by `sys.exit` or by Streamlit itself."""
    if isinstance(error, SystemExit):
        return True
    try:
        from streamlit.runtime.scriptrunner_utils.exceptions import RerunException, StopException
    except ImportError:
        return False
    return isinstance(error, (RerunException, StopException))


def errors_go_to_rich() -> bool:
    """Whether Streamlit prints uncaught errors by the `rich` package and doesn't log them."""
    try:
        from streamlit import get_option

        return bool(get_option("logger.enableRich")) and find_spec("rich") is not None
    except (ImportError, RuntimeError):
        return False


def html_target(*, in_page: bool) -> Any:
    """What has the method `html`: the page, or the place of toasts, whose elements leave those of the page alone."""
    import streamlit

    if in_page:
        return streamlit
    try:
        from streamlit.delta_generator_singletons import get_dg_singleton_instance

        return get_dg_singleton_instance().event_dg
    except (ImportError, AttributeError):
        return streamlit


# -- sessions and caches ---------------------------------------------------------------------------------------------


def _runtime() -> Any:
    from streamlit.runtime import Runtime

    return Runtime.instance() if Runtime.exists() else None


def connected_sessions() -> int | None:
    """How many sessions have a browser now; None where there is no runtime or the seam is missing."""
    try:
        runtime = _runtime()
        return runtime._session_mgr.num_active_sessions() if runtime is not None else 0
    except (ImportError, AttributeError):
        return None


def cache_statistics() -> CacheStatistics | None:
    """Streamlit's cache counters, or None where nothing is cached yet or the seam is missing."""
    try:
        return read_cache_counters()
    except (ImportError, AttributeError):
        return None


def read_cache_counters() -> CacheStatistics | None:
    """As `cache_statistics`, which raises nothing."""
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


# -- where memory goes: what holds it, without a lock and without a line of the application's own code ---------------


def session_states() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each session's id and the dictionaries that hold its state and its widgets' values."""
    runtime = _runtime()
    for info in runtime._session_mgr.list_sessions() if runtime is not None else ():
        state = info.session._session_state
        yield info.session.id, (state._old_state, state._new_session_state, state._new_widget_state.states)


def uploaded_files() -> Iterator[tuple[str, int]]:
    """Each session's id and the bytes of the files that it has uploaded."""
    runtime = _runtime()
    if runtime is None:
        return
    for session_id, files in tuple(runtime._uploaded_file_mgr.file_storage.items()):
        yield session_id, sum(len(each.data) for each in tuple(files.values()))


def media_bytes() -> int:
    """Bytes of the images, videos and downloads that Streamlit keeps for browsers."""
    runtime = _runtime()
    if runtime is None:
        return 0
    files = runtime._media_file_mgr._storage._files_by_id
    return sum(each.content_size for each in tuple(files.values()))


def cache_entries() -> Iterator[Any]:
    """The dictionaries that hold the entries of `st.cache_data` and `st.cache_resource`."""
    from streamlit.runtime.caching import cache_data_api, cache_resource_api

    found: tuple[Any, ...] = (cache_data_api._data_caches, cache_resource_api._resource_caches)
    for caches in found:
        for of_session in tuple(caches._function_caches.values()):
            for cache in tuple(of_session.values()):
                entries = _entries(getattr(getattr(cache, "storage", cache), "_mem_cache", None))
                if entries is not None:
                    yield entries


def failure_of(error: BaseException) -> RunOutcome:
    """How a run ends by this error: a page that can't be compiled is compiled while the main script runs."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == _COMPILER:
            return RunOutcome.COMPILE_ERROR
        trace = trace.tb_next
    return RunOutcome.ERROR


def _entries(memory: Any) -> Any:
    """The dictionary inside a cache of Streamlit's own, or of `cachetools`, which older releases use."""
    found = getattr(memory, "_data", None)
    return found if found is not None else getattr(memory, "_Cache__data", None)


def probe_memory() -> None:
    """Raise AttributeError or ImportError where one of the above has moved."""
    from streamlit.runtime.app_session import AppSession
    from streamlit.runtime.caching import cache_data_api, cache_resource_api
    from streamlit.runtime.caching.ttl_cleanup_cache import TTLCleanupCache
    from streamlit.runtime.memory_media_file_storage import MemoryFile
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
    from streamlit.runtime.state.session_state import SessionState, WStates
    from streamlit.runtime.websocket_session_manager import WebsocketSessionManager

    state = SessionState()
    _ = state._old_state, state._new_session_state, WStates().states, AppSession.session_state
    _ = WebsocketSessionManager.list_sessions, MemoryFile.content_size, MemoryUploadedFileManager("").file_storage
    _ = cache_data_api._data_caches._function_caches, cache_resource_api._resource_caches._function_caches
    if _entries(TTLCleanupCache(1, 1, time.monotonic, print)) is None:
        raise AttributeError("the caches' entries have moved")
