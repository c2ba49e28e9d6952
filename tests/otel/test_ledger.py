"""Every record is in exactly one place, whatever the threads do."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel.ledger import Account, Ledger, LedgerSnapshot
from otel.records import DropReason, Signal

SIGNALS = st.sampled_from(list(Signal))
REASONS = st.sampled_from(list(DropReason))
COUNTS = st.integers(0, 50)


def assert_balanced(snapshot: LedgerSnapshot) -> None:
    """Nothing is lost and nothing counted twice."""
    assert {signal: account.balance for signal, account in snapshot.accounts.items()} == dict.fromkeys(Signal, 0)


class LedgerAgainstModel(RuleBasedStateMachine):
    """The ledger beside plain sets of counters."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.queued: Counter[Signal] = Counter()
        self.spooled: Counter[Signal] = Counter()
        self.delivered: Counter[Signal] = Counter()
        self.dropped: Counter[tuple[Signal, DropReason]] = Counter()

    @rule(signal=SIGNALS, n=COUNTS)
    def queue(self, signal: Signal, n: int) -> None:
        self.ledger.queued(signal, n)
        self.queued[signal] += n

    @rule(signal=SIGNALS, n=COUNTS, reason=REASONS)
    def refuse(self, signal: Signal, n: int, reason: DropReason) -> None:
        self.ledger.dropped_at_door(signal, n, reason)
        self.dropped[signal, reason] += n

    @rule(signal=SIGNALS, n=COUNTS)
    def adopt(self, signal: Signal, n: int) -> None:
        self.ledger.adopted(signal, n)
        self.spooled[signal] += n

    @rule(signal=SIGNALS, n=COUNTS)
    def spool(self, signal: Signal, n: int) -> None:
        n = min(n, self.queued[signal])
        self.ledger.spooled(signal, n)
        self.queued[signal] -= n
        self.spooled[signal] += n

    @rule(signal=SIGNALS, n=COUNTS, from_disk=st.booleans())
    def deliver(self, signal: Signal, n: int, from_disk: bool) -> None:
        place = self.spooled if from_disk else self.queued
        n = min(n, place[signal])
        self.ledger.delivered(signal, n, source="spooled" if from_disk else "queued")
        place[signal] -= n
        self.delivered[signal] += n

    @rule(signal=SIGNALS, n=COUNTS, reason=REASONS, from_disk=st.booleans())
    def drop(self, signal: Signal, n: int, reason: DropReason, from_disk: bool) -> None:
        place = self.spooled if from_disk else self.queued
        n = min(n, place[signal])
        self.ledger.dropped(signal, n, reason, source="spooled" if from_disk else "queued")
        place[signal] -= n
        self.dropped[signal, reason] += n

    @invariant()
    def agrees(self) -> None:
        snapshot = self.ledger.snapshot()
        assert_balanced(snapshot)
        for signal in Signal:
            account = snapshot[signal]
            assert (account.queued, account.spooled) == (self.queued[signal], self.spooled[signal])
            assert account.delivered == self.delivered[signal]
            assert {k: n for k, n in account.dropped.items() if n} == {
                reason: n for (each, reason), n in self.dropped.items() if each is signal and n
            }


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=50, deadline=None)


@settings(deadline=None, max_examples=40)
@given(plans=st.lists(st.lists(st.tuples(SIGNALS, REASONS, st.integers(0, 6)), max_size=30), min_size=2, max_size=5))
def test_every_snapshot_balances_under_any_interleaving(plans: list[list[tuple[Signal, DropReason, int]]]) -> None:
    """Threads move records on in their own order while another reads: no snapshot shows one twice or not at all."""
    ledger = Ledger()
    go = threading.Event()
    done = threading.Event()
    seen: list[LedgerSnapshot] = []

    def act(plan: list[tuple[Signal, DropReason, int]]) -> None:
        go.wait()
        for signal, reason, way in plan:
            if way == 0:
                ledger.dropped_at_door(signal, 1, reason)
                continue
            ledger.queued(signal, 3)
            ledger.spooled(signal, 1)
            ledger.delivered(signal, 1, source="spooled" if way % 2 else "queued")
            ledger.dropped(signal, 1, reason, source="queued")
            ledger.adopted(signal, way)

    def read() -> None:
        go.wait()
        while not done.is_set() and len(seen) < 500:
            seen.append(ledger.snapshot())

    threads = [threading.Thread(target=act, args=(plan,)) for plan in plans]
    reader = threading.Thread(target=read)
    for each in [*threads, reader]:
        each.start()
    go.set()
    for each in threads:
        each.join()
    done.set()
    reader.join()
    for snapshot in [*seen, ledger.snapshot()]:
        assert_balanced(snapshot)
    expected = Counter[Signal]()
    for signal, _, way in (step for plan in plans for step in plan):
        expected[signal] += 1 if way == 0 else 3 + way
    assert {signal: ledger.snapshot()[signal].emitted for signal in Signal} == {s: expected[s] for s in Signal}


def test_a_snapshot_does_not_change_any_more() -> None:
    """What was read stays as it was read."""
    ledger = Ledger()
    ledger.queued(Signal.LOGS, 2)
    ledger.dropped(Signal.LOGS, 1, DropReason.ENCODING, source="queued")
    before = ledger.snapshot()
    ledger.dropped(Signal.LOGS, 1, DropReason.ENCODING, source="queued")
    assert before[Signal.LOGS] == Account(2, 0, {DropReason.ENCODING: 1}, 0, 1)


def test_reset_begins_anew_even_where_the_lock_was_held() -> None:
    """A child may be forked while another thread holds the lock: after the reset it counts from zero."""
    ledger = Ledger()
    ledger.queued(Signal.TRACES, 5)
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with ledger.lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    ledger.reset()
    ledger.queued(Signal.TRACES, 1)
    assert ledger.snapshot()[Signal.TRACES] == Account(emitted=1, queued=1)
    release.set()
    thread.join()


def test_one_collection_reads_one_snapshot() -> None:
    """The five metrics of one collection add up, although records move on in between."""
    ledger = Ledger()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    ledger.observe(provider.get_meter("test"))
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            ledger.queued(Signal.LOGS, 3)
            ledger.spooled(Signal.LOGS, 2)
            ledger.delivered(Signal.LOGS, 1, source="spooled")
            ledger.dropped(Signal.LOGS, 1, DropReason.AGE, source="spooled")

    thread = threading.Thread(target=move)
    thread.start()
    found = []
    for _ in range(50):
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        found.append(
            {
                (metric.name, *sorted((point.attributes or {}).values())): point.value  # type: ignore[union-attr,type-var]
                for metric in metrics
                for point in metric.data.data_points
            }
        )
        assert {metric.unit for metric in metrics} == {"{record}"}
    stop.set()
    thread.join()
    provider.shutdown()
    for values in found:
        rest = sum(n for key, n in values.items() if "logs" in key and key[0] != "telemetry.emitted")
        assert values["telemetry.emitted", "logs"] == rest
    assert found[-1]["telemetry.emitted", "logs"] > found[0]["telemetry.emitted", "logs"]
    assert ("telemetry.dropped", "age", "logs") in found[-1]
