"""Several workers of one server share a data folder: each exports for itself."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver
from tests.support.server import Server, Start

SCRIPT = """
import logging, os
import streamlit as st
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("draw"):
    logging.getLogger("mine").warning("drawn by %d", os.getpid())
    st.title("hello")
"""
LAUNCHER = """
import streamlit as st
from streamlit_extension import create_app
app = st.App("script.py")
app = create_app(app)
"""
SESSIONS = 12


def command_of(way: str, port: int) -> list[str]:
    """Two workers: new interpreters under uvicorn, forks of one that has loaded the application under gunicorn."""
    options = {
        "uvicorn": ["uvicorn", "--port", f"{port}", "--workers", "2"],
        "gunicorn": [
            "gunicorn",
            "--preload",
            "-w",
            "2",
            "-b",
            f"127.0.0.1:{port}",
            "-k",
            "uvicorn_worker.UvicornWorker",
        ],
    }[way]
    return [sys.executable, "-m", *options, "launcher:app"]


async def visit(server: Server) -> int:
    """One session that runs the script; returns how many runs it saw."""
    client = StreamlitClient(server.url)
    for _ in range(200):
        with contextlib.suppress(OSError):
            await client.connect()
            await client.wait_finished(1)
            break
        await asyncio.sleep(0.1)
    await client.close()
    return client.runs_finished


@pytest.mark.parametrize("way", ["uvicorn", "gunicorn"])
async def test_each_worker_exports_for_itself(serve: Start, tmp_path: Path, otlp: OtlpReceiver, way: str) -> None:
    """Every run's span and line arrives once, under the instance id of the worker that made it, and no file is left."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    port = free_port()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
    server = serve("script.py", command=command_of(way, port), env=environment, port=port, ready=None)
    await asyncio.to_thread(server.wait_for, "/health/ready", lambda answer: answer.status == 200, 60)
    runs = sum(await asyncio.gather(*(visit(server) for _ in range(SESSIONS))))
    assert server.stop() == 0, server.output
    assert runs >= SESSIONS
    draws = [span for span in otlp.spans if span.name == "draw"]
    lines = [each for each in otlp.logs if each.body.string_value.startswith("drawn by ")]
    assert len(draws) == len(lines) == runs
    assert max(Counter(span.span_id for span in otlp.spans).values()) == 1
    assert {each.span_id for each in lines} == {each.span_id for each in draws}
    instances = {(each["service.instance.id"], each["process.pid"]) for each in otlp.resources("logs")}
    assert len(instances) == len({instance for instance, _ in instances}) == len({pid for _, pid in instances}) == 2
    assert {int(each.body.string_value.split()[-1]) for each in lines} <= {pid for _, pid in instances}
    assert list((tmp_path / "data" / "spool").iterdir()) == []
