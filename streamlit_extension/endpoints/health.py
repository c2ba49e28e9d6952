"""HTTP translation of health: paths to answers, and nothing else.

The answers come from a snapshot that the scheduler's results replace; a request reads it and costs no query. Each
answer is rendered once and served again until the snapshot changes or it would no longer be right.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.routing import Mount

from streamlit_extension.endpoints.entitlement import Entitlement
from streamlit_extension.health import report
from streamlit_extension.health.checker import ComponentChecker
from streamlit_extension.health.model import HealthResponse, HealthStatus
from streamlit_extension.health.service import HealthService

__all__ = ["ComponentChecker", "HealthCheckEndpoint", "HealthResponse", "HealthRoutes", "HealthStatus", "health_paths"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: What every answer carries besides its length. No cookie ever.
_HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_COMPONENT_PREFIX = "/health/detailed/"


class HealthCheckEndpoint:
    """Answers about health without HTTP: each method is synchronous and returns a `HealthResponse`.

    Arguments:
        service: whose snapshot is read; by default one of its own with the checks that need no configuration, started
            at the first question.
    """

    def __init__(self, *, service: HealthService | None = None) -> None:
        self.service = service or standalone_service()

    def basic_health(self) -> HealthResponse:
        """`/health`: status, timestamp, uptime and version; 200 when healthy or degraded, else 503."""
        return self.render("basic").response

    def detailed_health(self, *, entitled: bool = True) -> HealthResponse:
        """`/health/detailed`: every component; `status` and `timestamp` alone when the caller is not `entitled`."""
        return self.render("detailed", entitled).response

    def component_health(self, name: str, *, entitled: bool = True) -> HealthResponse:
        """`/health/detailed/{component}`: that component's object, 404 for an unknown one."""
        return self.render("component", entitled, name).response

    def readiness_check(self) -> HealthResponse:
        """`/health/ready`: 200 if requests should come here, else 503."""
        return self.render("ready").response

    def liveness_check(self) -> HealthResponse:
        """`/health/live`: 200 if alive, 503 if a restart would help."""
        return self.render("live").response

    def startup_check(self) -> HealthResponse:
        """`/health/startup`: 503 until the start and the first run of every critical check are done."""
        return self.render("startup").response

    def render(self, kind: str, entitled: bool = True, component: str = "") -> report.Rendered:
        """The answer of one kind now, and for how many seconds it stays right while the snapshot is the same."""
        now_s, wall = time.monotonic(), datetime.now(UTC)
        snapshot = self.service.snapshot
        match kind:
            case "detailed":
                return report.detailed(snapshot, now_s, wall, entitled=entitled)
            case "component":
                return report.component(snapshot, now_s, wall, component, entitled=entitled)
            case "live":
                return report.live(snapshot, now_s, wall, self.service.liveness_problem())
            case _:
                return _PLAIN[kind](snapshot, now_s, wall)


def standalone_service() -> HealthService:
    """A service with the checks that need no application, and no thread of its own until it is started."""
    from streamlit_extension.health.wiring import register_checks
    from streamlit_extension.settings import Settings

    settings = Settings.load()
    service = HealthService(version=settings.service_version, shared_failure=settings.health.shared_failure)
    register_checks(service, settings)
    return service


_PLAIN: Mapping[str, Callable[..., report.Rendered]] = {
    "basic": report.basic,
    "ready": report.ready,
    "startup": report.startup,
}


