"""Alerts of running applications: breaches and their ends reach sinks, whatever one of these does."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.control import ControlFile, ControlState, MaintenanceOrder
from streamlit_extension.demo.client import StreamlitClient
from tests.alerts.fakes import pagerduty, slack
from tests.alerts.support import eventually
from tests.support.backends import free_port
from tests.support.cgroup import CONTAINED, ControlGroup
from tests.support.server import Server, Start

INTERVAL_S, FOR_S = 1.0, 2.0
#: What the specification grants from the crossing of the value until a sink has been told.
PROMISE_S = INTERVAL_S + FOR_S + 5
ALERTS = {
    "STX_ALERTS__INTERVAL_S": str(INTERVAL_S),
    "STX_ALERTS__FOR_S": str(FOR_S),
    "STX_ALERTS__THRESHOLDS__MEMORY_USAGE": "90",
    "STX_ALERTS__THRESHOLDS__CPU_USAGE": "100",
    "OTEL_SERVICE_NAME": "shop",
}
HELLO = "import streamlit as st\nst.title('Hello')\n"
BILLING = """
import streamlit as st
from streamlit_extension import circuit_breaker
billing = circuit_breaker("billing")
if st.button("Fail"):
    with billing:
        raise ValueError
"""


@pytest.fixture
def silent() -> Iterator[tuple[socket.socket, str]]:
    """A service that takes connections and never answers, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}/hook"


def contained(serve: Start, group: ControlGroup, *words: str, **settings: Any) -> Server:
    """Our command in a control group."""
    port = free_port()
    command = [sys.executable, "-c", CONTAINED, str(group.root), *words]
    env = {**ALERTS, **settings.pop("env", {})}
    return serve(words[1], command=command, port=port, env=env, **settings)


def metric(server: Server, line: str) -> float | None:
    """The value of a series of /metrics, by the beginning of its line."""
    for each in server.get("/metrics").body.decode().splitlines():
        if each.startswith(line):
            return float(each.rpartition(" ")[2])
    return None


def wait_for_alerts(server: Server) -> None:
    """Until thresholds are watched and nothing fires."""
    eventually(lambda: metric(server, 'alert_active{alert_rule_name="memory_usage"') == 0)


async def test_the_sample_application_tells_of_a_breach_and_of_its_end(
    serve: Start, control_group: ControlGroup
) -> None:
    """Slack hears of both within interval, `for` and five seconds of the crossing; the metric shows it meanwhile."""
    with slack() as chat:
        port = free_port()
        server = serve(
            "",
            command=[sys.executable, "-c", CONTAINED, str(control_group.root), "demo", "--port", str(port)],
            port=port,
            env={**ALERTS, "STX_NOTIFY__SLACK__WEBHOOK_URL": chat.url},
        )
        async with StreamlitClient(server.url) as client:
            await client.wait_finished(1)
            await asyncio.to_thread(wait_for_alerts, server)
            crossed_s = time.monotonic()
            control_group.use_memory(97)
            await asyncio.to_thread(eventually, lambda: len(chat.taken) == 1)
            assert time.monotonic() - crossed_s <= PROMISE_S
            assert await asyncio.to_thread(metric, server, 'alert_active{alert_rule_name="memory_usage"') == 1
            back_s = time.monotonic()
            control_group.use_memory(30)
            await asyncio.to_thread(eventually, lambda: len(chat.taken) == 2)
            assert time.monotonic() - back_s <= PROMISE_S
        first, second = (body["text"] for body in chat.taken)
        assert first.startswith("[FIRING] shop") and first.endswith("Memory usage")
        assert second == first.replace("FIRING", "RESOLVED")
        assert "97%" in json.dumps(chat.taken[0]) and chat.refused == []
        assert server.stop() == 0


def test_a_sink_that_hangs_delays_neither_probes_nor_other_sinks_nor_the_stop(
    serve: Start, script: Callable[[str], Path], control_group: ControlGroup, silent: tuple[socket.socket, str]
) -> None:
    """While Slack hangs, probes are answered and PagerDuty hears of breach and end; a restart delivers what is left."""
    listener, url = silent
    source, key = script(HELLO), "0123456789abcdef0123456789abcdef"
    with pagerduty() as duty:
        env = {
            "STX_NOTIFY__SLACK__WEBHOOK_URL": url,
            "STX_NOTIFY__PAGERDUTY__ROUTING_KEY": key,
            "STX_NOTIFY__PAGERDUTY__EVENTS_URL": duty.url,
            "STX_ALERTS__FOR_S": "0",
        }
        server = contained(serve, control_group, "run", str(source), env=env)
        wait_for_alerts(server)
        control_group.use_memory(97)
        hanging, _ = listener.accept()  # the sink has connected, and waits from now on
        for _ in range(300):
            assert server.get("/health/live").status == 200
        eventually(lambda: len(duty.taken) == 1)
        control_group.use_memory(30)
        eventually(lambda: len(duty.taken) == 2)
        assert [event["event_action"] for event in duty.taken] == ["trigger", "resolve"]
        assert metric(server, 'alert_notification_waiting{alert_sink_name="slack"') == 2
        assert (
            metric(server, 'alert_notification_finished_total{alert_notification_outcome="delivered",alert_sink_n') == 2
        )
        assert server.stop() == 0
        hanging.close()
    with slack() as chat:
        env = {"STX_NOTIFY__SLACK__WEBHOOK_URL": chat.url}
        server = contained(serve, control_group, "run", str(source), env=env)
        eventually(lambda: len(chat.taken) == 2)
        assert [body["text"].partition("]")[0] for body in chat.taken] == ["[FIRING", "[RESOLVED"]
        server.stop()


