"""The check of other services against real sockets on loopback, well-behaved and hostile."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from streamlit_extension import ComponentChecker
from streamlit_extension.health.checks.external_apis import ExternalApiCheck, refusal
from streamlit_extension.health.model import Outcome
from tests.support.backends import free_port

#: Cycles of a leak test.
CYCLES = 10_000 if os.environ.get("SOAK") else 1_000
#: More than any test here should ever take, in seconds; only what hangs takes so long.
LONG_S = 60.0

Handler = Callable[[socket.socket, bytes], None]


class Service:
    """A TCP server on loopback that does with each request what its handler says."""

    def __init__(self, handler: Handler, address: str = "127.0.0.1") -> None:
        self.requests: list[bytes] = []
        self._handler = handler
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family, backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="service", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._ended.is_set():
                connection.close()
                return
            self._open.append(connection)
            with contextlib.suppress(OSError), connection:
                request = b""
                while (
                    not request.startswith(b"\x16") and b"\r\n\r\n" not in request and (more := connection.recv(65536))
                ):
                    request += more
                if request:
                    self.requests.append(request)
                    self._handler(connection, request)
            self._open.remove(connection)

    def close(self) -> None:
        self._ended.set()
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Starts services; ended with the test."""
    started: list[Service] = []

    def start(handler: Handler, address: str = "127.0.0.1") -> Service:
        started.append(Service(handler, address))
        return started[-1]

    yield start
    for each in started:
        each.close()


Start = Callable[..., Service]


def answering(head: str, body: bytes = b"") -> Handler:
    data = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return lambda connection, request: connection.sendall(data)


@pytest.mark.parametrize(
    ("line", "outcome", "error"),
    [
        ("HTTP/1.1 200 OK", Outcome.OK, None),
        ("HTTP/1.1 204 No Content", Outcome.OK, None),
        ("HTTP/1.0 200 OK", Outcome.OK, None),
        ("HTTP/1.1 401 Unauthorized", Outcome.FAILED, "answered 401"),
        ("HTTP/1.1 404 Not Found", Outcome.FAILED, "answered 404"),
        ("HTTP/1.1 500 Internal Server Error", Outcome.FAILED, "answered 500"),
        ("HTTP/1.1 503 Service Unavailable", Outcome.FAILED, "answered 503"),
    ],
)
def test_the_status_decides(service: Start, line: str, outcome: Outcome, error: str | None) -> None:
    """2xx is well, everything else is a failure that names the status."""
    api = service(answering(line))
    found = ExternalApiCheck(f"http://127.0.0.1:{api.port}/health?deep=1", timeout_s=LONG_S)()
    assert (found.outcome, found.error) == (outcome, error)
    assert found.detail["status_code"] == int(line.split()[1])
    assert api.requests[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{api.port}\r\n".encode() in api.requests[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(service: Start, status: int) -> None:
    """Where it points is never asked: a redirect would lead past the refused addresses."""
    inner = service(answering("HTTP/1.1 200 OK"))
    api = service(answering(f"HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{inner.port}/?key=hunter2"))
    found = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S)()
    assert (found.outcome, found.error) == (Outcome.FAILED, f"answered {status}: redirects are not followed")
    assert len(api.requests) == 1
    assert inner.requests == []


def drip(data: bytes) -> Handler:
    """Sends a byte at a time, each well within any socket's own time-out, without an end."""

    def handle(connection: socket.socket, _: bytes) -> None:
        began = time.monotonic()
        connection.sendall(data)
        while time.monotonic() - began < LONG_S:
            connection.sendall(b"a")
            time.sleep(0.01)

    return handle


def silent(connection: socket.socket, _: bytes) -> None:
    """Reads the request and never answers."""
    while connection.recv(65536):
        pass


def continuing(connection: socket.socket, _: bytes) -> None:
    """Says 100 for ever, after which HTTP expects another head."""
    began = time.monotonic()
    while time.monotonic() - began < LONG_S:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.001)


