"""Two replicas behind haproxy are restarted in turn under load: nobody sees a failure, and no telemetry is lost."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import httpx
import pytest
from websockets.exceptions import WebSocketException

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port, wait_for_port
from tests.support.otlp import OtlpReceiver
from tests.support.requirements import program
from tests.support.server import Server, Start

SCRIPT = """
import logging
import uuid
import streamlit as st
from opentelemetry import trace
identity = uuid.uuid4().hex
with trace.get_tracer("app").start_as_current_span(f"draw {identity}"):
    logging.getLogger("app").warning("drawn %s", identity)
st.write("hello")
"""
#: No retry and no redispatch: a request that a replica doesn't answer is a failure that the client sees.
PROXY = """
defaults
    mode http
    retries 0
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 5s
frontend app
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk GET /health/ready
    http-check expect status 200
    default-server inter 200ms fall 2 rise 1
    server first 127.0.0.1:{first} check
    server second 127.0.0.1:{second} check
"""
ROOT = Path(__file__).parents[2]
REQUESTS_PER_S = 200
RESTARTS = 20 if os.environ.get("SOAK") else 2
BROWSERS = 50
ENVIRONMENT = {
    "STX_PRE_DRAIN_S": "2",
    "STX_SHUTDOWN_BUDGET_S": "20",
    # As in any image: after each run Streamlit looks at every imported module's file, seconds of work for such a crowd.
    "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
}


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[int, int], int]]:
    """Starts haproxy in front of two ports; returns its own."""
    binary = program("haproxy", "/usr/sbin/haproxy")
    started: list[subprocess.Popen[bytes]] = []

    def start(first: int, second: int) -> int:
        port = free_port()
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(PROXY.format(port=port, first=first, second=second))
        started.append(subprocess.Popen([binary, "-db", "-q", "-f", str(configuration)]))
        wait_for_port(port)
        return port

    yield start
    for each in started:
        each.kill()
        each.wait()


@dataclass
class Load:
    """What a steady load has seen: how often each answer came, and how long it went on, in seconds."""

    results: dict[str, int] = field(default_factory=dict)
    took_s: float = 0.0


@asynccontextmanager
async def load(port: int) -> AsyncIterator[Load]:
    """Asks `REQUESTS_PER_S` times a second over kept connections; the result is there at the end."""
    words = ("127.0.0.1", str(port), "/_stcore/host-config", str(REQUESTS_PER_S))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.load", *words, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    seen = Load()
    try:
        yield seen
        output, _ = await asyncio.wait_for(process.communicate(b""), 60)
        told = json.loads(output)
        seen.results, seen.took_s = told["results"], told["took_s"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass
class Crowd:
    """Browsers that come back whenever they are told to, and run the script again and again."""

    url: str
    codes: dict[int, list[int | None]] = field(default_factory=lambda: {number: [] for number in range(BROWSERS)})
    connected: set[int] = field(default_factory=set)

    async def stay(self, number: int) -> None:
        """One browser."""
        while True:
            client = StreamlitClient(self.url)
            try:
                with contextlib.suppress(OSError, WebSocketException):
                    await client.connect()
                    await client.wait_finished(1)
                    self.connected.add(number)
                    await self._look(client)
            finally:
                await client.close()
            if number in self.connected:
                self.connected.discard(number)
                self.codes[number].append(client.close_code)
            await asyncio.sleep(0.5 + random.random())  # as Streamlit's page does

    async def _look(self, client: StreamlitClient) -> None:
        """Run the script every five seconds until the connection is closed."""
        while client.close_code is None:
            with contextlib.suppress(TimeoutError):
                await client.wait_closed(5)
                return
            await client.rerun()

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """All of them are connected at the beginning, and leave at the end."""
        tasks = [asyncio.create_task(self.stay(number)) for number in range(BROWSERS)]
        await self.until_connected()
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def until_connected(self) -> None:
        """Wait until nobody is on the way."""
        async with asyncio.timeout(60):
            while len(self.connected) < BROWSERS:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(RESTARTS * 60 + 120)
async def test_a_rolling_restart_fails_no_request_and_loses_no_record(
    serve: Start, script: Callable[[str], Path], haproxy: Callable[[int, int], int], tmp_path: Path, otlp: OtlpReceiver
) -> None:
    """200 requests/s see nothing but 200, 50 browsers are told 1012 and come back, and each id that was made arrives."""
    source = script(SCRIPT)
    env = ENVIRONMENT | {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint}
    servers: list[Server] = []

    def replica(number: int, port: int | None = None) -> Server:
        servers.append(serve(source, env=env, data_dir=tmp_path / f"data-{number}", ready=None, port=port))
        return servers[-1]

    async def until_ready(server: Server) -> None:
        await asyncio.to_thread(server.wait_for, "/health/ready", lambda answer: answer.status == 200)

    replicas = [replica(0), replica(1)]
    await asyncio.gather(*map(until_ready, replicas))
    port = haproxy(replicas[0].port, replicas[1].port)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{url}/_stcore/host-config")).status_code != 200:
            await asyncio.sleep(0.1)
    crowd = Crowd(url)
    async with crowd.present(), load(port) as seen:
        for restart in range(RESTARTS):
            await asyncio.sleep(0.5)
            stopped = replicas[restart % 2]
            stopped.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(stopped.process.wait, 30) == 0
            replicas[restart % 2] = replica(restart % 2, stopped.port)
            await until_ready(replicas[restart % 2])
            await crowd.until_connected()
            await asyncio.sleep(0.5)  # haproxy looks every 200 ms
    assert set(seen.results) == {"200"}, seen.results
    assert seen.results["200"] > RESTARTS * 100
    if os.environ.get("SOAK"):
        print(f"{seen.results['200']} requests, {seen.results['200'] / seen.took_s:.0f} a second")
        assert seen.results["200"] >= 0.95 * REQUESTS_PER_S * seen.took_s, "the load did not reach its rate"
    assert {code for codes in crowd.codes.values() for code in codes} == {1012}
    assert all(crowd.codes.values()), "somebody was never told"
    for each in replicas:
        assert await asyncio.to_thread(each.stop) == 0
    assert_all_arrived(servers, otlp)
    assert [list((tmp_path / f"data-{number}" / "spool").iterdir()) for number in range(2)] == [[], []]


def assert_all_arrived(servers: list[Server], otlp: OtlpReceiver) -> None:
    """Each line that a script has written is a record once, in the trace of a run that is there too, once."""
    lines = {
        line["message"].removeprefix("drawn "): line["trace_id"]
        for server in servers
        for line in server.lines
        if line["message"].startswith("drawn ")
    }
    assert len(lines) > RESTARTS * BROWSERS
    records = collections.Counter(
        (each.body.string_value.removeprefix("drawn "), each.trace_id.hex())
        for each in otlp.logs
        if each.body.string_value.startswith("drawn ")
    )
    assert records == dict.fromkeys(lines.items(), 1)
    draws = collections.Counter(
        (each.name.removeprefix("draw "), each.trace_id.hex()) for each in otlp.spans if each.name.startswith("draw ")
    )
    assert draws == dict.fromkeys(lines.items(), 1)
    runs = collections.Counter(each.trace_id.hex() for each in otlp.spans if each.name.startswith("script_run"))
    assert {trace_id: runs[trace_id] for trace_id in lines.values()} == dict.fromkeys(lines.values(), 1)
