"""Sends OTLP over gRPC. Importing this imports `grpcio`, which is done only where gRPC is asked for."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from otel.config import Compression, OtlpTarget
from otel.export import outcome, payload
from otel.export.outcome import Kind, Outcome
from otel.imports import IMPORTS
from otel.records import Signal

_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_STATUS_DETAILS: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"


class GrpcSender:
    """Sends one signal's requests over one channel, which is kept."""

    def __init__(self, signal: Signal, target: OtlpTarget) -> None:
        address = urlsplit(target.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"the endpoint for {signal} is no http:// or https:// URL")
        self._signal = signal
        self._target = target
        host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
        self._address = f"{host}:{address.port or 4317}"
        self._credentials = _credentials(target) if address.scheme == "https" and not target.insecure else None
        self._metadata = tuple((name.lower(), value) for name, value in target.headers.items())
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._aborted = False

    def send(self, request: bytes, count: int) -> Outcome:
        """Send one request within the target's time-out, which gRPC counts for the call as a whole."""
        try:
            with self._lock:
                if self._aborted:
                    return Outcome(Kind.LATER, "stopped")
                call = self._call = self._method().future(request, self._target.timeout_s, self._metadata)
            answer = call.result()
        except grpc.RpcError as error:
            code = getattr(error, "code", None)
            number = code().value[0] if callable(code) and code() is not None else 2
            details = getattr(error, "details", str)() or ""
            return outcome.of_grpc(number, details, retry_info_s(getattr(error, "trailing_metadata", tuple)()))
        except (grpc.FutureCancelledError, grpc.FutureTimeoutError, ValueError):
            return Outcome(Kind.LATER, "stopped")
        finally:
            self._call = None
        return outcome.of_success(payload.rejected(self._signal, answer), count)

    def _method(self) -> Any:
        if self._channel is None:
            options = (
                ("grpc.max_reconnect_backoff_ms", 5000),  # the forwarder waits by itself
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
            )
            compression = (
                grpc.Compression.Gzip
                if self._target.compression is Compression.GZIP
                else grpc.Compression.NoCompression
            )
            with IMPORTS:  # gRPC imports a part of itself at the first channel
                if self._credentials is None:
                    self._channel = grpc.insecure_channel(self._address, options, compression)
                else:
                    self._channel = grpc.secure_channel(self._address, self._credentials, options, compression)
        return self._channel.unary_unary(_METHODS[self._signal])

    def abort(self) -> None:
        """End an attempt that runs now, and let none begin."""
        with self._lock:
            self._aborted = True
            call = self._call
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """Close the channel."""
        with self._lock:
            kept, self._channel = self._channel, None
        if kept is not None:
            with contextlib.suppress(Exception):
                kept.close()

    def begin_in_child(self) -> None:
        """In a forked child: make a channel of its own when it sends; gRPC itself cares for the parent's."""
        self._lock = threading.Lock()
        self._channel = None
        self._call = None


def retry_info_s(metadata: Any) -> float | None:
    """The delay of a `RetryInfo` among a status' details, in seconds, None without one."""
    for key, value in metadata or ():
        if key == _STATUS_DETAILS:
            for field, part in _fields(value):
                if field == 3 and isinstance(part, bytes):  # google.rpc.Status.details, an Any
                    found = dict(_fields(part))
                    if found.get(1) == _RETRY_INFO:
                        return _delay_s(found.get(2))
    return None


def _delay_s(info: Any) -> float | None:
    """Seconds of `RetryInfo.retry_delay`, a Duration."""
    delay = dict(_fields(info)).get(1) if isinstance(info, bytes) else None
    if not isinstance(delay, bytes):
        return 0.0
    parts = dict(_fields(delay))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    return float(seconds) + float(nanos) / 1e9 if isinstance(seconds, int) and isinstance(nanos, int) else None


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """A message's varint and length-delimited fields: these three messages need no package of generated code."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    try:
        while position < len(message):
            tag, position = _varint(message, position)
            value, position = _varint(message, position)
            if tag & 7 == 2:
                found.append((tag >> 3, message[position : position + value]))
                position += value
            elif tag & 7 == 0:
                found.append((tag >> 3, value))
            else:
                break
    except IndexError:
        pass
    return found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


def _credentials(target: OtlpTarget) -> grpc.ChannelCredentials:
    def read(path: Any) -> bytes | None:
        return None if path is None else path.read_bytes()

    return grpc.ssl_channel_credentials(
        read(target.certificate), read(target.client_key), read(target.client_certificate)
    )
