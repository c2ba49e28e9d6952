"""The standalone probe script against real little servers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.requirements import require

SCRIPT = Path(__file__).parents[1] / "scripts/health_check.py"
Reply = tuple[int, Any]
HEALTHY = {
    "/health": (200, {"status": "healthy"}),
    "/health/detailed": (200, {"status": "healthy", "components": {}}),
    "/health/ready": (200, {"ready": True}),
    "/health/live": (200, {"alive": True}),
    "/health/startup": (200, {"started": True}),
}


@pytest.fixture
def serving() -> Iterator[Callable[[dict[str, Reply]], str]]:
    """Starts a server with given answers; gives its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: dict[str, Reply], seen: list[str | None] | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if seen is not None:
                    seen.append(self.headers.get("Authorization"))
                status, body = answers.get(self.path, (404, {}))
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status in (301, 302):
                    self.send_header("Location", "/health")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def call(*words: str, python: str = sys.executable) -> tuple[int, str, str]:
    """Run the script as a process."""
    done = subprocess.run([python, str(SCRIPT), *words], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("status", "http", "code", "probe"),
    [("healthy", 200, 0, 0), ("degraded", 200, 1, 0), ("unhealthy", 503, 2, 1), ("maintenance", 503, 1, 1)],
)
def test_each_status_has_its_exit_code(serving: Any, status: str, http: int, code: int, probe: int) -> None:
    """Healthy 0, degraded 1, unhealthy 2, maintenance 1; as a probe 0 for the first two and 1 otherwise."""
    url = serving({"/health": (http, {"status": status})})
    assert call("--url", url, "--endpoint", "health")[0] == code
    assert call("--url", url, "--endpoint", "health", "--probe")[0] == probe
    assert call("--url", url, "--endpoint", "health", "--expect", status)[0] == 0


@pytest.mark.parametrize(("endpoint", "key"), [("ready", "ready"), ("live", "alive"), ("startup", "started")])
def test_a_no_is_unhealthy(serving: Any, endpoint: str, key: str) -> None:
    """ready, live or startup being false exits 2, as a probe 1."""
    url = serving({f"/health/{endpoint}": (503, {key: False})})
    assert call("--url", url, "--endpoint", endpoint)[0] == 2
    assert call("--url", url, "--endpoint", endpoint, "--probe")[0] == 1


def test_all_is_the_four_and_the_worst_decides(serving: Any) -> None:
    """Without --endpoint the four of the specification are asked, and the worst answer is the exit code."""
    url = serving({**HEALTHY, "/health/ready": (503, {"ready": False, "reason": "database"})})
    code, output, _ = call("--url", url, "--json")
    found = json.loads(output)
    assert code == 2
    assert [each["endpoint"] for each in found["endpoints"]] == ["health", "detailed", "ready", "live"]
    assert call("--url", serving(HEALTHY))[0] == 0


def test_maintenance_of_the_whole_is_no_failure(serving: Any) -> None:
    """In maintenance all four together exit 1, although not being ready alone would exit 2."""
    busy = (503, {"status": "maintenance"})
    ready = (503, {"ready": False, "reason": "maintenance"})
    url = serving({**HEALTHY, "/health": busy, "/health/detailed": busy, "/health/ready": ready})
    assert call("--url", url)[0] == 1
    assert call("--url", url, "--expect", "maintenance")[0] == 0
    assert call("--url", url, "--endpoint", "ready")[0] == 2


@pytest.mark.parametrize(
    "reply",
    [(200, b"<html>"), (200, b"[1]"), (200, {"status": "splendid"}), (404, {}), (302, {}), (200, b"x" * 3_000_000)],
    ids=["html", "array", "unknown-status", "404", "redirect", "huge"],
)
def test_what_is_no_health_answer_is_unknown(serving: Any, reply: Reply) -> None:
    """Nonsense, redirects and endless answers exit 3 with one line."""
    code, output, errors = call("--url", serving({"/health": reply}), "--endpoint", "health")
    assert code == 3
    assert len((output + errors).strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"ready": False, "reason": "database", "dependencies": {"database": "disconnected", "cache": "available"}},
            "database disconnected, cache available",
        ),
        (
            {"ready": False, "reason": "draining", "dependencies": {"database": "connected"}},
            "draining, database connected",
        ),
        ({"ready": False, "reason": "orders", "dependencies": {}}, "orders"),
    ],
)
def test_each_dependency_is_named_once(serving: Any, body: dict[str, Any], told: str) -> None:
    """A reason that is a dependency is told by that dependency's word; any other reason comes first."""
    code, output, _ = call("--url", serving({"/health/ready": (503, body)}), "--endpoint", "ready")
    assert code == 2
    assert output.partition(" ms ")[2].strip() == told


