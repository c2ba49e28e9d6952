"""HTTP translation of a scrape: who may, in which format, within which time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from otel.scrape import Format, Scraper, format_for
from streamlit_extension.endpoints.entitlement import Entitlement

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Prometheus's default limit of a scrape, in seconds, and what is kept of the limit it tells for the way back.
TIMEOUT_S: Final = 10.0
MARGIN_S: Final = 0.5
_NO_STORE: Final = (b"cache-control", b"no-store")
_JSON: Final = (b"content-type", b"application/json")


def metrics_paths(prefixes: tuple[str, ...] = ("",)) -> frozenset[str]:
    """Every path of the scrape, for each prefix (`path_prefix`, `server.baseUrlPath`)."""
    return frozenset(f"{prefix}/metrics{slash}" for prefix in prefixes for slash in ("", "/"))


@dataclass(slots=True)
class MetricsRoute:
    """Answers `/metrics`.

    Arguments:
        scraper: writes the metrics, on a thread of its own.
        entitlement: decides who may read them.
        prefixes: path prefixes under which it is answered.
        here: whether this port answers; False once a management port does (404 here).
    """

    scraper: Scraper
    entitlement: Entitlement
    prefixes: tuple[str, ...] = ("",)
    here: bool = True
    _paths: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.set_prefixes(self.prefixes)

    def set_prefixes(self, prefixes: tuple[str, ...]) -> None:
        """Answer below these prefixes from now on."""
        self.prefixes = prefixes
        self._paths = metrics_paths(prefixes)

    async def handle(self, scope: Scope, send: Send) -> bool:
        """Answer an `http` scope if it is a scrape; says whether it was."""
        if scope["path"] not in self._paths:
            return False
        method = scope["method"]
        if not self.here:
            await _refuse(send, method, 404, "not found")
        elif method not in ("GET", "HEAD"):
            await _refuse(send, method, 405, "method not allowed, use GET or HEAD", (b"allow", b"GET, HEAD"))
        elif not self.entitlement.for_operators(scope):
            await _refuse(send, method, 401, "the token is needed", (b"www-authenticate", b"Bearer"))
        else:
            await self._answer(scope, send)
        return True

    async def _answer(self, scope: Scope, send: Send) -> None:
        headers = _headers(scope)
        form = format_for(headers.get(b"accept", ""))
        future = asyncio.wrap_future(self.scraper.submit(form))
        done, _ = await asyncio.wait([future], timeout=_timeout_s(headers))
        if not done:
            future.cancel()  # this caller's wait alone
            await _refuse(send, scope["method"], 503, "the metrics could not be collected in time")
        elif future.exception() is not None:
            await _refuse(send, scope["method"], 500, "the metrics could not be collected")
        else:
            await _tell(send, scope["method"], future.result(), form)


def _headers(scope: Scope) -> Mapping[bytes, str]:
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _timeout_s(headers: Mapping[bytes, str]) -> float:
    try:
        told_s = float(headers[b"x-prometheus-scrape-timeout-seconds"])
    except (KeyError, ValueError):
        return TIMEOUT_S
    return max(MARGIN_S, min(TIMEOUT_S, told_s - MARGIN_S)) if told_s > 0 else TIMEOUT_S


async def _tell(send: Send, method: str, body: bytes, form: Format) -> None:
    headers = [(b"content-type", form.encode()), _NO_STORE, (b"vary", b"accept")]
    await _send(send, method, 200, headers, body)


async def _refuse(send: Send, method: str, status: int, why: str, *extra: tuple[bytes, bytes]) -> None:
    await _send(send, method, status, [_JSON, _NO_STORE, *extra], msgspec.json.encode({"error": why}))


async def _send(send: Send, method: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
