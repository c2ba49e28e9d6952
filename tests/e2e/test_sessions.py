"""Real WebSocket sessions against the running product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamlit_extension.demo.client import StreamlitClient
from tests.support.server import Start

SCRIPT = """
import streamlit as st
st.title("hello")
name = st.text_input("Name")
if st.button("Fail"):
    raise ValueError("token=hunter2hunter2")
st.write(f"name is {name}")
"""


async def test_an_unchanged_script_is_used_and_answers_its_probes(serve: Start, script: Callable[[str], Path]) -> None:
    """A session runs the script with its widgets while the same port answers every health path."""
    server = serve(script(SCRIPT))
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(1)
        assert page.exceptions == []
        await client.set("Name", "Ada")
        page = await client.wait_finished(2)
        assert "name is Ada" in page.texts
    for path in ("/health", "/health/detailed", "/health/ready", "/health/live", "/health/startup"):
        assert server.get(path).status == 200
    assert server.get("/health/detailed").json["components"]["script"]["status"] == "healthy"
    assert server.stop() == 0


async def test_a_script_that_fails_on_every_run_is_degraded_with_the_errors_type(
    serve: Start, script: Callable[[str], Path]
) -> None:
    """Runs that fail show as degraded with the type alone; a run that works makes it healthy again."""
    server = serve(script(SCRIPT))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        for each in range(2):
            await client.click("Fail")
            page = await client.wait_finished(2 + each)
            assert page.exceptions == ["ValueError"]
        answer = server.get("/health/detailed")
        found = answer.json
        assert (answer.status, found["status"]) == (200, "degraded")
        assert found["components"]["script"]["status"] == "degraded"
        assert found["components"]["script"]["last_error"] == "ValueError"
        assert server.get("/health/ready").status == 200
        await client.rerun()
        await client.wait_finished(4)
        assert server.get("/health/detailed").json["components"]["script"]["status"] == "healthy"
    assert "hunter2" not in answer.body.decode()


ENDPOINT = """
import threading
import streamlit as st
from streamlit_extension import HealthCheckEndpoint
answer = HealthCheckEndpoint().detailed_health()
st.write("script: " + answer.body["components"]["script"]["status"])
st.write("schedulers: " + str([each.name for each in threading.enumerate()].count("stx-health-scheduler")))
"""


async def test_an_endpoint_made_in_a_script_tells_the_applications_own_health(
    serve: Start, script: Callable[[str], Path]
) -> None:
    """It knows of the script's runs, as the port's answers do, and starts no checks of its own."""
    server = serve(script(ENDPOINT))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.rerun()
        page = await client.wait_finished(2)
        assert page.exceptions == []
        assert page.texts == ["script: healthy", "schedulers: 1"]
    assert server.stop() == 0
