"""From the producers to a destination: they only append; one worker redacts, encodes and commits.

What can fail, and what happens then: the queue is full (dropped, `memory`); a record can't be encoded (it alone is
dropped, `encoding`); the destination hangs (the queue fills up, nobody waits); the destination raises (dropped,
`disk`); the process is forked (the child begins with nothing, the parent goes on); the pipeline has ended (dropped,
`shutdown`). Producers may come out of signal handlers and finalizers, and may be forked: nothing on their path waits
for a lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import context as context_api

from otel.ledger import Ledger
from otel.quiet import OncePerMinute
from otel.records import Batch, Destination, DropReason, LogFact, Signal
from otel.sizes import FACT_BYTES, POINT_BYTES, SPAN_BYTES, events_bytes, fact_bytes, span_bytes, value_bytes
from otel.trace_context import suppressed_context

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# A name below `otel.export`: what such loggers say is never exported, or the trouble of export would make the next.
_logger = logging.getLogger("otel.export.pipeline")
_logger.addFilter(OncePerMinute())

WORKER_NAME: Final = "stx-telemetry"
#: What encoded batches wait for one another before they are committed together, in seconds.
GROUP_S: Final = 0.1

#: So much waiting calls the worker at once.
HURRY_BYTES: Final = 2**20


class Encoder(Protocol):
    """Turns records of one signal into batches; never raises for a single record's sake."""

    def __call__(self, signal: Signal, records: Sequence[Any], /) -> tuple[list[Batch], int]:
        """The batches, and how many records could not be encoded."""


class Bell:
    """Wakes one waiting thread. Ringing never waits, not even for itself: a signal handler may interrupt it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread, or let its next wait return at once."""
        try:
            self._lock.release()
        except RuntimeError:  # it has rung already
            pass

    def wait(self, timeout_s: float = -1) -> bool:
        """Wait for a ring; False when `timeout_s` seconds passed first (below 0: for ever)."""
        return self._lock.acquire(timeout=timeout_s)


