"""Collectors beside the applications, and what is handed to them by hand."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.stack import ROOT
from tests.stack.backends import answers
from tests.stack.programs import end, until_healthy
from tests.support.backends import free_port
from tests.support.stack import built

LAYERS = ROOT / "deploy" / "collector"


@contextmanager
def collector(folder: Path, name: str, *files: Path, **environ: str) -> Iterator[str]:
    """A running collector with its log and its queue in the folder; yields where it takes OTLP by HTTP."""
    variables = {
        **os.environ,
        "COLLECTOR_OTLP_GRPC": f"127.0.0.1:{free_port()}",
        "COLLECTOR_OTLP_HTTP": f"127.0.0.1:{free_port()}",
        "COLLECTOR_HEALTH": f"127.0.0.1:{free_port()}",
        "COLLECTOR_METRICS_PORT": str(free_port()),
        "COLLECTOR_QUEUE_DIR": str(folder / f"{name}-queue"),
        **environ,
    }
    command = [built("otelcol", "otelcol"), *(f"--config={each}" for each in files)]
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        until_healthy(process, lambda: answers(f"http://{variables['COLLECTOR_HEALTH']}"), folder / f"{name}.log")
        yield f"http://{variables['COLLECTOR_OTLP_HTTP']}"
    finally:
        end(process)


@contextmanager
def agent(folder: Path, *layers: str, **environ: str) -> Iterator[str]:
    """A running agent."""
    files = [LAYERS / f"{each}.yaml" for each in ("agent", *layers)]
    with collector(folder, "agent", *files, **environ) as root:
        yield root


def lines(first: int, last: int, more: str = "") -> dict[str, Any]:
    """A request of log records that are numbered, and may be long."""
    now = str(time.time_ns())
    said = {"attributes": [{"key": "more", "value": {"stringValue": more}}]} if more else {}
    records = [
        {"timeUnixNano": now, "body": {"stringValue": f"line {number}"}, **said} for number in range(first, last)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "node"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}


def with_a_long_one(first: int, last: int, length: int = 6_000_000) -> dict[str, Any]:
    """Numbered lines with one between them that is long, and says nothing that could be pressed together."""
    made = lines(first, last)
    (scope,) = made["resourceLogs"][0]["scopeLogs"]
    scope["logRecords"].insert(1, {"body": {"stringValue": os.urandom(length // 2).hex()}})
    return made


def spans(trace_id: str, *names: str, failed: bool = False) -> dict[str, Any]:
    """A request of a trace's spans, the last of which may have failed."""
    now = time.time_ns()
    made: list[dict[str, Any]] = [
        {
            "traceId": trace_id, "spanId": os.urandom(8).hex(), "name": name, "kind": 1,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1_000_000),
        }
        for name in names
    ]  # fmt: skip
    if failed:
        made[-1]["status"] = {"code": 2}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "node"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": made}]}]}


def gauges(name: str, series: int) -> dict[str, Any]:
    """A request of a gauge with so many series."""
    now = str(time.time_ns())
    points = [
        {
            "timeUnixNano": now, "asDouble": float(number),
            "attributes": [{"key": "number", "value": {"stringValue": str(number)}}],
        }
        for number in range(series)
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "node"}}]}
    metrics = [{"name": name, "gauge": {"dataPoints": points}}]
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}


def send(root: str, body: dict[str, Any], context: ssl.SSLContext | None = None, token: str = "") -> None:
    """Hand it over, to the path of its signal, with a token where one is needed."""
    signal_name = {"resourceLogs": "logs", "resourceSpans": "traces", "resourceMetrics": "metrics"}[next(iter(body))]
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"{root}/v1/{signal_name}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        assert answer.status == 200
