"""`ComponentChecker`: each check once, now, for whoever asks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from otel.instrumentation.sqlalchemy import ENGINES
from streamlit_extension.health.checks import system
from streamlit_extension.health.checks.cache import CacheCheck
from streamlit_extension.health.checks.database import DatabaseCheck, error_line
from streamlit_extension.health.checks.external_apis import ExternalApiCheck
from streamlit_extension.health.model import CheckResult, Outcome

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
        timeout_s: for an answer of a cache or an API, in seconds, above 0.
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
        self._cache = CacheCheck(lambda: cache_url, timeout_s=timeout_s)
        self._apis = {name: ExternalApiCheck(url, timeout_s=timeout_s) for name, url in (external_apis or {}).items()}
        self._data_dir = data_dir or Path(tempfile.gettempdir())
        limits = thresholds or {}
        self._memory_percent = limits.get("memory_usage", system.MEMORY_PERCENT)
        self._disk_percent = limits.get("disk_usage", system.DISK_PERCENT)

    def check_database(self) -> CheckResult:
        """Every database; with several, the worst result and each one's outcome in `databases`."""
        try:
            found = dict(self._found_engines())
        except Exception as error:
            return CheckResult(Outcome.FAILED, error=error_line(error))
        results: dict[str, CheckResult] = {}
        for name, engine in found.items():
            check = self._databases.setdefault(name, DatabaseCheck(lambda: None, slow_s=self._timeout_s / 2))
            check.use(engine)
            results[name] = check()
        return _together(results, "databases")

    def check_cache(self) -> CheckResult:
        """The Redis, or Streamlit's own caches."""
        return _timed(self._cache)

    def check_external_apis(self) -> CheckResult:
        """Every configured API; the worst result and each one's outcome in `apis`."""
        return _together({name: _timed(check) for name, check in self._apis.items()}, "apis")

    def check_disk_space(self) -> CheckResult:
        """The disk that holds the data folder."""
        return _timed(lambda: system.check_disk_space(self._data_dir, self._disk_percent))

    def check_memory_usage(self) -> CheckResult:
        """Memory (and CPU) of the container or the machine."""
        return _timed(lambda: system.check_memory_usage(self._memory_percent))

    def close(self) -> None:
        """Close the connections that are kept between calls."""
        self._cache.close()
        for check in self._databases.values():
            check.close()
        self._databases.clear()

    def _found_engines(self) -> Iterable[tuple[str, Any]]:
        if self._engines is not None:
            yield from self._engines.items()
        else:
            for entry in ENGINES.entries:
                if entry.engine is not None:
                    yield entry.name, entry.engine
        if self._database_url is not None:
            if self._configured_engine is None:
                self._configured_engine = engine_for(self._database_url)
            yield "configured", self._configured_engine


def engine_for(url: str) -> Any:
    """An engine of our own for a configured URL, unknown to discovery; it pools nothing.

    Raises:
        RuntimeError: SQLAlchemy or the database's driver is not installed.
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


def _timed(check: Callable[[], CheckResult]) -> CheckResult:
    began_s = time.perf_counter()
    try:
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
