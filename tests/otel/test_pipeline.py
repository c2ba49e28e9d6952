"""The queue and its worker: what is put is committed once, in order and in time, or counted as dropped."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel.destinations import ListDestination
from otel.ledger import Account, Ledger
from otel.pipeline import WORKER_NAME, Bell, Pipeline
from otel.records import Batch, DropReason, LogFact, Signal
from otel.trace_context import is_suppressed
from tests.support.otlp import wait_until


def fact(body: str = "hello", **attributes: Any) -> LogFact:
    """A log record."""
    return LogFact(time.time_ns(), 9, "INFO", body, attributes, None, 0, 0, 0, "test")


def plain_encoder(sig: Signal, records: Sequence[Any]) -> tuple[list[Batch], int]:
    """Encodes nothing: the pipeline does not look into a payload."""
    return [Batch(sig, list(records), b"", len(records))], 0


def workers() -> list[threading.Thread]:
    """The pipelines' threads that run now."""
    return [each for each in threading.enumerate() if each.name == WORKER_NAME]


class Made:
    """A pipeline with its list."""

    def __init__(self, **options: Any) -> None:
        self.ledger = Ledger()
        self.destination = options.pop("destination", None) or ListDestination(self.ledger)
        self.pipeline = Pipeline(self.ledger, self.destination, options.pop("encode", plain_encoder), **options)

    def account(self, sig: Signal = Signal.LOGS) -> Account:
        """One signal's account now."""
        account = self.ledger.snapshot()[sig]
        assert account.balance == 0
        return account


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Makes pipelines and ends them."""
    made: list[Made] = []

    def one(**options: Any) -> Made:
        made.append(Made(**options))
        return made[-1]

    yield one
    for each in made:
        assert each.pipeline.shutdown(10)
    assert workers() == []


def test_what_is_put_is_committed_without_a_flush(make: Callable[..., Made]) -> None:
    """The worker comes by itself, and commits records in their order."""
    made = make(delay_s=0.02)
    for number in range(10):
        made.pipeline.put_log(fact(str(number)))
    assert made.destination.wait_for(lambda: len(made.destination.records(Signal.LOGS)) == 10, 10)
    assert [each.body for each in made.destination.records(Signal.LOGS)] == [str(number) for number in range(10)]
    assert made.account() == Account(emitted=10, delivered=10)


def test_records_are_counted_from_the_moment_they_are_put(make: Callable[..., Made]) -> None:
    """Before the worker has seen them they are emitted and queued."""
    made = make(delay_s=60.0)
    made.pipeline.put_log(fact())
    made.pipeline.put_log(fact())
    assert made.account() == Account(emitted=2, queued=2)
    assert made.pipeline.flush(10)
    assert made.account() == Account(emitted=2, delivered=2)


def test_flush_waits_for_what_was_put_before_it(make: Callable[..., Made]) -> None:
    """Each of several threads finds its own records committed when its flush returns."""
    made = make(delay_s=60.0)
    wrong: list[str] = []

    def act(name: str) -> None:
        for number in range(50):
            made.pipeline.put_log(fact(f"{name}-{number}"))
            if not made.pipeline.flush(30):
                wrong.append("flush timed out")
            if f"{name}-{number}" not in {each.body for each in made.destination.records(Signal.LOGS)}:
                wrong.append(f"{name}-{number}")

    threads = [threading.Thread(target=act, args=(name,)) for name in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


class Slow:
    """A destination that waits until it is let go."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.committed = 0

    def commit(self, batches: Sequence[Batch]) -> None:
        self.entered.set()
        self.let_go.wait()
        for batch in batches:
            self.committed += batch.count
            if self.ledger is not None:
                self.ledger.delivered(batch.signal, batch.count, source="queued")


def test_flush_and_shutdown_are_bounded_while_the_destination_hangs(make: Callable[..., Made]) -> None:
    """Both return False in time, and say what was left; the producers never wait."""
    slow = Slow()
    made = make(destination=slow, delay_s=0.01)
    slow.ledger = made.ledger
    made.pipeline.put_log(fact())
    assert slow.entered.wait(10)
    began = time.monotonic()
    assert not made.pipeline.flush(0.1)
    assert not made.pipeline.shutdown(0.1)
    assert time.monotonic() - began < 5
    made.pipeline.put_log(fact())
    assert made.account() == Account(emitted=2, dropped={DropReason.SHUTDOWN: 1}, queued=1)
    slow.let_go.set()
    assert made.pipeline.shutdown(10)
    assert made.account() == Account(emitted=2, delivered=1, dropped={DropReason.SHUTDOWN: 1})