def health_paths(prefixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Every exact path and the kind of answer it gives, for each prefix (`path_prefix`, `server.baseUrlPath`)."""
    kinds = {"": "basic", "/detailed": "detailed", "/ready": "ready", "/live": "live", "/startup": "startup"}
    return {
        f"{prefix}/health{path}{slash}": kind for prefix in prefixes for path, kind in kinds.items() for slash in ("", "/")
    }


@dataclass(slots=True)
class _Prepared:
    """An answer as the two messages that a server wants, and until when it may be given."""

    start: Message
    body: Message
    snapshot: object
    valid_until_s: float


class Next(Protocol):
    """The application behind the probes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(slots=True)
class HealthRoutes:
    """ASGI: answers the health paths, hands everything else on.

    Arguments:
        endpoint: gives the answers.
        entitlement: decides who sees details.
        prefixes: path prefixes under which the paths are answered.
        details: whether this port answers `/health/detailed`; False once a management port does (404 here).
    """

    endpoint: HealthCheckEndpoint
    entitlement: Entitlement
    prefixes: tuple[str, ...] = ("",)
    details: bool = True
    _paths: dict[str, str] = field(init=False)
    _prepared: dict[tuple[str, bool], _Prepared] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.set_prefixes(self.prefixes)

    def set_prefixes(self, prefixes: tuple[str, ...]) -> None:
        """Answer below these prefixes from now on."""
        self.prefixes = prefixes
        self._paths = health_paths(prefixes)

    def kind_of(self, path: str, root_path: str = "") -> str | None:
        """The kind of answer for `path` (`basic`, …, `component`, `unknown`), or None when it is not about health."""
        kind = self._paths.get(path)
        if kind is not None:
            return kind
        if root_path and path.startswith(root_path):
            return self.kind_of(path[len(root_path) :] or "/")
        for prefix in self.prefixes:
            if path.startswith(f"{prefix}/health/"):
                return "component" if path.startswith(prefix + _COMPONENT_PREFIX) else "unknown"
        return None

    async def answer(self, kind: str, scope: Scope, send: Send) -> None:
        """Send the answer of that kind."""
        method = scope["method"]
        if method != "GET" and method != "HEAD":
            return await _send(send, 405, {"error": "method not allowed, use GET or HEAD"}, method, ((b"allow", b"GET, HEAD"),))
        if kind == "unknown" or (not self.details and kind in ("detailed", "component")):
            return await _send(send, 404, {"error": "not found"}, method)
        entitled = kind in ("detailed", "component") and self.entitlement.for_health_details(scope)
        if kind == "component":
            name = scope["path"].partition(_COMPONENT_PREFIX)[2].removesuffix("/")
            response = self.endpoint.component_health(name, entitled=entitled)
            return await _send(send, response.status_code, response.body, method)
        prepared = self._prepared.get((kind, entitled))
        if (
            prepared is None
            or prepared.snapshot is not self.endpoint.service.snapshot
            or time.monotonic() >= prepared.valid_until_s
        ):
            prepared = self._prepare(kind, entitled)
        await send(prepared.start)
        await send(prepared.body if method == "GET" else _NO_BODY)

    def _prepare(self, kind: str, entitled: bool) -> _Prepared:
        snapshot = self.endpoint.service.snapshot
        now_s = time.monotonic()
        rendered = self.endpoint.render(kind, entitled)
        start, body = _messages(rendered.response.status_code, rendered.response.body)
        prepared = _Prepared(start, body, snapshot, now_s + rendered.valid_for_s)
        self._prepared[kind, entitled] = prepared
        return prepared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the paths alone; anything else is 404."""
        if scope["type"] != "http":
            return
        kind = self.kind_of(scope["path"], scope.get("root_path", ""))
        await self.answer(kind or "unknown", scope, send)


_NO_BODY: Message = {"type": "http.response.body", "body": b""}


def _messages(status: int, body: Mapping[str, Any], extra: tuple[tuple[bytes, bytes], ...] = ()) -> tuple[Message, Message]:
    payload = msgspec.json.encode(body)
    headers = [*_HEADERS, *extra, (b"content-length", str(len(payload)).encode())]
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": payload},
    )


async def _send(
    send: Send, status: int, body: Mapping[str, Any], method: str, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    start, content = _messages(status, body, extra)
    await send(start)
    await send(_NO_BODY if method == "HEAD" else content)
