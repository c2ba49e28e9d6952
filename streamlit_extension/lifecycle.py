"""What runs beside the application from its start to its end, and in which order it stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from otel.instrumentation import stable_names_opt_in
from otel.instrumentation.sqlalchemy_instrumentor import SQLALCHEMY
from otel.instrumentation.streamlit import STREAMLIT, WATCHER, RunWatcher
from otel.instrumentation.streamlit.error_reference import show_error_reference
from streamlit_extension import listeners
from streamlit_extension.beats import Heartbeat, Housekeeping
from streamlit_extension.control import ControlWatcher
from streamlit_extension.gate import Gate
from streamlit_extension.health.model import Maintenance, ServicePhase
from streamlit_extension.health.service import HealthService
from streamlit_extension.health.watchdog import Watchdog
from streamlit_extension.utils.graceful_shutdown import Deadline, GracefulShutdownHandler, ShutdownPhase

#: The most of a pre-drain, in seconds, that one blockade of the event loop uses up.
STEP_S = 0.1
#: Several of Streamlit's flush intervals (10 ms each): what a finished run has written reaches its browser.
FLUSH_S = 0.1
#: Share of a drain's time, and its bounds in seconds, that is kept for telling every browser.
CLOSE_SHARE, CLOSE_MIN_S, CLOSE_MAX_S = 0.25, 0.3, 2.0


def start_beats(
    stack: contextlib.AsyncExitStack,
    service: HealthService,
    data_dir: Path | None,
    set_log_level: Callable[[str | None], object],
    set_maintenance: Callable[[Maintenance | None], object],
    *chores: Callable[[], object],
) -> None:
    """Start what is done again and again: signs of life on the running loop, all that may wait on a thread.

    Arguments:
        stack: gets what stops it.
        data_dir: where operators leave their orders; None for nowhere.
        set_maintenance: told of maintenance after the service.
        chores: what else is to be done on the thread.
    """
    if data_dir is not None:

        def on_maintenance(maintenance: Maintenance | None) -> None:
            service.set_maintenance(maintenance)
            set_maintenance(maintenance)

        control = ControlWatcher(data_dir, on_maintenance=on_maintenance, on_log_level=set_log_level)
        chores = (*chores, control.poll)
    housekeeping = Housekeeping(*chores)
    housekeeping.start()
    stack.callback(housekeeping.stop)
    watchdog = Watchdog()
    watchdog.start()
    stack.callback(watchdog.stop)
    heartbeat = Heartbeat(service.heartbeat, watchdog.beat)
    heartbeat.start()
    stack.callback(heartbeat.stop)


class ManagementServer(msgspec.Struct):
    """A second port for operators, on the same event loop."""

    app: Any
    page: Any
    sock: socket.socket
    _server: Any = None
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serve on the socket from now on."""
        import uvicorn

        # `access_log=False` would silence the access log of every other server in the process.
        config = uvicorn.Config(
            self._answer,
            http=_protocol(),
            ws="none",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server._serve([self.sock]), name="stx-management")

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if not await self.page.handle(scope, receive, send):
            await self.app(scope, receive, send)

    async def stop(self) -> None:
        """Close the port."""
        if self._task is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None


def _protocol() -> type[asyncio.Protocol]:
    """HTTP without access lines for this one port."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Quiet(HttpToolsProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.access_log = False

    return Quiet


class ServerEnd(msgspec.Struct, frozen=True):
    """How the server that runs us is made to end.

    Arguments:
        server: uvicorn's, where it is one.
        loop: the server's event loop.
        previous: the signal handlers that ours have replaced; one of them ends another server.
    """

    server: Any | None
    loop: asyncio.AbstractEventLoop
    previous: Mapping[signal.Signals, Any]

    def close_listeners(self) -> None:
        """Accept no new connection; on the server's loop."""
        for each in getattr(self.server, "servers", ()):
            each.close()

    def tell(self) -> None:
        """Let the server end; from any thread."""
        if self.server is not None:
            self.server.config.timeout_graceful_shutdown = 1
            self.server.should_exit = True
            return
        for number, handler in self.previous.items():
            if callable(handler):
                self.loop.call_soon_threadsafe(handler, number, None)
                return


