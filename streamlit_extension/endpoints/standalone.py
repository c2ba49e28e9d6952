"""The health paths as an application of their own, for a process without Streamlit or a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from otel.instrumentation.sqlalchemy import ENGINES
from streamlit_extension.beats import Heartbeat, Housekeeping
from streamlit_extension.control import ControlWatcher
from streamlit_extension.data_folder import load_or_make_token, prepare_data_dir
from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.endpoints.health import HealthCheckEndpoint, HealthRoutes
from streamlit_extension.health.default import standalone_service
from streamlit_extension.health.model import ServicePhase
from streamlit_extension.health.service import HealthService
from streamlit_extension.launchers import settings_of_launcher
from streamlit_extension.listeners import Listeners, foreign_uvicorn, process_addresses, uvicorn_addresses
from streamlit_extension.logs.setup import configure_logging
from streamlit_extension.settings import Settings


def create_health_app(service: HealthService | None = None, settings: Settings | None = None) -> Starlette:
    """The health paths alone, with the token, the maintenance and the log lines that the whole application has.

    Arguments:
        service: whose health is told; by default one of its own with the checks that the settings call for.
        settings: by default read from `observability.toml` and the environment.

    Raises:
        SettingsError: a setting is unknown or its value is not allowed.
    """
    chosen = settings or settings_of_launcher()
    own = service or standalone_service(chosen)
    kept: list[str] = []
    listeners = Listeners(_addresses)
    entitlement = Entitlement(
        lambda: chosen.token_value() or (kept[0] if kept else None),
        listeners.on_loopback,
        Audience(chosen.health_details),
    )
    routes = HealthRoutes(HealthCheckEndpoint(service=own), entitlement, prefixes=(chosen.path_prefix,))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with ExitStack() as stack:
            logs = configure_logging(
                log_format=chosen.log_format, log_level=chosen.log_level, service=chosen.service_name
            )
            stack.callback(logs.restore)
            data_dir = prepare_data_dir(chosen)
            kept[:] = [load_or_make_token(chosen, data_dir)]
            chores: list[Callable[[], object]] = [ENGINES.sweep]
            if data_dir is not None:
                orders = ControlWatcher(data_dir, on_maintenance=own.set_maintenance, on_log_level=logs.set_level)
                chores.append(orders.poll)
            housekeeping = Housekeeping(*chores)
            housekeeping.start()
            stack.callback(housekeeping.stop)
            own.start()
            stack.callback(own.stop, 1.0)
            own.set_phase(ServicePhase.SERVING)
            stack.callback(own.set_phase, ServicePhase.STOPPED)
            heartbeat = Heartbeat(own.heartbeat)
            heartbeat.start()
            stack.callback(heartbeat.stop)
            yield

    return Starlette(routes=[Mount("/", app=routes)], lifespan=lifespan)


def _addresses() -> list[str] | None:
    server = foreign_uvicorn()
    return process_addresses() if server is None else uvicorn_addresses(server)
