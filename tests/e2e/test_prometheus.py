"""A real Prometheus scrapes a real application: series, exemplars, and the expressions of the alert rules."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.alerts.fleet import ALWAYS_THERE, groups
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.server import Start
from tests.support.stack import built

TOKEN = "a-token-that-prometheus-has"
SCRIPT = """
import streamlit as st
from streamlit_extension import StructuredLogger
if st.button("Sell"):
    StructuredLogger().log_business_event("order.paid")
if st.button("Fail"):
    raise ValueError
"""


@dataclass
class Prometheus:
    """A running server."""

    url: str
    log: Path

    def ask(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as got:
            return json.loads(got.read())["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.ask("query", query=expression)["result"])

    def wait_for(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                found = ask()
                if found:
                    return found
            time.sleep(0.1)
        raise AssertionError(f"there never was an answer\n{self.log.read_text()[-3000:]}")


StartPrometheus = Callable[[int], Prometheus]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Starts Prometheus on a port to scrape."""
    program = built("prometheus", "prometheus")
    processes: list[subprocess.Popen[bytes]] = []

    def start(target: int) -> Prometheus:
        port, log = free_port(), tmp_path / "prometheus.log"
        config = {
            "scrape_configs": [
                {
                    "job_name": "shop",
                    "scrape_interval": "1s",
                    "scrape_timeout": "1s",
                    "authorization": {"credentials": TOKEN},
                    "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
                }
            ]
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        command = [
            program, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
        ]  # fmt: skip
        with log.open("wb") as stream:
            processes.append(subprocess.Popen(command, stdout=stream, stderr=stream))
        return Prometheus(f"http://127.0.0.1:{port}", log)

    yield start
    for each in processes:
        each.send_signal(signal.SIGTERM)
        each.wait(30)


async def test_prometheus_scrapes_series_and_exemplars(
    serve: Start, script: Callable[[str], Path], prometheus: StartPrometheus
) -> None:
    """By token; every scrape succeeds, an example of a failed run has its trace, and the rules find their series."""
    server = serve(script(SCRIPT), env={"STX_TOKEN": TOKEN, "STX_HEALTH_DETAILS": "token"})
    started = prometheus(server.port)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Sell")
        await client.wait_finished(2)
        await client.click("Fail")
        await client.wait_finished(3)
        sold = started.wait_for(lambda: started.query('business_events_total{business_event_name="order.paid"} > 0'))
        assert sold[0]["value"][1] == "1"
    failed = 'streamlit_script_run_duration_seconds_bucket{streamlit_run_outcome="error"}'

    def examples() -> Any:
        now = time.time()
        return started.ask("query_exemplars", query=failed, start=str(now - 300), end=str(now))

    found = started.wait_for(examples)
    assert len(found[0]["exemplars"][0]["labels"]["trace_id"]) == 32
    for rule in (each for group in groups(default_rules()) for each in group.rules):
        name = str(rule.get("record", ""))
        if any(each in name for each in ("cpu_usage", "memory_usage", "disk_usage")):
            expression = str(rule["expr"])
            (series,) = started.wait_for(partial(started.query, expression))
            assert 0 <= float(series["value"][1]) <= 100, name
    assert started.query(ALWAYS_THERE)
    assert started.query("min_over_time(up[1m])")[0]["value"][1] == "1"
    assert float(started.query("scrape_samples_scraped")[0]["value"][1]) > 80
