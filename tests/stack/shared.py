"""Several Jaegers on one OpenSearch, behind the shipped collector."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from scripts.stack import ROOT
from tests.stack.backends import answers, ask, own, until
from tests.stack.programs import end, until_healthy
from tests.support.backends import free_port
from tests.support.stack import built

_SPANS_EACH = 3


@dataclass
class Program:
    """A program that is ended and started again."""

    command: Sequence[str]
    url: str
    health: str
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        with self.log.open("ab") as log:
            environ = {**os.environ, **self.environ}
            self.process = subprocess.Popen(list(self.command), env=environ, stdout=log, stderr=log)
        until_healthy(self.process, lambda: answers(self.health), self.log)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait, if it runs."""
        if self.process is not None:
            end(self.process, how)


@pytest.fixture(scope="module")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One node, for all tests of a module: each has a prefix of its own."""
    folder, port = tmp_path_factory.mktemp("opensearch"), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [built("opensearch", "opensearch"), str(folder), str(port)]
    node = Program(command, url, f"{url}/_cluster/health", folder / "log")
    try:
        node.start()
        yield node
    finally:
        node.end(signal.SIGKILL)


@dataclass
class Shared:
    """A collector that writes to the first Jaeger of several."""

    opensearch: Program
    jaegers: list[Program]
    collector: Program
    prefix: str

    def documents(self) -> int:
        """How many spans OpenSearch holds, those that it has twice counted twice."""
        ask(f"{self.opensearch.url}/{self.prefix}-jaeger-span-*/_refresh")
        return int(json.loads(ask(f"{self.opensearch.url}/{self.prefix}-jaeger-span-*/_count"))["count"])

    def waiting(self) -> float:
        """How many bytes of spans wait in the collector's queue, those that are on their way included."""
        address = f"127.0.0.1:{self.collector.environ['COLLECTOR_METRICS_PORT']}"
        return own(address, "otelcol_exporter_queue_size", 'exporter="otlp/traces"')

    def indices(self) -> set[str]:
        """The names of what its Jaegers keep."""
        return {each["index"] for each in json.loads(ask(f"{self.opensearch.url}/_cat/indices", format="json"))}


StartShared = Callable[..., Shared]


@pytest.fixture
def start_shared(opensearch: Program, tmp_path: Path) -> Iterator[StartShared]:
    """Starts two Jaegers and a collector: `start_shared(JAEGER_BULK_SPANS="100")`; ended with the test."""
    jaeger, otelcol = built("jaeger", "jaeger"), built("otelcol", "otelcol")
    started: list[Program] = []

    def start(**environ: str) -> Shared:
        prefix = f"t{secrets.token_hex(4)}"
        given = {"JAEGER_OPENSEARCH_URLS": opensearch.url, "JAEGER_INDEX_PREFIX": prefix, **environ}
        both = [_jaeger(jaeger, tmp_path / f"jaeger-{prefix}-{number}.log", given) for number in range(2)]
        collector = _collector(otelcol, tmp_path / f"otelcol-{prefix}", both[0])
        for each in (*both, collector):
            started.append(each)
            each.start()
        return Shared(opensearch, both, collector, prefix)

    yield start
    for each in reversed(started):
        each.end(signal.SIGKILL)


def _jaeger(program: str, log: Path, environ: Mapping[str, str]) -> Program:
    otlp, http, grpc, health = (f"127.0.0.1:{free_port()}" for _ in range(4))
    ports = {"JAEGER_OTLP": otlp, "JAEGER_HTTP": http, "JAEGER_GRPC": grpc, "JAEGER_HEALTH": health}
    command = [program, f"--config={ROOT / 'deploy' / 'jaeger' / 'opensearch.yaml'}"]
    mine = {"OTEL_TRACES_SAMPLER": "always_off", **ports, **environ}
    return Program(command, f"http://{http}", f"http://{health}/status", log, mine)


def _collector(program: str, folder: Path, jaeger: Program) -> Program:
    grpc, http, health = (f"127.0.0.1:{free_port()}" for _ in range(3))
    files = (ROOT / "collector-config.yaml", ROOT / "deploy" / "collector" / "keep-every-trace.yaml")
    folder.mkdir()
    environ = {
        "COLLECTOR_OTLP_GRPC": grpc,
        "COLLECTOR_OTLP_HTTP": http,
        "COLLECTOR_HEALTH": health,
        "COLLECTOR_METRICS_PORT": str(free_port()),
        "COLLECTOR_TRACES_ENDPOINT": jaeger.environ["JAEGER_OTLP"],
        "COLLECTOR_QUEUE_DIR": str(folder / "queue"),
    }
    command = [program, *(f"--config={each}" for each in files)]
    return Program(command, f"http://{http}", f"http://{health}", folder / "log", environ)


def found(jaeger: Program, service: str) -> dict[str, set[str]]:
    """What a Jaeger finds of a service: ids of spans by trace id."""
    now = time.time_ns() // 1000
    window = {"start": now - 3_600_000_000, "end": now + 60_000_000}
    traces = json.loads(ask(f"{jaeger.url}/api/traces", service=service, limit=20_000, **window))["data"] or ()
    return {each["traceID"]: {span["spanID"] for span in each["spans"]} for each in traces}


def trace(jaeger: Program, trace_id: str) -> set[str]:
    """Ids of a trace's spans, as a Jaeger answers by the trace's id."""
    (one,) = json.loads(ask(f"{jaeger.url}/api/traces/{trace_id}"))["data"]
    return {span["spanID"] for span in one["spans"]}


class Load:
    """Sends fifty traces a second to a collector until it is stopped, and knows which ones were taken."""

    def __init__(self, collector: Program, service: str) -> None:
        self.sent: dict[str, set[str]] = {}
        self._collector, self._service = collector, service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more(self, traces: int) -> None:
        """Wait until so many more were taken."""
        wanted = len(self.sent) + traces
        assert until(lambda: len(self.sent), lambda seen: seen >= wanted) >= wanted

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.sent.update(send(self._collector, self._service, 5))


def send(collector: Program, service: str, traces: int) -> dict[str, set[str]]:
    """Send traces by OTLP, and return the ids of their spans by theirs once they are taken."""
    ids = {secrets.token_hex(16): {secrets.token_hex(8) for _ in range(_SPANS_EACH)} for _ in range(traces)}
    now = time.time_ns()
    times = {"startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1_000_000)}
    spans = [
        {"traceId": trace_id, "spanId": each, "name": "work", "kind": 1, **times}
        for trace_id, those in ids.items()
        for each in those
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    body: dict[str, Any] = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
    request = urllib.request.Request(
        f"{collector.url}/v1/traces", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30):
        return ids
