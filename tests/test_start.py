"""What an application imports until it is ready: nothing that its script doesn't use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import asyncio, os, sys
from streamlit_extension import create_app
from streamlit_extension import cli_run, runner

async def main():
    app = create_app("script.py")
    messages = asyncio.Queue()
    ready = asyncio.Event()

    async def send(message):
        assert message["type"] != "lifespan.startup.failed", message
        ready.set()

    await messages.put({"type": "lifespan.startup"})
    served = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, messages.get, send))
    await ready.wait()
    with open("loaded.txt", "w") as file:
        file.write(" ".join(sorted(sys.modules)))
    os._exit(0)  # a stop is another test's

asyncio.run(main())
"""

#: Modules that cost a start dear, and what uses them.
HEAVY = {
    "aiosmtplib": "e-mail",
    "apprise": "notifications by URL",
    "google.rpc": "gRPC",
    "grpc": "export by gRPC",
    "httpx": "checks of external APIs",
    "kubernetes": "auto-scaling",
    "numpy": "the script, if anything",
    "opentelemetry.exporter": "export, on a thread of its own",
    "opentelemetry.instrumentation.instrumentor": "the instrumentor by entry point",
    "opentelemetry.instrumentation.threading": "the first session",
    "packaging.requirements": "the instrumentor's base class",
    "pandas": "the script, if anything",
    "prometheus_client": "a scrape",
    "pydantic": "nothing here",
    "redis": "a cache that is configured",
    "requests": "export by HTTP, and a script that is fetched",
    "smtplib": "e-mail",
    "sqlalchemy": "the script's database",
    "streamlit_extension.alerts.autoscale": "auto-scaling",
    "streamlit_extension.alerts.kube": "auto-scaling",
    "streamlit_extension.doctor": "the command doctor",
    "streamlit_extension.monitoring.collector": "a snapshot",
    "streamlit_extension.monitoring.model": "a snapshot",
}


def loaded_at_ready(folder: Path, **more: str) -> set[str]:
    """The modules of a process of its own whose application has just become ready."""
    (folder / "script.py").write_text("import streamlit as st\nst.title('start')\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "STX_", "COV"))}
    env = {**kept, "STX_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(Path(__file__).parents[1]), **more}
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set((folder / "loaded.txt").read_text().split())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Those of an application without any configuration."""
    return loaded_at_ready(tmp_path_factory.mktemp("start"))


def test_a_start_is_looked_at(loaded: set[str]) -> None:
    """The list is that of a real start: Streamlit, the SDK and our rooms are in it."""
    assert {
        "streamlit",
        "opentelemetry.sdk.trace",
        "otel.providers",
        "streamlit_extension.monitoring.machine",
    } <= loaded


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_a_start_imports_nothing_that_the_script_does_not_use(loaded: set[str], name: str) -> None:
    """What only a later moment or another application needs is not there when the application is ready."""
    found = sorted(each for each in loaded if each == name or each.startswith(f"{name}."))
    assert not found, f"needed for {HEAVY[name]} only: {', '.join(found)}"
