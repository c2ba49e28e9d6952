"""Kafka between agents and gateways: it may be away, as may a gateway, and each tail sampler sees whole traces."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from scripts.stack import ROOT
from scripts.stack_programs import environment
from tests.stack.agents import LAYERS, agent, collector, lines, send, spans, with_a_long_one
from tests.stack.backends import Backends, ask, twice, until
from tests.stack.broker import PARTITIONS, PASSWORD, TOPICS, USER, Broker
from tests.stack.conftest import StartStack
from tests.stack.crowd import SERVICE, ran, shop
from tests.stack.test_outages import AWAY_S, RUNS, logged, under_load
from tests.support.backends import free_port
from tests.support.server import Start

SOAK = bool(os.environ.get("SOAK"))
BROKER_AWAY_S = 30.0 if SOAK else AWAY_S
SASL = 'mechanism: SCRAM-SHA-512\nusername: {}\npassword: "{}"\n'
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker."""
    with Broker(tmp_path / "broker") as made:
        yield made


def whole(backends: Backends, did: set[str], finished: int) -> dict[str, int]:
    """Wait until every run's trace, line and count are there, and tell what came twice."""
    lines_found = until(lambda: logged(backends), lambda seen: set(seen) >= did, 120)
    assert set(lines_found) == did
    assert until(lambda: set(backends.runs(SERVICE)), lambda seen: seen >= did, 120) == did
    assert until(lambda: backends.value(RUNS), lambda seen: seen >= finished, 120) == finished
    found = [f"{each['traceID']}{each['spanID']}" for each in backends.spans(SERVICE)]
    return {"runs": finished, "lines twice": twice(lines_found), "spans twice": twice(found)}


@pytest.mark.parametrize("who", ["broker stopped", *(["broker killed"] if SOAK else []), "gateway killed"])
async def test_nothing_is_missing_after_an_outage(
    start_stack: StartStack, serve: Start, tmp_path: Path, broker: Broker,
    record_property: Callable[[str, object], None], who: str,
) -> None:  # fmt: skip
    """Under load the broker or the gateway goes and comes back: every run has its trace, its line and its count."""
    settings = {"COLLECTOR_KAFKA_BROKERS": broker.address, "COLLECTOR_KAFKA_INSTANCE": "gateway-0"}
    backends = start_stack("gateway-kafka", "keep-every-trace", **settings)
    broker.make(*TOPICS)
    how = signal.SIGTERM if who.endswith("stopped") else signal.SIGKILL

    def outage() -> None:
        if who.startswith("broker"):
            broker.end(how)
            Event().wait(BROKER_AWAY_S)
            broker.start()
        else:
            backends.stack.end("otelcol", how)
            Event().wait(BROKER_AWAY_S)
            backends.stack.start("otelcol")

    with agent(tmp_path, "agent-kafka", COLLECTOR_KAFKA_BROKERS=broker.address) as root:
        server = shop(serve, tmp_path, root)
        finished = await under_load(server, backends, outage)
        did = set(ran(server).all)
        assert len(did) == finished
        told = whole(backends, did, finished)
    for key, value in told.items():
        record_property(key, value)
    print(f"{who}, away {BROKER_AWAY_S:.0f} s: {told}")


def test_each_tail_sampler_sees_whole_traces(start_stack: StartStack, tmp_path: Path, broker: Broker) -> None:
    """Two gateways share the work; a trace's spans come one by one, through two agents, and its error comes last."""
    settings = {
        "COLLECTOR_KAFKA_BROKERS": broker.address,
        "COLLECTOR_KEEP_PERCENT": "0",
        "COLLECTOR_DECISION_WAIT": "5s",
        "COLLECTOR_SLOW_MS": "60000",
    }
    backends = start_stack("gateway-kafka", **settings)
    broker.make("otlp_spans")
    stack, port = backends.stack, free_port()
    variables = {
        **environment(stack), **stack.environ, "COLLECTOR_METRICS_PORT": str(port),
        **{f"COLLECTOR_{name}": f"127.0.0.1:{free_port()}" for name in ("OTLP_GRPC", "OTLP_HTTP", "HEALTH")},
    }  # fmt: skip
    ids = [os.urandom(16).hex() for _ in range(120)]
    failed = set(ids[:60])
    # Twenty traces at a time, so that all of each is there long before it is decided about.
    groups = [ids[each::6] for each in range(6)]
    steps = [
        (each, name)
        for group in groups
        for name in ("first", "second", "last")
        for each in random.sample(group, len(group))
    ]
    with ExitStack() as held:
        agents = []
        for name in ("agent", "other-agent"):
            (tmp_path / name).mkdir()
            kafka = {"COLLECTOR_KAFKA_BROKERS": broker.address}
            agents.append(held.enter_context(agent(tmp_path / name, "agent-kafka", **kafka)))
        until(lambda: partitions(stack.ports["collector_metrics"]), lambda seen: seen == PARTITIONS)
        variables.pop("COLLECTOR_QUEUE_DIR")
        files = (ROOT / "collector-config.yaml", LAYERS / "gateway-kafka.yaml")
        held.enter_context(collector(tmp_path, "other-gateway", *files, **variables))
        both = (stack.ports["collector_metrics"], port)
        shared = until(lambda: [partitions(each) for each in both], lambda seen: seen == [PARTITIONS / 2] * 2)
        assert shared == [PARTITIONS / 2] * 2
        for number, (each, name) in enumerate(steps):
            send(agents[number % 2], spans(each, name, failed=name == "last" and each in failed))
        calls = 'traces_span_metrics_calls_total{service_name="node"}'
        assert until(lambda: backends.value(f"sum({calls})"), lambda seen: seen >= len(steps)) >= len(steps)
        assert backends.value(f"count(sum by (collector_instance_id) ({calls}))") == 2
        assert until(lambda: sum(map(decided, both)), lambda seen: seen >= len(ids)) >= len(ids)
        assert until(
            lambda: {(each["traceID"], each["operationName"]) for each in backends.spans("node")},
            lambda seen: len(seen) >= 3 * len(failed),
        ) == {(each, name) for each, name in steps if each in failed}


