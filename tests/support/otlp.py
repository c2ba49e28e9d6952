"""A real OTLP receiver on loopback, by HTTP and gRPC: decodes and keeps all, and fails as it is told to."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
import pytest
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: Signal → request, answer, the answer's field for what was rejected, HTTP path, gRPC method.
SERVICES: dict[str, tuple[type[Message], type[Message], str, str, str]] = {
    "traces": (
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
        "/v1/traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ),
    "logs": (
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
        "/v1/logs",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ),
    "metrics": (
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
        "/v1/metrics",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    ),
}


@dataclass(frozen=True)
class Reply:
    """How one request is answered.

    Arguments:
        status: of HTTP, or the gRPC code's number (0 is OK there).
        headers: of the answer (`{"Retry-After": "1"}`); trailing metadata by gRPC.
        delay_s: how long the answer takes; a stop ends the wait.
        rejected, message: partial success. What is refused otherwise is not kept.
        reset: break the connection instead of answering (HTTP).
        drip_s: send the answer byte by byte with this pause (HTTP).
        keep: keep the request although it is answered as refused, as a receiver does whose answer gets lost.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    rejected: int = 0
    message: str = ""
    reset: bool = False
    drip_s: float = 0.0
    keep: bool = False


@dataclass(frozen=True)
class Request:
    """One request as it came: its decoded message, headers in lower case, and how it was answered."""

    signal: str
    message: Any
    headers: dict[str, str]
    status: int
    body: bytes


def plain(value: AnyValue) -> Any:
    """A protobuf value as Python's."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return getattr(value, kind)


def attributes(pairs: Any) -> dict[str, Any]:
    """Protobuf attributes as a dict."""
    return {pair.key: plain(pair.value) for pair in pairs}


class OtlpReceiver:
    """Listens on a free port until closed; `with OtlpReceiver() as receiver:`.

    `endpoint` is what `OTEL_EXPORTER_OTLP_ENDPOINT` takes. `fail(reply, …)` queues answers for the next requests;
    `otherwise` answers when none is queued. `requests` are all that came, refused ones too; `spans`, `logs`, `metrics`
    and `resources` are of those that were accepted.
    """

    def __init__(self, protocol: str = "http/protobuf", port: int = 0) -> None:
        self.protocol = protocol
        self.requests: list[Request] = []
        self.otherwise = Reply()
        self._accepted: list[Request] = []
        self._replies: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._close: Callable[[], None]
        if protocol == "grpc":
            self.port = self._serve_grpc(port)
            self.endpoint = f"http://127.0.0.1:{self.port}"
        else:
            self.port = self._serve_http(port)
            self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        if not self._closing.is_set():
            self._closing.set()
            self._close()

    def fail(self, *replies: Reply) -> None:
        """Answer the next requests, of whatever signal, so."""
        with self._changed:
            self._replies.extend(replies)

    # -- what has come ------------------------------------------------------------------------------------------

    def accepted(self, signal: str) -> list[Any]:
        """The messages of one signal that were taken."""
        with self._changed:
            return [each.message for each in self._accepted if each.signal == signal]

    @property
    def spans(self) -> list[Span]:
        """Every span that was taken, in order."""
        return [
            span
            for message in self.accepted("traces")
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self) -> list[LogRecord]:
        """Every log record that was taken, in order."""
        return [
            record
            for message in self.accepted("logs")
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def metrics(self) -> list[Metric]:
        """Every metric that was taken, in order; one name comes again with each collection."""
        return [
            metric
            for message in self.accepted("metrics")
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def resources(self, signal: str) -> list[dict[str, Any]]:
        """The resource attributes of every accepted message of a signal."""
        return [
            attributes(resource.resource.attributes)
            for message in self.accepted(signal)
            for resource in next(iter(message.ListFields()))[1]
        ]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Wait until `condition` holds, asked whenever a request has come; returns whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    # -- serving ------------------------------------------------------------------------------------------------

    def _next_reply(self) -> Reply:
        with self._changed:
            return self._replies.popleft() if self._replies else self.otherwise

    def _keep(self, request: Request, *, accepted: bool) -> None:
        with self._changed:
            self.requests.append(request)
            if accepted:
                self._accepted.append(request)
            self._changed.notify_all()

    def _answer(self, signal: str, reply: Reply) -> bytes:
        message = SERVICES[signal][1]()
        if reply.rejected or reply.message:
            partial = message.partial_success
            setattr(partial, SERVICES[signal][2], reply.rejected)
            partial.error_message = reply.message
        return bytes(message.SerializeToString())

    def _serve_http(self, port: int) -> int:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._handle_http(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that has gone is no error of the receiver's."""

        server = Server(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="otlp-receiver", daemon=True)
        thread.start()

        def close() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        self._close = close
        return int(server.server_address[1])

    def _handle_http(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        signal = next((name for name, service in SERVICES.items() if handler.path.endswith(service[3])), None)
        encoding = headers.get("content-encoding", "identity")
        raw = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding == "deflate" else body
        if signal is None:
            self._send(handler, Reply(404), b"")
            return
        try:
            message = SERVICES[signal][0].FromString(raw)
        except DecodeError:
            self._send(handler, Reply(400), b"")
            return
        reply = self._next_reply()
        self._keep(Request(signal, message, headers, reply.status, raw), accepted=reply.status == 200 or reply.keep)
        if self._closing.wait(reply.delay_s) or reply.reset:
            handler.close_connection = True
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        self._send(handler, reply, self._answer(signal, reply) if reply.status == 200 else b"")

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/x-protobuf", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        if not reply.drip_s:
            handler.end_headers()
            handler.wfile.write(body)
            return
        head = b"".join(getattr(handler, "_headers_buffer", [])) + b"\r\n"
        for byte in head + body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if self._closing.wait(reply.drip_s):
                break
        handler.close_connection = True

    def _serve_grpc(self, port: int) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(8, "otlp-receiver"))
        codes = {code.value[0]: code for code in grpc.StatusCode}

        def handler_of(signal: str) -> grpc.RpcMethodHandler:
            def export(body: bytes, context: grpc.ServicerContext) -> bytes:
                reply = self._next_reply()
                status = 0 if reply.status == 200 else reply.status
                headers = {key.lower(): str(value) for key, value in context.invocation_metadata()}
                message = SERVICES[signal][0].FromString(body)
                self._keep(Request(signal, message, headers, status, body), accepted=status == 0 or reply.keep)
                self._closing.wait(reply.delay_s)
                if reply.headers:
                    context.set_trailing_metadata(
                        tuple(
                            (name.lower(), value.encode("latin-1") if name.endswith("-bin") else value)
                            for name, value in reply.headers.items()
                        )
                    )
                if status:
                    context.abort(codes[status], reply.message or "refused")
                return self._answer(signal, reply)

            return grpc.unary_unary_rpc_method_handler(export)

        for signal, service in SERVICES.items():
            _, name, method = service[4].split("/")
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler_of(signal)}),))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()

        def close() -> None:
            server.stop(0.5).wait()

        self._close = close
        return int(bound)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Ask again and again until `condition` holds; for what tells nobody when it changes."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """An OTLP receiver by HTTP."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def otlp_grpc() -> Iterator[OtlpReceiver]:
    """An OTLP receiver by gRPC."""
    with OtlpReceiver("grpc") as receiver:
        yield receiver
