"""The canary: a run of the script when nobody else runs it, which leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.control import ControlFile, ControlState, MaintenanceOrder
from streamlit_extension.demo.client import StreamlitClient
from tests.support.server import Server, Start

#: The canary's quiet time is a minute; here it is short. A route tells what the process holds.
LAUNCHER = """
from functools import partial
from pathlib import Path
from starlette.responses import JSONResponse
from starlette.routing import Route
from streamlit.runtime import get_instance
from streamlit.starlette import App
from otel.instrumentation.streamlit import WATCHER
import streamlit_extension.app as composition
from streamlit_extension import create_app

composition.Canary = partial(composition.Canary, quiet_s=0.3)

async def state(request):
    return JSONResponse({
        "sessions": get_instance()._session_mgr.num_sessions(),
        "hidden": len(WATCHER._hidden_sessions),
        "running": list(WATCHER.active_sessions),
        "listeners": len(WATCHER._listeners),
    })

app = create_app(App(Path(__file__).with_name("page.py"), routes=[Route("/state", state)]))
"""
PAGE = """
import time
from pathlib import Path
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

def note(what):
    with open("runs.txt", "a") as log:
        log.write(f"{what} {get_script_run_ctx().session_id}\\n")

note("begin")
while Path("hold").exists():
    time.sleep(0.05)
if Path("fail").exists():
    raise ValueError("no")
note("end")
"""
ON = {"STX_HEALTH__CANARY": "true"}


@pytest.fixture
def canary(serve: Start, script: Callable[..., Path]) -> Callable[..., Server]:
    """Starts the application with a canary that is impatient."""

    def start(**settings: Any) -> Server:
        script(PAGE, "page.py")
        return serve(script(LAUNCHER, "launcher.py"), **{"env": ON, **settings})

    return start


def runs(folder: Path, what: str = "end") -> list[str]:
    """The sessions whose run has got so far."""
    path = folder / "runs.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.split()[0] == what]


def state(server: Server) -> Any:
    return server.get("/state").json


def wait(server: Server, holds: Callable[[], bool]) -> None:
    server.wait_for("/health/live", lambda _: holds(), 60)


def script_status(server: Server) -> Any:
    return server.get("/health/detailed").json["components"]["script"].get("status")


def test_it_runs_again_and_again_and_leaves_nothing(canary: Callable[..., Server], tmp_path: Path) -> None:
    """Each run has a session of its own that is removed; listeners don't grow; the script's health is known."""
    server = canary()
    wait(server, lambda: len(runs(tmp_path)) >= 1)
    before = state(server)["listeners"]
    wait(server, lambda: len(runs(tmp_path)) >= 6)
    sessions = runs(tmp_path)
    assert len(set(sessions)) == len(sessions)
    assert all(each.startswith("health-canary-") for each in sessions)
    wait(server, lambda: (found := state(server))["sessions"] <= 1 and found["hidden"] <= 1)
    assert state(server)["listeners"] == before
    assert script_status(server) == "healthy"
    (tmp_path / "fail").touch()
    wait(server, lambda: script_status(server) == "degraded")
    assert server.get("/health/detailed").json["components"]["script"]["last_error"] == "ValueError"
    (tmp_path / "fail").unlink()
    wait(server, lambda: script_status(server) == "healthy")
    assert server.stop() == 0


def test_its_session_is_nobodys(canary: Callable[..., Server], tmp_path: Path) -> None:
    """While it runs no user's script runs, so a stop doesn't wait for it."""
    (tmp_path / "hold").touch()
    server = canary(env={**ON, "STX_SHUTDOWN_BUDGET_S": "30"})
    wait(server, lambda: len(runs(tmp_path, "begin")) == 1)
    found = state(server)
    assert (found["sessions"], found["hidden"], found["running"]) == (1, 1, [])
    server.process.terminate()
    wait_for_phases(server)
    (tmp_path / "hold").unlink()
    assert server.process.wait(60) == 0
    drain = next(each for each in server.events("shutdown.phase") if each["phase"] == "drain_connections")
    assert drain["cancelled"] == []
    assert len(runs(tmp_path, "begin")) == 1


def wait_for_phases(server: Server) -> None:
    """Wait until the drain is over although the canary's script still runs."""
    deadline = time.monotonic() + 60
    while "drain_connections" not in [each["phase"] for each in server.events("shutdown.phase")]:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)


async def test_it_keeps_away_while_somebody_runs_and_in_maintenance(
    canary: Callable[..., Server], tmp_path: Path
) -> None:
    """A user's run that lasts, and an operator who works on the machine: no canary meanwhile."""
    now = datetime.now(UTC)
    (tmp_path / "data").mkdir()
    order = MaintenanceOrder("work", now + timedelta(hours=1), now)
    ControlFile(tmp_path / "data").write(ControlState(maintenance=order))
    server = canary()
    await asyncio.sleep(1.5)  # five times its quiet time
    assert runs(tmp_path, "begin") == []
    (tmp_path / "hold").touch()
    async with StreamlitClient(server.url) as client:
        await asyncio.to_thread(wait, server, lambda: len(runs(tmp_path, "begin")) == 1)
        ControlFile(tmp_path / "data").write(ControlState())
        await asyncio.to_thread(server.wait_for, "/health/ready", lambda answer: answer.status == 200)
        await asyncio.sleep(1.5)
        assert [each.startswith("health-canary-") for each in runs(tmp_path, "begin")] == [False]
        (tmp_path / "hold").unlink()
        await client.wait_finished(1)
    await asyncio.to_thread(wait, server, lambda: any(each.startswith("health-canary-") for each in runs(tmp_path)))
    assert server.stop() == 0


def test_without_its_setting_nobody_runs_the_script(canary: Callable[..., Server], tmp_path: Path) -> None:
    """It executes the user's code, so it is off by default."""
    server = canary(env={})
    time.sleep(1.5)  # five times the quiet time of a canary
    assert server.stop() == 0
    assert runs(tmp_path, "begin") == []
