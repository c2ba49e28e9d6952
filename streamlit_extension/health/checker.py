"""`ComponentChecker`: each check once, now, for whoever asks."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from otel.instrumentation.sqlalchemy import ENGINES
from otel.trace_context import suppressed
from streamlit_extension.health.checks import system
from streamlit_extension.health.checks.cache import CacheCheck
from streamlit_extension.health.checks.database import DatabaseCheck, error_line
from streamlit_extension.health.checks.external_apis import ExternalApiCheck
from streamlit_extension.health.model import CheckResult, Outcome
from streamlit_extension.health.scheduler import PREPARE_S, prepare

_Engines = Callable[[], Iterable[Any]]
#: Worst first.
_ORDER = (Outcome.FAILED, Outcome.TIMEOUT, Outcome.DEGRADED, Outcome.SKIPPED, Outcome.OK, Outcome.NOT_CONFIGURED)


class ComponentChecker:
    """Runs one check now and returns its `CheckResult`; never raises what a component raises.

    Arguments:
        engines: SQLAlchemy engines by name; by default those that the application has made.
        database_url: a database to check besides (SQLAlchemy URL).
        cache_url: a Redis (`redis://`, `rediss://`, `unix://`).
        external_apis: URLs by name.
        data_dir: the folder whose disk is measured; by default the one for temporary files.
        thresholds: percentages above which `memory_usage` and `disk_usage` degrade.
        timeout_s: hard time-out of each check, in seconds, above 0. One that hangs is never run a second time beside
            itself: later calls wait for the run under way, and callers at the same time share it.
    """

    def __init__(
        self,
        *,
        engines: Mapping[str, Any] | None = None,
        database_url: str | None = None,
        cache_url: str | None = None,
        external_apis: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        thresholds: Mapping[str, float] | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        self._timeout_s = timeout_s
        self._engines = engines
        self._database_url = database_url
        self._databases: dict[str, DatabaseCheck] = {}
        self._configured_engine: Any = None
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._cache = CacheCheck(lambda: cache_url, timeout_s=timeout_s)
        self._apis = {name: ExternalApiCheck(url, timeout_s=timeout_s) for name, url in (external_apis or {}).items()}
        self._data_dir = data_dir or Path(tempfile.gettempdir())
        limits = thresholds or {}
        self._memory_percent = limits.get("memory_usage", system.MEMORY_PERCENT)
        self._disk_percent = limits.get("disk_usage", system.DISK_PERCENT)
        # Made on each rerun, a checker must leave no connection behind.
        weakref.finalize(self, _close_all, self._databases, self._cache).atexit = False

    def check_database(self) -> CheckResult:
        """Every database; with several, the worst result and each one's outcome in `databases`."""
        try:
            found = {name: (engine, pools) for name, engine, pools in self._found_engines()}
        except Exception as error:
            return CheckResult(Outcome.FAILED, error=error_line(error))
        return _together(self._bounded(self._database_checks(found)), "databases")

    def check_cache(self) -> CheckResult:
        """The Redis, or Streamlit's own caches."""
        return self._bounded({"cache": self._cache})["cache"]

    def check_external_apis(self) -> CheckResult:
        """Every configured API; the worst result and each one's outcome in `apis`."""
        found = self._bounded({f"external_apis:{name}": check for name, check in self._apis.items()})
        return _together({name.partition(":")[2]: result for name, result in found.items()}, "apis")

    def check_disk_space(self) -> CheckResult:
        """The disk that holds the data folder."""
        return self._bounded({"disk": lambda: system.check_disk_space(self._data_dir, self._disk_percent)})["disk"]

    def check_memory_usage(self) -> CheckResult:
        """Memory (and CPU) of the container or the machine."""
        return _timed(lambda: system.check_memory_usage(self._memory_percent))

    def close(self) -> None:
        """Close the connections that are kept between calls."""
        _close_all(self._databases, self._cache)

    def _database_checks(self, engines: Mapping[str, tuple[Any, _Engines]]) -> dict[str, DatabaseCheck]:
        with self._lock:
            for name in self._databases.keys() - engines.keys():
                self._databases.pop(name).close()
            for name, (engine, pools) in engines.items():
                check = self._databases.setdefault(name, DatabaseCheck(lambda: None, slow_s=self._timeout_s / 2))
                check.use(engine, pools)
            return {name: self._databases[name] for name in engines}

    def _bounded(self, checks: Mapping[str, Callable[[], CheckResult]]) -> dict[str, CheckResult]:
        """Run checks beside one another, each on a thread of its own, and wait for the time-out at most.

        What a check imports first is not counted.
        """
        with self._lock:
            for name, check in checks.items():
                if name not in self._jobs or self._jobs[name].done.is_set():
                    self._jobs[name] = _Job(name, check)
            jobs = {name: self._jobs[name] for name in checks}
        prepared_by_s = time.monotonic() + PREPARE_S
        for job in jobs.values():
            job.prepared.wait(max(0.0, prepared_by_s - time.monotonic()))
        deadline_s = time.monotonic() + self._timeout_s
        return {name: job.result(deadline_s, self._timeout_s) for name, job in jobs.items()}

    def _found_engines(self) -> Iterable[tuple[str, Any, _Engines]]:
        """Each database's name, the engine that is asked, and what gives all whose pools are looked at."""
        if self._engines is not None:
            yield from ((name, engine, tuple) for name, engine in self._engines.items())
        else:
            for entry in ENGINES.entries:
                if (engine := entry.engine) is not None:
                    yield entry.name, engine, entry.all_living
        if self._database_url is not None:
            if self._configured_engine is None:
                self._configured_engine = engine_for(self._database_url)
            yield "configured", self._configured_engine, tuple


