"""The application's own routes are told, each once; nothing else is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
import streamlit as st
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from otel.guard import REDACTED
from otel.instrumentation.asgi import MAX_ROUTES, HttpTelemetry
from otel.instrumentation.asgi_others import is_traced_inside
from tests.otel.instrumentation.telemetry import Telemetry, whole

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    kept = Telemetry()
    yield kept
    kept.close()


async def item(request: Request) -> JSONResponse:
    seen: list[int] = []
    current = trace.get_current_span().get_span_context().span_id
    await asyncio.to_thread(lambda: seen.append(trace.get_current_span().get_span_context().span_id))
    return JSONResponse({"span": format(current, "016x"), "thread": format(seen[0], "016x")})


async def fail(_request: Request) -> JSONResponse:
    raise ValueError("broken")


async def unavailable(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("later", 503)


ROUTES = [
    Route("/api/items/{item_id}", item),
    Route("/api/fail", fail),
    Route("/api/unavailable", unavailable),
    Route("/reset/{token}", item),
    Mount("/tenants/{tenant}", routes=[Route("/users/{user}", item)]),
]


def asking(app: Any, telemetry: Telemetry, **options: Any) -> httpx.AsyncClient:
    wrapped = HttpTelemetry(app, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters, **options)
    transport = httpx.ASGITransport(wrapped, raise_app_exceptions=False, client=("10.1.2.3", 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://shop.example:8501", headers={"user-agent": "tests"})


def expected(name: str, path: str, route: str | None, code: int | None = 200, **more: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "http.request.method": name.split(maxsplit=1)[0],
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "url.path": path,
        "client.address": "10.1.2.3",
        "user_agent.original": "tests",
        "server.address": "shop.example",
        "server.port": 8501,
    }
    if route is not None:
        attributes["http.route"] = route
    if code is not None:
        attributes["http.response.status_code"] = code
    rest: dict[str, Any] = {key: more.pop(key) for key in ("status", "events", "links", "kind") if key in more}
    return {
        "name": name,
        "kind": "SERVER",
        "status": "UNSET",
        "description": None,
        "events": [],
        "links": 0,
        **rest,
        "attributes": {**attributes, **more.get("attributes", {})},
    }


async def test_a_request_to_an_own_route_is_one_span_and_one_duration(telemetry: Telemetry) -> None:
    """The whole span and the whole point are as the semantic conventions say, and the span is current in the route."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        answer = (await client.get("/api/items/42")).json()
    (span,) = telemetry.spans
    assert whole(span) == expected("GET /api/items/{item_id}", "/api/items/42", "/api/items/{item_id}")
    assert span.context is not None
    assert answer == {"span": format(span.context.span_id, "016x"), "thread": format(span.context.span_id, "016x")}
    assert telemetry.points() == {
        "http.server.request.duration": [
            (
                {
                    "http.request.method": "GET",
                    "url.scheme": "http",
                    "network.protocol.version": "1.1",
                    "http.response.status_code": 200,
                    "http.route": "/api/items/{item_id}",
                },
                1,
            )
        ]
    }
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_query_keeps_its_names_and_a_path_loses_its_secret(telemetry: Telemetry) -> None:
    """No value of a query leaves, nor what a sensitive part of a path holds."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        await client.get("/reset/very-secret-value?token=abc&page=2&bare")
    attributes = telemetry.spans[0].attributes or {}
    assert attributes["url.query"] == f"token={REDACTED}&page={REDACTED}&{REDACTED}"
    assert attributes["url.path"] == f"/reset/{REDACTED}"
    assert "secret-value" not in repr(whole(telemetry.spans[0]))


async def test_a_mounted_routes_template_holds_no_value(telemetry: Telemetry) -> None:
    """A route below a mount is told with both templates."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        await client.get("/tenants/acme/users/7")
    assert whole(telemetry.spans[0]) == expected(
        "GET /tenants/{tenant}/users/{user}", "/tenants/acme/users/7", "/tenants/{tenant}/users/{user}"
    )