class Pipeline:
    """A queue bounded in bytes and its worker.

    Arguments:
        ledger: counts every record.
        destination: takes the batches; `commit` is called on the worker's thread alone.
        encode: turns records into batches.
        max_bytes: bound of what waits in memory, by estimate; batches being encoded count until they are committed.
        batch_records: most records in one batch.
        delay_s: how long the first record waits for others, in seconds.

    The worker starts with the first record, in a forked child too.
    """

    def __init__(
        self,
        ledger: Ledger,
        destination: Destination,
        encode: Encoder,
        *,
        max_bytes: int = 64 * 2**20,
        batch_records: int = 512,
        delay_s: float = 0.25,
    ) -> None:
        self.ledger = ledger
        self.destination = destination
        self._encode = encode
        self._max_bytes = max_bytes
        self._batch_records = batch_records
        self._delay_s = delay_s
        self._begin()

    def _begin(self) -> None:
        """The state of a pipeline without a record and without a worker."""
        self._lock = self.ledger.lock
        self._spans: deque[ReadableSpan] = deque()
        self._facts: deque[LogFact] = deque()
        self._metrics: deque[tuple[Any, int]] = deque()
        self.ledger.waits_at_door(Signal.TRACES, self._spans.__len__)
        self.ledger.waits_at_door(Signal.LOGS, self._facts.__len__)
        self._bytes = 0
        self._committing_bytes = 0
        #: Above so many bytes the producers' short way ends: the worker is to hurry, or nothing more is taken.
        self._short_way_bytes = min(HURRY_BYTES, self._max_bytes)
        self._awake = False
        self._hurried = False
        self._stopping = False
        self._closed = False
        self._waiters: list[threading.Event] = []
        self._bell = Bell()
        self._worker: threading.Thread | None = None

    def begin_in_child(self) -> None:
        """In a forked child, after the ledger's reset: what waits is the parent's and is sent by it."""
        self._begin()

    # -- producers ----------------------------------------------------------------------------------------------
    # They take no lock: appending to a deque is atomic, the ledger counts what is in it, and `_bytes`, an estimate
    # anyway, is read and written without a call in between and is put right whenever the queue is empty.

    def put_span(self, span: ReadableSpan) -> None:
        """Take a finished span, if it is sampled; only appends, never waits, never raises."""
        try:  # the SDK's own names: the public ones make copies
            if not span._context.trace_flags & 1:  # type: ignore[union-attr]
                return
            size = SPAN_BYTES
            for value in span._attributes._dict.values():  # type: ignore[union-attr]
                kind = value.__class__
                if kind is str:
                    size += len(value)
                elif kind is not int and kind is not float and kind is not bool:
                    size += value_bytes(value)
            if span._events._dq:  # type: ignore[attr-defined]
                size += events_bytes(span)
        except Exception:
            size = span_bytes(span) + events_bytes(span)
        total = self._bytes + size
        if total > self._short_way_bytes and not self._room(Signal.TRACES, 1, total):
            return
        self._bytes = total
        self._spans.append(span)
        if not self._awake:
            self._wake()

    def put_log(self, fact: LogFact) -> None:
        """Take a log record (`LogSink`); only appends, never waits, never raises."""
        size = fact.size_bytes
        if not size:
            try:
                size = FACT_BYTES + len(fact.body)
                for value in fact.attributes.values():
                    kind = value.__class__
                    if kind is str:
                        size += len(value)
                    elif kind is not int and kind is not float and kind is not bool:
                        size += value_bytes(value)
            except Exception:
                size = fact_bytes(fact)
        total = self._bytes + size
        if total > self._short_way_bytes and not self._room(Signal.LOGS, 1, total):
            return
        self._bytes = total
        self._facts.append(fact)
        if not self._awake:
            self._wake()

    def put_metrics(self, data: Any, count: int) -> None:
        """Take one collection of metrics with its number of data points."""
        total = self._bytes + POINT_BYTES * count
        if total > self._short_way_bytes and not self._room(Signal.METRICS, count, total):
            return
        self._bytes = total
        self.ledger.queued(Signal.METRICS, count)
        self._metrics.append((data, count))
        if not self._awake:
            self._wake()

    def _room(self, signal: Signal, n: int, total: int) -> bool:
        """The long way: call the worker at once, or drop where there is no room."""
        if self._closed or total > self._max_bytes:
            self.ledger.dropped_at_door(signal, n, DropReason.SHUTDOWN if self._closed else DropReason.MEMORY)
            return False
        self._short_way_bytes = self._max_bytes
        self._wake(hurry=True)
        return True

    def _wake(self, *, hurry: bool = False) -> None:
        """Let the worker come, after its delay or at once."""
        self._awake = True
        if hurry:
            self._hurried = True
        if self._worker is None:
            with self._lock:
                if self._worker is None:
                    self._worker = threading.Thread(target=self._work, name=WORKER_NAME, daemon=True)
                    self._worker.start()
        self._bell.ring()

    # -- whoever waits for it -----------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before this call is committed; False when `timeout_s` seconds passed first."""
        if threading.current_thread() is self._worker:
            return False  # it would wait for itself
        done = threading.Event()
        with self._lock:
            if self._closed:
                return not (self._spans or self._facts or self._metrics)
            self._waiters.append(done)
        self._wake(hurry=True)
        return done.wait(timeout_s)

    def shutdown(self, timeout_s: float) -> bool:
        """Commit what waits, take nothing more and end the worker; False when it did not end in `timeout_s` seconds."""
        with self._lock:
            self._stopping = True
            worker = self._worker
            if worker is None:
                self._close()
                return True
        self._bell.ring()
        if worker is not threading.current_thread():
            worker.join(timeout_s)
        if not worker.is_alive():
            return True
        with self._lock:
            self._close()
            left = sum(account.queued for account in self.ledger.snapshot().accounts.values())
        _logger.warning(
            "%d telemetry records could not be committed before the end",
            left,
            extra={"event": "telemetry.not_committed"},
        )
        return False

    def _close(self) -> None:
        """Take nothing more: nobody's way is short any more."""
        self._closed = True
        self._short_way_bytes = -1

    # -- the worker ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        context_api.attach(suppressed_context())
        bell = self._bell
        while True:
            bell.wait()
            if not self._hurried and not self._stopping:
                bell.wait(self._delay_s)
            while self._round():
                pass
            with self._lock:
                if self._stopping and not (self._spans or self._facts or self._metrics or self._waiters):
                    self._close()
                    return

    def _round(self) -> bool:
        """Take all that waits and commit it; returns whether somebody is in a hurry for more."""
        self._awake = self._hurried = False  # whoever appends from here on rings again
        with self._lock:
            waiters, self._waiters = self._waiters, []
            spans = self._taken(Signal.TRACES, self._spans)
            facts = self._taken(Signal.LOGS, self._facts)
            metrics = [self._metrics.popleft() for _ in range(len(self._metrics))]
        self._committing_bytes = self._bytes
        self._short_way_bytes = -1 if self._closed else min(self._bytes + HURRY_BYTES, self._max_bytes)
        try:
            if spans or facts or metrics:
                self._commit_all(spans, facts, metrics)
        finally:
            self._bytes -= self._committing_bytes
            self._committing_bytes = 0
            if not self._spans and not self._facts and not self._metrics:
                self._bytes = 0
            for waiter in waiters:
                waiter.set()
        return self._hurried

    def _taken(self, signal: Signal, queue: deque[Any]) -> list[Any]:
        """What has waited at the door, counted from now on as queued; the caller holds the ledger's lock."""
        records = [queue.popleft() for _ in range(len(queue))]
        self.ledger.queued(signal, len(records))
        return records

    def _commit_all(self, spans: list[ReadableSpan], facts: list[LogFact], metrics: list[tuple[Any, int]]) -> None:
        """Encode piece by piece, and commit pieces together that are encoded within `GROUP_S`."""
        pieces = [
            *_pieces(Signal.TRACES, spans, self._batch_records),
            *_pieces(Signal.LOGS, facts, self._batch_records),
            *((Signal.METRICS, [data], count) for data, count in metrics),
        ]
        for each in (spans, facts, metrics):
            each.clear()  # a piece is let go once it is committed
        total = sum(count for _, _, count in pieces) or 1
        share = self._committing_bytes / total
        group: list[Batch] = []
        grouped = 0
        due = time.monotonic() + GROUP_S
        pieces.reverse()
        while pieces:
            signal, records, count = pieces.pop()
            group += self._encoded(signal, records, count)
            grouped += count
            if not pieces or time.monotonic() >= due:
                self._commit(group)
                freed = min(int(grouped * share), self._committing_bytes)
                self._bytes -= freed
                self._committing_bytes -= freed
                group, grouped = [], 0
                due = time.monotonic() + GROUP_S

    def _encoded(self, signal: Signal, records: Sequence[Any], count: int) -> list[Batch]:
        try:
            batches, bad = self._encode(signal, records)
        except Exception as error:
            batches, bad = [], count
            _logger.warning("%s could not be encoded: %s", signal, type(error).__name__, extra=_INTERNAL_ERROR)
        if bad:
            self.ledger.dropped(signal, bad, DropReason.ENCODING, source="queued")
        return batches

    def _commit(self, group: list[Batch]) -> None:
        if not group:
            return
        try:
            self.destination.commit(group)
        except Exception as error:
            for batch in group:
                self.ledger.dropped(batch.signal, batch.count, DropReason.DISK, source="queued")
            _logger.warning("telemetry could not be committed: %s", type(error).__name__, extra=_INTERNAL_ERROR)


_INTERNAL_ERROR: Final = {"event": "telemetry.internal_error"}


def _pieces(signal: Signal, records: list[Any], size: int) -> Iterator[tuple[Signal, list[Any], int]]:
    for start in range(0, len(records), size):
        piece = records[start : start + size]
        yield signal, piece, len(piece)
