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

from otel.scrape import Scraper
from streamlit_extension.endpoints.entitlement import Entitlement
from streamlit_extension.endpoints.metrics import MetricsRoute
from streamlit_extension.health import report
from streamlit_extension.health.checker import ComponentChecker
from streamlit_extension.health.default import DEFAULT_SERVICE
from streamlit_extension.health.model import HealthResponse, HealthStatus
from streamlit_extension.health.service import HealthService

__all__ = ["ComponentChecker", "HealthCheckEndpoint", "HealthResponse", "HealthRoutes", "HealthStatus", "health_paths"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: What every answer carries besides its length. No cookie ever.
_HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_COMPONENT_PREFIX = "/health/detailed/"


class HealthCheckEndpoint:
    """Answers about health without HTTP: each method is synchronous and returns a `HealthResponse`.

    Arguments:
        service: whose snapshot is read; by default that of the application that serves in this process, else one with
            the checks that need no configuration, which all endpoints share and the first question starts.
    """

    def __init__(self, *, service: HealthService | None = None) -> None:
        self._given = service
        self._unstarted = service is None
        _ = self.service  # a setting that is not allowed is told here

    @property
    def service(self) -> HealthService:
        """Whose snapshot is read."""
        return DEFAULT_SERVICE.get() if self._given is None else self._given

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
        service = self.service
        if self._unstarted:
            self._unstarted = False
            DEFAULT_SERVICE.start()
        now_s, wall = time.monotonic(), datetime.now(UTC)
        snapshot = service.snapshot
        match kind:
            case "detailed":
                return report.detailed(snapshot, now_s, wall, entitled=entitled)
            case "component":
                return report.component(snapshot, now_s, wall, component, entitled=entitled)
            case "live":
                return report.live(snapshot, now_s, wall, service.liveness_problem())
            case _:
                return _PLAIN[kind](snapshot, now_s, wall)


_PLAIN: Mapping[str, Callable[..., report.Rendered]] = {
    "basic": report.basic,
    "ready": report.ready,
    "startup": report.startup,
}


def health_paths(prefixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Every exact path and the kind of answer it gives, for each prefix (`path_prefix`, `server.baseUrlPath`)."""
    kinds = {"": "basic", "/detailed": "detailed", "/ready": "ready", "/live": "live", "/startup": "startup"}
    return {
        f"{prefix}/health{path}{slash}": kind
        for prefix in prefixes
        for path, kind in kinds.items()
        for slash in ("", "/")
    }


class _Slot(msgspec.Struct):
    """The answer of one path as the two messages that a server wants, and until when it may be given."""

    kind: str
    start: Message = msgspec.field(default_factory=dict)
    body: Message = msgspec.field(default_factory=dict)
    snapshot: object = None
    valid_until_s: float = 0.0


class Next(Protocol):
    """The application behind the probes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


_GUARDED = frozenset({"detailed", "component"})


@dataclass(slots=True)
class HealthRoutes:
    """ASGI: answers the health paths.

    Arguments:
        endpoint: gives the answers.
        entitlement: decides who sees details.
        prefixes: path prefixes under which the paths are answered.
        details: whether this port answers `/health/detailed` and `/metrics`; False once a management port does (404
            here).
        scraper: writes what `/metrics` answers; None where that path is none of ours.
    """

    endpoint: HealthCheckEndpoint
    entitlement: Entitlement
    prefixes: tuple[str, ...] = ("",)
    details: bool = True
    scraper: Scraper | None = None
    _metrics: MetricsRoute | None = field(init=False, default=None)
    _slots: dict[str, _Slot] = field(init=False, default_factory=dict)
    _entitled_slots: dict[str, _Slot] = field(init=False, default_factory=dict)
    _service: HealthService = field(init=False)

    def __post_init__(self) -> None:
        self._service = self.endpoint.service
        if self.scraper is not None:
            self._metrics = MetricsRoute(self.scraper, self.entitlement, self.prefixes, self.details)
        self.set_prefixes(self.prefixes)

    def for_port(self, entitlement: Entitlement) -> HealthRoutes:
        """The same answers with details, for a port that has an entitlement of its own."""
        return HealthRoutes(self.endpoint, entitlement, prefixes=self.prefixes, scraper=self.scraper)

    def set_prefixes(self, prefixes: tuple[str, ...]) -> None:
        """Answer below these prefixes from now on."""
        self.prefixes = prefixes
        paths = health_paths(prefixes)
        self._slots = {path: _Slot(kind) for path, kind in paths.items()}
        self._entitled_slots = {path: _Slot(kind) for path, kind in paths.items() if kind in _GUARDED}
        if self._metrics is not None:
            self._metrics.set_prefixes(prefixes)

    async def handle(self, scope: Scope, send: Send) -> bool:
        """Answer an `http` scope if it is about health; says whether it was."""
        path = scope["path"]
        slot = self._slots.get(path)
        if slot is None:
            return await self._handle_other(path, scope, send)
        if slot.kind == "detailed":
            if not self.details:
                await _send(send, 404, _NOT_FOUND, scope["method"])
                return True
            if self.entitlement.for_health_details(scope):
                slot = self._entitled_slots[path]
        if slot.snapshot is not self._service.snapshot or time.monotonic() >= slot.valid_until_s:
            self._fill(slot, entitled=slot is not self._slots[path])
        method = scope["method"]
        if method == "GET":
            await send(slot.start)
            await send(slot.body)
        elif method == "HEAD":
            await send(slot.start)
            await send(_NO_BODY)
        else:
            await _refuse_method(send, method)
        return True

    async def _handle_other(self, path: str, scope: Scope, send: Send) -> bool:
        """The scrape, paths below `/health/` that are none of the fixed ones, and those of an application mounted."""
        if self._metrics is not None and await self._metrics.handle(scope, send):
            return True
        root_path = scope.get("root_path", "")
        if root_path and path.startswith(root_path + "/") and not path.startswith("/health/"):
            return await self.handle({**scope, "path": path[len(root_path) :], "root_path": ""}, send)
        prefix = next((each for each in self.prefixes if path.startswith(f"{each}/health/")), None)
        if prefix is None:
            return False
        method = scope["method"]
        name = path.removeprefix(prefix + _COMPONENT_PREFIX)
        if method not in ("GET", "HEAD"):
            await _refuse_method(send, method)
        elif name == path or not self.details:
            await _send(send, 404, _NOT_FOUND, method)
        else:
            entitled = self.entitlement.for_health_details(scope)
            response = self.endpoint.component_health(name.removesuffix("/"), entitled=entitled)
            await _send(send, response.status_code, response.body, method)
        return True

    def _fill(self, slot: _Slot, entitled: bool) -> None:
        snapshot = self._service.snapshot
        now_s = time.monotonic()
        rendered = self.endpoint.render(slot.kind, entitled)
        slot.start, slot.body = _messages(rendered.response.status_code, rendered.response.body)
        slot.snapshot, slot.valid_until_s = snapshot, now_s + rendered.valid_for_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the paths alone; anything else is 404."""
        if scope["type"] == "http" and not await self.handle(scope, send):
            await _send(send, 404, _NOT_FOUND, scope["method"])


_NO_BODY: Message = {"type": "http.response.body", "body": b""}
_NOT_FOUND = {"error": "not found"}


def _messages(
    status: int, body: Mapping[str, Any], extra: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[Message, Message]:
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


async def _refuse_method(send: Send, method: str) -> None:
    await _send(send, 405, {"error": "method not allowed, use GET or HEAD"}, method, ((b"allow", b"GET, HEAD"),))


def __getattr__(name: str) -> Any:
    """`app` is made when it is first asked for (`uvicorn streamlit_extension.endpoints.health:app`)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from streamlit_extension.endpoints.standalone import create_health_app

    made = globals()["app"] = create_health_app()
    return made
