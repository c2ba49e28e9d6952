"""Where a server listens, and the sockets it listens on."""

from __future__ import annotations

import socket

import pytest

from streamlit_extension.listeners import (
    RETRY_S,
    Listeners,
    addresses_of,
    listening_socket,
    process_addresses,
    uvicorn_addresses,
)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "::1", "127.8.9.10"], True),
        (["0.0.0.0"], False),
        (["::"], False),
        (["127.0.0.1", "10.0.0.7"], False),
        (["/run/app.sock"], False),
        ([], None),
        (None, None),
    ],
)
def test_only_loopback_alone_is_loopback(addresses: list[str] | None, expected: bool | None) -> None:
    """One address that others reach is enough for no; nothing known is unknown."""
    assert Listeners(lambda: addresses).on_loopback() is expected


def test_what_can_not_be_told_is_not_asked_by_every_request() -> None:
    """While the answer is unknown the slow search is made once in `RETRY_S`; an answer is kept for good."""
    now_s, asked = [0.0], []
    answers: list[list[str] | None] = [None, None, ["127.0.0.1"]]

    def find() -> list[str] | None:
        asked.append(now_s[0])
        return answers[len(asked) - 1]

    listeners = Listeners(find, clock=lambda: now_s[0])
    for _ in range(1000):
        assert listeners.on_loopback() is None
    assert asked == [0.0]
    now_s[0] = RETRY_S
    assert listeners.on_loopback() is None
    now_s[0] = 2 * RETRY_S
    assert [listeners.on_loopback() for _ in range(100)] == [True] * 100
    assert asked == [0.0, RETRY_S, 2 * RETRY_S]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_accepted_connections_have_no_delay(address: str) -> None:
    """What a listening socket accepts sends small answers at once, without Nagle's 40 ms."""
    try:
        listening = listening_socket(address, 0)
    except OSError:
        pytest.skip(f"needs {address}")
    with listening, socket.create_connection(listening.getsockname()[:2]) as client:
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert client.getpeername()[:2] == listening.getsockname()[:2]
    assert addresses_of([]) == []


def test_a_port_that_is_taken_is_refused_and_leaves_no_socket() -> None:
    """The error is the system's own."""
    with listening_socket("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listening_socket("127.0.0.1", first.getsockname()[1])


def test_this_processs_own_listening_sockets_are_found() -> None:
    """For a server that nobody knows: every TCP socket that listens, and none that is only connected."""
    with listening_socket("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        found = process_addresses()
    assert found is not None
    assert "127.0.0.1" in found


def test_a_server_that_does_not_listen_yet_is_unknown() -> None:
    """Before uvicorn has sockets nothing is said of them."""

    class Server:
        servers: tuple[object, ...] = ()

    assert uvicorn_addresses(Server()) is None
    assert uvicorn_addresses(object()) is None
