"""Sends OTLP over HTTP.

By `http.client`, which Python brings and which costs no memory that is not already used: the requests library takes
some megabytes, its time-out is for each read, and a receiver that drips one byte a second holds it for ever. Here every
wait is for what is left of one deadline.
"""

from __future__ import annotations

import base64
import contextlib
import encodings.idna  # noqa: F401 - the first look-up of a name imports it: a fork in the midst of that hangs the child
import errno
import http.client
import io
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from otel.config import Compression, OtlpTarget
from otel.export import outcome
from otel.export.outcome import Kind, Outcome
from otel.records import Signal

if TYPE_CHECKING:
    import ssl

USER_AGENT: Final = "streamlit-extension-otlp"
_MOST_ANSWER_BYTES: Final = 1 << 16
_COMPRESSION_LEVEL: Final = 6
_GZIP: Final = 31  # window bits of zlib that ask for gzip's frame


class Deadline:
    """The moment by which an attempt is over."""

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds that are left; raises `TimeoutError` when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the attempt took too long")
        return left


class HttpSender:
    """Sends one signal's requests over one connection, which is kept."""

    def __init__(self, signal: Signal, target: OtlpTarget, clock: Callable[[], float] = time.time) -> None:
        address = urlsplit(target.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"the endpoint for {signal} is no http:// or https:// URL")
        self._signal = signal
        self._target = target
        self._gzip = target.compression is Compression.GZIP
        self._clock = clock
        self._host, self._port = address.hostname, address.port
        self._path = (address.path or "/") + (f"?{address.query}" if address.query else "")
        self._tls = _tls_context(target) if address.scheme == "https" else None
        self._proxy = None if target.proxy is None else _Proxy.of(target.proxy, signal)
        if self._proxy is not None and self._tls is None:  # RFC 9112, 3.2.2: the absolute form
            self._path = f"http://{address.netloc.rpartition('@')[2]}{self._path}"
        self._headers = {
            "User-Agent": USER_AGENT,
            **target.headers,
            "Content-Type": "application/x-protobuf",
            **(self._proxy.headers if self._proxy is not None and self._tls is None else {}),
            **({"Content-Encoding": "gzip"} if self._gzip else {}),
        }
        self._connection: _Connection | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def send(self, payload: bytes, count: int) -> Outcome:
        """Send one request and read its answer within the target's time-out."""
        try:
            deadline = Deadline(self._target.timeout_s)
            status, headers, body = self._exchange(self._encode(payload), deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return Outcome(Kind.LATER, _reason(error), unreachable=True)
        return outcome.of_http(self._signal, status, headers, body, count=count, now_s=self._clock())

    def _encode(self, payload: bytes) -> bytes:
        if not self._gzip:
            return payload
        packer = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP)
        return packer.compress(payload) + packer.flush()

    def _exchange(self, body: bytes, deadline: Deadline) -> tuple[int, dict[str, str], bytes]:
        connection = self._connect(deadline)
        connection.request("POST", self._path, body, self._headers)
        answer = connection.getresponse()
        read = answer.read(_MOST_ANSWER_BYTES)
        if answer.will_close or not answer.isclosed():
            self.close()  # or it is longer than anybody reads
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, read

    def _connect(self, deadline: Deadline) -> _Connection:
        kept = self._connection
        if kept is not None and not kept.is_stale():
            kept.deadline = deadline
            return kept
        self.close()
        fresh = _Connection(self._host, self._port, self._tls, deadline, self._proxy)
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("the sender was stopped")
            self._connection = fresh
        fresh.connect()
        return fresh

    def abort(self) -> None:
        """End an attempt that runs now, and let none begin."""
        with self._lock:
            self._aborted = True
            if self._connection is not None:
                self._connection.cut()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            kept, self._connection = self._connection, None
        if kept is not None:
            with contextlib.suppress(OSError):
                kept.close()

    def begin_in_child(self) -> None:
        """In a forked child: close its copy of the socket, which leaves the parent's connection as it is."""
        self._lock = threading.Lock()
        self.close()


