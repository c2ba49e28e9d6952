"""The real collector hides secrets in every text that it can look at, and leaves everything else as it was."""

from __future__ import annotations

import gzip
import http.server
import itertools
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from scripts.stack import ROOT
from tests.stack.backends import until
from tests.support.backends import free_port
from tests.support.stack import built

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


class Collector:
    """The collector with its shipped configuration and no tail sampling; what it sends comes to us."""

    def __init__(self, folder: Path) -> None:
        self.sent: dict[str, list[bytes]] = {"traces": [], "metrics": [], "logs": []}
        sent = self.sent

        class Takes(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signal = self.path.rpartition("/")[2]
                sent[signal].append(
                    gzip.decompress(body) if "gzip" in self.headers.get("Content-Encoding", "") else body
                )
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        files = [f"--config={each}" for each in (ROOT / "collector-config.yaml", folder / "to-us.yaml")]
        command = [built("otelcol", "otelcol"), *files]
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes)
        threading.Thread(target=self._server.serve_forever, name="takes", daemon=True).start()
        us = f"http://127.0.0.1:{self._server.server_port}"
        (folder / "to-us.yaml").write_text(
            f"exporters: {{otlphttp/us: {{endpoint: '{us}'}}}}\n"
            "service: {pipelines: {traces/sampled: {processors: [], exporters: [otlphttp/us]}}}\n"
        )
        self._otlp = f"http://127.0.0.1:{free_port()}"
        self._health = f"127.0.0.1:{free_port()}"
        environ = {
            **os.environ,
            "COLLECTOR_OTLP_HTTP": self._otlp.removeprefix("http://"),
            "COLLECTOR_OTLP_GRPC": f"127.0.0.1:{free_port()}",
            "COLLECTOR_HEALTH": self._health,
            "COLLECTOR_METRICS_PORT": str(free_port()),
            "COLLECTOR_QUEUE_DIR": str(folder / "queue"),
            "COLLECTOR_SPAN_METRICS_FLUSH": "1s",
            "COLLECTOR_PROMETHEUS_ENDPOINT": f"{us}/api/v1/otlp",
            "COLLECTOR_LOGS_ENDPOINT": f"{us}/v1/logs",
        }
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, env=environ, stderr=self._log)

    def wait_healthy(self) -> None:
        """Wait until it takes something."""
        url = f"http://{self._health}"
        until(lambda: urllib.request.urlopen(url, timeout=5).status, lambda status: status == 200)

    def post(self, signal: str, body: dict[str, Any]) -> None:
        """As an exporter would."""
        words = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._otlp}/v1/{signal}", json.dumps(body).encode(), words)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read()) in ({}, {"partialSuccess": {}})

    def end(self) -> None:
        """Stop it and whoever takes."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A running collector."""
    made = Collector(tmp_path)
    try:
        made.wait_healthy()
        yield made
    finally:
        made.end()


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


def pairs(**values: Any) -> list[dict[str, Any]]:
    """Attributes; a name's `__` is a dot, `_0_` a hyphen."""
    named = {key.replace("__", ".").replace("_0_", "-"): value for key, value in values.items()}
    return [{"key": key, "value": value if isinstance(value, dict) else text(value)} for key, value in named.items()]


def kv(**values: Any) -> dict[str, Any]:
    return {"kvlistValue": {"values": pairs(**values)}}


def array(*values: dict[str, Any]) -> dict[str, Any]:
    return {"arrayValue": {"values": list(values)}}


