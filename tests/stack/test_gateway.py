"""An agent hands everything to a gateway, with token and TLS, and keeps it while the gateway is away."""

from __future__ import annotations

import signal
import ssl
import urllib.error
from pathlib import Path

import pytest
import trustme

from scripts.stack import Stack
from tests.stack.agents import agent, lines, send, with_a_long_one
from tests.stack.backends import until
from tests.stack.conftest import StartStack

TOKEN = "a-token-of-agents"


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, str]:
    """Variables of a gateway with a certificate and a token."""
    authority = trustme.CA()
    served = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    served.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    served.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    (tmp_path / "token").write_text(TOKEN)
    return {
        "COLLECTOR_TOKEN_FILE": str(tmp_path / "token"),
        "COLLECTOR_TLS_CERT": str(tmp_path / "tls.crt"),
        "COLLECTOR_TLS_KEY": str(tmp_path / "tls.key"),
    }


def to(gateway: Stack, folder: Path, token: str) -> dict[str, str]:
    """Variables of an agent that hands everything to a gateway."""
    (folder / "agent-token").write_text(token)
    return {
        "COLLECTOR_GATEWAY_ENDPOINT": gateway.address("otlp_grpc"),
        "COLLECTOR_GATEWAY_CA": str(folder / "ca.crt"),
        "COLLECTOR_TOKEN_FILE": str(folder / "agent-token"),
    }


def test_an_agent_keeps_what_the_gateway_does_not_take_yet(
    start_stack: StartStack, certified: dict[str, str], tmp_path: Path
) -> None:
    """Before, while the gateway is away, and after: each line once."""
    backends = start_stack("gateway", **certified)
    with agent(tmp_path, **to(backends.stack, tmp_path, TOKEN)) as root:
        send(root, lines(0, 50))
        until(lambda: len(backends.logs('"line"')), lambda seen: seen == 50)
        backends.stack.end("otelcol", signal.SIGKILL)
        for number in range(50, 150, 10):
            send(root, lines(number, number + 10))
        backends.stack.start("otelcol")
        send(root, lines(150, 200))
        found = until(lambda: [each["_msg"] for each in backends.logs('"line"')], lambda seen: len(set(seen)) == 200)
    assert sorted(found) == sorted(f"line {number}" for number in range(200))


def test_an_agent_that_comes_back_with_much_is_refused_nothing(
    start_stack: StartStack, certified: dict[str, str], tmp_path: Path
) -> None:
    """Long lines in a long queue make no request that is larger than the gateway takes."""
    backends = start_stack("gateway", **certified)
    backends.stack.end("otelcol")
    with agent(tmp_path, **to(backends.stack, tmp_path, TOKEN)) as root:
        for number in range(0, 4000, 200):
            send(root, lines(number, number + 200, "many words " * 800))
    backends.stack.start("otelcol")
    with agent(tmp_path, **to(backends.stack, tmp_path, TOKEN)):
        found = until(lambda: {each["_msg"] for each in backends.logs('"line"')}, lambda seen: len(seen) == 4000)
        told = (tmp_path / "agent.log").read_text()
    assert len(found) == 4000
    assert "ResourceExhausted" not in told and "not retryable" not in told


def test_a_long_record_takes_nobody_along(start_stack: StartStack, certified: dict[str, str], tmp_path: Path) -> None:
    """What an agent has taken goes through agent and gateway whole, with all that was in its request."""
    backends = start_stack("gateway", **certified)
    with agent(tmp_path, **to(backends.stack, tmp_path, TOKEN)) as root:
        send(root, with_a_long_one(0, 2, 15_000_000))
        send(root, lines(2, 4))
        found = until(lambda: sorted(each["_msg"] for each in backends.logs('"line"')), lambda seen: len(seen) == 4)
    assert found == [f"line {number}" for number in range(4)]
    for log in (tmp_path / "agent.log", backends.stack.log("otelcol")):
        assert "dropping" not in log.read_text().lower()


def test_a_gateway_takes_nothing_from_strangers(
    start_stack: StartStack, certified: dict[str, str], tmp_path: Path
) -> None:
    """Without the token, with a wrong one, and without TLS: of all of it only what comes with the token arrives."""
    backends = start_stack("gateway", **certified)
    address = backends.stack.address("otlp_http")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        send(f"https://{address}", lines(0, 1), trusting)
    with pytest.raises(urllib.error.URLError):
        send(f"http://{address}", lines(0, 1))
    with agent(tmp_path, **to(backends.stack, tmp_path, "another token")) as root:
        send(root, lines(0, 10))
        told = until(lambda: (tmp_path / "agent.log").read_text(), lambda text: "Unauthenticated" in text)
        assert "Unauthenticated" in told
    send(f"https://{address}", lines(100, 101), trusting, TOKEN)
    found = until(lambda: backends.logs("*"), lambda seen: "line 100" in [each["_msg"] for each in seen])
    assert [each["_msg"] for each in found] == ["line 100"]
