"""Two replicas behind haproxy are restarted in turn while requests come in: nobody sees a failure."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port, wait_for_port
from tests.support.requirements import program
from tests.support.server import Server, Start

SCRIPT = """
import streamlit as st
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
    timeout check 1s
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
REQUESTS_PER_S = 200
RESTARTS = 20 if os.environ.get("STX_SOAK") else 2
STOP = {"STX_PRE_DRAIN_S": "2", "STX_SHUTDOWN_BUDGET_S": "10"}


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


@asynccontextmanager
async def load(url: str) -> AsyncIterator[collections.Counter[str]]:
    """Asks `REQUESTS_PER_S` times a second over kept connections, and counts what came back."""
    results: collections.Counter[str] = collections.Counter()
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20, trust_env=False) as client:

        async def ask() -> None:
            try:
                results[str((await client.get("/_stcore/host-config")).status_code)] += 1
            except httpx.HTTPError as error:
                results[type(error).__name__] += 1

        async def go_on() -> None:
            loop = asyncio.get_running_loop()
            due = loop.time()
            while True:
                running.add(task := asyncio.create_task(ask()))
                task.add_done_callback(running.discard)
                due = max(due + 1 / REQUESTS_PER_S, loop.time() - 0.5)  # a stall is caught up, but not a long one
                await asyncio.sleep(max(0.0, due - loop.time()))

        running: set[asyncio.Task[None]] = set()
        asking = asyncio.create_task(go_on())
        yield results
        asking.cancel()
        if running:
            await asyncio.wait(running)


@pytest.mark.timeout(RESTARTS * 60 + 60)
async def test_a_rolling_restart_fails_no_request(
    serve: Start, script: Callable[[str], Path], haproxy: Callable[[int, int], int], tmp_path: Path
) -> None:
    """With a pre-drain, 200 requests/s see nothing but 200; a browser is told 1012 and reaches the other replica."""
    source = script(SCRIPT)

    def replica(number: int, port: int | None = None) -> Server:
        return serve(source, env=STOP, data_dir=tmp_path / f"data-{number}", ready=None, port=port)

    async def until_ready(server: Server) -> None:
        await asyncio.to_thread(server.wait_for, "/health/ready", lambda answer: answer.status == 200)

    replicas = [replica(0), replica(1)]
    await asyncio.gather(*map(until_ready, replicas))
    port = haproxy(replicas[0].port, replicas[1].port)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{url}/_stcore/host-config")).status_code != 200:
            await asyncio.sleep(0.1)
    browser = StreamlitClient(url)
    await browser.connect()
    await browser.wait_finished(1)
    reconnects = 0
    async with load(url) as results:
        for restart in range(RESTARTS):
            await asyncio.sleep(0.5)
            stopped = replicas[restart % 2]
            stopped.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(stopped.process.wait, 30) == 0
            if browser.close_code is not None:
                assert browser.close_code == 1012
                await browser.connect()
                await browser.wait_finished(browser.runs_finished + 1)
                reconnects += 1
            replicas[restart % 2] = replica(restart % 2, stopped.port)
            await until_ready(replicas[restart % 2])
            await asyncio.sleep(0.5)  # haproxy looks every 200 ms
    assert set(results) == {"200"}, results
    assert results["200"] > RESTARTS * 100
    assert reconnects >= 1
    await browser.close()