async def test_an_exception_is_recorded_once_and_goes_on(telemetry: Telemetry) -> None:
    """The server sees the route's exception, and the span has it once."""
    wrapped = HttpTelemetry(
        Starlette(routes=ROUTES), tracer_provider=telemetry.tracers, meter_provider=telemetry.meters
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://x") as client:
        with pytest.raises(ValueError, match="broken"):
            await client.get("/api/fail")
    (span,) = telemetry.spans
    found = whole(span)
    assert (found["status"], found["events"]) == ("ERROR", ["exception"])
    assert found["attributes"]["error.type"] == "ValueError"
    assert found["attributes"]["http.response.status_code"] == 500


async def test_a_status_of_500_and_above_is_an_error_and_404_is_none(telemetry: Telemetry) -> None:
    """What the server could not do is an error; what the caller asked wrongly is not."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        await client.get("/api/unavailable")
        await client.get("/nowhere")
        await client.head("/api/items/1")
        await client.post("/api/items/1")
    assert [whole(span) for span in telemetry.spans] == [
        expected(
            "GET /api/unavailable",
            "/api/unavailable",
            "/api/unavailable",
            503,
            status="ERROR",
            attributes={"error.type": "503"},
        ),
        expected("GET", "/nowhere", None, 404),
        expected("HEAD /api/items/{item_id}", "/api/items/1", "/api/items/{item_id}"),
        expected("POST /api/items/{item_id}", "/api/items/1", "/api/items/{item_id}", 405),
    ]


async def test_an_unknown_method_is_told_as_other(telemetry: Telemetry) -> None:
    """A method that a stranger makes up is no name of a span and no value of the metric."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        await client.request("BREW", "/api/items/1")
    span = whole(telemetry.spans[0])
    assert span["name"] == "HTTP /api/items/{item_id}"
    assert span["attributes"]["http.request.method"] == "_OTHER"
    assert span["attributes"]["http.request.method_original"] == "BREW"
    assert telemetry.points()["http.server.request.duration"][0][0]["http.request.method"] == "_OTHER"


async def test_a_callers_trace_is_linked_and_not_adopted(telemetry: Telemetry) -> None:
    """A stranger's `traceparent` neither decides the trace id nor whether the trace is sampled."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        await client.get("/api/items/1", headers={"traceparent": PARENT})
        await client.get("/api/items/1", headers={"traceparent": "nonsense"})
    linked, plain = telemetry.spans
    assert linked.parent is None
    assert [format(link.context.trace_id, "032x") for link in linked.links] == ["0af7651916cd43dd8448eb211c80319c"]
    assert linked.context is not None
    assert format(linked.context.trace_id, "032x") != "0af7651916cd43dd8448eb211c80319c"
    assert list(plain.links) == []


async def test_a_trusted_callers_trace_is_continued(telemetry: Telemetry) -> None:
    """With `trust_inbound_context` the request is a child of the caller's span."""
    async with asking(Starlette(routes=ROUTES), telemetry, trust_inbound_context=True) as client:
        await client.get("/api/items/1", headers={"traceparent": PARENT})
    (span,) = telemetry.spans
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
    assert list(span.links) == []


async def test_a_streamed_body_is_measured_to_its_end_and_not_what_follows(telemetry: Telemetry) -> None:
    """The span ends with the last byte: later than the first, earlier than a background task."""
    released, marks = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    async def body() -> Any:
        yield b"first"
        await released.wait()
        yield b"last"

    async def after() -> None:
        marks.append(__import__("time").time_ns())

    async def stream(_request: Request) -> StreamingResponse:
        loop.call_later(0.05, released.set)
        return StreamingResponse(body(), background=BackgroundTask(after))

    async with asking(Starlette(routes=[Route("/stream", stream)]), telemetry) as client:
        assert (await client.get("/stream")).text == "firstlast"
    (span,) = telemetry.spans
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 45_000_000
    assert span.end_time <= marks[0]


async def test_a_client_that_goes_away_ends_its_span(telemetry: Telemetry) -> None:
    """A cancelled request is told once, without a status that was never sent."""
    waiting = asyncio.Event()

    async def hang(_request: Request) -> PlainTextResponse:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asking(Starlette(routes=[Route("/hang", hang)]), telemetry) as client:
        task = asyncio.create_task(client.get("/hang"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [whole(span) for span in telemetry.spans] == [expected("GET /hang", "/hang", "/hang", None)]


async def test_streamlits_own_paths_and_files_make_nothing(telemetry: Telemetry, tmp_path: Path) -> None:
    """Pages, assets, probes and files are no routes of the application's; its own routes beside them are told."""
    (tmp_path / "app.py").write_text("import streamlit as st\nst.write('x')\n")
    (tmp_path / "file.txt").write_text("x")
    app = st.App(tmp_path / "app.py", routes=[*ROUTES, Mount("/files", StaticFiles(directory=tmp_path))])
    passed: list[str] = []

    class Passing:
        """Stands where Streamlit's router would: what matters is what is told before it is reached."""

        _user_routes = app._user_routes

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            passed.append(scope["path"])
            await PlainTextResponse("ok")(scope, receive, send)

    paths = ["/", "/page", "/_stcore/health", "/_stcore/host-config", "/static/js/x.js", "/media/1.png", "/index.html"]
    async with asking(Passing(), telemetry) as client:
        for path in [*paths, "/component/x", "/files/file.txt", "/api/items/1"]:
            await client.get(path)
    assert [span.name for span in telemetry.spans] == ["GET /api/items/{item_id}"]
    assert len(passed) == 10


async def test_fastapi_with_streamlit_mounted(telemetry: Telemetry, tmp_path: Path) -> None:
    """FastAPI's own routes are told, those of its routers with their prefix; the mounted Streamlit's are not."""
    (tmp_path / "app.py").write_text("import streamlit as st\n")
    outer = fastapi.FastAPI()
    router = fastapi.APIRouter(prefix="/v1")

    @router.get("/clients/{client_id}")
    async def client_of(client_id: int) -> dict[str, int]:
        return {"id": client_id}

    @outer.get("/plain")
    def plain() -> str:
        return format(trace.get_current_span().get_span_context().span_id, "016x")

    outer.include_router(router, prefix="/api")
    outer.mount("/dashboard", st.App(tmp_path / "app.py", routes=[Route("/hook/{name}", item)]))
    async with asking(CORSMiddleware(outer), telemetry) as client:
        assert (await client.get("/api/v1/clients/7")).json() == {"id": 7}
        span_id = (await client.get("/plain")).json()
        assert (await client.get("/api/v1/clients/x")).status_code == 422
        assert (await client.get("/nowhere")).status_code == 404
    assert [span.name for span in telemetry.spans] == [
        "GET /api/v1/clients/{client_id}",
        "GET /plain",
        "GET /api/v1/clients/{client_id}",
        "GET",
    ]
    assert telemetry.spans[1].context is not None
    assert span_id == format(telemetry.spans[1].context.span_id, "016x")
    from otel.instrumentation.asgi_routes import find_route

    base = {"type": "http", "method": "GET", "root_path": "", "headers": []}
    assert find_route(outer, {**base, "path": "/dashboard/"}) is None
    assert find_route(outer, {**base, "path": "/dashboard/_stcore/health"}) is None
    own = find_route(outer, {**base, "path": "/dashboard/hook/x"})
    assert own is not None
    assert own.template == "/dashboard/hook/{name}"


async def test_made_up_routes_do_not_make_series_without_end(telemetry: Telemetry) -> None:
    """An application that makes a route for everything keeps its spans' routes, and the metric a bounded number."""
    routes = [Route(f"/r{number}", unavailable) for number in range(MAX_ROUTES + 5)]
    async with asking(Starlette(routes=routes), telemetry) as client:
        for number in range(MAX_ROUTES + 5):
            await client.get(f"/r{number}")
    points = telemetry.points()["http.server.request.duration"]
    assert len({point[0].get("http.route") for point in points}) == MAX_ROUTES + 1
    assert telemetry.spans[-1].name == f"GET /r{MAX_ROUTES + 4}"


async def test_websockets_and_lifespan_pass_untouched(telemetry: Telemetry) -> None:
    """Frames make nothing, and a context of ours is in nothing that a WebSocket starts."""
    seen: list[tuple[str, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        valid = trace.get_current_span().get_span_context().is_valid
        thread = threading.Thread(target=lambda: seen.append((scope["type"], valid)))
        thread.start()
        thread.join()

    app.routes = ROUTES  # type: ignore[attr-defined]
    wrapped = HttpTelemetry(app, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)

    async def nothing(*_: Any) -> Any:
        return {}

    for kind in ("websocket", "lifespan"):
        await wrapped({"type": kind, "path": "/api/fail", "headers": []}, nothing, nothing)
    assert seen == [("websocket", False), ("lifespan", False)]
    assert telemetry.spans == []


# -- somebody else traces the requests too --------------------------------------------------------------------------


class OpenTelemetryMiddleware:
    """Stands where the contributed instrumentation stands: a server's span of its own scope, unless suppressed."""

    __module__ = "opentelemetry.instrumentation.asgi"

    def __init__(self, app: Any, telemetry: Telemetry, scope_name: str = __module__) -> None:
        self.app = app
        self._tracer = telemetry.tracers.get_tracer(scope_name)
        self._names = telemetry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI interface."""
        if not is_http_instrumentation_enabled():
            await self.app(scope, receive, send)
            return
        with self._tracer.start_as_current_span(f"theirs {scope['path']}", kind=SpanKind.SERVER):
            await self.app(scope, receive, send)


@pytest.mark.parametrize(
    ("scope_name", "measured_by_us"), [("opentelemetry.instrumentation.fastapi", 0), ("fastapi", 0), ("own", 1)]
)
async def test_a_request_that_somebody_around_us_traces_is_no_second_span(
    telemetry: Telemetry, scope_name: str, measured_by_us: int
) -> None:
    """Their span is the request's; a duration is ours where they don't measure it; listeners are told all the same."""
    told: list[Any] = []
    ours = HttpTelemetry(
        Starlette(routes=ROUTES),
        tracer_provider=telemetry.tracers,
        meter_provider=telemetry.meters,
        on_request=lambda *facts: told.append(facts),
    )
    transport = httpx.ASGITransport(OpenTelemetryMiddleware(ours, telemetry, scope_name))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        seen = (await client.get("/api/items/7")).json()["span"]
    (span,) = telemetry.spans
    assert span.context is not None
    assert (span.name, seen) == ("theirs /api/items/7", format(span.context.span_id, "016x"))
    assert len(telemetry.points().get("http.server.request.duration", [])) == measured_by_us
    assert [(failed, trace_id) for _, failed, trace_id in told] == [(False, format(span.context.trace_id, "032x"))]


async def test_a_span_around_the_server_is_no_request_s(telemetry: Telemetry) -> None:
    """Whoever starts the server inside a span of their own still gets one for each request."""
    async with asking(Starlette(routes=ROUTES), telemetry) as client:
        with telemetry.tracers.get_tracer("mine").start_as_current_span("main"):
            await client.get("/api/items/7")
    assert [span.name for span in telemetry.spans] == ["GET /api/items/{item_id}", "main"]
    assert telemetry.spans[0].parent is None


async def test_an_instrumentation_inside_has_the_application_s_requests_and_nothing_of_streamlit_s(
    telemetry: Telemetry,
) -> None:
    """What it makes of an own route is all; of Streamlit's frames it makes nothing, and neither do we."""
    told: list[Any] = []
    app = Starlette(routes=[*ROUTES, Route("/ui/_stcore/health", item)])
    inside = OpenTelemetryMiddleware(app, telemetry)
    async with asking(inside, telemetry, on_request=lambda *facts: told.append(facts)) as client:
        await client.get("/api/items/7")
        await client.get("/api/unavailable")
    assert [span.name for span in telemetry.spans] == ["theirs /api/items/7", "theirs /api/unavailable"]
    assert telemetry.points() == {}
    assert [failed for _, failed, _ in told] == [False, True]
    telemetry.clear()
    ours = HttpTelemetry(inside, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    passed: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        passed.append(message["type"])

    await ours({"type": "websocket", "path": "/ui/_stcore/stream", "headers": []}, receive, send)
    assert passed == ["websocket.close"]
    assert telemetry.spans == []


def test_every_sign_of_an_instrumentation_inside_is_known() -> None:
    """The middleware itself, and the mark that the instrumentors of Starlette and FastAPI leave on an application."""
    plain, marked = Starlette(), Starlette()
    marked._is_instrumented_by_opentelemetry = True  # type: ignore[attr-defined]
    assert not is_traced_inside(CORSMiddleware(plain))
    assert is_traced_inside(CORSMiddleware(marked))
