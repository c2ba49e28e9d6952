"""Stopping the product while people use it: real signals, real sessions."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from streamlit_extension.demo.client import StreamlitClient
from streamlit_extension.utils.graceful_shutdown import SAME_SIGNAL_S
from tests.support.server import Server, Start

SLOW = """
import time
import streamlit as st
st.title("slow")
if st.button("Work"):
    for _ in range(int(st.query_params.get("steps", 30))):
        time.sleep(0.1)
    st.write("work is done")
if st.button("Hang"):
    time.sleep(600)
"""


async def test_a_running_script_ends_with_its_browser_connected(serve: Start, script: Callable[[str], Path]) -> None:
    """At SIGTERM a running script finishes and its result arrives; then the browser is told 1012; exit code 0."""
    server = serve(script(SLOW))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Work")
        await asyncio.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        page = await client.wait_finished(2)
        assert "work is done" in page.texts
        assert await client.wait_closed() == 1012
    assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_a_script_of_ten_minutes_does_not_break_the_budget(serve: Start, script: Callable[[str], Path]) -> None:
    """With 20 idle sessions and a script that sleeps, the stop keeps its budget, names what it cut, and exits 0."""
    server = serve(script(SLOW), env={"STX_SHUTDOWN_BUDGET_S": "4"})
    clients = [StreamlitClient(server.url) for _ in range(20)]
    await asyncio.gather(*(client.connect() for client in clients))
    await asyncio.gather(*(client.wait_finished(1) for client in clients))
    await clients[0].click("Hang")
    await asyncio.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert set(await asyncio.gather(*(client.wait_closed() for client in clients))) == {1012}
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    cut = [name for event in server.events("shutdown.phase") for name in event["cancelled"]]
    assert cut == [f"script run of session {clients[0].session_id}"]
    for client in clients:
        await client.close()


CROWD = """
import time
import streamlit as st
st.title("crowd")
with st.form("order"):
    st.text_input("Item")
    st.form_submit_button("Order")
if st.button("Sleep"):
    time.sleep(600)
if st.button("Stream"):
    def words():
        while True:
            yield "word "
            time.sleep(0.05)
    st.write_stream(words)
st.write("idle")
"""


async def test_a_crowd_at_sigterm_is_told_1012_within_the_budget(serve: Start, script: Callable[[str], Path]) -> None:
    """A script of ten minutes, an endless stream, a half-filled form and 50 idle browsers: 1012 for all, exit code 0.

    Only the two that never end are cut off, by name; a browser that comes back with its session finds it elsewhere.
    """
    server = serve(script(CROWD), env={"STX_SHUTDOWN_BUDGET_S": "10"})
    clients = [StreamlitClient(server.url) for _ in range(53)]
    for each in clients:
        await each.connect()
    await asyncio.gather(*(each.wait_finished(1) for each in clients))
    sleeping, streaming, filling = clients[:3]
    await sleeping.click("Sleep")
    await streaming.click("Stream")
    await filling.set("Item", "half a word", rerun=False)
    await asyncio.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert [await each.wait_closed() for each in clients] == [1012] * 53
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    cut = {name for event in server.events("shutdown.phase") for name in event["cancelled"]}
    # The stream calls Streamlit again and again, so it ends at its next word once told to stop.
    assert f"script run of session {sleeping.session_id}" in cut
    assert cut <= {f"script run of session {each.session_id}" for each in (sleeping, streaming)}
    phases = [event["phase"] for event in server.events("shutdown.phase")]
    assert phases == ["stop_accepting_requests", "drain_connections", "cleanup_resources", "final_shutdown"]
    assert sum(event["duration_s"] for event in server.events("shutdown.phase")) <= 10.0
    for each in clients:
        await each.close()


async def test_a_second_signal_ends_it_at_once(serve: Start, script: Callable[[str], Path]) -> None:
    """Twice SIGTERM (or SIGINT after it) doesn't wait for the drain, whose budget is ten minutes: exit code 1."""
    for second in (signal.SIGTERM, signal.SIGINT):
        server = serve(script(SLOW), env={"STX_SHUTDOWN_BUDGET_S": "600"})
        async with StreamlitClient(server.url) as client:
            await client.wait_finished(1)
            await client.click("Hang")
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(_wait_for_event, server, "shutdown.started")
            await asyncio.sleep(3 * SAME_SIGNAL_S)  # as late as a person's second one
            server.process.send_signal(second)
            assert await asyncio.to_thread(server.process.wait, 20) == 1
            assert "second signal" in server.output


async def test_readiness_goes_first_and_requests_are_served_until_the_pre_drain_is_over(
    serve: Start, script: Callable[[str], Path]
) -> None:
    """In the pre-drain the port answers: not ready, alive, the page with `Connection: close`; then it is closed."""
    server = serve(script(SLOW), env={"STX_PRE_DRAIN_S": "2", "STX_SHUTDOWN_BUDGET_S": "10"})
    with httpx.Client(base_url=server.url, trust_env=False) as client:  # keeps connections, unlike `server.get`
        assert "connection" not in client.get("/_stcore/host-config").headers
    server.process.send_signal(signal.SIGTERM)
    answer = await asyncio.to_thread(server.wait_for, "/health/ready", lambda answer: answer.status == 503)
    assert answer.json["ready"] is False
    assert server.get("/health/live").status == 200
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        page = client.get("/")
    assert (page.status_code, page.headers["connection"]) == (200, "close")
    assert await asyncio.to_thread(server.process.wait, 30) == 0


def _wait_for_event(server: Server, name: str) -> None:
    deadline = time.monotonic() + 20
    while not server.events(name):
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)
