"""The senders against a real receiver, over HTTP, TLS and gRPC."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from otel.config import Compression, OtlpTarget, Protocol
from otel.export.outcome import Kind, Outcome
from otel.export.target import Sender, make_sender
from otel.records import Signal
from tests.support.otlp import OtlpReceiver, Reply
from tests.support.spooling import request


@pytest.fixture(params=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[OtlpReceiver]:
    """A receiver of each protocol."""
    with OtlpReceiver("grpc" if request.param == "grpc" else "http/protobuf") as found:
        yield found


def target_of(receiver: OtlpReceiver, signal: Signal = Signal.TRACES, timeout_s: float = 10.0) -> OtlpTarget:
    """A target for a receiver."""
    if receiver.protocol == "grpc":
        return OtlpTarget(receiver.endpoint, Protocol.GRPC, timeout_s=timeout_s, insecure=True)
    return OtlpTarget(f"{receiver.endpoint}/v1/{signal}", timeout_s=timeout_s)


def send(sender: Sender, signal: Signal = Signal.TRACES, count: int = 3) -> Outcome:
    """Send a request of `count` records."""
    return sender.send(request(signal, range(count)), count)


@pytest.mark.parametrize("compression", list(Compression))
def test_every_signal_arrives(receiver: OtlpReceiver, compression: Compression) -> None:
    """What is sent is what arrives, with the headers that were asked for, packed or not."""
    for signal in Signal:
        target = replace(target_of(receiver, signal), headers={"X-Token": "t 1"}, compression=compression)
        sender = make_sender(signal, target)
        assert send(sender, signal) == Outcome(Kind.TAKEN)
        sender.close()
        found = receiver.requests[-1]
        assert found.signal == signal
        assert found.body == request(signal, range(3))
        assert found.headers["x-token"] == "t 1"
        if receiver.protocol != "grpc":
            assert found.headers.get("content-encoding") == (None if compression is Compression.NONE else "gzip")
            assert found.headers["content-type"] == "application/x-protobuf"
            assert found.headers["user-agent"] == "streamlit-extension-otlp"


def test_a_connection_is_kept(otlp: OtlpReceiver) -> None:
    """One connection serves many requests, also after a refusal."""
    ports = set()
    original = otlp._send

    def note(handler: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        ports.add(handler.client_address[1])
        original(handler, reply, body)

    otlp._send = note  # type: ignore[method-assign]  # the receiver is the test's own
    otlp.fail(Reply(), Reply(503), Reply(400))
    sender = make_sender(Signal.TRACES, target_of(otlp))
    assert [send(sender).kind for _ in range(5)] == [Kind.TAKEN, Kind.LATER, Kind.REFUSED, Kind.TAKEN, Kind.TAKEN]
    sender.close()
    assert len(ports) == 1


def test_a_connection_that_the_receiver_has_closed_costs_no_attempt() -> None:
    """A receiver that was started again is reached at once."""
    with OtlpReceiver() as first:
        sender = make_sender(Signal.TRACES, target_of(first))
        assert send(sender).kind is Kind.TAKEN
        first.fail(Reply(headers={"Connection": "close"}))
        assert send(sender).kind is Kind.TAKEN
        assert send(sender).kind is Kind.TAKEN
    sender.close()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(400), Kind.REFUSED),
        (Reply(401), Kind.REFUSED),
        (Reply(413), Kind.TOO_LARGE),
        (Reply(500), Kind.FAILED),
        (Reply(503), Kind.LATER),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), Kind.FAILED),
        (Reply(reset=True), Kind.LATER),
    ],
)
def test_http_answers(otlp: OtlpReceiver, reply: Reply, kind: Kind) -> None:
    """Each answer has its consequence, and the next request goes through."""
    sender = make_sender(Signal.TRACES, target_of(otlp))
    otlp.fail(reply)
    assert send(sender).kind is kind
    assert send(sender).kind is Kind.TAKEN
    sender.close()


def test_what_a_receiver_asks_for_is_read(otlp: OtlpReceiver) -> None:
    """`Retry-After`, and how many records a partial success left out."""
    sender = make_sender(Signal.TRACES, target_of(otlp))
    otlp.fail(Reply(429, headers={"Retry-After": "7"}), Reply(rejected=2, message="too old"))
    assert send(sender) == Outcome(Kind.LATER, "HTTP 429", retry_after_s=7.0)
    assert send(sender) == Outcome(Kind.TAKEN, "partial success", rejected=2)
    sender.close()


def test_grpc_answers(otlp_grpc: OtlpReceiver) -> None:
    """Status codes, `RetryInfo` and partial success by gRPC."""
    sender = make_sender(Signal.TRACES, target_of(otlp_grpc))
    # google.rpc.Status {code: 8, details: [Any {RetryInfo {retry_delay: 1.5 s}}]}, as a server sends it.
    delay = b"\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01"
    kind = b"type.googleapis.com/google.rpc.RetryInfo"
    info = b"\x0a" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(delay)]) + delay
    status = b"\x08\x08\x1a" + bytes([len(info)]) + info
    otlp_grpc.fail(
        Reply(14),
        Reply(3),
        Reply(13),
        Reply(8, message="Received message larger than max"),
        Reply(8, headers={"grpc-status-details-bin": status.decode("latin-1")}),
        Reply(rejected=1),
    )
    found = [send(sender) for _ in range(7)]
    assert [each.kind for each in found] == [
        Kind.LATER,
        Kind.REFUSED,
        Kind.FAILED,
        Kind.TOO_LARGE,
        Kind.LATER,
        Kind.TAKEN,
        Kind.TAKEN,
    ]
    assert found[4].retry_after_s == 1.5
    assert found[5].rejected == 1
    sender.close()


def test_a_request_that_is_too_large_for_grpc_is_split(otlp_grpc: OtlpReceiver) -> None:
    """The library's own refusal of four megabytes and more says what to do."""
    sender = make_sender(Signal.LOGS, target_of(otlp_grpc))
    assert sender.send(request(Signal.LOGS, range(50), padding=100_000), 50).kind is Kind.TOO_LARGE
    sender.close()