class Drain(msgspec.Struct):
    """The steps by which a server of Streamlit's stops, for a `GracefulShutdownHandler`.

    Arguments:
        pre_drain_s: seconds of serving on although not ready.
        close_listeners: makes the server accept no new connection.
    """

    gate: Gate
    service: HealthService
    watcher: RunWatcher
    pre_drain_s: float
    close_listeners: Callable[[], None]

    def install(self, handler: GracefulShutdownHandler) -> None:
        """Add the steps to the phases of `handler`."""
        handler.add_step(ShutdownPhase.STOP_ACCEPTING_REQUESTS, self.stop_accepting)
        handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, self.drain)
        handler.add_step(ShutdownPhase.DRAIN_CONNECTIONS, self.close_websockets)

    async def stop_accepting(self, deadline: Deadline) -> None:
        """Refuse readiness at once, serve on for `pre_drain_s`, then close the listeners."""
        self.service.set_phase(ServicePhase.DRAINING)
        self.gate.closing = True
        await self._serve_on(deadline)
        self.close_listeners()

    async def _serve_on(self, deadline: Deadline) -> None:
        """Wait for `pre_drain_s` seconds in which the loop moves: while it is blocked nobody hears of the readiness."""
        left_s = self.pre_drain_s
        while left_s > 0 and deadline.remaining_s > 0:
            await asyncio.sleep(min(STEP_S, left_s, deadline.remaining_s))
            left_s -= STEP_S

    async def drain(self, deadline: Deadline) -> tuple[str, ...]:
        """Let requests and runs end with their browsers connected, start no new run; what is cut off is named."""
        self.gate.draining = True
        self.watcher.refuse_new_runs()
        for_runs_s = deadline.remaining_s - min(CLOSE_MAX_S, max(CLOSE_MIN_S, CLOSE_SHARE * deadline.remaining_s))
        idle = await asyncio.gather(
            self.gate.wait_idle(for_runs_s), _in_thread(lambda: self.watcher.wait_idle(for_runs_s))
        )
        cut: list[str] = []
        if not all(idle):
            cut += [f"request {path}" for path in self.gate.requests]
            cut += [f"script run of session {session}" for session in self.watcher.stop_active_runs()]
        return tuple(cut)

    async def close_websockets(self, deadline: Deadline) -> None:
        """Tell every browser 1012, once what its last run has written has reached it."""
        await asyncio.sleep(min(FLUSH_S, deadline.remaining_s / 2))
        await self.gate.close_websockets(timeout_s=max(FLUSH_S, deadline.remaining_s - FLUSH_S))
        self.watcher.end_sessions()


def watch_libraries() -> None:
    """Begin to see script runs and database engines; what is instrumented from now on uses the stable names."""
    stable_names_opt_in(os.environ)
    WATCHER.watch()
    SQLALCHEMY.instrument()  # which finds engines, too


def management_socket(address: str, port: int) -> socket.socket:
    """Listen for the management server.

    Raises:
        OSError: it can't be bound.
    """
    try:
        return listeners.listening_socket(address, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"can't listen on {address} port {port} ({reason}); choose another management_port") from error


def instrument_streamlit(stack: contextlib.AsyncExitStack) -> None:
    """Make telemetry of script runs until the application stops.

    Where `opentelemetry-instrument` does so already, only the reference of errors is added.
    """
    if not STREAMLIT.on:
        STREAMLIT.start()
        stack.callback(STREAMLIT.stop)
    WATCHER.on_error_shown = show_error_reference
    stack.callback(setattr, WATCHER, "on_error_shown", None)


def _in_thread(function: Callable[[], bool]) -> Awaitable[bool]:
    """Await a blocking call on a daemon thread of its own: the executor's threads would hold up the process's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def deliver(value: bool) -> None:
        if not future.done():
            future.set_result(value)

    def run() -> None:
        value = function()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(deliver, value)

    threading.Thread(target=run, name="stx-drain", daemon=True).start()
    return future
