"""Secrets that are planted in an application, and in telemetry that no application has redacted, reach no back end."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from streamlit_extension.demo.client import StreamlitClient
from tests.stack.backends import Backends, until
from tests.stack.conftest import StartStack
from tests.stack.crowd import exporting
from tests.support.server import Start

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
SECRETS = (
    "hunter2-planted",
    JWT,
    "AKIAPLANTED123456789",
    "c2VjcmV0LXBsYW50ZWQtaGVhZGVy",
    "ghp_plantedplantedplantedplanted1234",
)
SCRIPT = f"""
import logging
import streamlit as st
from opentelemetry import trace
from streamlit_extension import StructuredLogger
log = StructuredLogger()
log.log_with_correlation("INFO", "marker", password="{SECRETS[0]}", nested={{"api_key": "{SECRETS[0]}"}})
log.log_with_correlation("INFO", "token {JWT} of postgresql://shop:{SECRETS[0]}@db/shop")
log.log_security_event("authn_login_fail", authorization="Bearer {SECRETS[3]}")
logging.getLogger("app").warning("key %s and {SECRETS[4]}", "{SECRETS[2]}")
with trace.get_tracer("app").start_as_current_span("step", attributes={{"db.password": "{SECRETS[0]}", "url": "?token={JWT}"}}):
    pass
if st.button("Fail"):
    raise RuntimeError("postgresql://shop:{SECRETS[0]}@db/shop refused {JWT}")
"""


def attributes(**values: str) -> list[dict[str, Any]]:
    """Attributes as OTLP writes them in JSON."""
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in values.items()]


PLANTED = attributes(
    marker="raw",
    password=SECRETS[0],
    db__password=SECRETS[0],
    http__request__header__authorization=f"Bearer {SECRETS[3]}",
    said=f"postgresql://shop:{SECRETS[0]}@db/shop",
    jwt_text=f"it was {JWT}",
    cloud=SECRETS[2],
    forge=SECRETS[4],
)


def send(backends: Backends, signal: str, body: dict[str, Any]) -> None:
    """Hand a request to the collector, as an exporter without any redaction would."""
    url = f"{backends.stack.url('otlp_http')}/v1/{signal}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read()) in ({}, {"partialSuccess": {}})


def plant(backends: Backends) -> None:
    """Spans, records and points full of secrets."""
    now = time.time_ns()
    times = {"startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now)}
    resource = {"attributes": [*attributes(service__name="raw"), *PLANTED]}
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "kind": 2, **times,
        "name": f"GET /login?password={SECRETS[0]}", "attributes": PLANTED,
        "status": {"code": 2, "message": f"password={SECRETS[0]} in postgresql://shop:{SECRETS[0]}@db, {JWT}"},
        "events": [{"timeUnixNano": str(now), "name": "exception", "attributes": PLANTED}],
    }  # fmt: skip
    send(backends, "traces", {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]})
    records = [
        {"timeUnixNano": str(now), "body": {"stringValue": text}, "attributes": PLANTED}
        for text in ("raw marker", *(f"password={SECRETS[0]} or {each}" for each in SECRETS[1:3] + SECRETS[4:]))
    ]
    records.append({
        "timeUnixNano": str(now), "attributes": PLANTED,
        "body": {"kvlistValue": {"values": PLANTED}},
    })  # fmt: skip
    send(backends, "logs", {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]})
    point = {"timeUnixNano": str(now), "asDouble": 1, "attributes": PLANTED}
    metric = {"name": "raw.gauge", "gauge": {"dataPoints": [point]}}
    send(backends, "metrics", {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]})


async def test_secrets_reach_no_back_end(start_stack: StartStack, serve: Start, tmp_path: Path) -> None:
    """By the application, and past it straight to the collector."""
    backends = start_stack("keep-every-trace")
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    server = serve(script, env=exporting(backends.stack))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Fail")
        await client.wait_finished(2)
    server.stop()
    plant(backends)

    def everything() -> str:
        """All that the back ends hold, once the markers of both ways are there."""
        spans = json.dumps([*backends.spans("shop"), *backends.spans("raw")])
        logs = json.dumps(backends.logs("*"))
        metrics = backends.everything_in_prometheus()
        there = '"raw"' in spans and "script_run" in spans and "raw marker" in logs and "raw_gauge" in metrics
        return f"{spans}{logs}{metrics}" if there and "streamlit_script_run_duration" in metrics else ""

    held = until(everything, bool)
    assert held
    assert [secret for secret in SECRETS if secret in held] == []
    on_disk = b"".join(each.read_bytes() for each in backends.stack.data("otelcol").iterdir() if each.is_file())
    assert [secret for secret in SECRETS if secret.encode() in on_disk] == []
