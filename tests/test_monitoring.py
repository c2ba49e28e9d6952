"""Monitoring: metrics of process, machine, application and business, and their export to Prometheus."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import fields

from otel.instrumentation.streamlit import MemorySample, RunOutcome, RunWatcher, ScriptRun
from streamlit_extension.demo.client import StreamlitClient
from streamlit_extension.logs.business import EventPace
from streamlit_extension.monitoring.activity import Activity, MemoryGrowth
from streamlit_extension.monitoring.machine import Machine
from streamlit_extension.utils.monitoring import AlertManager, MetricsCollector, MetricsSnapshot, SystemMonitor
from tests.support.backends import free_port
from tests.support.exposition import parse_openmetrics, parse_text
from tests.support.server import Answer, Start
from tests.support.stack import built


def collector(pace: EventPace | None = None) -> MetricsCollector:
    """One of its own, that nothing else in this process has told anything."""
    return MetricsCollector(
        machine=Machine(), activity=Activity(RunWatcher()), growth=MemoryGrowth(MemorySample), pace=pace or EventPace()
    )


def test_metrics_collection() -> None:
    """The snapshot is typed and frozen, and holds system, application and business; percentages are 0-100."""
    now = 0.0
    pace = EventPace(clock=lambda: now)
    monitor = SystemMonitor(collector=collector(pace))
    activity = monitor.collector.activity
    for number in range(1, 101):
        outcome = RunOutcome.ERROR if number > 95 else RunOutcome.SUCCESS
        activity.on_run(ScriptRun(f"s{number % 4}", "h", (), outcome, number / 1000, screen="Tasks", trace_id="a" * 32))
    now = 1800.0
    for _ in range(3):
        pace.add("client.created")
    pace.add("task.completed", 8)
    found = monitor.collect_metrics()
    assert isinstance(found, MetricsSnapshot)
    assert [each.name for each in fields(found)] == ["taken_at", "system", "application", "business"]
    with pytest.raises(AttributeError):
        found.system = None  # type: ignore[misc, assignment]
    system = found.system
    for percent in (system.cpu_percent, system.memory_percent, system.disk_percent, system.descriptor_percent or 0.0):
        assert isinstance(percent, float)
        assert 0 <= percent <= 100
    assert (system.process_count or 0) > 0
    assert (system.threads or 0) >= 1
    assert (system.open_descriptors or 0) > 2
    assert system.network_received_bytes >= 0
    runs = found.application.runs
    assert (runs.count, runs.failures, runs.error_percent) == (100, 5, 5.0)
    assert runs.p50_ms == pytest.approx(50, rel=0.01)
    assert runs.p95_ms == pytest.approx(95, rel=0.01)
    assert runs.p99_ms == pytest.approx(99, rel=0.01)
    business = found.business
    assert business.client_creation.total == 3
    assert business.client_creation.per_hour == pytest.approx(6)
    assert business.task_throughput.per_hour == pytest.approx(16)
    assert business.project_completion.total == 0
    assert (business.engagement.active_users, business.engagement.reruns_per_session) == (4, 25.0)
    assert business.engagement.pages == {"Tasks": 100}


def test_the_collector_needs_no_collaborators() -> None:
    """Every method of the specification works as it is, and says the same as the snapshot's parts."""
    made = MetricsCollector()
    assert 0 <= made.cpu_usage() <= 100
    assert 0 < made.memory_usage() < 100
    assert 0 < made.disk_usage() < 100
    assert made.response_time_metrics().count >= 0
    assert isinstance(made.connection_pool_stats(), tuple)
    assert made.memory_usage() == pytest.approx(made.snapshot().system.memory_percent, abs=10)


def test_performance_monitoring() -> None:
    """Every watched metric stands beside its threshold; too few runs breach nothing, slow ones do with an example."""
    monitor = SystemMonitor(
        collector=collector(), thresholds={"cpu_usage": 101, "memory_usage": 101, "disk_usage": 101}
    )
    activity = monitor.collector.activity

    def slow(outcome: RunOutcome) -> None:
        activity.on_run(ScriptRun("s", "h", (), outcome, 6.0, trace_id="b" * 32))

    for _ in range(19):
        slow(RunOutcome.ERROR)
    report = monitor.check_performance()
    assert [each.metric for each in report.findings] == [
        "cpu_usage", "memory_usage", "disk_usage", "error_rate", "response_time", "database_connections",
    ]  # fmt: skip
    assert report.ok
    slow(RunOutcome.SUCCESS)
    report = monitor.check_performance()
    assert not report.ok
    assert report.breached == ("error_rate", "response_time")
    found = {each.metric: each for each in report.findings}
    assert found["response_time"].value == pytest.approx(6000, rel=0.01)
    assert (found["response_time"].threshold, found["response_time"].trace_id) == (5000, "b" * 32)
    assert found["error_rate"].value == 95.0
    assert found["database_connections"].value is None
    assert found["database_connections"].threshold == 18