def test_an_alert_that_fires_over_a_restart_is_told_once(
    serve: Start, script: Callable[[str], Path], control_group: ControlGroup
) -> None:
    """The process that comes after knows what the one before has told, and resolves it under the same key."""
    source = script(HELLO)
    with pagerduty() as duty:
        env = {
            "STX_NOTIFY__PAGERDUTY__ROUTING_KEY": "0123456789abcdef0123456789abcdef",
            "STX_NOTIFY__PAGERDUTY__EVENTS_URL": duty.url,
            "STX_ALERTS__FOR_S": "0",
        }
        server = contained(serve, control_group, "run", str(source), env=env)
        wait_for_alerts(server)
        control_group.use_memory(97)
        eventually(lambda: len(duty.taken) == 1)
        assert server.stop() == 0
        server = contained(serve, control_group, "run", str(source), env=env)
        eventually(lambda: metric(server, 'alert_active{alert_rule_name="memory_usage"') == 1)
        control_group.use_memory(30)
        eventually(lambda: len(duty.taken) == 2)
        server.stop()
        trigger, resolve = duty.taken
        assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
        assert trigger["dedup_key"] == resolve["dedup_key"]


def test_workers_of_one_server_tell_of_the_machine_once(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two workers see the same breach; one tells, and the other takes over when that one has ended."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(f"from streamlit_extension import create_app\napp = create_app({str(script(HELLO))!r})\n")
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on", "--workers", "2",
    ]  # fmt: skip
    env = {**ALERTS, "STX_ALERTS__THRESHOLDS__MEMORY_USAGE": "0.1", "STX_ALERTS__FOR_S": "0"}
    server = serve(launcher, command=command, port=port, env=env)
    both = 'alert_active{alert_rule_name="memory_usage"'

    def watching() -> int:
        """Workers whose alerts run: each makes a file of its own."""
        return len(list((tmp_path / "data").glob("alerts*.lock")))

    eventually(lambda: watching() == 2 and len(server.events("alert.fired")) == 1, 40)
    eventually(lambda: metric(server, both) == 1, 40)
    assert len(server.events("alert.fired")) == 1
    server.stop()
    assert len(server.events("alert.fired")) == 1


def test_maintenance_of_operators_silences_a_running_application(
    serve: Start, script: Callable[[str], Path], control_group: ControlGroup, tmp_path: Path
) -> None:
    """Ordered before the start it holds from the first evaluation on; what still fires at its end is told then."""
    now = datetime.now(UTC)
    control = ControlFile(tmp_path / "data")
    control.path.parent.mkdir()
    control.write(ControlState(MaintenanceOrder("upgrade", now + timedelta(hours=1), now)))
    control_group.use_memory(97)
    source = script(HELLO)
    server = contained(serve, control_group, "run", str(source), env={"STX_ALERTS__FOR_S": "0"})
    eventually(lambda: metric(server, 'alert_active{alert_rule_name="memory_usage"') == 1)
    assert server.events("alert.fired") == []
    control.write(ControlState())
    eventually(lambda: len(server.events("alert.fired")) == 1)
    assert server.stop() == 0


async def test_an_open_circuit_shows_in_health_and_metrics(serve: Start, script: Callable[[str], Path]) -> None:
    """Closed it is a healthy component, open a degraded one; the process stays ready."""
    server = serve(script(BILLING), env={"STX_BREAKER__FAILURES": "1"})
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)

        def component(state: str) -> None:
            server.wait_for("/health/detailed/circuit:billing", lambda answer: f'"{state}"'.encode() in answer.body)

        await asyncio.to_thread(component, "closed")
        await client.click("Fail")
        await client.wait_finished(2)
        await asyncio.to_thread(component, "open")
        answer = await asyncio.to_thread(server.get, "/health/detailed/circuit:billing")
        assert answer.json["status"] == "degraded" and answer.json["reason"] == "open"
        assert (await asyncio.to_thread(server.get, "/health/ready")).status == 200
        opened = 'circuit_breaker_active{circuit_breaker_name="billing",circuit_breaker_state="open"'
        assert await asyncio.to_thread(metric, server, opened) == 1
    assert server.events("audit.circuit_open")