@pytest.mark.parametrize(
    "handler",
    [drip(b""), drip(b"HTTP/1.1 200 OK\r\nX: "), silent, continuing],
    ids=["status line", "header", "silence", "100 for ever"],
)
def test_the_deadline_is_total(service: Start, handler: Handler) -> None:
    """However the service spends its time, it is a timeout on time, and the thread is free again."""
    api = service(handler)
    check = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=0.3)
    began = time.monotonic()
    found = check()
    assert time.monotonic() - began < LONG_S / 2
    assert (found.outcome, found.error) == (Outcome.TIMEOUT, "no answer within 0.3 s")


def test_the_deadline_holds_while_connecting_and_in_the_handshake() -> None:
    """A listener that accepts nobody, and one that speaks no TLS, are timeouts too."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # the kernel's queue is full: further connections wait for an answer
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            found = ExternalApiCheck(f"http://127.0.0.1:{port}/", timeout_s=0.3)()
            assert found.outcome is Outcome.TIMEOUT
    with socket.create_server(("127.0.0.1", 0), backlog=8) as mute:
        found = ExternalApiCheck(f"https://127.0.0.1:{mute.getsockname()[1]}/", timeout_s=0.3)()
        assert found.outcome is Outcome.TIMEOUT


def test_a_slow_answer_is_degraded(service: Start) -> None:
    """Slower than `slow_s` and still within the time-out is degraded, with the reason."""
    api = service(answering("HTTP/1.1 200 OK"))
    found = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S, slow_s=0.0)()
    assert (found.outcome, found.detail["reason"]) == (Outcome.DEGRADED, "slow")


def test_a_closed_port_and_an_unknown_name_fail() -> None:
    """Nobody there is a failure in one line, not a timeout."""
    closed = ExternalApiCheck(f"http://127.0.0.1:{free_port()}/", timeout_s=LONG_S)()
    assert closed.outcome is Outcome.FAILED
    assert "refused" in str(closed.error)
    unknown = ExternalApiCheck("http://no-such-host.invalid/", timeout_s=LONG_S)()
    assert unknown.outcome is Outcome.FAILED
    assert "\n" not in str(unknown.error)


def test_a_huge_body_is_left_unread(service: Start) -> None:
    """The head is enough: what a service would send without end is not taken in."""
    sent = [0]
    done = threading.Event()

    def flood(connection: socket.socket, _: bytes) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while sent[0] < 1 << 30:
                sent[0] += connection.send(b"x" * 65536)
        finally:
            done.set()

    api = service(flood)
    found = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S)()
    assert found.outcome is Outcome.OK
    assert done.wait(LONG_S)
    assert sent[0] < 1 << 26  # what the kernel's buffers hold


def test_a_huge_head_is_bounded(service: Start) -> None:
    """A header line or a number of headers without end is a failure, not memory without end."""

    def long_line(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 22))

    def many_lines(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)

    for handler in (long_line, many_lines):
        api = service(handler)
        assert ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S)().outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "data", [b"", b"\x00\xff\xfe garbage\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 9x\r\n\r\n"]
)
def test_what_speaks_no_http_fails(service: Start, data: bytes) -> None:
    """Anything else than HTTP is one clear failure."""
    api = service(lambda connection, _: connection.sendall(data))
    found = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S)()
    assert found.outcome is Outcome.FAILED
    assert found.error
    assert "\n" not in found.error


# -- forbidden addresses --------------------------------------------------------------------------------------------


@pytest.fixture
def never_connecting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records every address that somebody tries to connect to, and lets none through."""
    tried: list[object] = []

    class Watched(socket.socket):
        def connect(self, address: Any, /) -> None:
            tried.append(address)
            raise ConnectionRefusedError("watched")

    monkeypatch.setattr(socket, "socket", Watched)
    return tried


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "\uff11\uff16\uff19.254.169.254",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1]",
        "[fe80::1%lo]",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "metadata.google.internal",
        "METADATA.GOOGLE.INTERNAL.",
        "metadata.goog",
        "0.0.0.0",
        "0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "224.0.0.1",
        "[ff02::1]",
        "user:pass@169.254.169.254",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_link_local_and_metadata_addresses_are_refused_before_connecting(
    never_connecting: list[object], scheme: str, host: str
) -> None:
    """However the address is spelled, nothing is sent there; the reason is told."""
    found = ExternalApiCheck(f"{scheme}://{host}/latest/meta-data/", timeout_s=LONG_S)()
    assert found.outcome is Outcome.FAILED
    assert never_connecting == []
    assert str(found.error).startswith("refused: "), found.error


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["fe80::1"],
        ["::ffff:169.254.169.254"],
        ["fd00:ec2::254"],
        ["93.184.216.34", "169.254.169.254"],
        ["169.254.169.254", "93.184.216.34"],
    ],
)
def test_a_name_that_resolves_to_a_refused_address_is_refused(
    never_connecting: list[object], monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    """One forbidden address among those of a name is enough: the resolver's order decides nothing."""
    monkeypatch.setattr(socket, "getaddrinfo", _resolver(lambda: addresses))
    found = ExternalApiCheck("http://innocent.example/", timeout_s=LONG_S)()
    assert found.outcome is Outcome.FAILED
    assert str(found.error).startswith("refused: ")
    assert never_connecting == []


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(
    never_connecting: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes its address between two look-ups gains nothing: there is one look-up."""
    answers = iter([["93.184.216.34"], ["169.254.169.254"], ["169.254.169.254"]])
    monkeypatch.setattr(socket, "getaddrinfo", _resolver(lambda: next(answers)))
    found = ExternalApiCheck("http://rebinding.example:8080/", timeout_s=LONG_S)()
    assert found.outcome is Outcome.FAILED
    assert never_connecting == [("93.184.216.34", 8080)]


def _resolver(addresses: Callable[[], list[str]]) -> Callable[..., list[Any]]:
    """A stand-in for the name service, which is a third party's network."""

    def resolve(_host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses()
        ]

    return resolve


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fd12:3456::1", "8.8.8.8", "2a00::1"]
)
def test_private_and_public_addresses_are_asked(address: str) -> None:
    """Services of one's own live on private addresses, so those are allowed."""
    assert refusal(address) is None


def test_ipv6_is_asked(service: Start) -> None:
    """A service on `[::1]` is reached by its literal address, and the Host header has the brackets."""
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        api = service(answering("HTTP/1.1 200 OK"), "::1")
    except OSError:
        pytest.skip("needs IPv6 on loopback")
    assert ExternalApiCheck(f"http://[::1]:{api.port}/", timeout_s=LONG_S)().outcome is Outcome.OK
    assert f"Host: [::1]:{api.port}\r\n".encode() in api.requests[0]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "unix:///var/run/docker.sock",
        "127.0.0.1/health",
        "//127.0.0.1/",
        "http://",
        "http:///health",
        "",
    ],
)
def test_only_http_is_asked(never_connecting: list[object], url: str) -> None:
    """Another scheme, or none, is refused in one line."""
    found = ExternalApiCheck(url, timeout_s=LONG_S)()
    assert (found.outcome, found.error) == (Outcome.FAILED, "refused: only http:// and https:// URLs are asked")
    assert never_connecting == []