def test_alert_generation() -> None:
    """A breach fires one critical alert with its example once it has lasted, and resolves once when it is over."""
    now = 0.0
    made = collector()
    manager = AlertManager(clock=lambda: now)
    manager.define_thresholds({"cpu_usage": 101, "memory_usage": 101, "disk_usage": 101}, for_s=30)
    monitor = SystemMonitor(collector=made, alerts=manager)
    for number in range(40):
        outcome = RunOutcome.ERROR if number % 2 else RunOutcome.SUCCESS
        made.activity.on_run(ScriptRun("s", "h", (), outcome, 0.1, trace_id="c" * 32))
    told = []
    for _ in range(10):
        told += [(notice.kind, alert) for notice in monitor.generate_alerts() for alert in notice.alerts]
        now += 15.0
    assert [(kind, alert.rule.name, alert.trace_id) for kind, alert in told] == [("fired", "error_rate", "c" * 32)]
    assert told[0][1].value == 50.0
    assert told[0][1].rule.severity == "critical"
    for _ in range(2000):
        made.activity.on_run(ScriptRun("s", "h", (), RunOutcome.SUCCESS, 0.1))
    kinds = [notice.kind for _ in range(3) for notice in monitor.generate_alerts()]
    assert kinds == ["resolved"]


async def test_promtool_accepts_the_text(serve: Start, script: Callable[[str], Path]) -> None:
    """`promtool check metrics` reads it; all that it finds amiss is the conventions' names that end in `count`."""
    promtool = built("promtool", "promtool")
    server = serve(script("from streamlit_extension import circuit_breaker\ncircuit_breaker('billing')\n" + SCRIPT))
    await use(server.url)
    answer = await asyncio.to_thread(
        server.wait_for, "/metrics", lambda found: b"circuit_breaker_active{" in found.body
    )
    text = answer.body
    assert b"alert_active{" in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode().splitlines()
    allowed = 'non-histogram and non-summary metrics should not have "_count" suffix'
    assert [line for line in lines if allowed not in line] == []
    assert done.returncode in (0, 3)  # 3: lint


SCRIPT = """
import streamlit as st
from streamlit_extension import StructuredLogger
@st.cache_data
def cached():
    return 1
cached()
cached()
if st.button("Sell"):
    StructuredLogger().log_business_event("order.paid")
if st.button("Fail"):
    raise ValueError("secret")
"""


async def use(url: str) -> None:
    """A session with a failed run and a business event."""
    async with StreamlitClient(url) as client:
        await client.wait_finished(1)
        await client.click("Sell")
        await client.wait_finished(2)
        await client.click("Fail")
        await client.wait_finished(3)


async def test_metrics_export(serve: Start, script: Callable[[str], Path]) -> None:
    """A running application tells Prometheus all that there is, in both formats, without any OTLP endpoint."""
    server = serve(script(SCRIPT))
    await use(server.url)
    text = server.get("/metrics")
    openmetrics = server.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    found = {each.name: each.value for family in parse_text(text.body.decode()) for each in family.samples}
    assert found["business_events_total"] == 1
    assert {
        "system_cpu_utilization_ratio", "system_memory_utilization_ratio", "system_filesystem_utilization_ratio",
        "system_network_io_bytes_total", "system_process_count", "process_unix_file_descriptor_count",
        "process_thread_count", "cpython_gc_collections_total", "streamlit_session_active",
        "streamlit_cache_requests_total", "streamlit_script_run_duration_seconds_bucket", "telemetry_emitted_total",
        "target_info",
    } <= set(found)  # fmt: skip
    samples = [each for family in parse_openmetrics(openmetrics.body.decode()) for each in family.samples]
    failed = [
        each.exemplar
        for each in samples
        if each.name == "streamlit_script_run_duration_seconds_bucket"
        and each.labels["streamlit_run_outcome"] == "error"
        and each.exemplar
    ]
    assert len(failed[0].labels["trace_id"]) == 32
    assert b"secret" not in text.body + openmetrics.body


async def test_scrapes_at_the_same_time_are_whole(serve: Start, script: Callable[[str], Path]) -> None:
    """Eighty scrapes in both formats while runs are counted: each parses, and no histogram contradicts itself."""
    server = serve(script(SCRIPT))
    accepted = ("text/plain", "application/openmetrics-text;version=1.0.0")

    def scrape(number: int) -> float:
        answer = server.get("/metrics", Accept=accepted[number % 2])
        assert answer.status == 200
        read = parse_openmetrics if number % 2 else parse_text
        samples = [each for family in read(answer.body.decode()) for each in family.samples]
        runs = "streamlit_script_run_duration_seconds"
        total = sum(each.value for each in samples if each.name == f"{runs}_count")
        assert total == sum(
            each.value for each in samples if each.name == f"{runs}_bucket" and each.labels["le"] == "+Inf"
        )
        assert len({(each.name, *sorted(each.labels.items())) for each in samples}) == len(samples)
        return total

    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        scrapes = [asyncio.create_task(asyncio.to_thread(scrape, number)) for number in range(80)]
        for number in range(2, 12):
            await client.click("Sell")
            await client.wait_finished(number)
        counted = await asyncio.gather(*scrapes)
        assert await asyncio.to_thread(scrape, 0) == 11 >= max(counted)