def test_the_queue_is_bounded_in_bytes(make: Callable[..., Made]) -> None:
    """While the destination hangs, memory fills up to the bound; above it records are dropped and counted."""
    slow = Slow()
    made = make(destination=slow, delay_s=0.01, max_bytes=1_000_000)
    slow.ledger = made.ledger
    made.pipeline.put_log(fact())
    assert slow.entered.wait(10)
    for _ in range(100):
        made.pipeline.put_log(fact("x" * 50_000))
    account = made.account()
    assert account.emitted == 101
    assert 15 <= account.queued <= 20
    assert account.dropped == {DropReason.MEMORY: 101 - account.queued}
    slow.let_go.set()
    assert made.pipeline.flush(10)
    made.pipeline.put_log(fact())
    assert made.pipeline.flush(10)
    assert made.account().delivered == account.queued + 1


@pytest.mark.parametrize(
    "attributes",
    [
        {"text": "x" * 100_000},
        {"list": [str(number) * 1000 for number in range(10, 60)]},
        {"deep": {"deeper": {"deepest": "x" * 100_000}}},
    ],
)
def test_attributes_count_by_what_they_hold(make: Callable[..., Made], attributes: dict[str, Any]) -> None:
    """Ten records of 100 kB don't fit where eight do, wherever in the attributes the bytes are."""
    made = make(delay_s=60.0, max_bytes=850_000)
    for _ in range(10):
        made.pipeline.put_log(fact("", **attributes))
    assert made.account().emitted == 10
    assert made.account().dropped == {DropReason.MEMORY: 2}


def test_a_size_that_the_maker_knows_counts(make: Callable[..., Made]) -> None:
    """Of ten records that say they hold 100 kB eight fit, whatever is in them."""
    made = make(delay_s=60.0, max_bytes=850_000)
    for _ in range(10):
        made.pipeline.put_log(msgspec.structs.replace(fact(""), size_bytes=100_000))
    assert made.account().dropped == {DropReason.MEMORY: 2}


def test_a_value_that_nobody_can_measure_is_still_taken(make: Callable[..., Made]) -> None:
    """The estimate never stands in the way of a record."""

    class Odd:
        def __len__(self) -> int:
            raise RuntimeError

    made = make()
    circle: dict[str, Any] = {}
    circle["self"] = circle
    made.pipeline.put_log(fact("", odd=Odd(), circle=circle))
    assert made.pipeline.flush(10)
    assert made.account().delivered == 1


def test_a_burst_loses_nothing(make: Callable[..., Made]) -> None:
    """Twenty thousand spans and as many log records in a tight loop all arrive, in order, in batches."""
    made = make(batch_records=512)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    for number in range(20_000):
        span = tracer.start_span("burst", attributes={"number": number})
        span.end()
        made.pipeline.put_span(span)  # type: ignore[arg-type]
        made.pipeline.put_log(fact(str(number)))
    assert made.pipeline.flush(60)
    assert [span.attributes["number"] for span in made.destination.records(Signal.TRACES)] == list(range(20_000))
    assert [each.body for each in made.destination.records(Signal.LOGS)] == [str(n) for n in range(20_000)]
    assert max(batch.count for batch in made.destination.batches) <= 512


def test_many_threads_lose_nothing_and_every_snapshot_balances(make: Callable[..., Made]) -> None:
    """Eight producers, a reader of the ledger, and the worker: nothing is counted twice or not at all."""
    made = make(delay_s=0.001, batch_records=16)
    done = threading.Event()
    balances: list[int] = []
    emitted: list[int] = []

    def read() -> None:
        while not done.is_set():
            account = made.ledger.snapshot()[Signal.LOGS]
            balances.append(account.balance)
            emitted.append(account.emitted)

    def act() -> None:
        for _ in range(1000):
            made.pipeline.put_log(fact())

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=act) for _ in range(8)]
    for each in [reader, *threads]:
        each.start()
    for each in threads:
        each.join()
    assert made.pipeline.flush(30)
    done.set()
    reader.join()
    assert set(balances) == {0}
    assert emitted == sorted(emitted)
    assert made.account() == Account(emitted=8000, delivered=8000)


def test_spans_that_are_not_sampled_are_left_out(make: Callable[..., Made]) -> None:
    """Head sampling thins traces before they are counted."""
    made = make()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    context = provider.get_tracer("test").start_span("no").get_span_context()
    made.pipeline.put_span(ReadableSpan("no", context))
    assert made.account(Signal.TRACES) == Account()


