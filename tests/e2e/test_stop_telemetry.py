"""Stopping with telemetry that waits, while the collector is away or answers badly: on time, and nothing is lost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver, Reply, attributes
from tests.support.server import Server, Start

RECORDS = 1000  # of each: spans and log records
BUDGET_S = 6.0
SCRIPT = f"""
import logging
import streamlit as st
from opentelemetry import trace
tracer, logger = trace.get_tracer("work"), logging.getLogger("work")
if st.button("Work"):
    for number in range({RECORDS}):
        with tracer.start_as_current_span(f"span {{number}}"):
            logger.warning("log %d", number)
    st.write("done")
"""
LAUNCHER = """
import streamlit as st
from streamlit_extension import create_app
app = st.App("script.py")
app = create_app(app)
"""
TROUBLES: Mapping[str, Reply | None] = {
    "dead": None,
    "silent": Reply(delay_s=3600, status=503),
    "dripping": Reply(drip_s=0.3, status=503),
    "slow": Reply(delay_s=0.7),
}


def command_of(way: str, port: int) -> list[str]:
    """How an operator starts it."""
    return {
        "run": [sys.executable, "-m", "streamlit_extension", "run", "script.py"],
        "uvicorn": [sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on"],
        "streamlit run": [sys.executable, "-m", "streamlit", "run", "launcher.py"],
    }[way]


def environment(endpoint: str) -> dict[str, str]:
    """What sends telemetry there; metrics only at the end."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "STX_SHUTDOWN_BUDGET_S": str(BUDGET_S),
    }


def names(receiver: OtlpReceiver) -> tuple[Counter[str], Counter[str]]:
    """The ids of the script's own spans and log records, as often as each was taken."""
    spans = Counter(each.name for each in receiver.spans if each.name.startswith("span "))
    logs = Counter(each.body.string_value for each in receiver.logs if each.body.string_value.startswith("log "))
    return spans, logs


async def work(server: Server) -> None:
    """One session that makes the records."""
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Work")
        assert "done" in (await client.wait_finished(2)).texts


@pytest.mark.parametrize(
    ("way", "trouble"),
    [
        *(("run", trouble) for trouble in TROUBLES),
        ("uvicorn", "dead"),
        ("uvicorn", "silent"),
        ("streamlit run", "dead"),
        ("streamlit run", "silent"),
    ],
)
async def test_what_a_stop_can_not_send_is_sent_by_the_next_start(
    serve: Start, tmp_path: Path, way: str, trouble: str
) -> None:
    """2,000 records wait at SIGTERM: the stop keeps its budget, and together with the next start every id arrives."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    reply = TROUBLES[trouble]
    with ExitStack() as stack:
        first = None if reply is None else stack.enter_context(OtlpReceiver())
        if first is not None and reply is not None:
            first.otherwise = reply
        endpoint = first.endpoint if first is not None else f"http://127.0.0.1:{free_port()}"
        port = free_port()
        server = serve("script.py", command=command_of(way, port), env=environment(endpoint), port=port)
        await work(server)
        code = server.stop()
        assert server.ended_after_s < BUDGET_S + 3, server.output  # and what ending a process takes
        if way == "run":
            assert code == 0
        phases = server.events("shutdown.phase")
        assert sum(each["duration_s"] for each in phases) <= BUDGET_S
        assert [each["phase"] for each in phases][-1] == "final_shutdown"
        before = names(first) if first is not None else (Counter[str](), Counter[str]())
        with OtlpReceiver() as second:
            again = serve("script.py", command=command_of(way, port), env=environment(second.endpoint), port=port)

            def complete() -> bool:
                return all(len(old | new) == RECORDS for old, new in zip(before, names(second), strict=True))

            assert second.wait_for(complete, 60), [len(each) for each in names(second)]
            after = names(second)
            again.stop()
    for old, new in zip(before, after, strict=True):
        # What was under way at the end may come twice: one request of each signal, of 512 records at most.
        assert sum(old.values()) + sum(new.values()) - RECORDS <= 512
        assert trouble == "slow" or not old


async def test_each_phase_of_a_stop_arrives_as_a_record(serve: Start, tmp_path: Path, otlp: OtlpReceiver) -> None:
    """All four, the last one too, which is told after the flush: a static event name, the phase, its duration."""
    (tmp_path / "script.py").write_text(SCRIPT)
    server = serve("script.py", env=environment(otlp.endpoint))
    assert server.stop() == 0
    found = [attributes(each.attributes) for each in otlp.logs if each.event_name == "shutdown.phase"]
    lines = server.events("shutdown.phase")
    assert [each["phase"] for each in found] == [each["phase"] for each in lines]
    assert len(lines) == 4
    assert [each["duration_s"] for each in found] == [each["duration_s"] for each in lines]
