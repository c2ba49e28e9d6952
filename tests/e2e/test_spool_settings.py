"""`[spool]` in a real process: what is set is what holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from otel.spool import FOLDER
from otel.spool.reading import status_of
from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.server import Server, Start

MAX_BYTES = 1 << 20
SCRIPT = """
import logging
import random
import streamlit as st
if st.button("Work"):
    for number in range(400):
        logging.getLogger("work").warning("log %d %s", number, random.randbytes(4000).hex())
    st.write("done")
"""


def dropped(text: str, reason: str) -> int:
    """Log records that were given up for a reason, as `/metrics` tells."""
    lines = [each for each in text.splitlines() if each.startswith("telemetry_dropped_total{")]
    found = [each for each in lines if f'"{reason}"' in each and '"logs"' in each]
    return sum(int(float(re.split(r"} ", each)[1].split(" ")[0])) for each in found)


async def work(server: Server) -> None:
    """Make some three megabytes of log records."""
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Work")
        assert "done" in (await client.wait_finished(2)).texts


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("STX_SPOOL__MAX_BYTES", str(MAX_BYTES), "size"), ("STX_SPOOL__MAX_AGE_S", "0.5", "age")],
)
async def test_the_bounds_of_the_spool_are_those_that_are_set(
    serve: Start, script: Callable[[str], Path], tmp_path: Path, name: str, value: str, reason: str
) -> None:
    """With the collector away the oldest is given up above the bound, and counted; nothing is without one."""
    env = {name: value, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    server = serve(script(SCRIPT), env=env, data_dir=tmp_path / "data")
    await work(server)
    server.wait_for("/metrics", lambda answer: dropped(answer.body.decode(), reason) > 0)
    text = server.get("/metrics").body.decode()
    assert {each for each in ("size", "age", "disk", "memory") if dropped(text, each)} == {reason}
    held = sum(each.size_bytes for file in status_of(tmp_path / "data" / FOLDER) for each in file.waiting.values())
    assert held <= MAX_BYTES
    assert server.stop() == 0
