"""Sends batches straight to the collector from memory, once each; what fails is dropped and counted."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - `socket` imports it at the first look-up of a name: a fork then would deadlock
import gzip
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel.config import Compression, OtlpTarget, Protocol
from otel.ledger import Ledger
from otel.quiet import OncePerMinute
from otel.records import Batch, DropReason, Signal

_logger = logging.getLogger("otel.export.direct")
_logger.addFilter(OncePerMinute())

#: Methods of OTLP by gRPC.
METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
Send = Callable[[bytes], None]


class DirectDestination:
    """A destination without durability: `commit` returns once the collector has answered, or has not in time."""

    def __init__(self, targets: Mapping[Signal, OtlpTarget], ledger: Ledger) -> None:
        self._targets = dict(targets)
        self._ledger = ledger
        self._senders: dict[Signal, Send] = {}

    def commit(self, batches: Sequence[Batch]) -> None:
        """Send each batch once."""
        for batch in batches:
            try:
                self._sender(batch.signal)(batch.payload)
            except Exception as error:
                self._ledger.dropped(batch.signal, batch.count, DropReason.REFUSED, source="queued")
                _logger.warning(
                    "telemetry could not be sent: %s", type(error).__name__, extra={"event": "telemetry.not_sent"}
                )
            else:
                self._ledger.delivered(batch.signal, batch.count, source="queued")

    def begin_in_child(self) -> None:
        """Connections are the parent's."""
        self._senders = {}

    def _sender(self, signal: Signal) -> Send:
        if signal not in self._senders:
            target = self._targets[signal]
            make = _grpc_sender if target.protocol is Protocol.GRPC else _http_sender
            self._senders[signal] = make(signal, target)
        return self._senders[signal]


def _http_sender(_signal: Signal, target: OtlpTarget) -> Send:
    context = None
    if target.endpoint.startswith("https:"):
        context = ssl.create_default_context(cafile=target.certificate)
        if target.client_certificate is not None:
            context.load_cert_chain(target.client_certificate, target.client_key)
    headers = {**target.headers, "content-type": "application/x-protobuf"}
    if target.compression is Compression.GZIP:
        headers["content-encoding"] = "gzip"

    def send(payload: bytes) -> None:
        body = gzip.compress(payload, 5) if target.compression is Compression.GZIP else payload
        request = urllib.request.Request(target.endpoint, body, headers, method="POST")  # noqa: S310 - checked: http(s)
        with urllib.request.urlopen(request, timeout=target.timeout_s, context=context):  # noqa: S310
            pass

    return send


def _grpc_sender(signal: Signal, target: OtlpTarget) -> Send:
    import grpc

    address = target.endpoint.partition("://")[2].rstrip("/")
    compression = grpc.Compression.Gzip if target.compression is Compression.GZIP else grpc.Compression.NoCompression
    channel: Any
    if target.insecure:
        channel = grpc.insecure_channel(address, compression=compression)
    else:
        files = (target.certificate, target.client_key, target.client_certificate)
        parts = [None if each is None else each.read_bytes() for each in files]
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*parts), compression=compression)
    call = channel.unary_unary(METHODS[signal])

    def send(payload: bytes) -> None:
        call(payload, timeout=target.timeout_s, metadata=tuple(target.headers.items()))

    return send
