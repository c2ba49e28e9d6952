"""GELF over real sockets: chunks, compression, frames, reconnection, losses."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from streamlit_extension.logs.formats import LogFormat
from streamlit_extension.logs.gelf import MAX_CHUNKS, MAX_DATAGRAM_BYTES, GelfOutlet, datagrams
from streamlit_extension.logs.handler import LineHandler
from streamlit_extension.utils.structured_logging import StructuredLogger
from tests.test_structured_logging import FORGING, detached


class Assembler:
    """Puts a server's datagrams together as GELF says."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._parts: dict[bytes, dict[int, bytes]] = {}

    def take(self, datagram: bytes) -> None:
        assert len(datagram) <= MAX_DATAGRAM_BYTES
        if datagram[:2] != b"\x1e\x0f":
            return self._finish(datagram)
        number, count = datagram[10], datagram[11]
        assert number < count <= MAX_CHUNKS
        parts = self._parts.setdefault(datagram[2:10], {})
        parts[number] = datagram[12:]
        if len(parts) == count:
            self._finish(b"".join(parts[each] for each in range(count)))

    def _finish(self, payload: bytes) -> None:
        self.messages.append(json.loads(zlib.decompress(payload) if payload[:1] == b"\x78" else payload))


@contextmanager
def udp_server() -> Iterator[tuple[int, socket.socket]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(20)
        yield sock.getsockname()[1], sock


def receive(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    """Datagrams until `count` messages are whole."""
    found = Assembler()
    while len(found.messages) < count:
        found.take(sock.recv(65536))
    return found.messages


def frames(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    """`count` frames of a connection."""
    data = b""
    while data.count(b"\0") < count:
        piece = sock.recv(65536)
        assert piece, "the connection has ended"
        data += piece
    return [json.loads(each) for each in data.split(b"\0")[:-1]]


@pytest.fixture
def outlets() -> Iterator[list[GelfOutlet]]:
    made: list[GelfOutlet] = []
    yield made
    for each in made:
        each.stop(0.1)


def logger_to(outlet: GelfOutlet) -> StructuredLogger:
    handler = LineHandler(LogFormat.GELF, "shop", outlet)
    return StructuredLogger(logger=detached(), handler=handler)


def payloads(count: int) -> list[str]:
    pick = random.Random(2)
    return ["".join(pick.choice([*FORGING, "word "]) for _ in range(pick.randrange(1, 8))) for _ in range(count)]


def test_ten_thousand_forging_payloads_by_tcp(outlets: list[GelfOutlet]) -> None:
    """Each is one frame of JSON, in order, none lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        outlets.append(GelfOutlet(f"tcp://127.0.0.1:{server.getsockname()[1]}"))
        log = logger_to(outlets[0])
        texts = payloads(10_000)
        for number, text in enumerate(texts):
            log.log_with_correlation("INFO", f"{number} {text}", payload=text, number=number)
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(20)
            found = frames(connection, len(texts))
    assert [each["_number"] for each in found] == list(range(10_000))
    assert outlets[0].flush(10) and (outlets[0].sent, outlets[0].lost) == (10_000, 0)


def test_ten_thousand_forging_payloads_by_udp(outlets: list[GelfOutlet]) -> None:
    """Each is one message of one or several datagrams."""
    with udp_server() as (port, sock):
        outlets.append(GelfOutlet(f"udp://127.0.0.1:{port}"))
        log = logger_to(outlets[0])
        numbers = []
        for start in range(0, 10_000, 200):  # in portions that the socket's buffer holds: UDP has no other brake
            for number, text in enumerate(payloads(200), start):
                log.log_with_correlation(
                    "INFO", f"{number} {text}", payload=text * (50 if number % 10 == 0 else 1), number=number
                )
            numbers += [each["_number"] for each in receive(sock, 200)]
    assert sorted(numbers) == list(range(10_000))


@pytest.mark.parametrize("size", [1, 600, 5_000, 150_000, 500_000, 2**20, 3 * 2**20])
def test_a_message_of_any_size_fits_the_limits_of_gelf(size: int) -> None:
    """Small ones go as they are, larger ones compressed in chunks; beyond 128 chunks the long parts are left out."""
    noise = random.Random(3).randbytes(size).hex()[:size]
    message = json.dumps({"version": "1.1", "short_message": "x", "_noise": noise}).encode()
    found = Assembler()
    sent = list(datagrams(message))
    random.Random(4).shuffle(sent)
    for each in sent:
        found.take(each)
    (whole,) = found.messages
    assert whole["short_message"] == "x" and len(sent) <= MAX_CHUNKS
    assert whole.get("_noise") == noise or whole["_shortened"] == len(message)
    assert "_noise" in whole or size > 2**20


def test_tcp_reconnects_and_loses_nothing_meanwhile(outlets: list[GelfOutlet]) -> None:
    """A server that ends its connection, or comes later than the first line, gets all that was said meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outlets.append(GelfOutlet(f"tcp://127.0.0.1:{port}"))
    log = logger_to(outlets[0])
    log.log_with_correlation("INFO", "before the server")
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        first, _ = server.accept()
        with first:
            first.settimeout(20)
            assert frames(first, 1)[0]["short_message"] == "before the server"
        log.log_with_correlation("INFO", "after the end")
        second, _ = server.accept()
        with second:
            second.settimeout(20)
            assert frames(second, 1)[0]["short_message"] == "after the end"
    assert outlets[0].lost == 0


def test_a_server_that_is_away_costs_the_caller_no_time_and_bounded_memory(
    outlets: list[GelfOutlet], capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines wait up to a bound; those beyond it and those left at the stop are counted, and standard error is told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        outlet = GelfOutlet(f"tcp://127.0.0.1:{probe.getsockname()[1]}", max_waiting_bytes=10_000)
        outlets.append(outlet)
        log = logger_to(outlet)
        for _ in range(1000):
            log.log_with_correlation("INFO", "x" * 100)
        waiting = outlet._waiting_bytes
        assert waiting <= 10_000 and outlet.lost > 900
        assert not outlet.flush(0.2)
        outlet.stop(0.1)
    assert (outlet.sent, outlet.lost) == (0, 1000)
    assert "log lines can't be sent" in capfd.readouterr().err


def test_the_thread_is_named_and_ends() -> None:
    """`stx-gelf` begins with the first line and ends with the stop, which sends what waits."""
    with udp_server() as (port, sock):
        outlet = GelfOutlet(f"udp://127.0.0.1:{port}")
        assert "stx-gelf" not in {thread.name for thread in threading.enumerate()}
        log = logger_to(outlet)
        for _ in range(3):
            log.log_with_correlation("INFO", "x")
        assert "stx-gelf" in {thread.name for thread in threading.enumerate()}
        outlet.stop()
        assert "stx-gelf" not in {thread.name for thread in threading.enumerate()}
        assert len(receive(sock, 3)) == 3 and outlet.sent == 3
        log.log_with_correlation("INFO", "too late")
        assert outlet.lost == 1


def test_a_forked_child_sends_its_own_lines_and_not_the_parents() -> None:
    """The child begins with nothing waiting and a thread of its own."""
    import os
    import warnings

    with udp_server() as (port, sock):
        outlet = GelfOutlet(f"udp://127.0.0.1:{port}")
        log = logger_to(outlet)
        log.log_with_correlation("INFO", "parent")
        assert receive(sock, 1)[0]["short_message"] == "parent"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
            child = os.fork()
        if child == 0:
            log.log_with_correlation("INFO", "child")
            os._exit(0 if outlet.flush(10) else 1)
        assert receive(sock, 1)[0]["short_message"] == "child"
        assert os.waitpid(child, 0)[1] == 0
        outlet.stop()


@pytest.mark.parametrize("url", ["http://h:1", "udp://h", "tcp://:1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """With one line that says what is allowed."""
    with pytest.raises(ValueError, match="udp://host:port or tcp://host:port"):
        GelfOutlet(url)


def test_a_stop_keeps_its_budget_while_the_server_takes_nothing(outlets: list[GelfOutlet]) -> None:
    """A server that accepts and never reads doesn't hold the stop longer than its time-out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        outlet = GelfOutlet(f"tcp://127.0.0.1:{server.getsockname()[1]}", max_waiting_bytes=2**26)
        outlets.append(outlet)
        log = logger_to(outlet)
        for _ in range(2000):
            log.log_with_correlation("INFO", "x", pad="y" * 8000)
        began = time.monotonic()
        outlet.stop(0.5)
        assert time.monotonic() - began < 20
        assert outlet.lost > 0