def test_nobody_there(receiver: OtlpReceiver) -> None:
    """A port that nobody listens on is tried again later, and reached when somebody does."""
    receiver.close()
    sender = make_sender(Signal.TRACES, target_of(receiver, timeout_s=5))
    found = send(sender)
    assert (found.kind, found.unreachable) == (Kind.LATER, True)
    with OtlpReceiver(receiver.protocol, port=receiver.port):
        deadline = time.monotonic() + 30
        while send(sender).kind is not Kind.TAKEN:
            assert time.monotonic() < deadline
    sender.close()


@pytest.mark.parametrize("reply", [Reply(delay_s=60), Reply(drip_s=0.2)])
def test_the_timeout_is_for_all_of_it(otlp: OtlpReceiver, reply: Reply) -> None:
    """Neither silence nor a byte now and then holds an attempt beyond its time."""
    otlp.fail(reply)
    sender = make_sender(Signal.TRACES, target_of(otlp, timeout_s=0.5))
    began = time.monotonic()
    assert send(sender) == Outcome(Kind.LATER, "time-out", unreachable=True)
    assert time.monotonic() - began < 10
    assert send(sender).kind is Kind.TAKEN
    sender.close()


def test_a_receiver_that_does_not_read_is_left_in_time() -> None:
    """A request that nobody takes off the socket ends with the attempt's time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = make_sender(Signal.LOGS, OtlpTarget(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.5))
        began = time.monotonic()
        outcome = sender.send(request(Signal.LOGS, range(100), padding=200_000), 100)
        assert outcome.reason == "time-out"
        assert time.monotonic() - began < 10
        sender.close()


def test_an_attempt_ends_when_it_is_aborted(receiver: OtlpReceiver) -> None:
    """A stop does not wait for a receiver that hangs, and none begins after it."""
    receiver.otherwise = Reply(delay_s=60)
    sender = make_sender(Signal.TRACES, target_of(receiver, timeout_s=50))
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(send(sender)))
    thread.start()
    assert receiver.wait_for(lambda: len(receiver.requests) == 1)
    sender.abort()
    thread.join(20)
    assert [each.kind for each in found] == [Kind.LATER]
    assert send(sender).kind is Kind.LATER
    assert len(receiver.requests) == 1
    sender.close()


def test_an_endless_answer_is_not_read(otlp: OtlpReceiver) -> None:
    """A receiver can't fill the memory: the connection is given up instead."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "10000000")
            self.end_headers()
            try:
                self.wfile.write(bytes(10_000_000))
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    sender = make_sender(Signal.TRACES, OtlpTarget(f"http://127.0.0.1:{server.server_address[1]}/"))
    assert [send(sender).kind, send(sender).kind] == [Kind.TAKEN, Kind.TAKEN]
    sender.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_tls_with_client_certificates(authority: Path) -> None:
    """The receiver is checked against the given authority, and shown who we are; a stranger's is not trusted."""
    names = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            names.append(self.connection.getpeercert()["subject"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        plain = OtlpTarget(f"https://127.0.0.1:{server.server_address[1]}/v1/traces", timeout_s=5)
        trusting = replace(plain, certificate=authority / "ca.pem")
        full = replace(trusting, client_certificate=authority / "client.pem", client_key=authority / "client.key")
        sender = make_sender(Signal.TRACES, full)
        assert [send(sender).kind, send(sender).kind] == [Kind.TAKEN, Kind.TAKEN]
        sender.close()
        assert names == [((("commonName", "client"),),)] * 2
        for target in (plain, trusting):
            sender = make_sender(Signal.TRACES, target)
            assert send(sender).kind is Kind.LATER
            sender.close()
        assert len(names) == 2
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_grpc_over_tls_with_client_certificates(authority: Path) -> None:
    """The same by gRPC."""
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    pair = ((authority / "server.key").read_bytes(), (authority / "server.pem").read_bytes())
    ca = (authority / "ca.pem").read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], ca, require_client_auth=True))
    server.start()
    try:
        trusting = OtlpTarget(f"https://127.0.0.1:{port}", Protocol.GRPC, timeout_s=5, certificate=authority / "ca.pem")
        full = replace(trusting, client_certificate=authority / "client.pem", client_key=authority / "client.key")
        for target, kind in ((full, Kind.TAKEN), (trusting, Kind.LATER)):
            sender = make_sender(Signal.TRACES, target)
            assert send(sender).kind is kind
            sender.close()
    finally:
        server.stop(None).wait()


