"""The accounts through the whole pipeline, producers to receiver, while the receiver does its worst."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Self

import pytest
from opentelemetry import trace

from otel.config import TelemetryConfig
from otel.ledger import LedgerSnapshot
from otel.providers import Telemetry, install
from otel.records import DropReason, LogFact, Signal
from tests.support.faults import GRPC_FAULTS, HTTP_FAULTS
from tests.support.otlp import OtlpReceiver, attributes, wait_until

SOAK = bool(os.environ.get("SOAK"))
FAULTS_S = 60.0 if SOAK else 6.0
PRODUCERS = 3
FIGURES = ("emitted", "delivered", "dropped", "spooled", "queued")


class Producers:
    """Threads that make spans and log records with ids until they are stopped."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.made = [0] * PRODUCERS
        self._telemetry = telemetry
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in range(PRODUCERS)]

    def _run(self, producer: int) -> None:
        tracer, sink = trace.get_tracer("test"), self._telemetry.log_sink
        assert sink is not None
        while not self._stop.wait(0.02):
            identity = f"{producer}-{self.made[producer]}"
            with tracer.start_as_current_span(identity):
                sink(LogFact(time.time_ns(), 9, "INFO", identity, {}, None, 0, 0, 0, "test"))
            self.made[producer] += 1

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()


class Auditor:
    """Reads the accounts again and again from a thread of its own."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.readings = 0
        self.wrong: list[LedgerSnapshot] = []
        self._telemetry = telemetry
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            snapshot = self._telemetry.ledger.snapshot()
            self.readings += 1
            for account in snapshot.accounts.values():
                figures = (account.emitted, account.delivered, *account.dropped.values(), account.spooled)
                if account.balance or min(*figures, account.queued) < 0:
                    self.wrong.append(snapshot)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def collections_of(receiver: OtlpReceiver) -> list[dict[str, Counter[str]]]:
    """`telemetry.*` of each collection that came: signal → figure → value, all reasons together."""
    found = []
    for message in receiver.accepted("metrics"):
        figures: dict[str, Counter[str]] = defaultdict(Counter)
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    figure = metric.name.removeprefix("telemetry.")
                    if figure in FIGURES:
                        for point in metric.sum.data_points:
                            figures[attributes(point.attributes)["telemetry.signal"]][figure] += point.as_int
        if len(figures) == len(Signal) and all({"emitted", "queued"} <= set(each) for each in figures.values()):
            found.append(dict(figures))  # the first and the last of them: it was not split
    return found


def told(figures: Any) -> dict[str, int]:
    """A ledger's account as the metrics tell it."""
    return {
        "emitted": figures.emitted,
        "delivered": figures.delivered,
        "dropped": sum(figures.dropped.values()),
        "spooled": figures.spooled,
        "queued": figures.queued,
    }


@pytest.mark.timeout(400 if SOAK else 170)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_accounts_balance_at_every_moment_and_are_what_the_metrics_say(tmp_path: Path, protocol: str) -> None:
    """Refusals, throttling, failures, partial success, resets, hangs and drips, read all the while from outside."""
    faults, chance = (GRPC_FAULTS if protocol == "grpc" else HTTP_FAULTS), random.Random(11)
    with OtlpReceiver(protocol) as receiver:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "700",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        telemetry = install(TelemetryConfig.from_environment(environ, data_dir=tmp_path))
        try:
            with Auditor(telemetry) as auditor:
                with Producers(telemetry) as producers:
                    until, number, pause = time.monotonic() + FAULTS_S, 0, threading.Event()
                    while time.monotonic() < until:
                        fault = faults[number] if number < len(faults) else chance.choice(faults)
                        receiver.fail(*[fault] * (5 if fault.status in (500, 13) else 1))
                        number += 1
                        pause.wait(0.3)
                receiver._replies.clear()  # what is left of the faults is not worth its time
                assert wait_until(lambda: telemetry.flush(5), 60)
                # The accounts of spans and logs rest now, so that one more collection tells what they are.
                before = len(collections_of(receiver))
                assert wait_until(lambda: len(collections_of(receiver)) > before + 1, 20)
        finally:
            telemetry.shutdown(10)
            telemetry.uninstall()
        snapshot, made = telemetry.ledger.snapshot(), sum(producers.made)
        assert auditor.wrong == []
        assert auditor.readings > 100
        collections = collections_of(receiver)
        assert len(collections) > 3
        for each in collections:
            for figures in each.values():
                rest = sum(figures[name] for name in FIGURES[1:])
                assert figures["emitted"] == rest, figures
        taken = {
            Signal.TRACES: Counter(span.name for span in receiver.spans),
            Signal.LOGS: Counter(record.body.string_value for record in receiver.logs),
        }
        for signal, counts in taken.items():
            account = snapshot[signal]
            assert {name: collections[-1][signal][name] for name in FIGURES} == told(account)
            assert account.emitted == made
            assert account.spooled == account.queued == 0
            partial = account.dropped.get(DropReason.PARTIAL, 0)
            assert set(account.dropped) <= {DropReason.PARTIAL, DropReason.REFUSED}
            assert sum(counts.values()) == account.delivered + partial
            assert len(counts) == made - account.dropped.get(DropReason.REFUSED, 0)
        assert sum(sum(each.dropped.values()) for each in snapshot.accounts.values()) > 0
