"""The door of the telemetry page: paths, entitlement, security headers; what is behind it is loaded when it is asked.

Everything that reads or renders runs on a few threads of its own, so that the page answers while Streamlit's script
threads are stuck, and the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from streamlit_extension.endpoints.entitlement import Entitlement
from streamlit_extension.viewer.access import Access, Caller, by_tls, from_elsewhere, header
from streamlit_extension.viewer.links import ENTER, LinkBox
from streamlit_extension.viewer.threads import Busy, Threads

if TYPE_CHECKING:
    from streamlit_extension.viewer.answers import Answer
    from streamlit_extension.viewer.desk import Desk
    from streamlit_extension.viewer.sources import Sources

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_logger = logging.getLogger("streamlit_extension.viewer")

#: The first part of every path of the page.
ROOT: Final = "/telemetry"
#: How long one answer may take, in seconds, and how long a form may be, in bytes.
TIMEOUT_S, MOST_FORM_BYTES = 20.0, 65_536
_MOST_QUERY_BYTES: Final = 16_384

#: No script or style but our files, nothing from elsewhere, in nobody's frame.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-robots-tag", b"noindex"),
)


class Ask(msgspec.Struct, frozen=True):
    """A question as the views get it. `base` is the page's own path with a slash at its end, `path` what follows."""

    method: str
    base: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()
    caller: Caller = msgspec.field(default_factory=Caller)
    form_token: str = ""

    def get(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        return next((value for key, value in reversed(self.query) if key == name), default)

    def sent(self, name: str, default: str = "") -> str:
        """The last value of a form's field."""
        return next((value for key, value in reversed(self.form) if key == name), default)


class Behind:
    """What all ports share: the threads, and the desk that answers, made at the first question."""

    def __init__(self) -> None:
        self.links = LinkBox(None)
        self._threads = Threads()
        self._lock = threading.Lock()
        self._find: Callable[[], Sources] | None = None
        self._sources: Sources | None = None
        self._desk: Desk | None = None

    def serve(self, sources: Callable[[], Sources], links: LinkBox) -> None:
        """Answer from these sources from now on; they are asked for at the first question."""
        self.links = links
        with self._lock:
            self._find, self._desk = sources, None

    def close(self) -> None:
        """End the threads that wait, and close what is read."""
        self._threads.close()
        with self._lock:
            sources, self._sources, self._desk, self._find = self._sources, None, None, None
        if sources is not None:
            sources.close()

    def submit(self, job: Callable[[], Answer]) -> Future[Answer]:
        """Run a job on one of the threads; raises Busy when too many wait."""
        return self._threads.submit(job)

    def desk(self) -> Desk:
        """The desk; only on one of the threads, because making it reads files."""
        found = self._desk
        if found is not None:
            return found
        from streamlit_extension.viewer.desk import Desk
        from streamlit_extension.viewer.sources import Sources

        with self._lock:
            if self._desk is None:
                self._sources = Sources() if self._find is None else self._find()
                self._desk = Desk(self._sources)
            return self._desk


class TelemetryPage:
    """ASGI: answers the paths of the telemetry page on one port.

    Arguments:
        entitlement: decides with viewer sessions who may see it.
        prefixes: path prefixes below which it is answered.
        here: whether this port answers; False once a management port does (404 here).
        behind: what it shares with other ports.
    """

    def __init__(
        self,
        entitlement: Entitlement,
        prefixes: tuple[str, ...] = ("",),
        *,
        here: bool = True,
        behind: Behind | None = None,
    ) -> None:
        self._access = Access(entitlement, entitlement.token)
        self._here = here
        self.behind = behind or Behind()
        self.set_prefixes(prefixes)

    def for_port(self, entitlement: Entitlement) -> TelemetryPage:
        """The same page for a port that has an entitlement of its own."""
        return TelemetryPage(entitlement, self._prefixes, behind=self.behind)

    def set_prefixes(self, prefixes: tuple[str, ...]) -> None:
        """Answer below these prefixes from now on."""
        self._prefixes = prefixes
        self._roots = tuple(f"{each}{ROOT}" for each in prefixes)

    def base_of(self, scope: Scope) -> str | None:
        """The page's own path with a slash at its end, if the scope's path is it or below it."""
        path, mounted = scope["path"], scope.get("root_path", "")
        if ROOT not in path:
            return None
        for lead in ("", mounted) if mounted else ("",):
            for root in self._roots:
                if path == lead + root or path.startswith(f"{lead}{root}/"):
                    return f"{lead}{root}/"
        return None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer an `http` scope if it is for this page; says whether it was."""
        base = self.base_of(scope)
        if base is None:
            return False
        answer = await self._answer(scope, receive, base) if self._here else _plain(404, "not found")
        await _send(send, answer, scope["method"])
        return True

    # -- who and what ---------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, base: str) -> Answer:
        method, path = scope["method"], scope["path"][len(base) :]
        if method not in ("GET", "HEAD", "POST"):
            return _plain(405, "method not allowed", (b"allow", b"GET, HEAD, POST"))
        if scope["path"] == base[:-1]:
            query = scope.get("query_string", b"")
            return _plain(307, "", (b"location", base.encode() + (b"?" + query if query else b"")))
        if len(scope.get("query_string", b"")) > _MOST_QUERY_BYTES:
            return _plain(414, "the address is too long")
        ask = Ask(method, base, path, _pairs(scope.get("query_string", b"")))
        if path.startswith("static/") and method != "POST":
            return await self._run(lambda: self.behind.desk().static(path.removeprefix("static/")))
        if path == ENTER and method != "POST":
            return await self._enter(scope, ask)
        caller = self._access.caller(scope)
        if caller is None:
            return await self._stranger(scope, ask)
        if method == "POST":
            return await self._post(scope, receive, ask, caller)
        ask = Ask(method, base, path, ask.query, (), caller, self._access.form_token(caller))
        return await self._run(lambda: self.behind.desk().answer(ask))

    async def _post(self, scope: Scope, receive: Receive, ask: Ask, caller: Caller) -> Answer:
        body = await _body(receive)
        if body is None:
            return _plain(413, "the form is too long")
        form = _pairs(body) if header(scope, b"content-type").startswith("application/x-www-form-urlencoded") else ()
        sent = Ask("POST", ask.base, ask.path, ask.query, form, caller, self._access.form_token(caller))
        if not self._access.may_post(scope, caller, sent.sent("form_token")):
            _logger.warning("a form of another site was refused", extra={"event": "viewer.form_refused"})
            return await self._run(lambda: self.behind.desk().refuse_form(sent))
        if ask.path == "leave":
            cookie = self._access.end_session(path=ask.base, secure=by_tls(scope))
            return _plain(303, "", (b"location", ask.base.encode()), (b"set-cookie", cookie.encode()))
        return await self._run(lambda: self.behind.desk().act(sent))

    async def _enter(self, scope: Scope, ask: Ask) -> Answer:
        """Exchange a code for a session by a redirect; looking ahead does not use it up."""
        if scope["method"] == "HEAD" or "prefetch" in header(scope, b"sec-purpose") + header(scope, b"purpose"):
            return _plain(503, "this link opens once; it is not fetched ahead")
        code, base = ask.get("code"), ask.base

        def exchange() -> Answer:
            cookie = None
            if self.behind.links.take(code):
                cookie = self._access.begin_session(path=base, secure=by_tls(scope))
            if cookie is None:
                _logger.warning("a viewer link was refused", extra={"event": "viewer.link_refused"})
                return self.behind.desk().refuse_link(ask)
            _logger.info("a viewer session began", extra={"event": "viewer.session_began"})
            return _plain(303, "", (b"location", base.encode()), (b"set-cookie", cookie.encode()))

        return await self._run(exchange)

    async def _stranger(self, scope: Scope, ask: Ask) -> Answer:
        if from_elsewhere(scope):  # a strict cookie comes with the next step, which is our own
            return await self._run(lambda: self.behind.desk().come_again(ask))
        if ask.method == "POST" or "text/html" not in header(scope, b"accept"):
            return _plain(401, "the token is needed", (b"www-authenticate", b"Bearer"))
        return await self._run(lambda: self.behind.desk().refuse_stranger(ask))

    async def _run(self, job: Callable[[], Answer]) -> Answer:
        try:
            future = asyncio.wrap_future(self.behind.submit(job))
        except Busy:
            return _plain(503, "too many questions at a time", (b"retry-after", b"2"))
        done, _ = await asyncio.wait([future], timeout=TIMEOUT_S)
        if not done:
            future.cancel()
            return _plain(503, "the answer took too long; ask for less at a time")
        error = future.exception()
        if error is None:
            return future.result()
        fields = {"event": "viewer.failed", "error_type": type(error).__name__}
        _logger.error("the telemetry page failed: %s", type(error).__name__, extra=fields, exc_info=error)
        return _plain(500, "the page could not be made; the log tells why")


def _pairs(text: bytes) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=100, errors="replace"))
    except ValueError:
        return ()


async def _body(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > MOST_FORM_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _plain(status: int, text: str, *headers: tuple[bytes, bytes]) -> Answer:
    from streamlit_extension.viewer.answers import Answer

    return Answer(status, (text + "\n").encode() if text else b"", "text/plain; charset=utf-8", headers)


async def _send(send: Send, answer: Answer, method: str) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *HEADERS,
        *answer.headers,
    ]
    if not any(name == b"cache-control" for name, _ in answer.headers):
        headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
