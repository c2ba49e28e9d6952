"""Stopping the product while people use it: real signals, real sessions."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from streamlit_extension.demo.client import StreamlitClient
from streamlit_extension.utils.graceful_shutdown import SAME_SIGNAL_S
from tests.support.server import Server, Start

#: On a machine that does much else a crowd takes its time.
PATIENT_S = 120.0
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


@pytest.mark.timeout(300)
async def test_a_script_of_ten_minutes_does_not_break_the_budget(serve: Start, script: Callable[[str], Path]) -> None:
    """With 20 idle sessions and a script that sleeps, the stop keeps its budget, names what it cut, and exits 0."""
    server = serve(script(SLOW), env={"STX_SHUTDOWN_BUDGET_S": "4"})
    clients = [StreamlitClient(server.url) for _ in range(20)]
    for each in clients:  # one after the other: a busy machine opens few at a time
        await each.connect()
    await asyncio.gather(*(client.wait_finished(1, PATIENT_S) for client in clients))
    await clients[0].click("Hang")
    await asyncio.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert set(await asyncio.gather(*(client.wait_closed(PATIENT_S) for client in clients))) == {1012}
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


@pytest.mark.timeout(300)
async def test_a_crowd_at_sigterm_is_told_1012_within_the_budget(serve: Start, script: Callable[[str], Path]) -> None:
    """A script of ten minutes, an endless stream, a half-filled form and 50 idle browsers: 1012 for all, exit code 0.

    Only the two that never end are cut off, by name; a browser that comes back with its session finds it elsewhere.
    """
    server = serve(script(CROWD), env={"STX_SHUTDOWN_BUDGET_S": "20"})
    clients = [StreamlitClient(server.url) for _ in range(53)]
    for each in clients:
        await each.connect()
    await asyncio.gather(*(each.wait_finished(1, PATIENT_S) for each in clients))
    sleeping, streaming, filling = clients[:3]
    await sleeping.click("Sleep")
    await streaming.click("Stream")
    await filling.set("Item", "half a word", rerun=False)
    await asyncio.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert [await each.wait_closed(PATIENT_S) for each in clients] == [1012] * 53
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    cut = {name for event in server.events("shutdown.phase") for name in event["cancelled"]}
    # The stream calls Streamlit again and again, so it ends at its next word once told to stop.
    assert f"script run of session {sleeping.session_id}" in cut
    # All were told, see above; a machine that does much else may need the last moment for it.
    cut.discard("close_websockets")
    assert cut <= {f"script run of session {each.session_id}" for each in (sleeping, streaming)}
    phases = [event["phase"] for event in server.events("shutdown.phase")]
    assert phases == ["stop_accepting_requests", "drain_connections", "cleanup_resources", "final_shutdown"]
    assert sum(event["duration_s"] for event in server.events("shutdown.phase")) <= 20.0
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
    server = serve(script(SLOW), env={"STX_PRE_DRAIN_S": "5", "STX_SHUTDOWN_BUDGET_S": "20"})
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


BUSY = """
import time
import streamlit as st
st.title("busy")

@st.fragment(run_every=600)
def timer():
    with open("runs.txt", "a") as log:
        log.write("timer\\n")

timer()
with open("runs.txt", "a") as log:
    log.write("run\\n")
if st.button("Work"):
    with open("runs.txt", "a") as log:
        log.write("work begins\\n")
    for _ in range(40):
        time.sleep(0.1)
    st.write("work is done")
"""


async def test_while_draining_nothing_new_starts(serve: Start, script: Callable[[str], Path], tmp_path: Path) -> None:
    """A click, a timer's fragment and a new browser start no run while a slow one ends; that one's result arrives."""
    server = serve(script(BUSY), env={"STX_SHUTDOWN_BUDGET_S": "60"})
    runs = tmp_path / "runs.txt"
    async with StreamlitClient(server.url) as slow, StreamlitClient(server.url) as other:
        await slow.wait_finished(1)
        await other.wait_finished(1)
        shown = other.page
        (timer,) = shown.timers
        await other.rerun(fragment_id=timer, auto=True)
        await other.wait_finished(2)
        assert runs.read_text().count("timer") == 3  # so a timer's run would be seen
        other.page = shown  # the fragment has changed a part of it
        await slow.click("Work")
        await asyncio.to_thread(_wait_for, lambda: "work begins" in runs.read_text(), server)
        before = runs.read_text()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(_wait_for_event, server, "shutdown.phase")  # the first is over, now it drains
        for _ in range(3):
            await other.click("Work")
            await other.rerun(fragment_id=timer, auto=True)
            await other.rerun()
        with pytest.raises(OSError):  # the listeners are closed
            await StreamlitClient(server.url).connect()
        page = await slow.wait_finished(2, PATIENT_S)
        assert "work is done" in page.texts
        assert await slow.wait_closed(PATIENT_S) == await other.wait_closed(PATIENT_S) == 1012
    assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert runs.read_text() == before


HANGS = """
import ctypes, threading
from pathlib import Path
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit.starlette import App
from streamlit_extension import create_app
from streamlit_extension.health.model import CheckSpec

async def block(request):
    threading.Event().wait()  # the event loop never moves again

def hang():
    threading.Event().wait()

app = create_app(App(Path(__file__).with_name("page.py"), routes=[Route("/block", block)]))
app.service.register(CheckSpec("hanging", hang, interval_s=0.2, timeout_s=0.2))
"""


def test_an_event_loop_that_never_moves_again_is_ended_by_force(serve: Start, script: Callable[..., Path]) -> None:
    """A little after its budget the process ends with exit code 1 and says so."""
    script("import streamlit as st\n", "page.py")
    server = serve(script(HANGS, "launcher.py"), env={"STX_SHUTDOWN_BUDGET_S": "2"})
    with pytest.raises(OSError):
        server.get("/block", timeout_s=0.5)
    assert server.stop() == 1
    assert len(server.events("shutdown.forced")) == 1


def test_a_check_that_hangs_holds_up_no_stop(serve: Start, script: Callable[..., Path]) -> None:
    """It is reported as a time-out, and the process ends by itself in its budget, with exit code 0."""
    script("import streamlit as st\n", "page.py")
    server = serve(script(HANGS, "launcher.py"), env={"STX_SHUTDOWN_BUDGET_S": "10"})
    server.wait_for("/health/detailed", lambda answer: answer.json["components"]["hanging"].get("reason") == "timeout")
    assert server.stop() == 0
    assert server.events("shutdown.forced") == []
    assert [name for event in server.events("shutdown.phase") for name in event["cancelled"]] == []


def _wait_for(holds: Callable[[], bool], server: Server) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)
