"""GELF over the network: UDP in compressed chunks, TCP in frames; a thread of its own sends, the caller never waits."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

#: GELF's magic bytes of a chunk; message id (8 bytes), sequence number and count follow.
_CHUNK_MAGIC: Final = b"\x1e\x0f"
_CHUNK_HEAD_BYTES: Final = 12
#: GELF's limits: chunks of a message, bytes of a datagram.
MAX_CHUNKS: Final = 128
MAX_DATAGRAM_BYTES: Final = 8192
#: A datagram that crosses any network in one piece; larger ones are used only where 128 of these don't do.
_SAFE_DATAGRAM_BYTES: Final = 1420
#: Shorter messages grow by compression.
_COMPRESS_FROM_BYTES: Final = 512
#: Memory for what waits.
MAX_WAITING_BYTES: Final = 8 * 2**20
_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = (0.1, 10.0)
_TELL_S: Final = 60.0


def datagrams(message: bytes, message_id: bytes | None = None) -> Iterator[bytes]:
    """A GELF message as one compressed datagram, or as up to 128 chunks; one that is larger still keeps its head."""
    payload = zlib.compress(message) if len(message) >= _COMPRESS_FROM_BYTES else message
    if len(payload) <= _SAFE_DATAGRAM_BYTES:
        yield payload
        return
    room = _SAFE_DATAGRAM_BYTES - _CHUNK_HEAD_BYTES
    if len(payload) > room * MAX_CHUNKS:
        room = MAX_DATAGRAM_BYTES - _CHUNK_HEAD_BYTES
    if len(payload) > room * MAX_CHUNKS:
        yield from datagrams(_shortened(message))
        return
    pieces = [payload[start : start + room] for start in range(0, len(payload), room)]
    head = _CHUNK_MAGIC + (message_id or os.urandom(8))
    for number, piece in enumerate(pieces):
        yield head + bytes((number, len(pieces))) + piece


def _shortened(message: bytes) -> bytes:
    """What a message too large for its transport is without its long parts."""
    facts = {key: value for key, value in json.loads(message).items() if len(str(value)) <= 256}
    return json.dumps({"short_message": "-", **facts, "_shortened": len(message)}).encode()


class GelfOutlet:
    """Takes GELF lines and sends them from the thread `stx-gelf`; what can't wait any longer is counted as lost.

    Arguments:
        url: `udp://host:port` or `tcp://host:port`.
        max_waiting_bytes: memory for lines that have not been sent; above it the newest is lost.
    """

    def __init__(self, url: str, *, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("udp", "tcp") or not parts.hostname or not parts.port:
            raise ValueError("a GELF address is udp://host:port or tcp://host:port")
        self._is_tcp = parts.scheme == "tcp"
        self._address = (parts.hostname, parts.port)
        self._max_waiting_bytes = max_waiting_bytes
        self._socket: socket.socket | None = None
        #: Lines that were handed to the network, and lines that were given up.
        self.sent = 0
        self.lost = 0
        self._told_at_s = 0.0
        self._start_afresh()
        _outlets.add(self)

    def _start_afresh(self) -> None:
        """Nothing waits and no thread runs: at the beginning, and in a forked child, where the parent sends its own."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unfinished = 0
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._stop_at_s: float | None = None

    def write(self, line: bytes) -> None:
        """Take one line; never waits."""
        with self._changed:
            if self._stop_at_s is not None or self._waiting_bytes + len(line) > self._max_waiting_bytes:
                self.lost += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._unfinished += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stx-gelf", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was taken has been sent or given up; False when that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._unfinished == 0, timeout_s)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for `timeout_s` at most, and end the thread; what is left is lost and counted."""
        with self._changed:
            self._stop_at_s = time.monotonic() + timeout_s
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s + _TIMEOUT_S)

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        delay_s = _RETRY_S[0]
        while (line := self._next()) is not None:
            while not self._send(line.rstrip(b"\n")):
                self._tell()
                if self._pause(delay_s):
                    self._finish(sent=False)
                    break
                delay_s = min(delay_s * 2, _RETRY_S[1])
            else:
                delay_s = _RETRY_S[0]
                self._finish(sent=True)
        self._disconnect()

    def _next(self) -> bytes | None:
        """The next line, None when there will be no more or no time for more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stop_at_s is not None)
            over = self._stop_at_s is not None and time.monotonic() >= self._stop_at_s
            if over or not self._waiting:
                self.lost += len(self._waiting)
                self._unfinished -= len(self._waiting)
                self._waiting.clear()
                self._changed.notify_all()
                return None
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            return line

    def _finish(self, *, sent: bool) -> None:
        with self._changed:
            self._unfinished -= 1
            self.sent += sent
            self.lost += not sent
            self._changed.notify_all()

    def _pause(self, delay_s: float) -> bool:
        """Wait before the next try; True when there is no time for one."""
        with self._changed:
            deadline = time.monotonic() + delay_s
            while (left := deadline - time.monotonic()) > 0:
                if self._stop_at_s is not None and time.monotonic() >= self._stop_at_s:
                    return True
                limit = left if self._stop_at_s is None else min(left, self._stop_at_s - time.monotonic())
                self._changed.wait(max(limit, 0))
            return self._stop_at_s is not None and time.monotonic() >= self._stop_at_s

    def _send(self, message: bytes) -> bool:
        try:
            sock = self._connected()
            if self._is_tcp:
                sock.sendall(message + b"\0")
            else:
                for each in datagrams(message):
                    sock.send(each)
        except ConnectionRefusedError:
            # UDP learns only from the datagram before that nobody listens; nobody can say which ones arrived.
            self._disconnect()
            return not self._is_tcp
        except (OSError, ValueError):
            self._disconnect()
            return False
        return True

    def _connected(self) -> socket.socket:
        sock = self._socket
        if sock is not None and self._is_tcp and self._has_ended(sock):
            self._disconnect()
            sock = None
        if sock is None:
            if self._is_tcp:
                sock = socket.create_connection(self._address, timeout=_TIMEOUT_S)
            else:
                family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
                sock = socket.socket(family, kind, protocol)
                sock.settimeout(_TIMEOUT_S)
                sock.connect(address)
            self._socket = sock
        return sock

    @staticmethod
    def _has_ended(sock: socket.socket) -> bool:
        """Whether the server has closed its end: what is written then is taken and lost without a word."""
        readable, _, _ = select.select([sock], [], [], 0)
        return bool(readable) and sock.recv(4096) == b""

    def _disconnect(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _tell(self) -> None:
        """Once a minute, on standard error: the lines' own way out is what does not work."""
        now = time.monotonic()
        if now - self._told_at_s < _TELL_S and self._told_at_s:
            return
        self._told_at_s = now
        text = f"log lines can't be sent to {self._address[0]}:{self._address[1]}; {self.lost} are lost so far\n"
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except Exception:
            self._told_at_s = now  # there is nobody to tell


_outlets: weakref.WeakSet[GelfOutlet] = weakref.WeakSet()


def _in_child() -> None:
    for each in tuple(_outlets):
        each._start_afresh()
        each._socket = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