def test_what_is_no_otlp_stops_nobody(start_stack: StartStack, tmp_path: Path, broker: Broker) -> None:
    """A message that can't be read is told and left; what comes behind it in the same partition arrives, long or not."""
    kafka = {"COLLECTOR_KAFKA_BROKERS": broker.address}
    broker.make("otlp_logs")
    backends = start_stack("gateway-kafka", **kafka)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "json.yaml").write_text("exporters: { kafka: { logs: { encoding: otlp_json } } }")
    files = (LAYERS / "agent.yaml", LAYERS / "agent-kafka.yaml", stranger / "json.yaml")
    with collector(stranger, "stranger", *files, **kafka) as other:
        send(other, lines(0, 10))
        said = until(backends.stack.log("otelcol").read_text, lambda text: "failed to unmarshal message" in text)
        assert "failed to unmarshal message" in said
    with agent(tmp_path, "agent-kafka", **kafka) as root:
        send(root, lines(10, 30))
        send(root, with_a_long_one(30, 32))
        expected = {f"line {number}" for number in range(10, 32)}
        found = until(lambda: {each["_msg"] for each in backends.logs('"line"')}, lambda seen: seen >= expected)
    assert found == expected
    assert "too large" not in (tmp_path / "agent.log").read_text().lower()


def test_a_broker_may_ask_for_a_password(start_stack: StartStack, tmp_path: Path) -> None:
    """Over TLS, with a user: agent and gateway are let in, and who has another password is not."""
    broker = Broker(tmp_path / "broker", guarded=True)
    known, guess = tmp_path / "known.yaml", tmp_path / "guess.yaml"
    known.write_text(SASL.format(USER, PASSWORD))
    guess.write_text(SASL.format(USER, "a guess"))
    settings = {
        "COLLECTOR_KAFKA_BROKERS": broker.address,
        "COLLECTOR_KAFKA_INSECURE": "false",
        "COLLECTOR_KAFKA_CA": str(tmp_path / "broker" / "ca.crt"),
        "COLLECTOR_KAFKA_SASL_FILE": str(known),
    }
    backends = start_stack("gateway-kafka", "kafka-sasl", **settings)  # both are there before it is
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    guessing = {**settings, "COLLECTOR_KAFKA_SASL_FILE": str(guess)}
    with (
        agent(tmp_path, "agent-kafka", "kafka-sasl", **settings) as root,
        agent(stranger, "agent-kafka", "kafka-sasl", **guessing) as other,
    ):
        send(root, lines(0, 20))
        send(other, lines(20, 40))
        with broker:
            broker.make("otlp_logs")
            send(root, lines(40, 60))
            expected = {f"line {number}" for number in (*range(20), *range(40, 60))}
            found = until(
                lambda: {each["_msg"] for each in backends.logs('"line"')}, lambda seen: seen >= expected, 120
            )
            assert found == expected
            said = until((stranger / "agent.log").read_text, lambda text: "SASL_AUTHENTICATION_FAILED" in text)
            assert "SASL_AUTHENTICATION_FAILED" in said
            for log in (tmp_path / "agent.log", stranger / "agent.log", backends.stack.log("otelcol")):
                assert PASSWORD not in log.read_text() and "a guess" not in log.read_text()


def own(metrics_port: int, name: str) -> float:
    """The sum of what a gateway tells of itself under a name."""
    text = ask(f"http://127.0.0.1:{metrics_port}/metrics").decode()
    return sum(map(float, re.findall(rf"^otelcol_{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)))


def partitions(metrics_port: int) -> float:
    """How many partitions a gateway has now."""
    started, closed = (own(metrics_port, f"kafka_receiver_partition_{what}") for what in ("start", "close"))
    return started - closed


def decided(metrics_port: int) -> float:
    """About how many traces a gateway's tail sampler has decided."""
    return own(metrics_port, "processor_tail_sampling_global_count_traces_sampled")
