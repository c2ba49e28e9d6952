"""Whatever stands at a back end's address: a command ends in one line, and a password goes nowhere else."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from streamlit_extension.cli_logs import logs
from streamlit_extension.cli_traces import traces
from streamlit_extension.remote.asking import RemoteError
from streamlit_extension.remote.jaeger import Jaeger
from streamlit_extension.remote.victorialogs import VictoriaLogs

WHOLE_ID = "0123456789abcdef0123456789abcdef"
#: Status, headers and body that are not those of the back end, and what the line says of them.
STRANGERS: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "a page to log in": (200, {"Content-Type": "text/html"}, b"<html>Log in</html>", "does not answer as"),
    "not found by a proxy": (404, {"Content-Type": "text/html"}, b"<html>404</html>", "does not answer as"),
    "not found by Grafana": (404, {}, b'{"message":"Not found"}', "does not answer as"),
    "a list": (200, {}, b"[]", "does not answer as"),
    "a number": (200, {}, b"1", "does not answer as"),
    "another API": (200, {}, b'{"status":"success","data":{"result":[]}}', "does not answer as"),
    "traces of another shape": (200, {}, b'{"data":[{"traceID":"ab"}]}', "does not answer as"),
    "no text": (200, {}, b"\xff\xfe\x00", "does not answer as"),
    "a tower": (200, {}, b"[" * 100_000, "does not answer as"),
    "half an answer": (200, {"Content-Length": "1000"}, b"{", "does not answer: IncompleteRead"),
    "a redirect": (302, {"Location": "/elsewhere"}, b"", "answered 302: no redirect is followed"),
    "a refusal": (401, {}, b"", "answered 401"),
}
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves one answer to everything: `serve(200, {}, b"…")` returns an address with a password; see `asked`."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: int, headers: dict[str, str], body: bytes, asked: list[tuple[str, str]] | None = None) -> str:
        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if asked is not None:
                    asked.append((self.path, self.headers.get("Authorization", "")))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, name="answers", daemon=True).start()
        servers.append(server)
        return f"http://reader:hunter2-planted@127.0.0.1:{server.server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_told_of_in_one_line(serve: Serve, stranger: str) -> None:
    """By every question; the line has the address and not its password."""
    status, headers, body, expected = STRANGERS[stranger]
    url = serve(status, headers, body)
    jaeger = Jaeger(url, "shop")
    for ask in (VictoriaLogs(url).logs, jaeger.runs, lambda: jaeger.find_traces("ab"), lambda: jaeger.trace(WHOLE_ID)):
        with pytest.raises(RemoteError) as caught:
            ask()
        line = caught.value.format_message()
        assert expected in line and "127.0.0.1" in line
        assert "hunter2" not in line and "\n" not in line


def test_a_server_of_another_protocol_is_one_line(serve: Serve) -> None:
    """Redis, for example."""
    url = serve(200, {}, b"").rpartition(":")[0]
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer, name="redis")
        thread.start()
        with pytest.raises(RemoteError, match="does not answer: BadStatusLine"):
            VictoriaLogs(f"{url}:{listening.getsockname()[1]}").logs()
        thread.join()


def test_a_password_does_not_follow_a_redirect(serve: Serve) -> None:
    """Whoever is redirected to gets nothing."""
    asked: list[tuple[str, str]] = []
    elsewhere = serve(200, {}, b"", asked).replace("reader:hunter2-planted@", "")
    with pytest.raises(RemoteError):
        VictoriaLogs(serve(302, {"Location": elsewhere}, b"")).logs()
    assert asked == []
    VictoriaLogs(elsewhere.replace("://", "://reader:hunter2-planted@")).logs()
    assert [authorization.split()[0] for _, authorization in asked] == ["Basic"]


def test_a_trace_that_is_not_there_is_none(serve: Serve) -> None:
    """Jaeger says so by a 404 of its own."""
    body = b'{"data":null,"total":0,"limit":0,"offset":0,"errors":[{"code":404,"msg":"trace not found"}]}'
    assert Jaeger(serve(404, {}, body), "shop").trace(WHOLE_ID) is None
    assert Jaeger(serve(200, {}, b'{"data":null,"errors":null}'), "shop").runs().items == ()


def test_a_path_before_the_api_may_hold_any_letter(serve: Serve) -> None:
    """A base path is part of every question."""
    asked: list[tuple[str, str]] = []
    VictoriaLogs(f"{serve(200, {}, b'', asked)}/größe/").logs()
    assert asked[0][0].startswith("/gr%C3%B6%C3%9Fe/select/logsql/query?")


def test_an_empty_answer_names_the_service_that_was_asked_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks on another machine may have forgotten to say which."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("STX_QUERY__JAEGER_URL", serve(200, {}, b'{"data":[]}'))
    monkeypatch.setenv("STX_QUERY__VICTORIALOGS_URL", serve(200, {}, b""))
    for command in (logs, traces):
        shown = CliRunner().invoke(command, [])
        assert (shown.exit_code, shown.stdout) == (0, "")
        assert shown.stderr == "nothing was found of the service shop; OTEL_SERVICE_NAME names another one\n"
    shown = CliRunner().invoke(traces, ["abcd"])
    assert shown.exit_code == 2 and "as far as the newest ones were looked at" in shown.stderr


HOSTILE = "\x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize("name", ["trace_id", "span_id", "_msg", "severity_text", "scope.name", "event_name", "any"])
def test_what_a_record_says_steers_no_terminal(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also where an attribute has the name of a field that usually is ours."""
    record = {"_time": "2026-01-02T03:04:05Z", "_msg": "marker", name: HOSTILE}
    monkeypatch.setenv("STX_QUERY__VICTORIALOGS_URL", serve(200, {}, json.dumps(record).encode()))
    for words in ([], ["--json"]):
        shown = CliRunner().invoke(logs, words)
        assert shown.exit_code == 0 and shown.output.strip()
        assert "\x1b" not in shown.output and "\x07" not in shown.output


def test_what_a_trace_says_steers_no_terminal(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the list and in the tree."""
    span = {
        "traceID": f"ab{HOSTILE}", "spanID": HOSTILE, "operationName": HOSTILE, "startTime": 1, "duration": 2,
        "processID": "p1", "references": [], "logs": [{"timestamp": 1, "fields": [{"key": "event", "value": HOSTILE}]}],
        "tags": [{"key": key, "value": HOSTILE} for key in ("streamlit.run.outcome", "session.id", "error.type")],
    }  # fmt: skip
    span["tags"] = [*span["tags"], {"key": "streamlit.run.type", "value": "full"}]  # type: ignore[misc]
    trace = {"traceID": f"ab{HOSTILE}", "spans": [span], "processes": {"p1": {"serviceName": HOSTILE}}}
    monkeypatch.setenv("STX_QUERY__JAEGER_URL", serve(200, {}, json.dumps({"data": [trace]}).encode()))
    for words in ([], ["--json"], ["ab"], ["ab", "--json"]):
        shown = CliRunner().invoke(traces, words)
        assert shown.exit_code == 0 and shown.output.strip(), shown.output
        assert "\x1b" not in shown.output and "\x07" not in shown.output
