"""From settings and discovery to registered checks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel.instrumentation.sqlalchemy import ENGINES, EngineEntry, EngineRegistry, Subscriber
from streamlit_extension.health.checker import engine_for
from streamlit_extension.health.checks import system
from streamlit_extension.health.checks.cache import CacheCheck
from streamlit_extension.health.checks.database import DatabaseCheck
from streamlit_extension.health.checks.external_apis import ExternalApiCheck
from streamlit_extension.health.checks.telemetry import TelemetryCheck, TelemetryFacts
from streamlit_extension.health.model import CheckFunction, CheckSpec, Scope
from streamlit_extension.health.service import HealthService

if TYPE_CHECKING:
    from streamlit_extension.settings import Settings


class _Wiring:
    """Registers checks with a service and knows how to take them away again; keeps no service alive."""

    def __init__(self, service: HealthService, settings: Settings) -> None:
        self._service = weakref.ref(service)
        self._settings = settings
        self._closing: dict[str, Callable[[], None]] = {}

    def add(
        self, name: str, make: Callable[[Any], CheckFunction], *, critical: bool, scope: Scope, component: str = ""
    ) -> None:
        """Register one check with what `[health]` and `[health.checks.NAME]` say of it."""
        service = self._service()
        if service is None:
            return
        chosen = self._settings.health.for_check(name)
        function = make(chosen)
        close = getattr(function, "close", None)
        if close is not None:
            self._closing[name] = close
        spec = CheckSpec(
            name,
            function,
            component=component,
            interval_s=chosen.interval_s,
            timeout_s=chosen.timeout_s,
            max_age_s=chosen.max_age_s,
            critical=critical if chosen.critical is None else chosen.critical,
            scope=scope if chosen.shared is None else (Scope.SHARED if chosen.shared else Scope.LOCAL),
            depends_on=chosen.depends_on or (),
            failures_to_trip=chosen.failures_to_trip,
            successes_to_recover=chosen.successes_to_recover,
            enabled=chosen.enabled,
        )
        service.register(spec, shared_failure=chosen.shared_failure)

    def add_database(
        self, name: str, engine: Callable[[], Any | None], pools: Callable[[], Iterable[Any]] = tuple
    ) -> None:
        """Register a database: critical and shared unless the settings say otherwise."""
        self.add(
            name,
            lambda chosen: DatabaseCheck(engine, pools=pools, slow_s=chosen.slow_s),
            critical=True,
            scope=Scope.SHARED,
        )

    def remove(self, name: str) -> None:
        """Take one check away."""
        service = self._service()
        if service is not None:
            service.unregister(name)
        close = self._closing.pop(name, None)
        if close is not None:
            close()

    def alive(self) -> bool:
        """Whether the service is still there."""
        return self._service() is not None

    def close(self) -> None:
        """Close what the checks keep open."""
        while self._closing:
            self._closing.popitem()[1]()


def register_checks(
    service: HealthService,
    settings: Settings,
    engines: EngineRegistry | None = ENGINES,
    data_dir: Path | None = None,
    telemetry: Callable[[], TelemetryFacts | None] | None = None,
) -> Callable[[], None]:
    """Register every check that settings and discovery call for; returns what closes their connections.

    Arguments:
        engines: where databases are discovered; None for no discovery.
        data_dir: the folder whose disk is measured; by default the settings'.
        telemetry: the facts of the telemetry pipeline; None where there is none to look at.
    """
    wiring = _Wiring(service, settings)
    health, limits = settings.health, settings.alerts.thresholds
    folder = data_dir or settings.data_dir
    wiring.add(
        "memory",
        lambda _: lambda: system.check_memory_usage(limits.memory_usage),
        critical=False,
        scope=Scope.LOCAL,
        component="system",
    )
    wiring.add(
        "disk",
        lambda _: lambda: system.check_disk_space(folder, limits.disk_usage),
        critical=False,
        scope=Scope.LOCAL,
        component="system",
    )
    wiring.add(
        "cache",
        lambda chosen: CacheCheck(lambda: _reveal(health.cache.url), timeout_s=chosen.timeout_s),
        critical=False,
        scope=Scope.SHARED,
    )
    if telemetry is not None:
        wiring.add("telemetry", lambda _: TelemetryCheck(telemetry), critical=False, scope=Scope.LOCAL)
    for name, url in health.external_apis.items():
        wiring.add(
            f"external_apis:{name}",
            partial(_api_check, url),
            critical=False,
            scope=Scope.SHARED,
        )
    if health.database.url is not None:
        wiring.add_database("database", _Configured(lambda: _reveal(health.database.url)))
    if engines is None:
        return wiring.close
    taken = health.database.url is not None

    def name_of(entry: EngineEntry) -> str:
        return "database:discovered" if taken and entry.name == "database" else entry.name

    end = engines.subscribe(
        Subscriber(
            added=lambda entry: wiring.add_database(name_of(entry), lambda: entry.engine, entry.all_living),
            removed=lambda entry: wiring.remove(name_of(entry)),
            alive=wiring.alive,
        )
    )

    def close() -> None:
        end()
        wiring.close()

    return close


def _api_check(url: str, chosen: Any) -> ExternalApiCheck:
    return ExternalApiCheck(url, timeout_s=chosen.timeout_s, slow_s=chosen.slow_s)


class _Configured:
    """The engine for a configured URL, made at the first run and again when the URL's file has changed."""

    def __init__(self, url: Callable[[], str | None]) -> None:
        self._url = url
        self._made_for: str | None = None
        self._engine: Any = None

    def __call__(self) -> Any | None:
        url = self._url()
        if url is not None and url != self._made_for:
            self._engine, self._made_for = engine_for(url), url
        return self._engine


def _reveal(secret: Any) -> str | None:
    return None if secret is None else str(secret.reveal() if hasattr(secret, "reveal") else secret)