def test_grpc_is_imported_only_where_it_is_asked_for() -> None:
    """Sending over HTTP costs no gRPC, no requests and no protobuf."""
    code = (
        "import sys\n"
        "from otel.config import OtlpTarget\n"
        "from otel.export.target import make_sender\n"
        "from otel.records import Signal\n"
        "import otel.spool\n"
        "make_sender(Signal.LOGS, OtlpTarget('http://127.0.0.1:1/v1/logs', timeout_s=0.5)).send(b'', 0)\n"
        "print([name for name in ('grpc', 'requests', 'urllib3', 'google.protobuf') if name in sys.modules])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1/", "127.0.0.1:4318", "http://"])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_what_is_no_endpoint_is_refused_at_once(endpoint: str, protocol: Protocol) -> None:
    """One line that names the signal."""
    with pytest.raises(ValueError, match="the endpoint for logs is no http:// or https:// URL"):
        make_sender(Signal.LOGS, OtlpTarget(endpoint, protocol))


def test_neither_headers_nor_records_are_logged(otlp: OtlpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens nothing of what is sent is in a log line or in an outcome."""
    otlp.fail(Reply(400), Reply(reset=True), Reply(500))
    target = replace(target_of(otlp), headers={"Authorization": "Bearer s3cret"})
    sender = make_sender(Signal.TRACES, target)
    with caplog.at_level(logging.DEBUG):
        told = [repr(send(sender)) for _ in range(4)] + [repr(target)]
    sender.close()
    assert "s3cret" not in caplog.text + "".join(told)
