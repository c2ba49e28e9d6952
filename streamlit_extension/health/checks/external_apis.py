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
from urllib.parse import quote, unquote, urlsplit

import msgspec

from streamlit_extension.health.checks.database import error_line
from streamlit_extension.health.model import CheckResult, Outcome

#: Google's names for the server that keeps a machine's credentials.
METADATA_NAMES = frozenset(("metadata.google.internal", "metadata.goog"))
#: Where clouds keep the credentials of a machine, besides the link-local ranges: AWS by IPv6 (instance and EKS pod),
#: Google by IPv6, Alibaba, Azure, Oracle.
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(each)
    for each in (
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    )
)


#: IPv6 ranges that carry an IPv4 address in their last 32 bits: NAT64 (RFC 6052) and IPv4-compatible (RFC 4291).
_CARRIES_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
#: What a request line may hold besides letters and digits; a percent sign stays, it begins what is encoded already.
_TARGET_SAFE = "!#$%&'()*+,/:;=?@[]~-._"


#: What `socket.getaddrinfo` gives: family, kind, protocol, canonical name, address.
SocketAddress = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class RefusedAddressError(Exception):
    """The address is one that a health check must not ask."""


def refusal(address: str) -> str | None:
    """Why an IP address is not asked (link-local, metadata, multicast, unspecified), or None; private ones may be."""
    ip = _carried(ipaddress.ip_address(address.partition("%")[0]))
    if ip in METADATA_ADDRESSES:
        return "a cloud's metadata address"
    for kind in ("is_link_local", "is_multicast", "is_unspecified"):
        if getattr(ip, kind):
            return f"{kind.removeprefix('is_').replace('_', '-')} address"
    return None


def _carried(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if int(ip) > 1 and any(ip in network for network in _CARRIES_IPV4):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def permitted_addresses(host: str, port: int) -> list[SocketAddress]:
    """The addresses of a name, as `socket.getaddrinfo` gives them, when every one of them may be asked.

    Raises:
        RefusedAddressError: one of them may not, or the name is that of a metadata server.
        OSError: the name can't be resolved.
    """
    if host.rstrip(".").lower() in METADATA_NAMES:
        raise RefusedAddressError("a cloud's metadata address")
    found: list[SocketAddress] = [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for info in found:
        reason = refusal(str(info[4][0]))
        if reason is not None:
            raise RefusedAddressError(reason)
    return found


class _Target(msgspec.Struct, frozen=True):
    """A URL taken apart, ready to be asked."""

    host: str
    port: int
    tls: bool
    path: str
    authorization: str | None


def _target(url: str) -> _Target:
    """`url` taken apart.

    Raises:
        RefusedAddressError: it is none that may be asked; the text repeats nothing of it.
    """
    try:
        parts = urlsplit(url)
        tls, host, port = parts.scheme == "https", parts.hostname, parts.port
    except ValueError:  # its text would repeat what may be a part of the password
        raise RefusedAddressError("not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise RefusedAddressError("only http:// and https:// URLs are asked")
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_TARGET_SAFE)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return _Target(host, port or (443 if tls else 80), tls, path, authorization)


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
        except http.client.HTTPException as error:  # its text repeats what was received, which may be what was sent
            text = f"{type(error).__name__}: no valid HTTP answer"
            return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=text)
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
        target = _target(self._url)
        deadline_s = time.monotonic() + self._timeout_s
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _shut(self._socket)

        timer = threading.Timer(self._timeout_s, expire)  # a socket's own time-out starts anew with every byte
        timer.daemon = True
        timer.name = "stx-check-deadline"
        timer.start()
        try:
            self._connect(target, deadline_s)
            status = self._ask(target, deadline_s)
            _remaining_s(deadline_s)  # http.client takes a head that was cut off for a whole one
            return status
        except (OSError, http.client.HTTPException):
            if expired.is_set() or time.monotonic() >= deadline_s:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            _shut(self._socket)
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _connect(self, target: _Target, deadline_s: float) -> None:
        """Connect to the very address that was looked at, whatever the name resolves to a moment later."""
        last: OSError | None = None
        for family, kind, protocol, _, address in permitted_addresses(target.host, target.port):
            sock = self._socket = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_remaining_s(deadline_s))
                sock.connect(address)
                if target.tls:
                    self._secure(sock, target.host, deadline_s)
                return
            except OSError as error:
                sock.close()
                last = error
                if isinstance(error, (ssl.SSLError, TimeoutError)):
                    break
        raise last or OSError("the name has no address")

    def _secure(self, sock: socket.socket, host: str, deadline_s: float) -> None:
        context = ssl.create_default_context()
        secured = self._socket = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        secured.settimeout(_remaining_s(deadline_s))
        secured.do_handshake()

    def _ask(self, target: _Target, deadline_s: float) -> int:
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.default_port = 443 if target.tls else 80
        assert self._socket is not None
        connection.sock = self._socket
        connection.sock.settimeout(_remaining_s(deadline_s))
        connection.request("GET", target.path, headers=_headers(target))
        with connection.getresponse() as response:  # its head; the body is left unread
            return response.status


def _remaining_s(deadline_s: float) -> float:
    """What is left until the deadline; asked after a socket is stored, so that the timer sees it or this raises."""
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s


def _headers(target: _Target) -> dict[str, str]:
    headers = {"User-Agent": "streamlit-extension-health", "Connection": "close", "Accept": "*/*"}
    return headers if target.authorization is None else {**headers, "Authorization": target.authorization}


def _shut(sock: Any) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
