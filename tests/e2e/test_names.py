"""Everything that is emitted is in `otel/names.py`: metrics with unit, attributes and their allowed values."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel.names import ALLOWED_VALUES, METRIC_ATTRIBUTES, UNITS, Attribute, Metric
from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver, attributes
from tests.support.promql import (
    dashboard_expressions,
    kind_of,
    labels_of,
    problems,
    rule_expressions,
    written,
)
from tests.support.server import ROOT, Start

SCRIPT = """
import sqlalchemy, streamlit as st
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, Session
from streamlit_extension import StructuredLogger, circuit_breaker, track

@st.cache_resource
def models():
    class Base(DeclarativeBase):
        pass
    class Client(Base):
        __tablename__ = "clients"
        id: Mapped[int] = mapped_column(primary_key=True)
    engine = sqlalchemy.create_engine("sqlite:///names.db")
    Base.metadata.create_all(engine)
    return engine, Client

engine, Client = models()
track(Client, created="client.created")
with circuit_breaker("billing"):
    pass

@st.cache_data(max_entries=1)
def cached(number):
    return number

for number in range(3):
    cached(number)

@st.fragment
def part():
    st.button("Part")

part()
sell, fail, bad = st.button("Sell"), st.button("Fail"), st.button("Bad statement")
if sell:
    with Session(engine) as session:
        session.add(Client())
        session.commit()
    StructuredLogger().log_business_event("order.paid")
if fail:
    raise ValueError
if bad:
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT nothing FROM nowhere"))
"""
LAUNCHER = """
import streamlit as st
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit_extension import create_app

async def report(request):
    return PlainTextResponse("x", status_code=int(request.query_params.get("status", 200)))

