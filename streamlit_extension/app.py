"""The one composition root: `create_app` puts every room together around a Streamlit application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from otel.collection import without_collection
from otel.instrumentation.asgi import HttpTelemetry
from otel.instrumentation.sqlalchemy import ENGINES
from otel.instrumentation.streamlit import WATCHER, in_script_thread
from streamlit_extension import listeners
from streamlit_extension.alerts.wiring import RunningAlerts, start_alerts
from streamlit_extension.canary import Canary
from streamlit_extension.data_folder import load_or_make_token, prepare_data_dir
from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.endpoints.health import HealthCheckEndpoint, HealthRoutes, Message, Receive, Scope, Send
from streamlit_extension.gate import Gate
from streamlit_extension.health.default import DEFAULT_SERVICE
from streamlit_extension.health.model import CheckSpec, HealthStatus, ServicePhase
from streamlit_extension.health.script import ScriptRuns
from streamlit_extension.health.service import HealthService
from streamlit_extension.launchers import application_of, settings_of_launcher
from streamlit_extension.lifecycle import (
    Drain,
    ManagementServer,
    ServerEnd,
    instrument_streamlit,
    management_socket,
    start_beats,
    watch_libraries,
)
from streamlit_extension.liveness import runtime_problem
from streamlit_extension.logs.setup import LoggingConfiguration
from streamlit_extension.logs.wiring import know_secrets, log_as_set
from streamlit_extension.monitoring.wiring import activity, process_export, start_monitoring
from streamlit_extension.page_paths import page_path_collisions
from streamlit_extension.settings import Settings
from streamlit_extension.streamlit_options import prefixes_below_base
from streamlit_extension.telemetry import RunningTelemetry, start_telemetry
from streamlit_extension.utils.graceful_shutdown import GracefulShutdownHandler, ShutdownPhase
from streamlit_extension.viewer.wiring import page_for, serve_page

_logger = logging.getLogger("streamlit_extension.app")

#: How long the clean-up may take where no lifespan waits for it, in seconds.
CLOSE_S = 3.0


def create_app(script_or_app: Any, *, settings: Settings | None = None) -> ObservableApp:
    """Make a Streamlit application observable.

    Arguments:
        script_or_app: the path of a Streamlit script, a `st.App`, or another ASGI application that contains one.
        settings: by default read from `observability.toml` and the environment.

    Returns:
        An ASGI application for uvicorn, `python launcher.py` (`app.run()`), `streamlit run` and
        `streamlit-extension run`.

    Raises:
        RuntimeError: called from inside a Streamlit script.
        TypeError: `script_or_app` is neither a path nor an application.
        SettingsError: a setting is unknown or its value is not allowed.
    """
    if in_script_thread():
        raise RuntimeError(
            "create_app() was called from inside a Streamlit script, which runs again and again; call it in a "
            "launcher (app = create_app('app.py')) or start the script with `streamlit-extension run`; `streamlit run` "
            "knows a launcher by the line app = st.App('app.py'), which goes before app = create_app(app)"
        )
    if isinstance(script_or_app, ObservableApp):
        return script_or_app
    return ObservableApp(application_of(script_or_app), settings or settings_of_launcher())


class ObservableApp:
    """A Streamlit application with its observability around it; all else is the inner application's own."""

    def __init__(self, inner: Any, settings: Settings) -> None:
        self._inner = inner
        self.settings = settings
        self.service = HealthService(version=settings.service_version, shared_failure=settings.health.shared_failure)
        self.shutdown = GracefulShutdownHandler(
            budget_s=settings.shutdown_budget_s, pre_drain_s=settings.pre_drain_s, exit_when_done=False
        )
        #: Set by our runner, whose log lines begin before the application's start and end after its stop.
        self.logs: LoggingConfiguration | None = None
        self.telemetry: RunningTelemetry | None = None
        self._token: str | None = None
        self._listeners = listeners.Listeners(self._find_addresses)
        self._server: Any = None
        self._own_addresses: Callable[[], list[str] | None] | None = None
        self._management_socket: Any = None
        self._management: ManagementServer | None = None
        self._lifecycle: contextlib.AsyncExitStack | None = None
        self._started = self._has_lifespan = False
        self._canary: Canary | None = None
        endpoint = HealthCheckEndpoint(service=self.service)
        routes = HealthRoutes(
            endpoint,
            Entitlement(self._current_token, self._listeners.on_loopback, Audience(settings.health_details)),
            prefixes=(settings.path_prefix,),
            details=settings.management_port is None,
            scraper=process_export().scraper,
        )
        trusts, on_request = settings.trust_inbound_context, activity().on_request
        self.page = page_for(settings, routes.entitlement)
        self.gate = Gate(HttpTelemetry(inner, trust_inbound_context=trusts, on_request=on_request), routes, self.page)
        self._handle_health = routes.handle
        self.service.set_liveness(self._liveness_problem)
        watch_libraries()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # -- ASGI ---------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if self._started and scope["type"] == "http" and not self.gate.closing:  # the shortest way for a probe
            if not await self._handle_health(scope, send):
                await self.gate.serve(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
            return
        if not self._started:  # mounted below another application, which keeps the lifespan to itself
            await self._start()
        await self.gate(scope, receive, send)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_started(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._start()
                except OSError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
            await send(message)

        async def receive_stop() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._stop()
            return message

        self._has_lifespan = True
        await self._inner(scope, receive_stop, send_started)

    def lifespan(self) -> Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]:
        """For an application that mounts this one: `FastAPI(lifespan=app.lifespan())`, as `st.App.lifespan`."""
        inner = self._inner.lifespan()

        @contextlib.asynccontextmanager
        async def with_observability(outer: Any) -> AsyncIterator[Any]:
            self._has_lifespan = True
            async with inner(outer) as state:
                await self._start()
                try:
                    yield state
                finally:
                    await self._stop()

        return with_observability

    # -- start and stop -----------------------------------------------------------------------------------------

    @without_collection
    async def _start(self) -> None:
        """Start what runs beside the application, once."""
        if self._started:
            return
        self._started = True
        stack = self._lifecycle = contextlib.AsyncExitStack()
        settings, logs = self.settings, self.logs
        if logs is None:
            logs = log_as_set(settings)
            stack.callback(logs.restore)
        data_dir = prepare_data_dir(settings)
        self.telemetry = start_telemetry(settings, data_dir, self.shutdown)
        stack.callback(self.telemetry.close)
        instrument_streamlit(stack)
        read = start_monitoring(stack, data_dir)
        self._prepare_paths()
        self._token = load_or_make_token(settings, data_dir)
        self._know_secrets()
        self._start_checks(stack)
        self._start_signals(stack)
        alerts = start_alerts(stack, settings, data_dir, read, self.service)
        self.shutdown.add_step(ShutdownPhase.CLEANUP_RESOURCES, alerts.stop_by)
        serve_page(stack, self.page, settings, data_dir, self.service, alerts)
        await self._start_management(stack)
        self._start_beats(stack, data_dir, logs, alerts)
        self.service.start()
        stack.callback(self.service.stop, 1.0)
        self.service.set_phase(ServicePhase.SERVING)
        _logger.info("serving", extra={"event": "app.started", "service_name": settings.service_name})

    async def _stop(self) -> None:
        """Stop what runs beside the application; also when a foreign server stops without having asked us."""
        stack, self._lifecycle = self._lifecycle, None
        if stack is None:
            return
        if not self.shutdown.stopping.is_set():
            self.shutdown.bind_loop(asyncio.get_running_loop())
            finished = asyncio.Event()
            loop = asyncio.get_running_loop()

            def run() -> None:
                self.shutdown.shutdown_sequence("the server stopped")
                loop.call_soon_threadsafe(finished.set)

            threading.Thread(target=run, name="stx-shutdown", daemon=True).start()
            await finished.wait()
        await self._close(stack)

    async def _close(self, stack: contextlib.AsyncExitStack) -> None:
        self.service.set_phase(ServicePhase.STOPPED)
        await stack.aclose()

    def _close_unasked(self, loop: asyncio.AbstractEventLoop) -> None:
        """Mounted below an application that keeps the lifespan to itself, the end of the stop is the only sign."""
        if self._has_lifespan or self._lifecycle is None:
            return
        stack, self._lifecycle = self._lifecycle, None
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(stack), loop).result(CLOSE_S)

    def _prepare_paths(self) -> None:
        """Answer below `server.baseUrlPath` too, which is known only once Streamlit has read its configuration."""
        prefix = self.settings.path_prefix
        for each in (self.gate.routes, self.page):
            each.set_prefixes(prefixes_below_base(prefix))
        script = getattr(self._inner, "_resolved_script_path", None) or getattr(self._inner, "_script_path", None)
        for line in page_path_collisions(script, prefix) if script else ():
            _logger.warning(line, extra={"event": "app.page_hidden"})

    def _start_checks(self, stack: contextlib.AsyncExitStack) -> None:
        from streamlit_extension.health.wiring import register_checks

        facts = None if self.telemetry is None else self.telemetry.facts
        stack.callback(register_checks(self.service, self.settings, ENGINES, telemetry=facts))
        self.service.register(CheckSpec("script", None))
        on_run = ScriptRuns(partial(self.service.report, "script"))
        WATCHER.add_listener(on_run)
        stack.callback(WATCHER.remove_listener, on_run)
        stack.callback(DEFAULT_SERVICE.serve(self.service))

    def _start_signals(self, stack: contextlib.AsyncExitStack) -> None:
        server = self._server = self._server or listeners.foreign_uvicorn()
        loop = asyncio.get_running_loop()
        self.shutdown.bind_loop(loop)
        on_main_thread = threading.current_thread() is threading.main_thread()
        previous = self.shutdown.register_signal_handlers() if on_main_thread else {}
        stack.callback(self.shutdown.restore_signal_handlers)

        end = ServerEnd(server, loop, previous)

        def end_server() -> None:
            self._close_unasked(loop)
            end.tell()

        drain = Drain(self.gate, self.service, WATCHER, self.settings.pre_drain_s, end.close_listeners)
        drain.install(self.shutdown)
        self.shutdown.on_complete(end_server)
        stack.callback(WATCHER.refuse_new_runs, False)

    async def _start_management(self, stack: contextlib.AsyncExitStack) -> None:
        if self.settings.management_port is None:
            return
        self.open_management_port()
        sock = self._management_socket
        own = listeners.Listeners(lambda: listeners.addresses_of([sock]))
        entitlement = Entitlement(self._current_token, own.on_loopback, Audience(self.settings.health_details))
        routes, page = self.gate.routes.for_port(entitlement), self.page.for_port(entitlement)
        self._management = ManagementServer(routes, page, sock)
        self._management.start()
        stack.push_async_callback(self._management.stop)

    def open_management_port(self) -> None:
        """Bind the management port, so that a taken one is told before anything starts.

        Raises:
            OSError: it can't be bound.
        """
        if self._management_socket is None and self.settings.management_port is not None:
            self._management_socket = management_socket(self.settings.management_address, self.settings.management_port)

    def _start_beats(
        self, stack: contextlib.AsyncExitStack, data_dir: Path | None, logs: Any, alerts: RunningAlerts
    ) -> None:
        chores = (ENGINES.sweep, self._know_secrets)
        start_beats(stack, self.service, data_dir, logs.set_level, alerts.set_maintenance, *chores)
        if self.settings.health.canary:
            self._canary = Canary(WATCHER, allowed=self._may_run_canary)
            task = asyncio.get_running_loop().create_task(self._canary.run_forever(), name="stx-canary")
            stack.callback(task.cancel)

    # -- what the rooms ask -------------------------------------------------------------------------------------

    def _may_run_canary(self) -> bool:
        return self.service.phase is ServicePhase.SERVING and self.service.status() is not HealthStatus.MAINTENANCE

    def _current_token(self) -> str | None:
        return self.settings.token_value() or self._token

    def _know_secrets(self) -> None:
        know_secrets(self.settings, self._token)

    def _find_addresses(self) -> list[str] | None:
        if self._own_addresses is not None:
            return self._own_addresses()
        if self._server is not None:
            return listeners.uvicorn_addresses(self._server)
        return listeners.process_addresses()

    def _liveness_problem(self) -> str | None:
        if self.shutdown.over_budget:
            return "the stop is over its budget"
        return runtime_problem()

    # -- running ------------------------------------------------------------------------------------------------

    def run(self, *, config: Mapping[str, Any] | None = None) -> None:
        """Serve until stopped, as `st.App.run` does, with our runner (`python launcher.py`).

        Arguments:
            config: Streamlit's options by their dotted names, e.g. `{"server.port": 8502}`.
        """
        from streamlit_extension.runner import run_app

        run_app(self, config)

    def serve_with(self, server: Any, addresses: Callable[[], list[str] | None]) -> None:
        """Our runner's introduction: the uvicorn server that it drives and where that one listens."""
        self._server = server
        self._own_addresses = addresses
