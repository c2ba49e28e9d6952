"""A span and a duration for each request to one of the application's own routes, as an ASGI middleware.

Streamlit's own paths, pages, files and WebSockets make nothing: what a browser's session does is told by its runs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, TracerProvider

from otel.containment import contained
from otel.guard import REDACTED, is_sensitive, redact_text
from otel.instrumentation.asgi_others import is_traced_inside, measures, span_around, streamlits_own
from otel.instrumentation.asgi_routes import Route, find_route
from otel.names import DESCRIPTIONS, HTTP_BUCKETS, SCHEMA_URL, UNITS, Attribute, Metric
from otel.trace_context import is_suppressed

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Takes a request's duration in seconds, whether it failed (5xx), and its trace id (32 hex digits).
OnRequest = Callable[[float, bool, str | None], None]

_SCOPE = "otel.instrumentation.asgi"
#: Methods that are told by name (RFC 9110 and RFC 5789, as the semantic conventions list them, and RFC 10008's QUERY).
_METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"])
_OTHER = "_OTHER"
_FASTAPI = "fastapi.telemetry"
#: Different templates that become an attribute of the metric.
MAX_ROUTES = 200
#: Characters of a header or a path that are told.
_MAX_TEXT = 1024


class HttpTelemetry:
    """Wraps an application.

    Arguments:
        app: the application; its routes say which requests are its own.
        tracer_provider, meter_provider: by default the API's global ones.
        trust_inbound_context: continue the caller's trace; by default a request begins a trace of its own, which is
            linked to the caller's.
        on_request: is told of each request when it has ended.
    """

    def __init__(
        self,
        app: App,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        trust_inbound_context: bool = False,
        on_request: OnRequest | None = None,
    ) -> None:
        self._on_request = on_request
        self._app = app
        self._trusts = trust_inbound_context
        self._routes: set[str] = set()
        self.use(tracer_provider, meter_provider)

    def use(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        """Send what is measured from now on to these providers; None is the API's global one."""
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider, schema_url=SCHEMA_URL)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider, schema_url=SCHEMA_URL)
        self._duration = meter.create_histogram(
            Metric.HTTP_SERVER_DURATION,
            unit=UNITS[Metric.HTTP_SERVER_DURATION],
            description=DESCRIPTIONS[Metric.HTTP_SERVER_DURATION],
            explicit_bucket_boundaries_advisory=HTTP_BUCKETS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        # FastAPI of 0.165 and newer traces every request and WebSocket itself, Streamlit's too, once there are
        # providers, and adopts a stranger's trace. This is its own way of saying that a request is not to be traced.
        scope.setdefault(_FASTAPI, None)
        route = self._route(scope) if scope["type"] == "http" else None
        if route is None:
            with streamlits_own(scope) if is_traced_inside(self._app) else nullcontext():
                await self._app(scope, receive, send)
            return
        request = _Request(scope, route)
        around, inside = span_around(), is_traced_inside(self._app)
        with nullcontext(around or INVALID_SPAN) if around or inside else self._current(request) as span:
            try:
                await self._app(scope, receive, request.watching(send))
            except BaseException as error:
                request.error = error
                raise
            finally:
                with contained("a request could not be measured"):
                    measured = inside or (around is not None and measures(around))
                    self._finish(request, span, own=not (around or inside), measured=measured)

    def _route(self, scope: Scope) -> Route | None:
        with contained("the route of a request could not be found"):
            return None if is_suppressed() else find_route(self._app, scope)
        return None

    @contextmanager
    def _current(self, request: _Request) -> Iterator[Span]:
        """A span of ours, current inside; `_finish` ends it."""
        span = self._start(request)
        token = context_api.attach(trace.set_span_in_context(span, self._parent(request)))
        try:
            yield span
        finally:
            context_api.detach(token)

    def _parent(self, request: _Request) -> Context:
        return request.inbound if self._trusts else Context()

    def _start(self, request: _Request) -> Span:
        links = []
        if not self._trusts:
            caller = trace.get_current_span(request.inbound).get_span_context()
            if caller.is_valid:
                links.append(Link(caller))
        return self._tracer.start_span(
            request.span_name,
            self._parent(request),
            SpanKind.SERVER,
            request.span_attributes(),
            links,
            start_time=request.began_ns,
            record_exception=False,
            set_status_on_exception=False,
        )

    def _finish(self, request: _Request, span: Span, *, own: bool, measured: bool) -> None:
        """Tell what is known at the end.

        Arguments:
            own: whether the span is ours, and not that of somebody who traces the request too.
            measured: whether somebody else measures the request.
        """
        took_s = (request.ended_s or time.perf_counter()) - request.began_s
        outcome = request.outcome()
        if own:
            span.set_attributes(outcome)
            if Attribute.ERROR_TYPE.value in outcome:
                span.set_status(Status(StatusCode.ERROR))
            if isinstance(request.error, Exception):
                span.record_exception(request.error)
            span.end(request.began_ns + int(took_s * 1e9))
        if not measured:
            self._measure(request, span, took_s, outcome)
        if self._on_request is not None:
            context = span.get_span_context()
            trace_id = format(context.trace_id, "032x") if context.is_valid else None
            self._on_request(took_s, Attribute.ERROR_TYPE.value in outcome, trace_id)

    def _measure(self, request: _Request, span: Span, took_s: float, outcome: Mapping[str, Any]) -> None:
        attributes = {**request.metric_attributes(), **outcome}
        template = request.route.template
        if template is not None and (template in self._routes or len(self._routes) < MAX_ROUTES):
            self._routes.add(template)
            attributes[Attribute.HTTP_ROUTE.value] = template
        self._duration.record(took_s, attributes, trace.set_span_in_context(span, Context()))


class _Request:
    """What is known of one request while it lasts."""

    def __init__(self, scope: Scope, route: Route) -> None:
        self.route = route
        self.began_s, self.began_ns = time.perf_counter(), time.time_ns()
        self.ended_s: float | None = None
        self.status: int | None = None
        self.error: BaseException | None = None
        self._scope = scope
        self._path = str(scope["path"])
        self._method = str(scope["method"])
        self._headers = _headers(scope)
        self.inbound = _inbound(self._headers)

    @property
    def _known_method(self) -> str:
        return self._method if self._method in _METHODS else _OTHER

    @property
    def span_name(self) -> str:
        """As the semantic conventions have it: method and route, both of few values."""
        method = "HTTP" if self._known_method == _OTHER else self._method
        return f"{method} {self.route.template}" if self.route.template is not None else method

    def metric_attributes(self) -> dict[str, Any]:
        """Attributes of few values, of the span and of the metric."""
        return {
            Attribute.HTTP_METHOD.value: self._known_method,
            Attribute.URL_SCHEME.value: str(self._scope.get("scheme", "http")),
            Attribute.NETWORK_PROTOCOL_VERSION.value: str(self._scope.get("http_version", "1.1")),
        }

    def span_attributes(self) -> dict[str, Any]:
        """All that is known at the request's beginning, redacted."""
        found = self.metric_attributes()
        found[Attribute.URL_PATH.value] = _redact_path(self._path, self.route.params)[:_MAX_TEXT]
        if self._known_method == _OTHER:
            found[Attribute.HTTP_METHOD_ORIGINAL.value] = self._method[:_MAX_TEXT]
        if self.route.template is not None:
            found[Attribute.HTTP_ROUTE.value] = self.route.template
        query = self._scope.get("query_string", b"").decode("latin-1")
        if query:
            found[Attribute.URL_QUERY.value] = redact_query(query)[:_MAX_TEXT]
        client = self._scope.get("client")
        if client:
            found[Attribute.CLIENT_ADDRESS.value] = str(client[0])
        if agent := self._headers.get("user-agent"):
            found[Attribute.USER_AGENT.value] = redact_text(agent[:_MAX_TEXT])
        return {**found, **_server(self._headers.get("host", ""), self._scope.get("server"))}

    def watching(self, send: Send) -> Send:
        """`send` that notes the status, and when the body's last byte was sent."""

        async def watching_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.ended_s = time.perf_counter()

        return watching_send

    def outcome(self) -> dict[str, Any]:
        """What is known at the end: the status and the error's type."""
        found: dict[str, Any] = {}
        status = self.status
        if isinstance(self.error, Exception):
            status = status or 500  # what a server answers for an application that failed before it answered
            kind = type(self.error)
            name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            found[Attribute.ERROR_TYPE.value] = name
        elif status is not None and status >= 500:
            found[Attribute.ERROR_TYPE.value] = str(status)
        if status is not None:
            found[Attribute.HTTP_STATUS.value] = status
        return found


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}


