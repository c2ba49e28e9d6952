"""The outermost ASGI layer: answers probes, knows what is under way, and closes the door when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from streamlit_extension.endpoints.health import HealthRoutes, Message, Next, Receive, Scope, Send

#: Where Streamlit's browsers are connected, below whatever base path.
STREAM_PATH = "/_stcore/stream"
#: WebSocket close code "service restart" (IANA registry): the client should come again, and reaches another replica.
SERVICE_RESTART = 1012
#: How long after the last browser was told the application hears of it, in seconds: whoever waits for the telling is
#: answered first.
RELEASE_S = 0.01


class Page(Protocol):
    """A page of ours beside the application."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer an `http` scope if it is for this page; says whether it was."""


class _Socket(msgspec.Struct, eq=False):
    """One connected WebSocket."""

    send: Send
    is_session: bool
    closed: bool = False
    #: Set when the application may hear that this WebSocket has ended.
    released: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})


class Gate(msgspec.Struct):
    """Wraps the whole application.

    Arguments:
        inner: the application behind the probes.
        routes: answers the health paths, before any router or middleware.
        page: answers the telemetry page's paths after them; the stop doesn't wait for it.

    All methods belong to the event loop's thread.
    """

    inner: Next
    routes: HealthRoutes
    page: Page | None = None
    #: Every answer says `Connection: close`, so that keep-alive clients go elsewhere.
    closing: bool = False
    #: No new session, and what a browser asks for starts no run.
    draining: bool = False
    _requests: dict[int, str] = msgspec.field(default_factory=dict)
    _sockets: set[_Socket] = msgspec.field(default_factory=set)
    _idle: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one `http` or `websocket` scope."""
        if scope["type"] == "http":
            if not await self.routes.handle(scope, _saying_close(send) if self.closing else send):
                await self.serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.inner(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on, and know of it while it lasts."""
        answering = _saying_close(send, lambda: self.closing)
        if self.page is not None and await self.page.handle(scope, receive, answering):
            return
        key = id(scope)
        self._requests[key] = scope["path"]
        try:
            await self.inner(scope, receive, answering)
        finally:
            del self._requests[key]
            if self._idle is not None and not self._requests:
                self._idle.set()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.draining:
            await receive()
            await send({"type": "websocket.close", "code": SERVICE_RESTART})
            return
        socket = _Socket(send, scope["path"].rstrip("/").endswith(STREAM_PATH))

        async def receive_some() -> Message:
            message = await receive()
            if socket.closed:
                await socket.released.wait()
            while self.draining and socket.is_session and message["type"] == "websocket.receive":
                message = await receive()  # a widget, a form or a timer would start a run that could not end
            return message

        def send_open(message: Message) -> Awaitable[None]:  # called for every element of every run
            if socket.closed:
                raise OSError("the WebSocket was closed for a restart")
            return send(message)

        self._sockets.add(socket)
        try:
            await self.inner(scope, receive_some, send_open)
        finally:
            self._sockets.discard(socket)

    @property
    def requests(self) -> tuple[str, ...]:
        """Paths of the requests under way, without probes and WebSockets."""
        return tuple(self._requests.values())

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request is under way; False when `timeout_s` seconds were not enough."""
        if not self._requests:
            return True
        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close_websockets(self, timeout_s: float = 1.0) -> int:
        """Tell every WebSocket 1012 ("service restart"); returns how many were told, or were asked until the time-out.

        The application hears of it only once all have been told: what it does about each (Streamlit unwatches every
        source file of the session, milliseconds of work) would hold up telling the next.
        """
        sockets = [socket for socket in self._sockets if not socket.closed]
        if not sockets:
            return 0
        closing = [asyncio.ensure_future(socket.close()) for socket in sockets]
        try:
            _, pending = await asyncio.wait(closing, timeout=timeout_s)
            for task in pending:
                task.cancel()
            for task in closing:
                if task.done() and not task.cancelled():
                    task.exception()  # a browser that has just gone is no failure
        finally:
            asyncio.get_running_loop().call_later(RELEASE_S, _release, sockets)
        return len(sockets)


def _release(sockets: Iterable[_Socket]) -> None:
    for socket in sockets:
        socket.released.set()


def _always() -> bool:
    return True


def _saying_close(send: Send, when: Callable[[], bool] = _always) -> Send:
    async def send_with_close(message: Message) -> None:
        if message["type"] == "http.response.start" and when():
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_with_close