# -- secrets --------------------------------------------------------------------------------------------------------


def echo(connection: socket.socket, request: bytes) -> None:
    """Repeats the request, as an echo service on the wrong port does."""
    connection.sendall(request)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2hunter2@127.0.0.1:{port}/?key=hunter2hunter2&token=hunter2hunter2#hunter2",
        "http://me:hunter2@hunter2@127.0.0.1:{port}/",
        "http://me:hunter2%40@127.0.0.1:{port}/hunter2?x=hunter2",
        "http://me:hunter2/hunter2@127.0.0.1:{port}/",
        "http://me:hunter2#hunter2@127.0.0.1:{port}/",
        "http://me:hunter2?@127.0.0.1:{port}/",
        "http://me:hunter2[@127.0.0.1:{port}/",
        "http://hunter2hunter2@no-such-host.invalid/?key=hunter2",
        "https://me:hunter2hunter2@127.0.0.1:{port}/?key=hunter2",
        "http://me:hunter2@127.0.0.1:hunter2/",
        "http://me:hunter2@127.0.0.1:99999999/",
        "http://me:hunter2@[::1/",
        "ldap://me:hunter2@127.0.0.1/",
    ],
)
@pytest.mark.parametrize(
    "handler",
    [echo, answering("HTTP/1.1 500 hunter2"), answering("HTTP/1.1 302 x\r\nLocation: /?key=hunter2"), None],
    ids=["echo", "500", "302", "nobody"],
)
def test_no_secret_of_a_url_is_shown(service: Start, url: str, handler: Handler | None) -> None:
    """User-info, path and query appear in no result, whatever goes wrong and whatever the service repeats."""
    port = free_port() if handler is None else service(handler).port
    checker = ComponentChecker(external_apis={"billing": url.format(port=port)}, timeout_s=20.0)
    found = checker.check_external_apis()
    assert found.outcome in (Outcome.FAILED, Outcome.TIMEOUT)
    assert found.error
    assert "\n" not in found.error
    assert "hunter2" not in str(found)
    assert "hunter2" not in repr(checker)


