"""Who may see details: the holder of the token, or a person at the machine itself."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

#: Headers that a proxy, a load balancer or a delivery network adds; a request with one of them comes from elsewhere
#: whatever its peer address says.
FORWARDING_HEADERS = frozenset(
    (
        b"forwarded",
        b"forwarded-for",
        b"via",
        b"cdn-loop",
        b"client-ip",
        b"proxy-client-ip",
        b"wl-proxy-client-ip",
        b"true-client-ip",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-proxyuser-ip",
        b"x-remote-addr",
        b"x-remote-ip",
        b"x-host",
        b"x-scheme",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"x-nf-client-connection-ip",
    )
)
#: The same, by how their names begin: the standard families, then those of Envoy, IIS, and the clouds.
FORWARDING_PREFIXES = (
    *(b"x-forwarded", b"x-original-", b"x-proxy-", b"x-envoy-", b"x-arr-", b"x-azure-", b"x-appengine-"),
    *(b"cf-", b"cloudfront-", b"x-amz-cf-", b"fastly-", b"fly-", b"x-vercel-", b"akamai-", b"x-akamai-"),
)


class Audience(StrEnum):
    """The setting `health_details`: to whom `/health/detailed` tells details."""

    AUTO = "auto"
    ALWAYS = "always"
    TOKEN = "token"
    NEVER = "never"


@lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    """Whether `address` (without a port) is a loopback address; a name or nonsense is not."""
    try:
        return _ip(address).is_loopback
    except ValueError:
        return False


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


@lru_cache(maxsize=1024)
def is_loopback_host(host: str) -> bool:
    """Whether a Host header (`localhost:8501`, `[::1]:8501`, `127.0.0.1`) names this machine by a loopback name."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if bracket else "x"
    else:
        name, _, port = host.partition(":")
    if port and not port.isdecimal():
        return False
    name = name.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


@lru_cache(maxsize=1024)
def is_forwarding(name: bytes) -> bool:
    """Whether a header of this name (in lower case) says that somebody has passed the request on."""
    name = name.replace(b"_", b"-")  # some proxies write x_forwarded_for
    return name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIXES)


class Entitlement(msgspec.Struct, frozen=True):
    """Decides for one port who is entitled.

    Arguments:
        token: gives the current token, or None when there is none (a token file may change while we run).
        listens_on_loopback: whether that port is bound to loopback addresses alone; None when it can't be told, which
            counts as no.
        audience: the setting `health_details`.
    """

    token: Callable[[], str | None]
    listens_on_loopback: Callable[[], bool | None]
    audience: Audience = Audience.AUTO

    def for_health_details(self, scope: Mapping[str, Any]) -> bool:
        """Whether the caller may see `/health/detailed` in full."""
        if self.audience is Audience.ALWAYS:
            return True
        return self.audience is not Audience.NEVER and self.for_operators(scope)

    def for_operators(self, scope: Mapping[str, Any]) -> bool:
        """Whether the caller may see what only operators see: by token, or by sitting at the machine."""
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        host: list[bytes] = []
        for name, value in headers:
            if name == b"authorization":
                return self._has_token(value)
            if name == b"host":
                host.append(value)
            elif is_forwarding(name) or (name == b"sec-fetch-site" and b"cross-site" in value.lower()):
                return self._token_in(headers)
        if self.audience is Audience.TOKEN:
            return False
        return self._is_local(scope.get("client"), host)

    def _token_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        return any(name == b"authorization" and self._has_token(value) for name, value in headers)

    def _has_token(self, authorization: bytes) -> bool:
        scheme, _, given = authorization.partition(b" ")
        expected = self.token()
        return bool(
            expected and scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), expected.encode("utf-8"))
        )

    def _is_local(self, peer: Any, host: list[bytes]) -> bool:
        return (
            bool(peer)
            and len(host) == 1
            and is_loopback(str(peer[0]))
            and is_loopback_host(host[0].decode("latin-1"))
            and self.listens_on_loopback() is True
        )