@dataclass(frozen=True, slots=True)
class _Proxy:
    """Where a proxy listens, and what it wants to be told."""

    host: str
    port: int
    headers: Mapping[str, str]

    @classmethod
    def of(cls, url: str, signal: Signal) -> _Proxy:
        """Read a proxy's URL; the text of an error holds nothing of it."""
        try:
            address = urlsplit(url)
            host, port = address.hostname, address.port or 80
        except ValueError:
            host = None
        if host is None or address.scheme != "http":
            raise ValueError(f"the proxy for {signal} is no http:// URL")
        if address.username is None:
            return cls(host, port, {})
        secret = f"{unquote(address.username)}:{unquote(address.password or '')}".encode()
        return cls(host, port, {"Proxy-Authorization": "Basic " + base64.b64encode(secret).decode()})

    def tunnel(self, raw: socket.socket, host: str, port: int, deadline: Deadline) -> None:
        """Ask for a connection through to `host`; raises `OSError` where it is refused."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        raw.settimeout(deadline.left_s())
        raw.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer:  # byte by byte: what follows is not for us
            raw.settimeout(deadline.left_s())
            byte = raw.recv(1)
            if not byte or len(answer) > _MOST_ANSWER_BYTES:
                raise OSError(errno.ECONNRESET, "the proxy gave no answer")
            answer += byte
        status = answer[9:12].decode("latin-1")
        if not status.startswith("2"):
            raise OSError(errno.ECONNREFUSED, f"the proxy refused: HTTP {status if status.isdigit() else '?'}")


class _Connection(http.client.HTTPConnection):
    """A connection whose every wait is for what is left of `deadline`."""

    auto_open = 0

    def __init__(
        self,
        host: str,
        port: int | None,
        tls: ssl.SSLContext | None,
        deadline: Deadline,
        proxy: _Proxy | None = None,
    ) -> None:
        super().__init__(host, port or (443 if tls is not None else 80))
        if tls is not None:
            self.default_port = 443
        self.deadline = deadline
        self._tls = tls
        self._proxy = proxy
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        """Try each of the host's addresses."""
        error: OSError = ConnectionError("the name has no address")
        # The name's look-up can't be given a time; a stop does not wait for it.
        place = (self.host, self.port) if self._proxy is None else (self._proxy.host, self._proxy.port)
        for family, kind, protocol, _, address in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
            self._raw = socket.socket(family, kind, protocol)
            try:
                self._raw.settimeout(self.deadline.left_s())
                self._raw.connect(address)
                self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    if self._proxy is not None:
                        self._proxy.tunnel(self._raw, self.host, self.port, self.deadline)
                    self._raw.settimeout(self.deadline.left_s())
                    self._raw = self._tls.wrap_socket(self._raw, server_hostname=self.host)
            except OSError as found:
                self._raw.close()
                error = found
                continue
            self.sock = _Timed(self._raw, self)
            return
        raise error

    def is_stale(self) -> bool:
        """Whether the other end has closed it, or said something that nobody asked for, while it was idle."""
        raw = self._raw
        if raw is None or raw.fileno() < 0 or self.sock is None:
            return True
        try:
            raw.settimeout(0)
            socket.socket.recv(raw, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def cut(self) -> None:
        """From another thread: whoever waits on the socket is told that it has ended."""
        raw = self._raw
        if raw is not None:
            with contextlib.suppress(OSError):
                # Of a TLS socket too the connection below is ended, without a farewell that could wait.
                socket.socket.shutdown(raw, socket.SHUT_RDWR)


class _Timed:
    """What `http.client` needs of a socket, each wait for what is left of the deadline."""

    def __init__(self, raw: socket.socket, connection: _Connection) -> None:
        self._raw = raw
        self._connection = connection
        self._readers = 0
        self._closing = False

    def sendall(self, data: Any) -> None:
        """Send; Python counts one time-out for all of it."""
        self._raw.settimeout(self._connection.deadline.left_s())
        self._raw.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The answer as a stream."""
        self._readers += 1
        return io.BufferedReader(_TimedReader(self))

    def receive_into(self, buffer: Any) -> int:
        """Wait for some of the answer."""
        self._raw.settimeout(self._connection.deadline.left_s())
        return self._raw.recv_into(buffer)

    def reader_closed(self) -> None:
        """An answer was read."""
        self._readers -= 1
        if self._closing and self._readers == 0:
            self._raw.close()

    def close(self) -> None:
        """Close it, once the answer that is being read is read: `http.client` closes the socket before."""
        self._closing = True
        if self._readers == 0:
            self._raw.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: _Timed) -> None:
        super().__init__()
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.reader_closed()


def _tls_context(target: OtlpTarget) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context(cafile=None if target.certificate is None else str(target.certificate))
    if target.client_certificate is not None:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context


def _reason(error: Exception) -> str:
    """A short text that holds nothing of what was sent or received."""
    if isinstance(error, TimeoutError):
        return "time-out"
    if isinstance(error, OSError) and not isinstance(error, http.client.HTTPException) and error.strerror:
        return error.strerror[:80]
    return type(error).__name__