def test_user_info_is_sent_as_it_was_meant(service: Start) -> None:
    """`user:password@` becomes Basic authorization, decoded once, and stays out of the request line."""
    api = service(answering("HTTP/1.1 200 OK"))
    check = ExternalApiCheck(f"http://ad%40a:p%3Aw@127.0.0.1:{api.port}/x", timeout_s=LONG_S)
    assert check().outcome is Outcome.OK
    assert b"Authorization: Basic YWRAYTpwOnc=\r\n" in api.requests[0]
    assert api.requests[0].startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize("path", ["/a b", "/%0d%0aX-Evil:%201", "/\r\nX-Evil: 1", "/ü?q=ä ö", "/\x00", "?only=query"])
def test_no_path_breaks_out_of_the_request_line(service: Start, path: str) -> None:
    """A URL adds no header and no second request, and letters of every language are sent encoded."""
    api = service(answering("HTTP/1.1 200 OK"))
    assert ExternalApiCheck(f"http://127.0.0.1:{api.port}{path}", timeout_s=LONG_S)().outcome is Outcome.OK
    [request] = api.requests
    assert b"\r\nX-Evil" not in request
    assert len(request.split(b"\r\n")[0].split(b" ")) == 3
    assert request.isascii()


# -- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600 if os.environ.get("SOAK") else 180)
def test_thousands_of_checks_leave_threads_and_descriptors_where_they_were(service: Start) -> None:
    """Neither success nor failure leaves a socket, a timer or a thread."""
    api = service(answering("HTTP/1.1 200 OK"))
    closed = free_port()
    good = ExternalApiCheck(f"http://127.0.0.1:{api.port}/", timeout_s=LONG_S, slow_s=LONG_S)
    bad = ExternalApiCheck(f"http://127.0.0.1:{closed}/", timeout_s=LONG_S)
    assert good().outcome is Outcome.OK

    def counts() -> tuple[int, int]:
        return threading.active_count(), psutil.Process().num_fds()

    deadline = time.monotonic() + LONG_S
    before = counts()
    for _ in range(CYCLES):
        assert good().outcome is Outcome.OK
        assert bad().outcome is Outcome.FAILED
    while counts() > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert counts()[1] <= before[1]


def test_one_that_hangs_delays_no_other(service: Start) -> None:
    """Three services, one silent: the other two are told as they are, and all within one time-out."""
    good, broken, mute = (
        service(answering("HTTP/1.1 200 OK")),
        service(answering("HTTP/1.1 500 Oh")),
        service(silent),
    )
    urls = {name: f"http://127.0.0.1:{each.port}/" for name, each in (("a", good), ("b", broken), ("c", mute))}
    checker = ComponentChecker(external_apis=urls, timeout_s=1.0)
    found = checker.check_external_apis()
    assert found.outcome is Outcome.FAILED
    assert found.error == "answered 500"
    assert found.detail["apis"] == {"a": "ok", "b": "failed", "c": "timeout"}


def test_no_api_is_not_configured() -> None:
    """Without a URL there is nothing to fail."""
    assert ComponentChecker().check_external_apis().outcome is Outcome.NOT_CONFIGURED
