"""Requests a second of our probes beside their peers, in one run: `python benchmarks/probes.py [--rounds N]`.

Every server is a process of its own on loopback; in each round each is loaded in turn with `wrk` (Debian package), so
that a slow minute of the machine hits all of them. What is printed are ratios to a constant raw ASGI answer on the same
server (uvicorn, uvloop, httptools), as medians over the rounds. Peers live in an environment of their own
(`make bench` makes it from `requirements/peers.txt`); one that isn't there is left out by name.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import PEERS_PYTHON, QUIET, free_port, has, running

RAW = """
import uvicorn
BODY = b'{"alive": true, "last_heartbeat": "2025-01-15T10:30:00Z"}'
START = {"type": "http.response.start", "status": 200, "headers": [
    (b"content-type", b"application/json"), (b"cache-control", b"no-store"),
    (b"content-length", str(len(BODY)).encode())]}
END = {"type": "http.response.body", "body": BODY}
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(START)
        await send(END)
uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="error", lifespan="off",
            proxy_headers=False)
"""
STARLETTE = """
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def live(request):
    return JSONResponse({"alive": True})
uvicorn.run(Starlette(routes=[Route("/", live)]), port=PORT, loop="uvloop", http="httptools", access_log=False,
            log_level="error")
"""
FASTAPI = """
import uvicorn
from fastapi import FastAPI
from fastapi_healthchecks.api.router import HealthcheckRouter, Probe
app = FastAPI()
app.include_router(HealthcheckRouter(Probe(name="live", checks=[])), prefix="/health")
uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="error")
"""
PY_HEALTHCHECK = """
from flask import Flask
from healthcheck import HealthCheck
from waitress import serve
app = Flask(__name__)
app.add_url_rule("/health", "health", view_func=HealthCheck().run)
serve(app, host="127.0.0.1", port=PORT, threads=8)
"""
SCRIPT = "import streamlit as st\nst.title('benchmark')\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A process to load: its name, command and paths with the labels under which they are printed."""

    name: str
    command: list[str]
    port: int
    paths: tuple[tuple[str, str], ...]
    ready: str


def python_server(name: str, source: str, path: str, needs: tuple[str, ...] = ()) -> Server | None:
    """A server from a program text, or None (said on the screen) where a package that it needs is missing."""
    python = PEERS_PYTHON if needs else sys.executable
    for package in needs:
        if not has(python, package):
            print(f"left out: {name} ({package} is not installed)")
            return None
    port = free_port()
    program = textwrap.dedent(source).replace("PORT", str(port))
    return Server(name, [python, "-c", program], port, ((name, path),), path)


def servers(script: Path) -> list[Server]:
    """All servers of the comparison."""
    ours, theirs = free_port(), free_port()
    found = [
        python_server("constant raw ASGI", RAW, "/"),
        Server(
            "ours",
            [sys.executable, "-m", "streamlit_extension", "run", str(script), "--server.port", str(ours), *QUIET],
            ours,
            (
                ("ours /health/live", "/health/live"),
                ("ours /health/ready", "/health/ready"),
                ("ours /health/detailed", "/health/detailed"),
                ("ours /health", "/health"),
            ),
            "/health/startup",
        ),
        python_server("bare Starlette route", STARLETTE, "/"),
        python_server("fastapi-healthchecks", FASTAPI, "/health/live", ("fastapi_healthchecks",)),
        python_server("py-healthcheck on waitress", PY_HEALTHCHECK, "/health", ("healthcheck", "waitress", "flask")),
        Server(
            "Streamlit's own",
            [
                *(sys.executable, "-m", "streamlit", "run", str(script)),
                *("--server.port", str(theirs), "--server.address", "127.0.0.1", *QUIET),
            ],
            theirs,
            (("Streamlit's own /_stcore/health", "/_stcore/health"),),
            "/_stcore/health",
        ),
    ]
    return [server for server in found if server is not None]


def load(port: int, path: str, seconds: int, connections: int) -> float:
    """Requests a second that `wrk` gets from one path."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(f"{path} on port {port} answered with errors:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise SystemExit(output)
    return float(found[1])


def main() -> None:
    """Load everything in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (Debian package wrk)")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        script = folder / "script.py"
        script.write_text(SCRIPT)
        started = servers(script)
        for server in started:
            print(f"starting {server.name}", flush=True)
            stack.enter_context(running(server.command, f"http://127.0.0.1:{server.port}{server.ready}", folder))
        targets = [(label, server.port, path) for server in started for label, path in server.paths]
        figures: dict[str, list[float]] = {label: [] for label, _, _ in targets}
        for each in range(options.rounds):
            print(f"round {each + 1} of {options.rounds}", flush=True)
            for label, port, path in targets:
                figures[label].append(load(port, path, options.seconds, options.connections))
    base = figures["constant raw ASGI"]
    print(f"\n{'answer':34} {'requests/s':>11} {'ratio to raw':>13} {'(min – max)':>15}")
    for label, values in figures.items():
        ratios = [value / raw for value, raw in zip(values, base, strict=True)]
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        print(f"{label:34} {statistics.median(values):11,.0f} {statistics.median(ratios):13.2f} {spread:>15}")


if __name__ == "__main__":
    main()