app = create_app(st.App("script.py", routes=[Route("/report", report)]))
"""
#: What the use below must have brought about: a test that sees nothing finds nothing.
EXPECTED = {
    *{each for each in Metric if each.startswith(("system.", "process.", "cpython.", "telemetry.", "streamlit."))},
    *(Metric.BUSINESS_EVENTS, Metric.HTTP_SERVER_DURATION, Metric.DB_OPERATION_DURATION, Metric.DB_CONNECTION_COUNT),
    *{each for each in Metric if each.startswith(("alert.", "circuit_breaker."))},
    *(Metric.DB_CONNECTION_MAX, Metric.DB_CONNECTION_USE_TIME, Metric.DB_CONNECTION_WAIT_TIME),
} - {
    Metric.TELEMETRY_DROPPED,  # nothing is
    *(each for each in Metric if each.startswith("streamlit.memory.") and each is not Metric.MEMORY_GROWTH),  # later
}


#: What is emitted later than this test lasts, or only when something is lost, and as what.
LATER = {
    Metric.SESSION_DURATION: "histogram",
    Metric.TELEMETRY_DROPPED: "counter",
    Metric.MEMORY_CACHE: "gauge",
    Metric.MEMORY_MEDIA: "gauge",
    Metric.MEMORY_SESSION_STATE: "gauge",
    Metric.MEMORY_UPLOADS: "gauge",
}


def wrong_points(metric: Any) -> list[str]:
    """What of one emitted metric is not as the registry says."""
    if metric.name not in set(Metric):
        return [f"{metric.name}: no such metric"]
    known = Metric(metric.name)
    found = [] if metric.unit == UNITS[known] else [f"{metric.name}: unit {metric.unit!r}, not {UNITS[known]!r}"]
    for point in getattr(metric, metric.WhichOneof("data")).data_points:
        for name, value in attributes(point.attributes).items():
            if name not in METRIC_ATTRIBUTES.get(known, ()):
                found.append(f"{metric.name}: attribute {name}={value!r}")
            elif value not in ALLOWED_VALUES.get(Attribute(name), {value}):
                found.append(f"{metric.name}: {name}={value!r} is not allowed")
    return found


@pytest.mark.parametrize("metric", Metric)
def test_every_metric_has_a_unit_and_known_attributes(metric: Metric) -> None:
    """The tables are whole."""
    assert metric in UNITS
    assert set(METRIC_ATTRIBUTES.get(metric, ())) <= set(Attribute)


def test_identity_is_no_attribute_of_a_metric() -> None:
    """Sessions, users and addresses would make a series each."""
    listed = {name for names in METRIC_ATTRIBUTES.values() for name in names}
    assert listed.isdisjoint({Attribute.SESSION_ID, Attribute.CLIENT_ADDRESS, Attribute.USER_AGENT, Attribute.URL_PATH})


async def test_nothing_else_is_emitted(serve: Start, tmp_path: Path, otlp: OtlpReceiver) -> None:
    """A real application is used in every way, and all that leaves by OTLP is in the registry."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    port = free_port()
    server = serve(
        "script.py",
        command=[sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on"],
        port=port,
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": otlp.protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        },
    )
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        for number, label in enumerate(("Sell", "Fail", "Bad statement", "Part"), 2):
            await client.click(label)
            await client.wait_finished(number)
        await asyncio.to_thread(server.wait_for, "/health/detailed", lambda answer: b"circuit:billing" in answer.body)
        for path in ("/report", "/report?status=500", "/report?status=404"):
            await asyncio.to_thread(server.get, path)
        await asyncio.to_thread(server.get, "/report", "BREW")
    server.stop()
    seen = {metric.name for metric in otlp.metrics}
    assert sorted(EXPECTED - seen) == []
    assert sorted({line for metric in otlp.metrics for line in wrong_points(metric)}) == []
    kinds = {Metric(metric.name): kind_of(metric) for metric in otlp.metrics} | LATER
    rules = yaml.safe_load((ROOT / "deploy/prometheus/streamlit-extension.rules.yaml").read_text())
    dashboard = json.loads((ROOT / "deploy/grafana/streamlit-extension.json").read_text())
    assert unknown([*rule_expressions(rules), *dashboard_expressions(dashboard)], rules, kinds) == []


def unknown(expressions: list[tuple[str, str]], rules: Any, kinds: dict[Metric, str]) -> list[str]:
    """What rules and dashboard ask for that no application emits; metric → gauge, counter or histogram."""
    known = {name: labels_of(metric) for metric, kind in kinds.items() for name in written(metric, kind)}
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    return [f"{where}: {line}" for where, each in expressions for line in problems(each, known, recorded)]


def test_the_check_of_rules_and_dashboard_finds_what_is_wrong() -> None:
    """A metric that nobody emits, one of another kind, and a label that it does not have."""
    rules = {"groups": [{"rules": [{"record": "job:x", "expr": "1"}]}]}
    kinds = {Metric.PROCESS_CPU_TIME: "counter", Metric.SYSTEM_CPU_UTILIZATION: "gauge"}

    def found(expression: str) -> list[str]:
        return unknown([("here", expression)], rules, kinds)

    assert found('sum by (cpu_mode) (rate(process_cpu_time_seconds_total{job="x"}[5m]))') == []
    assert found("job:x > 1 and on (job) system_cpu_utilization_ratio offset 1h") == []
    assert found("process_cpu_time_seconds") == ["here: process_cpu_time_seconds is not emitted"]
    assert found("max(no_such_thing) or vector(0)") == ["here: no_such_thing is not emitted"]
    told = "here: cpu_mode is no label of system_cpu_utilization_ratio"
    assert found('system_cpu_utilization_ratio{cpu_mode="idle"}') == [told]
    assert found("sum by (cpu_mode) (system_cpu_utilization_ratio)") == [told]


def test_the_check_finds_what_is_wrong() -> None:
    """An unknown name, a wrong unit, an attribute and a value that are not listed."""
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as Emitted

    def emitted(name: str, unit: str, **labels: str) -> Emitted:
        made = Emitted(name=name, unit=unit)
        point = made.gauge.data_points.add()
        for key, value in labels.items():
            pair = point.attributes.add()
            pair.key, pair.value.string_value = key.replace("_", ".", 1) if "." not in key else key, value
        return made

    assert wrong_points(emitted("no.such", "s")) == ["no.such: no such metric"]
    assert wrong_points(emitted("process.uptime", "ms")) == ["process.uptime: unit 'ms', not 's'"]
    assert wrong_points(emitted("process.uptime", "s", session_id="x")) == ["process.uptime: attribute session.id='x'"]
    assert wrong_points(emitted("process.cpu.time", "s", cpu_mode="x")) == [
        "process.cpu.time: cpu.mode='x' is not allowed"
    ]
    assert wrong_points(emitted("process.cpu.time", "s", cpu_mode="user")) == []
