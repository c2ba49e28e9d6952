"""A receiver that keeps the ids of what came: span names and log bodies that are numbers."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Counting:
    """Listens until closed; decodes only when it is asked for `spans` or `logs`."""

    def __init__(self, port: int = 0) -> None:
        bodies: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                bodies.append((self.path.rpartition("/")[2], body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass

        self._bodies = bodies
        self._server = Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def spans(self) -> list[int]:
        """The numbers of the spans that came."""
        return [int(span.name) for span in self.decoded_spans()]

    def decoded_spans(self) -> list[Span]:
        """The spans that came."""
        messages = [ExportTraceServiceRequest.FromString(body) for kind, body in self._bodies if kind == "traces"]
        return [
            span
            for message in messages
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self) -> list[int]:
        """The numbers of the log records that came; other lines of the process are left out."""
        messages = [ExportLogsServiceRequest.FromString(body) for kind, body in self._bodies if kind == "logs"]
        found = [
            record.body.string_value
            for message in messages
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        return [int(text) for text in found if text.isdigit()]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