def _inbound(headers: Mapping[str, str]) -> Context:
    with contained("a caller's trace context could not be read"):
        return propagate.extract(headers, Context())
    return Context()


def _server(host: str, server: Any) -> dict[str, Any]:
    """Where the caller says it has called, else where the server listens."""
    name, separator, port = host.rpartition(":")
    if not separator or "]" in port:
        name, port = host, ""
    if not name and server:
        name, port = str(server[0]), str(server[1] or "")
    found: dict[str, Any] = {}
    if name:
        found[Attribute.SERVER_ADDRESS.value] = name.strip("[]")[:_MAX_TEXT]
        if port.isascii() and port.isdigit() and len(port) < 6:
            found[Attribute.SERVER_PORT.value] = int(port)
    return found


def _redact_path(path: str, params: Mapping[str, Any]) -> str:
    for name, value in params.items():
        if is_sensitive(name) and str(value):
            path = path.replace(str(value), REDACTED)
    return redact_text(path)


def redact_query(query: str) -> str:
    """A query's names; each value, and what has no name, is replaced."""
    parts = []
    for part in query.replace(";", "&").split("&"):
        name, equals, _ = part.partition("=")
        parts.append(f"{redact_text(name)}={REDACTED}" if equals else REDACTED if part else "")
    return "&".join(parts)
