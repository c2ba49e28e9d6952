"""Below another application, and under a server of somebody else's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.server import Server, Start

PAGE = "import streamlit as st\nst.title('hello')\n"
#: What is left when the server has ended is written down; a traceback that is still armed would come meanwhile.
MAIN = """
import atexit, json, threading, time
from fastapi import FastAPI
from streamlit_extension import create_app

def look():
    names = sorted(each.name for each in threading.enumerate() if each.name.startswith("stx-"))
    time.sleep(2.5)
    open("left.json", "w").write(json.dumps(names))

atexit.register(look)
app = create_app("page.py")
api = FastAPI({lifespan})

@api.get("/api/hello")
def hello():
    return {{"hello": "world"}}

api.mount("{mount}", app)
"""


def uvicorn(serve: Start, target: str, *options: str, **settings: object) -> Server:
    """Uvicorn as its users start it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), *options]
    return serve(target, command=command, port=port, **settings)


@pytest.mark.parametrize("mount", ["/health-ui", "/ui"])
@pytest.mark.parametrize("lifespan", ["", "lifespan=app.lifespan()"])
async def test_below_fastapi_it_answers_runs_and_ends(
    serve: Start, script: Callable[..., Path], tmp_path: Path, mount: str, lifespan: str
) -> None:
    """Probes and sessions work below any mount; at SIGTERM all that was started is stopped and the exit code is 0."""
    script(PAGE, "page.py")
    script(MAIN.format(lifespan=lifespan, mount=mount), "main.py")
    server = uvicorn(serve, "main:api", ready=f"{mount}/health/startup")
    for path in ("", "/detailed", "/detailed/system", "/ready", "/live"):
        assert server.get(f"{mount}/health{path}").status == 200, path
    assert server.get(f"{mount}/health/nonsense").status == 404
    assert server.get("/api/hello").json == {"hello": "world"}
    async with StreamlitClient(server.url + mount) as client:
        page = await client.wait_finished(1)
        assert page.exceptions == []
        assert page.texts == ["hello"]
    assert server.stop() == 0, server.output
    left = json.loads((tmp_path / "left.json").read_text())
    assert [name for name in left if name != "stx-shutdown"] == [], server.output
    assert "Timeout (" not in server.output
    assert "Traceback" not in server.output


LAUNCHER = "from streamlit_extension import create_app\napp = create_app('page.py')\n"


def test_a_management_port_leaves_the_access_log_of_another_server_alone(
    serve: Start, script: Callable[..., Path]
) -> None:
    """Under a foreign uvicorn its access lines go on, and the management port writes none."""
    script(PAGE, "page.py")
    script(LAUNCHER, "launcher.py")
    management_port = free_port()
    server = uvicorn(serve, "launcher:app", env={"STX_MANAGEMENT_PORT": str(management_port)})
    management = Server(server.process, management_port, server.log)
    assert management.get("/health/detailed").status == 200
    assert management.get("/health/nonsense").status == 404
    assert server.get("/_stcore/host-config").status == 200
    server.wait_for("/health/ready", lambda _: "/_stcore/host-config" in server.output)
    assert "/health/nonsense" not in server.output
    assert server.stop() == 0
