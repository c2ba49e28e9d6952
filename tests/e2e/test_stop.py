"""Stopping the product while people use it: real signals, real sessions."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from streamlit_extension.demo.client import StreamlitClient
from tests.support.server import Start

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
