"""Which proxy an endpoint is reached through, by the variables that most programs read."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_of(environ: Mapping[str, str], endpoint: str) -> str | None:
    """The proxy's URL for an endpoint of HTTP, None where it is reached directly.

    `https_proxy`, `http_proxy` by the endpoint's scheme, else `all_proxy`, each in lower case before upper case;
    `no_proxy` lists hosts, domains with all below them, addresses, networks, `*` for all, each with a port or without.
    This machine itself is never reached through a proxy. `HTTP_PROXY` is not read below a CGI server, where a request's
    header of that name sets it (https://httpoxy.org).
    """
    address = urlsplit(endpoint)
    host = (address.hostname or "").rstrip(".")
    names = [f"{address.scheme}_proxy", "all_proxy"]
    found = next((value for name in names if (value := _value(environ, name))), "")
    if not found or not host or _is_this_machine(host):
        return None
    port = address.port or (443 if address.scheme == "https" else 80)
    if any(_matches(host, port, each.strip().lower()) for each in _value(environ, "no_proxy").split(",")):
        return None
    return found if "://" in found else f"http://{found}"


def _value(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if value or (name == "http_proxy" and "REQUEST_METHOD" in environ):
        return value
    return environ.get(name.upper(), "").strip()


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _matches(host: str, port: int, entry: str) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, mark, number = entry.rpartition(":")
    if mark and number.isdigit() and (name.count(":") == 0 or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    if address is not None:
        return _address(entry.strip("[]")) == address
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
