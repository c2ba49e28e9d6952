"""Whether another service answers: one GET with a total deadline, no redirect, and no forbidden address."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from streamlit_extension.health.checks.database import error_line
from streamlit_extension.health.model import CheckResult, Outcome

#: Where clouds keep the credentials of a machine, besides the link-local ranges: AWS by IPv6, Alibaba, Azure.
METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))


class RefusedAddressError(Exception):
    """The address is one that a health check must not ask."""


def refusal(address: str) -> str | None:
    """Why an IP address is not asked (link-local, metadata, multicast, unspecified), or None; private ones may be."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
    if ip in METADATA_ADDRESSES:
        return "a cloud's metadata address"
    for kind in ("is_link_local", "is_multicast", "is_unspecified"):
        if getattr(ip, kind):
            return f"{kind.removeprefix('is_').replace('_', '-')} address"
    return None


class ExternalApiCheck:
    """Checks one service by its URL.

    Arguments:
        url: `http://` or `https://`.
        timeout_s: total, from the name's resolution to the head of the answer.
        slow_s: an answer slower than this many seconds is degraded.

    A status 2xx is well; a redirect is not followed and counts as a failure.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0, slow_s: float | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._slow_s = timeout_s / 2 if slow_s is None else slow_s
        self._socket: socket.socket | None = None

    def __call__(self) -> CheckResult:
        """Run once."""
        began_s = time.perf_counter()
        try:
            status = self._get()
        except RefusedAddressError as error:
            return CheckResult(Outcome.FAILED, error=f"refused: {error}")
        except TimeoutError:
            return CheckResult(Outcome.TIMEOUT, self._timeout_s, error=f"no answer within {self._timeout_s:g} s")
        except Exception as error:
            return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=error_line(error))
        took_s = time.perf_counter() - began_s
        detail = {"response_time_s": took_s, "status_code": status}
        if 300 <= status < 400:
            return CheckResult(Outcome.FAILED, took_s, detail, f"answered {status}: redirects are not followed")
        if not 200 <= status < 300:
            return CheckResult(Outcome.FAILED, took_s, detail, f"answered {status}")
        if took_s > self._slow_s:
            return CheckResult(
                Outcome.DEGRADED, took_s, {**detail, "reason": "slow"}, f"slow: answered after {took_s:.3f} s"
            )
        return CheckResult(Outcome.OK, took_s, detail)

    def interrupt(self) -> None:
        """Wake a run that hangs."""
        _shut(self._socket)

    def _get(self) -> int:
        parts = urlsplit(self._url)
        deadline_s = time.monotonic() + self._timeout_s
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        connection.default_port = 443 if parts.scheme == "https" else 80
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _shut(self._socket)

        timer = threading.Timer(self._timeout_s, expire)  # a socket's own time-out starts anew with every byte
        timer.daemon = True
        timer.name = "stx-check-deadline"
        timer.start()
        try:
            connection.sock = self._connect(host, port, parts.scheme == "https", deadline_s)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers=_headers(parts))
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            if expired.is_set() or time.monotonic() >= deadline_s:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            _shut(self._socket)
            connection.close()
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _connect(self, host: str, port: int, tls: bool, deadline_s: float) -> socket.socket:
        """Connect to the very address that was looked at, whatever the name resolves to a moment later."""
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for info in infos:
            reason = refusal(str(info[4][0]))
            if reason is not None:
                raise RefusedAddressError(reason)
        last: OSError | None = None
        for family, kind, protocol, _, address in infos:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                break
            sock = self._socket = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(remaining_s)
                sock.connect(address)
                if tls:
                    sock = self._socket = ssl.create_default_context().wrap_socket(
                        sock, server_hostname=host, do_handshake_on_connect=False
                    )
                    sock.do_handshake()
                return sock
            except OSError as error:
                sock.close()
                last = error
                if isinstance(error, ssl.SSLError):
                    break
        raise last or TimeoutError()


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"User-Agent": "streamlit-extension-health", "Connection": "close", "Accept": "*/*"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return headers


def _shut(sock: Any) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