def test_the_monitor_exports_what_a_scrape_answers() -> None:
    """With nothing installed it tells of the machine; both formats parse."""
    monitor = SystemMonitor()
    names = {family.name for family in parse_text(monitor.export_metrics())}
    assert {"system_cpu_time_seconds", "process_memory_usage_bytes"} <= names
    assert monitor.export_metrics(openmetrics=True).endswith("# EOF\n")


async def test_a_thousand_monitors_of_reruns_add_nothing() -> None:
    """A script that makes one in every run adds no listener and counts no run twice."""
    from otel.instrumentation.streamlit import WATCHER

    SystemMonitor()
    before = len(WATCHER._listeners)
    for _ in range(1000):
        SystemMonitor()
    assert len(WATCHER._listeners) == before


def status_of(server_get: Callable[..., Answer], **headers: str) -> int:
    return server_get("/metrics", **headers).status


def test_the_scrape_is_for_the_entitled(serve: Start, script: Callable[[str], Path]) -> None:
    """By token, or at the machine itself; others get 401 and nothing else."""
    server = serve(script("import streamlit"), env={"STX_TOKEN": "a-token-of-some-length"})
    assert status_of(server.get) == 200
    refused = server.get("/metrics", X_Forwarded_For="10.0.0.1")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.headers["cache-control"] == "no-store"
    assert refused.json == {"error": "the token is needed"}
    assert status_of(server.get, X_Forwarded_For="10.0.0.1", Authorization="Bearer wrong") == 401
    assert status_of(server.get, X_Forwarded_For="10.0.0.1", Authorization="Bearer a-token-of-some-length") == 200


def test_methods_and_headers(serve: Start, script: Callable[[str], Path]) -> None:
    """HEAD is GET without a body, nothing is stored, other methods are refused, below the base path too."""
    server = serve(
        script("import streamlit"), "--server.baseUrlPath", "shop", base="/shop", env={"STX_PATH_PREFIX": "/ops"}
    )
    for path in ("/ops/metrics", "/ops/metrics/"):
        head = server.get(path, "HEAD")
        assert (head.status, head.body, head.headers["cache-control"]) == (200, b"", "no-store")
        assert int(head.headers["content-length"]) > 1000
        assert "set-cookie" not in head.headers
    for method in ("POST", "OPTIONS", "DELETE"):
        assert server.get("/ops/metrics", method).status == 405
    assert b"system_cpu" not in server.get("/metrics").body


def test_a_management_port_alone_answers(serve: Start, script: Callable[[str], Path]) -> None:
    """Where there is one, the application's port knows no scrape."""
    port = free_port()
    server = serve(script("import streamlit"), env={"STX_MANAGEMENT_PORT": str(port)})
    assert server.get("/metrics").status == 404
    server.port = port
    assert b"system_cpu_utilization_ratio" in server.get("/metrics").body


def test_a_callback_that_hangs_is_told_in_time_and_holds_up_no_probe(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """The caller's own limit counts; live answers meanwhile."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import threading\nfrom opentelemetry import metrics\nfrom streamlit_extension import create_app\n"
        "def hang(options):\n    threading.Event().wait()\n"
        "metrics.get_meter('app').create_observable_gauge('hangs', [hang])\n"
        f"app = create_app({str(script('import streamlit'))!r})\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on"]
    server = serve(launcher, command=command, port=port)
    refused = server.get("/metrics", X_Prometheus_Scrape_Timeout_Seconds="1")
    assert (refused.status, refused.json["error"]) == (503, "the metrics could not be collected in time")
    assert server.get("/health/live").status == 200


async def test_workers_of_one_server_answer_for_one_another(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Whichever worker a scrape reaches, it tells of both; one that has ended is gone from it."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(f"from streamlit_extension import create_app\napp = create_app({str(script(SCRIPT))!r})\n")
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on", "--workers", "2",
    ]  # fmt: skip
    server = serve(launcher, command=command, port=port)

    def both(answer: Answer) -> bool:
        samples = [each for family in parse_text(answer.body.decode()) for each in family.samples]
        return len({each.labels["process_pid"] for each in samples if each.name == "process_uptime_seconds"}) == 2

    answer = await asyncio.to_thread(server.wait_for, "/metrics", both, 60.0)
    for _ in range(8):  # a connection of its own each, so that both workers are reached
        answer = server.get("/metrics")
        assert both(answer)
        names = [each.name for family in parse_text(answer.body.decode()) for each in family.samples]
        assert names.count("system_cpu_utilization_ratio") == 1
        assert names.count("process_thread_count") == 1
    listed = list(parse_openmetrics(server.get("/metrics", Accept="application/openmetrics-text").body.decode()))
    assert len(listed) > 20
    server.stop()