def test_details_on_the_management_port_are_said_to_be_there(serving: Any) -> None:
    """The four asked on a port that has no details: three answers, and plainly what happened and what to do."""
    url = serving({path: answer for path, answer in HEALTHY.items() if path != "/health/detailed"})
    code, output, _ = call("--url", url)
    lines = output.splitlines()
    assert (code, len(lines)) == (3, 4)
    assert [line.split()[:2] for line in lines] == [
        ["health", "healthy"],
        ["detailed", "unknown"],
        ["ready", "healthy"],
        ["live", "healthy"],
    ]
    assert "answered 404: this port tells no details" in lines[1]
    assert "management_port" in lines[1] and "--url" in lines[1] and "--endpoint health" in lines[1]


def test_a_404_elsewhere_says_where_the_health_may_be(serving: Any) -> None:
    """Not the application, or its paths are elsewhere: a base path and a prefix belong into --url."""
    code, output, _ = call("--url", serving({}), "--endpoint", "live")
    assert code == 3
    assert "answered 404: no health is told here" in output
    assert "server.baseUrlPath" in output and "path_prefix" in output


def test_nobody_there_is_unknown_and_retried() -> None:
    """A closed port exits 3 after the retries."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    code, output, _ = call("--url", f"http://127.0.0.1:{port}", "--endpoint", "live", "--retries", "1")
    assert code == 3
    assert "unknown" in output


def test_what_an_answer_holds_can_not_steer_the_terminal(serving: Any) -> None:
    """Reasons and components of any shape are shown on one line without control characters."""
    odd = {"status": "degraded", "reason": "a\x1b[2Jb\nc", "components": {"x": 1, "y": {"status": "degraded"}}}
    code, output, errors = call("--url", serving({"/health/detailed": (200, odd)}), "--endpoint", "detailed")
    assert (code, errors) == (1, "")
    assert "\x1b" not in output
    assert len(output.splitlines()) == 1
    assert "y degraded" in output


def test_neither_redirects_nor_proxies_are_followed(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to a healthy path is no health, and a proxy of the environment is never asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    url = serving({**HEALTHY, "/health/live": (302, {})})
    assert call("--url", url, "--endpoint", "health")[0] == 0
    code, output, _ = call("--url", url, "--endpoint", "live")
    assert code == 3
    assert "answered 302" in output


def test_ipv6_addresses_are_asked(serving: Any) -> None:
    """`--url http://[::1]:PORT` works where the machine has IPv6 on loopback."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        listener = None
    require(listener, "IPv6 on loopback")
    assert listener is not None

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            body = b'{"alive": true}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        url = f"http://[::1]:{listener.getsockname()[1]}"
        assert call("--url", url, "--endpoint", "live")[0] == 0


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "slow-drip"])
def test_the_timeout_is_total(drip: bool) -> None:
    """Neither silence nor an answer that drips byte by byte outlasts the time-out."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" if drip else b"":
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.1)
            connection.recv(10_000)
            time.sleep(4)

    threading.Thread(target=serve, daemon=True).start()
    began = time.monotonic()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    code, output, _ = call("--url", url, "--endpoint", "live", "--timeout", "1")
    assert code == 3
    assert "no answer within 1 s" in output
    assert time.monotonic() - began < 3.5
    listener.close()


def test_the_token_is_sent_and_never_shown(serving: Any, tmp_path: Path) -> None:
    """The token's file is read, its content goes into the header and nowhere else."""
    seen: list[str | None] = []
    url = serving(HEALTHY, seen)
    file = tmp_path / "token"
    file.write_text("s3cr3t-token\n")
    code, output, errors = call("--url", url, "--token-file", str(file), "--json")
    assert code == 0
    assert seen == ["Bearer s3cr3t-token"] * 4
    assert "s3cr3t" not in output + errors
    assert call("--url", url, "--token-file", str(tmp_path / "absent"))[0] == 3


def test_the_base_path_of_the_url_is_kept(serving: Any) -> None:
    """`--url http://host/base` asks `/base/health`."""
    url = serving({"/base/health": (200, {"status": "healthy"})})
    assert call("--url", f"{url}/base/", "--endpoint", "health")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--nonsense"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--retries", "-1"],
        ["--url", "ftp://x"],
        ["--url", "http://me:s3cr3t@x"],
        ["--url", "http://x:99999"],
        ["--endpoint", "x"],
        ["--expect", "fine"],
    ],
)
def test_a_wrong_call_is_one_line_and_unknown(words: list[str]) -> None:
    """A wrong option exits 3 with one line, not argparse's 2, which would mean unhealthy."""
    code, output, errors = call(*words)
    assert (code, output) == (3, "")
    assert len(errors.strip().splitlines()) == 1
    assert "s3cr3t" not in errors
    assert call(*words, "--probe")[0] == 1


def test_it_runs_on_the_oldest_python_that_is_promised(serving: Any) -> None:
    """Python 3.9 runs it, where this machine has one; its syntax is checked everywhere."""
    compile(SCRIPT.read_text(), str(SCRIPT), "exec", dont_inherit=True)
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    python = shutil.which("python3.9")
    if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
        assert call("--url", serving(HEALTHY), python=python)[0] == 0
