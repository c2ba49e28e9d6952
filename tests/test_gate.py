"""The outermost layer: what it hands on, what it knows of, and how it closes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.endpoints.health import HealthCheckEndpoint, HealthRoutes, Message, Receive, Scope, Send
from streamlit_extension.gate import SERVICE_RESTART, Gate
from streamlit_extension.health.model import ServicePhase
from streamlit_extension.health.service import HealthService


@dataclass
class Behind:
    """The application behind the gate: takes messages until it may end, and says what it got."""

    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    got: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.may_end.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
            await send({"type": "http.response.body", "body": b"page"})
            return
        while True:
            message = await receive()
            await self.got.put(message)
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})


@dataclass
class Client:
    """The server's side of one connection."""

    inbox: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    sent: list[Message] = field(default_factory=list)
    trouble: Send | None = None

    async def send(self, message: Message) -> None:
        if self.trouble is not None:
            await self.trouble(message)
        self.sent.append(message)

    async def say(self, kind: str, **more: Any) -> None:
        await self.inbox.put({"type": f"websocket.{kind}", **more})


@pytest.fixture
def service() -> HealthService:
    made = HealthService(version="1")
    made.set_phase(ServicePhase.SERVING)
    return made


@pytest.fixture
async def behind() -> Behind:
    return Behind()


@pytest.fixture
async def gate(service: HealthService, behind: Behind) -> Gate:
    entitlement = Entitlement(lambda: None, lambda: True, Audience.AUTO)
    return Gate(behind, HealthRoutes(HealthCheckEndpoint(service=service), entitlement))


def http(path: str = "/") -> Scope:
    return {"type": "http", "method": "GET", "path": path, "headers": []}


def socket(path: str = "/_stcore/stream") -> Scope:
    return {"type": "websocket", "path": path, "headers": []}


def headers(client: Client) -> dict[bytes, bytes]:
    return dict(client.sent[0]["headers"])


async def got(behind: Behind) -> str:
    async with asyncio.timeout(20):
        return str((await behind.got.get())["type"])


async def test_a_request_is_known_while_it_lasts_and_a_probe_is_not(gate: Gate, behind: Behind) -> None:
    """`wait_idle` waits for the application's requests alone, and gives up in its time."""
    client, probe = Client(), Client()
    request = asyncio.create_task(gate(http("/slow"), client.inbox.get, client.send))
    await gate(http("/health/live"), probe.inbox.get, probe.send)
    await asyncio.sleep(0)
    assert gate.requests == ("/slow",)
    assert probe.sent[0]["status"] == 200
    assert not await gate.wait_idle(0.01)
    waiting = asyncio.create_task(gate.wait_idle(20))
    await asyncio.sleep(0)
    behind.may_end.set()
    assert await waiting
    await request
    assert not gate.requests
    assert await gate.wait_idle(0)


async def test_closing_tells_every_answer(gate: Gate, behind: Behind) -> None:
    """`Connection: close` on pages, on those under way and on probes; nothing before."""
    behind.may_end.set()
    before, page, probe = Client(), Client(), Client()
    await gate(http(), before.inbox.get, before.send)
    assert b"connection" not in headers(before)
    behind.may_end.clear()
    request = asyncio.create_task(gate(http(), page.inbox.get, page.send))
    await asyncio.sleep(0)
    gate.closing = True
    behind.may_end.set()
    await request
    await gate(http("/health/ready"), probe.inbox.get, probe.send)
    assert (headers(page)[b"connection"], headers(page)[b"x-app"], headers(probe)[b"connection"]) == (
        b"close",
        b"1",
        b"close",
    )


async def test_while_draining_what_a_browser_asks_for_goes_nowhere(gate: Gate, behind: Behind) -> None:
    """Messages of a session are dropped, its end is handed on; another WebSocket of the application's is not touched."""
    session, other = Client(), Client()
    running = asyncio.create_task(gate(socket("/base/_stcore/stream"), session.inbox.get, session.send))
    await session.say("connect")
    assert await got(behind) == "websocket.connect"
    await session.say("receive", bytes=b"1")
    assert await got(behind) == "websocket.receive"
    gate.draining = True
    for _ in range(3):
        await session.say("receive", bytes=b"rerun")
    await session.say("disconnect", code=1001)
    assert await got(behind) == "websocket.disconnect"
    await running
    gate.draining = False
    chatting = asyncio.create_task(gate(socket("/chat"), other.inbox.get, other.send))
    await other.say("connect")
    assert await got(behind) == "websocket.connect"
    gate.draining = True
    await other.say("receive", text="hello")
    assert await got(behind) == "websocket.receive"
    await other.say("disconnect", code=1001)
    await chatting


async def test_while_draining_a_new_browser_is_sent_elsewhere(gate: Gate, behind: Behind) -> None:
    """It is told 1012 before the application hears of it."""
    gate.draining = True
    client = Client()
    await client.say("connect")
    await gate(socket(), client.inbox.get, client.send)
    assert [(each["type"], each["code"]) for each in client.sent] == [("websocket.close", SERVICE_RESTART)]
    assert behind.got.empty()


async def test_every_browser_is_told_once_and_what_is_sent_afterwards_fails(gate: Gate, behind: Behind) -> None:
    """1012 to each, not a second time; the application learns that the connection is no more."""
    clients = [Client() for _ in range(3)]
    tasks = [asyncio.create_task(gate(socket(), each.inbox.get, each.send)) for each in clients]
    for each in clients:
        await each.say("connect")
        assert await got(behind) == "websocket.connect"
    assert await gate.close_websockets() == 3
    assert await gate.close_websockets() == 0
    for each in clients:
        assert [message["type"] for message in each.sent] == ["websocket.accept", "websocket.close"]
        assert each.sent[1]["code"] == SERVICE_RESTART
        await each.say("connect")  # the application answers, which is too late
    for task in tasks:
        with pytest.raises(OSError, match="closed for a restart"):
            await task


async def test_a_browser_that_can_not_be_told_holds_up_no_other(gate: Gate, behind: Behind) -> None:
    """One that is gone and one that takes nothing: the rest is told, in the time that was given."""
    gone, stuck, well = Client(), Client(), Client()

    async def fail(_message: Message) -> None:
        raise ConnectionResetError

    async def wait(_message: Message) -> None:
        await asyncio.Event().wait()

    tasks = []
    for client in (gone, stuck, well):
        tasks.append(asyncio.create_task(gate(socket(), client.inbox.get, client.send)))
        await client.say("connect")
        assert await got(behind) == "websocket.connect"
    gone.trouble, stuck.trouble = fail, wait
    assert await asyncio.wait_for(gate.close_websockets(0.2), 20) == 3
    assert well.sent[-1]["code"] == SERVICE_RESTART
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