def test_what_can_not_be_encoded_is_counted_and_the_rest_goes_on(make: Callable[..., Made]) -> None:
    """The encoder says how many it left out; one that fails altogether costs its own piece alone."""

    def encode(sig: Signal, records: Sequence[Any]) -> tuple[list[Batch], int]:
        if any(each.body == "explode" for each in records):
            raise RuntimeError("explode")
        good = [each for each in records if each.body != "bad"]
        return [Batch(sig, good, b"", len(good))], len(records) - len(good)

    made = make(encode=encode, batch_records=2)
    for body in ("good", "bad", "explode", "gone", "good"):
        made.pipeline.put_log(fact(body))
    assert made.pipeline.flush(10)
    assert made.account() == Account(emitted=5, delivered=2, dropped={DropReason.ENCODING: 3})


def test_a_destination_that_raises_costs_its_batch_and_one_line_a_minute(
    make: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    """The worker lives on, the loss is counted, and the log is not flooded."""

    class Broken:
        def commit(self, batches: Sequence[Batch]) -> None:
            raise OSError("no space left at /secret/path")

    made = make(destination=Broken(), delay_s=0.001)
    with caplog.at_level(logging.WARNING, "otel.export.pipeline"):
        for _ in range(5):
            made.pipeline.put_log(fact())
            assert made.pipeline.flush(10)
    assert made.account() == Account(emitted=5, dropped={DropReason.DISK: 5})
    lines = [record.getMessage() for record in caplog.records if record.name == "otel.export.pipeline"]
    assert len(lines) <= 1
    assert "/secret/path" not in caplog.text


def test_shutdown_commits_what_waits_and_ends_the_worker(make: Callable[..., Made]) -> None:
    """Nothing that was put before is lost; what comes after is dropped as such; a second stop changes nothing."""
    made = make(delay_s=60.0)
    made.pipeline.put_log(fact())
    assert len(workers()) == 1
    assert made.pipeline.shutdown(10)
    assert workers() == []
    made.pipeline.put_log(fact())
    assert made.account() == Account(emitted=2, delivered=1, dropped={DropReason.SHUTDOWN: 1})
    assert made.pipeline.shutdown(10)
    assert made.pipeline.flush(10)


def test_no_thread_runs_before_there_is_something_to_do(make: Callable[..., Made]) -> None:
    """An application that emits nothing pays for nothing."""
    made = make()
    assert workers() == []
    made.pipeline.put_log(fact())
    assert len(workers()) == 1


def test_the_worker_makes_no_telemetry_of_its_own(make: Callable[..., Made]) -> None:
    """What a destination does on the worker's thread is suppressed: it would feed the queue that it empties."""
    seen: list[bool] = []

    class Looking:
        def commit(self, batches: Sequence[Batch]) -> None:
            seen.append(is_suppressed())

    made = make(destination=Looking())
    made.pipeline.put_log(fact())
    assert made.pipeline.flush(10)
    assert seen == [True]


def test_a_flush_by_the_worker_itself_does_not_wait(make: Callable[..., Made]) -> None:
    """A destination that flushes would wait for itself; it is told no instead."""
    answers: list[bool] = []

    class Flushing:
        pipeline: Pipeline

        def commit(self, batches: Sequence[Batch]) -> None:
            answers.append(self.pipeline.flush(5))

    destination = Flushing()
    made = make(destination=destination)
    destination.pipeline = made.pipeline
    made.pipeline.put_log(fact())
    assert made.pipeline.flush(10)
    assert answers == [False]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_signal_handler_that_logs_never_waits_for_its_own_thread(make: Callable[..., Made]) -> None:
    """A handler interrupts a producer anywhere and puts a record itself: no deadlock, nothing lost."""
    made = make(delay_s=0.001)
    from_handler = 0

    def handle(*_: object) -> None:
        nonlocal from_handler
        from_handler += 1
        made.pipeline.put_log(fact("handler"))

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(20_000):
            made.pipeline.put_log(fact())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert made.pipeline.flush(30)
    assert from_handler > 0
    assert made.account().emitted == made.account().delivered == 20_000 + from_handler


def test_a_ring_before_the_wait_is_not_missed() -> None:
    """Any number of rings wakes once; without one the wait ends in its time."""
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(5)
    assert not bell.wait(0.01)
    threading.Timer(0.01, bell.ring).start()
    assert bell.wait(5)


def test_the_queue_lets_go_of_what_is_committed(make: Callable[..., Made]) -> None:
    """After any number of rounds the estimate is back at nothing, so that the bound does not creep."""
    made = make(delay_s=0.001, max_bytes=200_000)
    for _ in range(50):
        made.pipeline.put_log(fact("x" * 100_000))
        assert made.pipeline.flush(10)
    assert made.account() == Account(emitted=50, delivered=50)
    assert wait_until(lambda: made.pipeline._bytes == 0)
