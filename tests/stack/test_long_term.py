"""Both ways to a long-term store, while it is away: what it holds then is compared with what Prometheus holds."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from scripts.stack import ROOT
from tests.stack.agents import gauges, send
from tests.stack.backends import Backends, ask, twice, until
from tests.stack.conftest import StartStack
from tests.stack.crowd import shop
from tests.stack.long_term import LongTerm, Sample, newest, samples, series
from tests.stack.test_outages import AWAY_S, RUNS, under_load
from tests.support.backends import free_port
from tests.support.server import Start

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "streamlit-extension.rules.yaml"
COUNTS = 'streamlit_script_run_duration_seconds_count{job="shop"}'
RECORDED = '{__name__="job:stx_response_time:current",job="shop"}'
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LongTerm]:
    """A running long-term store."""
    started = LongTerm(tmp_path)
    try:
        started.start()
        yield started
    finally:
        started.end()


def through_collector(start_stack: StartStack, store: LongTerm, _: Path, **more: str) -> Backends:
    """The stack with the layer."""
    return start_stack(
        "keep-every-trace", "prometheus-remote-write",
        COLLECTOR_REMOTE_WRITE_ENDPOINT=f"{store.url}/api/v1/write",
        COLLECTOR_REMOTE_WRITE_LOOPBACK=f"127.0.0.1:{free_port()}",
        **more,
    )  # fmt: skip


def through_prometheus(start_stack: StartStack, store: LongTerm, folder: Path) -> Backends:
    """The stack with the fragment at the end of Prometheus' configuration; rules are evaluated more often."""
    text = "".join((PROMETHEUS / name).read_text() for name in ("prometheus.yaml", "remote-write.yaml"))
    text = text.replace("http://127.0.0.1:8428", store.url)
    text = text.replace("evaluation_interval: 15s", "evaluation_interval: 1s")
    (folder / "prometheus.yaml").write_text(text)
    shutil.copy(RULES, folder)
    return start_stack("keep-every-trace", prometheus=folder / "prometheus.yaml")


@pytest.mark.parametrize(
    ("way", "killed"),
    [
        (through_collector, None),
        (through_collector, "otelcol"),
        (through_prometheus, None),
        (through_prometheus, "prometheus"),
    ],
    ids=["collector", "collector killed", "Prometheus", "Prometheus killed"],
)
async def test_a_long_term_store_that_was_away_has_what_prometheus_has(
    store: LongTerm, start_stack: StartStack, serve: Start, tmp_path: Path,
    record_property: Callable[[str, object], None],
    way: Callable[[StartStack, LongTerm, Path], Backends], killed: str | None,
) -> None:  # fmt: skip
    """Names, labels and samples; who begins anew with each start misses what it had not sent, and counts come right."""
    backends = way(start_stack, store, tmp_path)
    server = shop(serve, tmp_path, backends.stack)
    prometheus = backends.stack.url("prometheus")
    away_ms: list[float] = []

    def newest_ms() -> int:
        return max(newest(samples(prometheus, COUNTS)).values(), default=0)

    def outage() -> None:
        store.end()
        away_ms.append(time.time() * 1000)
        threading.Event().wait(AWAY_S / 2)
        if killed == "prometheus":  # with something to lose
            assert until(newest_ms, lambda seen: seen > away_ms[0]) > away_ms[0]
        if killed:
            backends.stack.end(killed, signal.SIGKILL)
            backends.stack.start(killed)
            away_ms.append(time.time() * 1000)
        threading.Event().wait(AWAY_S / 2)
        store.start()

    finished = await under_load(server, backends, outage)
    server.stop()  # tells its last counts
    assert until(lambda: backends.value(RUNS), lambda seen: seen >= finished) == finished
    assert until(lambda: store.value(RUNS), lambda seen: seen >= finished) == finished
    assert until(lambda: series(store.url) ^ series(prometheus), lambda odd: not odd) == set()

    def both() -> tuple[set[Sample], list[Sample]]:
        return samples(prometheus, COUNTS), store.samples(COUNTS)

    def settled(seen: tuple[set[Sample], list[Sample]]) -> bool:
        """Each has the last of a series; the counts tell that of the last run, and one more may follow it."""
        return newest(seen[0]) == newest(seen[1]) if killed == "prometheus" else seen[0] == set(seen[1])

    had, has = until(both, settled)
    missing = had - set(has)
    again = twice([str(each) for each in has])
    told = {"samples": len(had), "missing": len(missing), "twice": again, "runs": finished}
    for key, value in told.items():
        record_property(key, value)
    print(f"{way.__name__}, {killed or 'nobody'} killed, store away {AWAY_S:.0f} s: {told}")
    assert set(has) <= had
    if killed == "prometheus":
        assert missing, "deploy/prometheus/remote-write.yaml says that it begins anew"
        assert all(at <= away_ms[1] for _, at, _ in missing)
    else:
        assert not missing

    recorded = {
        each["record"]: each["expr"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for each in group["rules"]
        if "record" in each
    }
    answers = {name: store.query(expression) for name, expression in recorded.items()}
    (p95,) = answers["job:stx_response_time:current"]
    assert p95["metric"] == {"job": "shop"}
    assert float(p95["value"][1]) > 0
    assert bool(series(store.url, RECORDED)) == (way is through_prometheus)  # by whom they are evaluated
    own = ask(f"{prometheus}/metrics").decode()
    exemplars = re.findall(r"^prometheus_remote_storage_exemplars_total\{.*\} (\S+)$", own, re.MULTILINE)
    assert [float(each) > 0 for each in exemplars] == [True] * (way is through_prometheus)


@pytest.mark.parametrize("away", ["long-term store", "Prometheus"])
def test_a_full_queue_refuses_and_the_other_takes_a_copy_at_each_attempt(
    store: LongTerm, start_stack: StartStack, tmp_path: Path, away: str
) -> None:
    """Who sends comes again until both have it: Prometheus then has it once, and the store as often as it was sent."""
    backends = through_collector(start_stack, store, tmp_path, COLLECTOR_QUEUE_BYTES="1000000")
    exporter = 'exporter="otlphttp/metrics"' if away == "long-term store" else 'exporter="otlp/long-term"'
    points, most = 2000, 100

    def taken(request: dict[str, object]) -> bool:
        """Whether it was; the other's queue is empty afterwards."""
        try:
            send(backends.stack.url("otlp_http"), request)
        except urllib.error.HTTPError as error:
            assert (error.code, b"sending queue is full" in error.read()) == (503, True)
            return False
        finally:
            assert until(lambda: backends.own("otelcol_exporter_queue_size", exporter), lambda seen: not seen) == 0
        return True

    def sent() -> float:
        return backends.own("otelcol_exporter_sent_metric_points", exporter)

    if away == "long-term store":
        store.end()
    else:
        backends.stack.end("prometheus")
    assert any(not taken(gauges("filling", points)) for _ in range(most))
    before, late = sent(), gauges("late", points)
    assert [taken(late) for _ in range(3)] == [False] * 3
    assert sent() - before == 3 * points
    if away == "long-term store":
        store.start()
    else:
        backends.stack.start("prometheus")
    assert until(lambda: taken(late), bool)
    attempts = (sent() - before) / points
    copies = points * (1 if away == "long-term store" else attempts)
    prometheus = backends.stack.url("prometheus")
    had = until(lambda: samples(prometheus, "late"), lambda seen: len(seen) >= points)
    has = until(lambda: store.samples("late"), lambda seen: len(seen) >= copies)
    assert len(had) == points
    assert set(has) == had
    assert len(has) >= copies
