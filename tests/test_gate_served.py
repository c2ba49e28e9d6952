"""The outermost layer, behind a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import connect

from streamlit_extension import HealthCheckEndpoint
from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.endpoints.health import HealthRoutes, Receive, Scope, Send
from streamlit_extension.gate import SERVICE_RESTART, Gate
from streamlit_extension.health.service import HealthService
from streamlit_extension.listeners import listening_socket


class Served:
    """A server on a thread of its own."""

    def __init__(self, app: Any) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._sock = listening_socket("127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._sock.getsockname()[1]}/_stcore/stream"
        config = uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_config=None, loop="none")
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            self.loop.call_soon(self._started.set)
            await self._server._serve([self._sock])

        asyncio.run(serve())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve meanwhile."""
        self._thread.start()
        assert self._started.wait(10)
        try:
            yield
        finally:
            self._server.should_exit = True
            self._thread.join(20)
            assert not self._thread.is_alive()


async def test_every_browser_is_told_before_the_application_hears_of_the_first() -> None:
    """An application that blocks its event loop at each disconnection keeps no browser from being told 1012 in time."""
    asked, heard = threading.Event(), []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        heard.append(scope["client"])
        asked.wait(20)  # blocks the loop, as unwatching a session's files does

    routes = HealthRoutes(
        HealthCheckEndpoint(service=HealthService(version="1")), Entitlement(lambda: None, lambda: True, Audience.AUTO)
    )
    gate = Gate(application, routes)
    served = Served(gate)
    with served.running():
        browsers = [await connect(served.url, proxy=None) for _ in range(20)]
        assert served.loop is not None
        telling = asyncio.run_coroutine_threadsafe(gate.close_websockets(10), served.loop)
        assert await asyncio.to_thread(telling.result, 10) == 20
        asked.set()
        for each in browsers:
            await each.wait_closed()
            assert each.close_code == SERVICE_RESTART
    assert len(heard) == 20
