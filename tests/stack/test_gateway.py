"""An agent hands everything to a gateway, with token and TLS, and keeps it while the gateway is away."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from scripts.stack import ROOT, Stack
from tests.stack.backends import until
from tests.stack.conftest import StartStack
from tests.support.backends import free_port
from tests.support.stack import built

TOKEN = "a-token-of-agents"


@contextmanager
def agent(folder: Path, gateway: Stack, token: str) -> Iterator[str]:
    """A running agent; yields where it takes OTLP by HTTP."""
    (folder / "agent-token").write_text(token)
    grpc, http, health = free_port(), free_port(), free_port()
    variables = {
        **os.environ,
        "COLLECTOR_GATEWAY_ENDPOINT": gateway.address("otlp_grpc"),
        "COLLECTOR_GATEWAY_CA": str(folder / "ca.crt"),
        "COLLECTOR_TOKEN_FILE": str(folder / "agent-token"),
        "COLLECTOR_OTLP_GRPC": f"127.0.0.1:{grpc}",
        "COLLECTOR_OTLP_HTTP": f"127.0.0.1:{http}",
        "COLLECTOR_HEALTH": f"127.0.0.1:{health}",
        "COLLECTOR_METRICS_PORT": str(free_port()),
        "COLLECTOR_QUEUE_DIR": str(folder / "agent-queue"),
    }
    command = [built("otelcol", "otelcol"), f"--config={ROOT / 'deploy' / 'collector' / 'agent.yaml'}"]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{health}", timeout=5).close() is None, bool)
        yield f"http://127.0.0.1:{http}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, str]:
    """Variables of a gateway with a certificate and a token."""
    authority = trustme.CA()
    served = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    served.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    served.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    (tmp_path / "token").write_text(TOKEN)
    return {
        "COLLECTOR_TOKEN_FILE": str(tmp_path / "token"),
        "COLLECTOR_TLS_CERT": str(tmp_path / "tls.crt"),
        "COLLECTOR_TLS_KEY": str(tmp_path / "tls.key"),
    }


def lines(first: int, last: int) -> dict[str, Any]:
    """A request of log records that are numbered."""
    now = str(time.time_ns())
    records = [{"timeUnixNano": now, "body": {"stringValue": f"line {number}"}} for number in range(first, last)]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "node"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}


def send(root: str, body: dict[str, Any], context: ssl.SSLContext | None = None) -> None:
    """Hand it over."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{root}/v1/logs", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        assert answer.status == 200


def test_an_agent_keeps_what_the_gateway_does_not_take_yet(
    start_stack: StartStack, certified: dict[str, str], tmp_path: Path
) -> None:
    """Before, while the gateway is away, and after: each line once."""
    backends = start_stack("gateway", **certified)
    with agent(tmp_path, backends.stack, TOKEN) as root:
        send(root, lines(0, 50))
        until(lambda: len(backends.logs('"line"')), lambda seen: seen == 50)
        backends.stack.end("otelcol", signal.SIGKILL)
        for number in range(50, 150, 10):
            send(root, lines(number, number + 10))
        backends.stack.start("otelcol")
        send(root, lines(150, 200))
        found = until(lambda: [each["_msg"] for each in backends.logs('"line"')], lambda seen: len(set(seen)) == 200)
    assert sorted(found) == sorted(f"line {number}" for number in range(200))


def test_a_gateway_takes_nothing_from_strangers(
    start_stack: StartStack, certified: dict[str, str], tmp_path: Path
) -> None:
    """Without the token, with a wrong one, and without TLS."""
    backends = start_stack("gateway", **certified)
    address = backends.stack.address("otlp_http")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        send(f"https://{address}", lines(0, 1), trusting)
    with pytest.raises(urllib.error.URLError):
        send(f"http://{address}", lines(0, 1))
    with agent(tmp_path, backends.stack, "another token") as root:
        send(root, lines(0, 10))
        told = until(lambda: (tmp_path / "agent.log").read_text(), lambda text: "Unauthenticated" in text)
        assert "Unauthenticated" in told
    with suppress(OSError):
        assert backends.logs("*") == []
