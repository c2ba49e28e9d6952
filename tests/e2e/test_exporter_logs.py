"""What the export path says of its own trouble: seldom, on standard output alone."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver
from tests.support.server import Start

AWAY_S = 130 if os.environ.get("SOAK") else 8
SCRIPT = """
import logging
import streamlit as st
logging.getLogger("mine").warning("drawn")
st.title("hello")
"""
#: Loggers of the way out.
OWN = ("otel.export", "otel.spool", "opentelemetry", "grpc", "urllib3", "requests")


@pytest.mark.timeout(AWAY_S + 120)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_dead_collector_is_told_once_a_minute_and_never_exported(
    serve: Start, tmp_path: Path, protocol: str
) -> None:
    """While it is away each kind of line comes once a minute; when it is back, none of them is among what arrives."""
    (tmp_path / "app.py").write_text(SCRIPT)
    port = free_port()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    server = serve("app.py", env=environment)
    runs = 0
    async with StreamlitClient(server.url) as client:
        loop = asyncio.get_running_loop()
        until = loop.time() + AWAY_S
        while loop.time() < until:
            runs += 1
            await client.wait_finished(runs)
            await asyncio.sleep(0.1)
            await client.rerun()
        with OtlpReceiver(protocol, port) as receiver:
            assert await asyncio.to_thread(
                receiver.wait_for, lambda: [each.body.string_value for each in receiver.logs].count("drawn") >= runs, 60
            )
            assert server.stop() == 0
            scopes = {
                scope.scope.name
                for message in receiver.accepted("logs")
                for resource in message.resource_logs
                for scope in resource.scope_logs
            }
    assert "mine" in scopes
    assert [name for name in scopes if name.startswith(OWN)] == []
    moments = defaultdict(list)
    for line in server.lines:
        if line["logger"].startswith(OWN):
            moments[line["logger"], line.get("event", line["message"])].append(
                datetime.fromisoformat(line["timestamp"])
            )
    assert {f"export.later.{signal}" for signal in ("traces", "logs", "metrics")} <= {event for _, event in moments}
    for kind, told in moments.items():
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(told)]
        assert all(gap >= 59.9 for gap in gaps), (kind, gaps)
    assert not [line for line in server.output.splitlines() if "grpc" in line and not line.startswith("{")]