class Plants:
    """Secrets, each another one, so that what is found tells where it was."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def __call__(self, place: str, form: str = "%s") -> str:
        secret = f"plant{len(self.places):03d}xq"
        self.places[secret] = place
        return form.replace("%s", secret)

    def attributes(self, place: str) -> list[dict[str, Any]]:
        """Every shape that an attribute may have."""

        def one(shape: str, form: str = "%s") -> str:
            return self(f"{place}, {shape}", form)

        return pairs(
            password=one("name"),
            userPassword=one("name in camel case"),
            password_hash=one("part of a name"),
            authToken=one("token in camel case"),
            http__request__header__x_0_api_0_key=array(text(one("header as a list"))),
            cookie=one("cookie"),
            map=kv(password=one("name in a map"), deep=kv(api_key=one("name in a map in a map"))),
            values=kv(url=one("value in a map", "postgresql://u:%s@h/db")),
            list=array(text(one("value in a list", "password=%s")), kv(token=one("name in a map in a list"))),
            user=one("user-info", "https://u:%s@h/"),
            slash=one("user-info with a slash", "https://u:p/%s@h/"),
            query=one("query", "https://h/?access_token=%s&page=1"),
            json=one("JSON", '{"client_secret": "a\\"%s"}'),
            twice=one("JSON in JSON", '"{\\"password\\": \\"%s\\"}"'),
            header=one("header", "Authorization: Bearer %sabcdefghijkl"),
            line=one("cookie line", "Set-Cookie: sid=1; x=%s"),
            quoted=one("quoted", "password = 'with spaces %s'"),
            forge=one("a forge's token", "ghp_%splantedplantedplanted"),
        )


def test_a_secret_is_hidden_wherever_it_is(collector: Collector) -> None:
    """In names, states and messages of spans; in scopes, resources, points and records; at any depth."""
    plant, now = Plants(), time.time_ns()
    times = {"startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now)}
    forms = ("GET /?access_token=%s", "of postgresql://u:%s@h/db", "Bearer %sabcdefghijkl", "client_secret: %s")

    def whole(signal: str, kind: str, **content: Any) -> dict[str, Any]:
        resource = [*pairs(service__name="raw"), *plant.attributes(f"{signal}: resource")]
        scope = {
            "name": plant(f"{signal}: scope's name", "password=%s"),
            "version": plant(f"{signal}: scope's version", "password=%s"),
            "attributes": plant.attributes(f"{signal}: scope"),
        }
        return {
            f"resource{kind}": [{"resource": {"attributes": resource}, f"scope{kind}": [{"scope": scope, **content}]}]
        }

    spans = [
        {
            "traceId": TRACE, "spanId": f"{SPAN[:-2]}{number:02x}", "kind": 2, **times,
            "name": plant("span's name", form), "traceState": plant("trace state", "v=1,password=%s"),
            "attributes": plant.attributes("span"), "status": {"code": 2, "message": plant("status", form)},
            "events": [
                {"timeUnixNano": str(now), "name": plant("event's name", form), "attributes": plant.attributes("event")}
            ],
        }
        for number, form in enumerate(forms)
    ]  # fmt: skip
    collector.post("traces", whole("traces", "Spans", spans=spans))
    bodies = [
        *(text(plant("body", form)) for form in (*forms, '{\\"password\\": \\"%s\\"}', "Cookie: a=1; b=%s")),
        {"kvlistValue": {"values": plant.attributes("map as a body")}},
        array(text(plant("list as a body", "password=%s")), kv(token=plant("map in a list as a body"))),
    ]
    records = [
        {
            "timeUnixNano": str(now), "body": body, "attributes": plant.attributes("record"),
            "severityText": plant("severity", "password=%s"), "eventName": plant("record's event", "password=%s"),
        }
        for body in bodies
    ]  # fmt: skip
    collector.post("logs", whole("logs", "Logs", logRecords=records))
    point = {**times, "timeUnixNano": str(now)}
    shapes: dict[str, dict[str, Any]] = {
        "gauge": {"asDouble": 1},
        "sum": {"asDouble": 1},
        "histogram": {"count": "1", "sum": 1, "bucketCounts": ["1"], "explicitBounds": []},
        "exponentialHistogram": {"count": "1", "sum": 1, "scale": 0, "zeroCount": "1"},
        "summary": {"count": "1", "sum": 1},
    }
    metrics = []
    for kind, fields in shapes.items():
        data: dict[str, Any] = {"dataPoints": [{**point, **fields, "attributes": plant.attributes(kind)}]}
        if kind not in ("gauge", "summary"):
            data["aggregationTemporality"] = 2
        metrics.append({"name": f"raw.{kind}", kind: data})
    collector.post("metrics", whole("metrics", "Metrics", metrics=metrics))

    def everything() -> bytes:
        """All that left, once every signal did, with the metrics that are made of the spans."""
        sent = {signal: b"".join(list(bodies)) for signal, bodies in collector.sent.items()}
        ready = b"raw.summary" in sent["metrics"] and b"traces.span.metrics" in sent["metrics"]
        return b"".join(sent.values()) if ready and sent["traces"] and sent["logs"] else b""

    held = until(everything, bool)
    assert held
    assert {place for secret, place in plant.places.items() if secret.encode() in held} == set()


def test_what_is_no_secret_is_left_as_it_was(collector: Collector) -> None:
    """Texts that look a little like one, counts, lists and maps, in their types; nothing is added."""
    harmless = pairs(
        max_tokens={"intValue": "512"},
        gen_ai__token__type="input",
        session__id="0f6f4bd2",
        user__hash="9a8b7c",
        ratio={"doubleValue": 0.5},
        retried={"boolValue": True},
        process__command_args=array(text("python"), text("app.py"), text("--port=8501")),
        order=kv(id="A-1", lines=array({"intValue": "1"}, {"intValue": "2"})),
        url__full="http://127.0.0.1:8501/reports?page=2&sort=name",
        handle="https://example.org:443/@name",
        said="the token bucket is full; your password was reset by basic internationalization; broken: yes",
        missing_keys="a,b",
        success__key="s-1",
        db__query__text="SELECT id, name FROM keys WHERE author = ? AND monkey = ?",
        at="2026-01-02T03:04:05Z",
    )
    now = time.time_ns()
    times = {"startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now)}
    span = {
        "traceId": TRACE, "spanId": SPAN, "kind": 2, **times, "name": "script_run Work", "traceState": "vendor=1",
        "attributes": harmless, "status": {"code": 2, "message": "no such table: keys"},
        "events": [{"timeUnixNano": str(now), "name": "exception", "attributes": harmless}],
    }  # fmt: skip
    scope = {"name": "app.orders", "version": "1.2.3", "attributes": pairs(short_name="orders")}
    resource = {"attributes": [*pairs(service__name="raw"), *harmless]}
    record = {
        "timeUnixNano": str(now), "severityNumber": 9, "severityText": "INFO", "eventName": "order_paid",
        "body": text("paid 3 of 5: token count 7"), "attributes": harmless, "traceId": TRACE, "spanId": SPAN,
    }  # fmt: skip
    traces = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}
    logs = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [record]}]}]}
    collector.post("traces", traces)
    collector.post("logs", logs)
    until(lambda: len(collector.sent["traces"]) and len(collector.sent["logs"]), bool)
    sent_span = ExportTraceServiceRequest.FromString(collector.sent["traces"][0]).resource_spans[0]
    sent_log = ExportLogsServiceRequest.FromString(collector.sent["logs"][0]).resource_logs[0]
    (found,), (line,) = sent_span.scope_spans[0].spans, sent_log.scope_logs[0].log_records
    (event,) = found.events
    assert (found.name, found.trace_state, found.status.message) == (
        "script_run Work",
        "vendor=1",
        "no such table: keys",
    )
    assert (event.name, line.event_name, line.severity_text) == ("exception", "order_paid", "INFO")
    assert line.body.string_value == "paid 3 of 5: token count 7"
    for one in (sent_span.scope_spans[0].scope, sent_log.scope_logs[0].scope):
        assert (one.name, one.version, [each.key for each in one.attributes]) == ("app.orders", "1.2.3", ["short_name"])

    def plain(attributes: Any) -> dict[str, str]:
        return {each.key: str(each.value) for each in attributes}

    for one, other in itertools.pairwise([found.attributes, event.attributes, line.attributes]):
        assert plain(one) == plain(other)
    kinds = {each.key: each.value.WhichOneof("value") for each in found.attributes}
    wanted = {each["key"]: next(iter(each["value"])) for each in harmless}
    assert {key: kind.replace("_value", "") for key, kind in kinds.items()} == {
        key: kind.replace("Value", "") for key, kind in wanted.items()
    }
    texts = {each["key"]: each["value"]["stringValue"] for each in harmless if "stringValue" in each["value"]}
    assert {each.key: each.value.string_value for each in found.attributes if each.key in texts} == texts