def _close_all(databases: dict[str, DatabaseCheck], cache: CacheCheck) -> None:
    cache.close()
    for check in databases.values():
        check.close()
    databases.clear()


class _Job:
    """One run of one check on a thread of its own, which hangs with it and holds nobody up."""

    def __init__(self, name: str, check: Callable[[], CheckResult]) -> None:
        self.done = threading.Event()
        self.prepared = threading.Event()
        self._check = check
        self._result: CheckResult | None = None
        threading.Thread(target=self._run, name=f"stx-check-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            prepare(self._check)
            self.prepared.set()
            self._result = _timed(self._check)
        finally:
            self.prepared.set()
            self.done.set()

    def result(self, deadline_s: float, timeout_s: float) -> CheckResult:
        """What was found, or that nothing was until `deadline_s` (monotonic); a run over it is woken."""
        if self.done.wait(max(0.0, deadline_s - time.monotonic())) and self._result is not None:
            return self._result
        with contextlib.suppress(Exception):
            getattr(self._check, "interrupt", lambda: None)()
        return CheckResult(Outcome.TIMEOUT, timeout_s, error=f"no answer within {timeout_s:g} s")


def engine_for(url: str) -> Any:
    """An engine of our own for a configured URL, unknown to discovery; it pools nothing.

    Raises:
        RuntimeError: SQLAlchemy or the database's driver is not installed, or the URL is none.
    """
    try:
        import sqlalchemy
        from sqlalchemy.pool import NullPool
    except ImportError as error:
        raise RuntimeError("health.database.url needs the package SQLAlchemy, which is not installed") from error
    try:
        with ENGINES.ignoring():
            return sqlalchemy.create_engine(url, poolclass=NullPool)
    except ImportError as error:
        raise RuntimeError(f"health.database.url needs the driver {error.name}, which is not installed") from error
    except (sqlalchemy.exc.ArgumentError, ValueError):  # their texts may repeat the URL, with its password
        raise RuntimeError("health.database.url is not a database URL that SQLAlchemy understands") from None


def _timed(check: Callable[[], CheckResult]) -> CheckResult:
    began_s = time.perf_counter()
    try:
        with suppressed():  # a check's own queries are no telemetry of the application's
            return check()
    except Exception as error:
        return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=error_line(error))


def _together(results: Mapping[str, CheckResult], key: str) -> CheckResult:
    if not results:
        return CheckResult(Outcome.NOT_CONFIGURED)
    worst = min(results.values(), key=lambda result: _ORDER.index(result.outcome))
    if len(results) == 1:
        return worst
    detail = {**worst.detail, key: {name: result.outcome.value for name, result in results.items()}}
    return CheckResult(worst.outcome, sum(result.duration_s for result in results.values()), detail, worst.error)
