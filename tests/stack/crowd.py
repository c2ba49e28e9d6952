"""Twenty real sessions with an application that tells of each of its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.stack import Stack
from streamlit_extension.demo.client import StreamlitClient
from tests.support.server import Server, Start

SESSIONS = 20
SERVICE = "shop"
#: What a run does: nothing, fail, or take longer than the collector calls slow.
SCRIPT = """
import time
import streamlit as st
from streamlit_extension import StructuredLogger
fail, slow = st.button("Fail"), st.button("Slow")
st.button("Work")
kind = "fail" if fail else "slow" if slow else "work"
StructuredLogger().log_with_correlation("INFO", "ran", kind=kind)
if slow:
    time.sleep(0.6)
if fail:
    raise RuntimeError("asked for")
"""


@dataclass
class Ran:
    """What the application says that it did: by its own lines, which no exporter has seen."""

    all: dict[str, str]

    def of(self, *kinds: str) -> set[str]:
        """Trace ids of the runs of some kinds."""
        return {trace_id for trace_id, kind in self.all.items() if kind in kinds}


def ran(server: Server) -> Ran:
    """Every run's trace id, with its kind."""
    return Ran({each["trace_id"]: each["kind"] for each in server.lines if each.get("message") == "ran"})


def exporting(to: Stack | str, **more: str) -> dict[str, str]:
    """Variables that send an application's telemetry to the stack, or to any address."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": to if isinstance(to, str) else to.url("otlp_http"),
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        **more,
    }


def shop(serve: Start, folder: Path, to: Stack | str) -> Server:
    """The application."""
    script = folder / "app.py"
    script.write_text(SCRIPT)
    return serve(script, env=exporting(to))


async def session(url: str, presses: Iterable[str], go_on: asyncio.Event | None = None) -> int:
    """One user presses buttons, and with `go_on` works until it is set; returns how many runs there were."""
    async with StreamlitClient(url) as client:
        await client.wait_finished(1)
        for label in presses:
            expected = client.runs_finished + 1
            await client.click(label)
            await client.wait_finished(expected)
        while go_on is not None and not go_on.is_set():
            expected = client.runs_finished + 1
            await client.click("Work")
            await client.wait_finished(expected)
            await asyncio.sleep(0.2)
        return client.runs_finished


async def crowd(url: str, presses: Iterable[str], go_on: asyncio.Event | None = None) -> int:
    """All of them at once; returns how many runs there were."""
    pressed = list(presses)
    return sum(await asyncio.gather(*(session(url, pressed, go_on) for _ in range(SESSIONS))))
