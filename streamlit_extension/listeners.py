"""Where the server really listens: read from its sockets, never from what a request claims."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from streamlit_extension.endpoints.entitlement import is_loopback

_logger = logging.getLogger("streamlit_extension.listeners")

#: Where a process listens may cost milliseconds to find out: while it can't be told, seconds until it is tried again.
RETRY_S = 10.0


@dataclass(slots=True)
class Listeners:
    """Tells whether a port is bound to loopback alone.

    Arguments:
        find: gives the listening sockets' addresses, or None while they can't be told; asked again until they can,
            but not by every request.
        clock: monotonic seconds.
    """

    find: Callable[[], Iterable[str] | None]
    clock: Callable[[], float] = time.monotonic
    _answer: bool | None = field(default=None, init=False)
    _ask_again_s: float = field(default=-math.inf, init=False)

    def on_loopback(self) -> bool | None:
        """True when every address is a loopback one, False when one is not, None when unknown."""
        if self._answer is None and self.clock() >= self._ask_again_s:
            addresses = self.find()
            self._ask_again_s = self.clock() + RETRY_S
            found = None if addresses is None else list(addresses)
            self._answer = all(map(is_loopback, found)) if found else None
        return self._answer


def addresses_of(sockets: Iterable[Any]) -> list[str]:
    """The host part of each socket's own address; a Unix socket's is its path, which is no loopback address."""
    return [name[0] if isinstance(name, tuple) else str(name) for name in (sock.getsockname() for sock in sockets)]


def foreign_uvicorn() -> Any | None:
    """The uvicorn server that runs us, found by the signal handler that it has installed; None under another one."""
    try:
        import uvicorn
    except ImportError:
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, uvicorn.Server):
            return owner
    return None


def uvicorn_addresses(server: Any) -> list[str] | None:
    """Addresses of a uvicorn server's listening sockets; None before it listens."""
    servers = getattr(server, "servers", None)
    if not servers:
        return None
    return addresses_of(sock for one in servers for sock in one.sockets)


def process_addresses() -> list[str] | None:
    """Addresses of every listening TCP socket of this process; None when they can't be read.

    Slow (milliseconds): asked once, for a server that we don't know.
    """
    import psutil

    try:
        connections = psutil.Process().net_connections(kind="tcp")
    except (psutil.Error, OSError, RuntimeError) as error:
        _logger.warning(
            "can't tell where this process listens (%s); details need the token",
            type(error).__name__,
            extra={"event": "listeners.unknown"},
        )
        return None
    return [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN] or None


def listening_socket(address: str, port: int, backlog: int = 2048) -> socket.socket:
    """A bound, listening, non-blocking TCP socket without Nagle's delay (accepted sockets inherit the option).

    Raises:
        OSError: the address can't be bound.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    infos = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_PASSIVE)
    family, kind, protocol, _, name = infos[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        sock.bind(name)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
