"""Through a real proxy on a socket, and which endpoint goes through which."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel.config import OtlpTarget, TelemetryConfig
from otel.export.outcome import Kind, Outcome
from otel.export.target import make_sender
from otel.proxies import proxy_of
from otel.records import Signal
from tests.support.otlp import OtlpReceiver
from tests.support.spooling import request

HTTP, HTTPS = "http://proxy:3128", "http://secure:3128"
BOTH = {"HTTP_PROXY": HTTP, "HTTPS_PROXY": HTTPS}


@pytest.mark.parametrize(
    ("environ", "endpoint", "expected"),
    [
        ({}, "http://collector:4318", None),
        (BOTH, "http://collector:4318/v1/traces", HTTP),
        (BOTH, "https://collector", HTTPS),
        ({"http_proxy": "lower:1", "HTTP_PROXY": HTTP}, "http://collector", "http://lower:1"),
        ({"ALL_PROXY": HTTP}, "https://collector", HTTP),
        ({**BOTH, "REQUEST_METHOD": "GET"}, "http://collector", None),
        (BOTH, "http://localhost:4318", None),
        (BOTH, "http://127.0.0.9:4318", None),
        (BOTH, "http://[::1]:4318", None),
        ({**BOTH, "NO_PROXY": "*"}, "http://collector", None),
        ({**BOTH, "NO_PROXY": "a, collector"}, "http://collector", None),
        ({**BOTH, "NO_PROXY": ".example.org"}, "http://otel.example.org", None),
        ({**BOTH, "NO_PROXY": "example.org"}, "http://otel.example.org", None),
        ({**BOTH, "NO_PROXY": "*.example.org"}, "http://OTEL.example.org", None),
        ({**BOTH, "NO_PROXY": "ample.org"}, "http://example.org", HTTP),
        ({**BOTH, "NO_PROXY": "collector:4318"}, "http://collector:4318", None),
        ({**BOTH, "NO_PROXY": "collector:80"}, "http://collector:4318", HTTP),
        ({**BOTH, "NO_PROXY": "collector:443"}, "https://collector", None),
        ({**BOTH, "NO_PROXY": "10.0.0.0/8"}, "http://10.9.8.7:4318", None),
        ({**BOTH, "NO_PROXY": "10.0.0.0/8"}, "http://11.9.8.7:4318", HTTP),
        ({**BOTH, "NO_PROXY": "[fd00::1]:4318,nonsense/9"}, "http://[fd00::1]:4318", None),
    ],
)
def test_which_proxy(environ: Mapping[str, str], endpoint: str, expected: str | None) -> None:
    """The variables mean what they mean to other programs."""
    assert proxy_of(environ, endpoint) == expected


def test_the_configuration_reads_them_and_shows_no_password() -> None:
    """Each signal's endpoint decides for itself; gRPC is left to its library."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector", "HTTPS_PROXY": "http://u:secret@proxy:1"}
    config = TelemetryConfig.from_environment({**environ, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs/v1/logs"})
    assert config.traces.otlp is not None and config.traces.otlp.proxy == "http://u:secret@proxy:1"
    assert config.logs.otlp is not None and config.logs.otlp.proxy is None
    assert "secret" not in repr(config)
    grpc = TelemetryConfig.from_environment({**environ, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert grpc.traces.otlp is not None and grpc.traces.otlp.proxy is None


@dataclass
class ProxyServer:
    """A proxy that passes every connection on to one port, whatever place it is asked for."""

    onwards: int
    refuse: bytes = b""
    heads: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve; gives the proxy's URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        yield f"http://user:pass%20word@127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        self.heads.append(head)
        if self.refuse:
            client.sendall(self.refuse)
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self.onwards))
        if head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: us\r\n\r\n")
        else:
            method, url, rest = head.split(b" ", 2)
            server.sendall(method + b" /" + url.split(b"/", 3)[3] + b" " + rest)
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join(10)
        client.close()
        server.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def send(target: OtlpTarget) -> Outcome:
    """Send three spans."""
    sender = make_sender(Signal.TRACES, target)
    try:
        return sender.send(request(Signal.TRACES, range(3)), 3)
    finally:
        sender.close()


def test_plain_http_goes_through_a_proxy(otlp: OtlpReceiver) -> None:
    """The request names the whole address, so that only the proxy needs to know where that is."""
    proxy = ProxyServer(int(otlp.endpoint.rpartition(":")[2]))
    with proxy.running() as url:
        assert send(OtlpTarget("http://collector.invalid:4318/v1/traces", proxy=url)) == Outcome(Kind.TAKEN)
    assert proxy.heads[0].startswith(b"POST http://collector.invalid:4318/v1/traces HTTP/1.1\r\n")
    assert b"\r\nHost: collector.invalid:4318\r\n" in proxy.heads[0]
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n" in proxy.heads[0]
    assert len(otlp.spans) == 3


def test_https_goes_through_a_tunnel(authority: Path) -> None:
    """The proxy is asked for a connection; what is in it, and the target's headers, only the receiver can read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def receive() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                body = request(Signal.TRACES, range(3))
                received = b""
                while not received.endswith(b"\r\n\r\n" + body):
                    received += connection.recv(65536)
                heads.append(received)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        proxy = ProxyServer(listener.getsockname()[1])
        with proxy.running() as url:
            outcome = send(
                OtlpTarget(
                    "https://localhost:9/v1/traces",
                    headers={"x-key": "k"},
                    certificate=authority / "ca.pem",
                    proxy=url,
                )
            )
        thread.join(10)
    assert outcome == Outcome(Kind.TAKEN)
    head = (
        b"CONNECT localhost:9 HTTP/1.1\r\nHost: localhost:9\r\nProxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
    )
    assert proxy.heads == [head]
    assert b"POST /v1/traces HTTP/1.1" in heads[0] and b"x-key: k" in heads[0]
    assert b"Proxy-Authorization" not in heads[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy refused: HTTP 407"),
        (b"HTTP/1.1 200", "the proxy gave no answer"),
        (b"nonsense\r\n\r\n", "the proxy refused: HTTP ?"),
    ],
)
def test_a_proxy_that_refuses_is_tried_again_later(answer: bytes, reason: str) -> None:
    """Nothing is given up for a proxy's sake, and the log tells that it was the proxy."""
    proxy = ProxyServer(0, refuse=answer)
    with proxy.running() as url:
        outcome = send(OtlpTarget("https://collector.invalid/v1/traces", proxy=url, timeout_s=5))
    assert (outcome.kind, outcome.reason) == (Kind.LATER, reason)


@pytest.mark.parametrize("url", ["socks5://u:secret@proxy:1080", "https://proxy", "http://[::1", "http://"])
def test_a_proxy_that_is_not_known_is_told_without_its_password(url: str) -> None:
    """One line that names the signal; telemetry waits in the spool."""
    with pytest.raises(ValueError, match=r"^the proxy for traces is no http:// URL$"):
        make_sender(Signal.TRACES, OtlpTarget("http://collector", proxy=url))
