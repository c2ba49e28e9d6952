"""Faults of the receiver, one after the other, against real sockets: the accounting is exact, and everything arrives."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from otel.config import OtlpTarget, Protocol
from otel.export.target import make_sender
from otel.ledger import Ledger
from otel.records import DropReason, Signal
from otel.spool import Spool
from tests.support.faults import GRPC_FAULTS, HTTP_FAULTS
from tests.support.otlp import OtlpReceiver
from tests.support.spooling import batch, commit

SOAK = bool(os.environ.get("SOAK"))
FAULTS_S = 60.0 if SOAK else 6.0
OUTAGE_S = 30.0 if SOAK else 3.0
PACE_S = 0.1


def targets(receiver: OtlpReceiver, timeout_s: float) -> dict[Signal, OtlpTarget]:
    """Targets of traces and logs."""
    if receiver.protocol == "grpc":
        target = OtlpTarget(receiver.endpoint, Protocol.GRPC, timeout_s=timeout_s, insecure=True)
        return {Signal.TRACES: target, Signal.LOGS: target}
    return {
        signal: OtlpTarget(f"{receiver.endpoint}/v1/{signal}", timeout_s=timeout_s)
        for signal in (Signal.TRACES, Signal.LOGS)
    }


def identities(receiver: OtlpReceiver) -> dict[Signal, Counter[int]]:
    """How often each id was taken, by signal."""
    return {
        Signal.TRACES: Counter(int(span.name) for span in receiver.spans),
        Signal.LOGS: Counter(int(record.body.string_value) for record in receiver.logs),
    }


@pytest.mark.timeout(400 if SOAK else 170)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_accounts_are_exact_whatever_the_receiver_does(tmp_path: Path, protocol: str) -> None:
    """Refusals, splits, throttling, failures, partial success, resets, hangs and drips: every record is counted once.

    What was delivered is what the receiver took, but for what it said that it left out.
    """
    ledger, chance = Ledger(), random.Random(7)
    with OtlpReceiver(protocol) as receiver:
        senders = {signal: make_sender(signal, target) for signal, target in targets(receiver, 0.7).items()}
        spool = Spool(tmp_path, ledger, senders)
        spool.start()
        pause, number = threading.Event(), 0
        faults = GRPC_FAULTS if protocol == "grpc" else HTTP_FAULTS
        until = time.monotonic() + FAULTS_S
        while time.monotonic() < until:
            fault = faults[number % len(faults)] if number < 2 * len(faults) else chance.choice(faults)
            receiver.fail(*[fault] * (5 if fault.status in (500, 13) else 1))
            commit(
                spool,
                ledger,
                batch(Signal.TRACES, range(number * 10, number * 10 + 5)),
                batch(Signal.LOGS, range(number * 10, number * 10 + 3)),
            )
            number += 1
            for account in ledger.snapshot().accounts.values():
                assert account.balance == 0
            pause.wait(PACE_S)
        receiver._replies.clear()  # what is left of the faults is not worth its time
        assert spool.flush(60)
        spool.close(5)
        taken = identities(receiver)
        rejected = {
            signal: sum(1 for each in receiver.requests if each.signal == signal and each.status in (0, 200))
            for signal in (Signal.TRACES, Signal.LOGS)
        }
    for signal, size in ((Signal.TRACES, 5), (Signal.LOGS, 3)):
        account = ledger.snapshot()[signal]
        assert account.balance == account.spooled == account.queued == 0
        assert account.emitted == number * size
        partial = account.dropped.get(DropReason.PARTIAL, 0)
        assert partial <= rejected[signal]
        assert set(account.dropped) <= {DropReason.PARTIAL, DropReason.REFUSED}
        assert sum(taken[signal].values()) == account.delivered + partial
        assert len(taken[signal]) == account.emitted - account.dropped.get(DropReason.REFUSED, 0)
        assert account.delivered > 0
    assert sum(each.dropped.get(DropReason.REFUSED, 0) for each in ledger.snapshot().accounts.values()) > 0


@pytest.mark.timeout(200 if SOAK else 100)
def test_after_an_outage_everything_arrives(tmp_path: Path) -> None:
    """While nobody listens nothing is lost, and soon after the receiver is back every id has arrived."""
    ledger = Ledger()
    receiver = OtlpReceiver()
    port = receiver.port
    senders = {signal: make_sender(signal, target) for signal, target in targets(receiver, 10).items()}
    spool = Spool(tmp_path, ledger, senders)
    spool.start()
    pause, number = threading.Event(), 0

    def emit(seconds: float) -> None:
        nonlocal number
        until = time.monotonic() + seconds
        while time.monotonic() < until:  # a hundred of each a second, committed twice a second as the pipeline does
            ids = range(number, number + 50)
            commit(spool, ledger, batch(Signal.TRACES, ids), batch(Signal.LOGS, ids))
            number += 50
            pause.wait(0.5)

    emit(1)
    assert spool.flush(20)
    before = identities(receiver)
    receiver.close()
    emit(OUTAGE_S)
    with OtlpReceiver(port=port) as back:
        emit(1)
        wanted = set(range(number))

        def complete() -> bool:
            after = identities(back)
            return all(set(before[signal]) | set(after[signal]) == wanted for signal in after)

        assert back.wait_for(complete, 30)  # ten seconds are promised
        assert spool.flush(20)
        spool.close(5)
        total = {signal: before[signal] + count for signal, count in identities(back).items()}
    for signal, counts in total.items():
        assert sum(counts.values()) - len(counts) <= 0.005 * number
        account = ledger.snapshot()[signal]
        assert (account.emitted, account.delivered, dict(account.dropped)) == (number, number, {})
