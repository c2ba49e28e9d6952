"""How notices reach their sinks: a bounded queue and a thread for each, so that none delays another."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from otel.trace_context import suppressed
from streamlit_extension.alerts.model import Notice

_log = logging.getLogger("streamlit_extension.alerts")

#: Notices that wait for one sink; above it the oldest is given up and counted.
QUEUE_SIZE: Final = 100


class FailureReason(StrEnum):
    """Why a notice did not arrive."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    REFUSED = "refused"  # the service will never take it
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CONFIGURATION = "configuration"
    INTERNAL = "internal"
    QUEUE_FULL = "queue_full"


#: What trying again does not change.
PERMANENT: Final = frozenset({FailureReason.REFUSED, FailureReason.CONFIGURATION})


class SinkError(Exception):
    """A notice did not arrive. Its text holds no secret: it is the reason and what the sink adds of its own.

    `retry_after_s` is the time that the service asked for.
    """

    def __init__(self, reason: FailureReason, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.retry_after_s = retry_after_s


class Sink(Protocol):
    """Tells somebody of notices. `send` returns when the service has taken one, and raises SinkError otherwise."""

    @property
    def name(self) -> str:
        """Unique among the sinks; no secret."""

    @property
    def is_remote(self) -> bool:
        """Whether `send` uses the network; then no telemetry is made of it."""

    def send(self, notice: Notice, /) -> None:
        """Send one notice, within the sink's own time-out; called on the sink's own thread."""


class Retry(msgspec.Struct, frozen=True):
    """When a failed notice is tried again: `attempts` in all, waits from `first_s` doubled up to `most_s`, jittered."""

    attempts: int = 8
    first_s: float = 1.0
    most_s: float = 120.0

    def wait_s(self, attempt: int, error: SinkError, jitter: float) -> float:
        """Return the wait after the failed `attempt` (from 1); `jitter` is from 0 to 1."""
        planned = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        asked = min(error.retry_after_s or 0.0, 10 * self.most_s)
        return max(asked, planned * (0.5 + jitter / 2))


class SinkCounts(msgspec.Struct, frozen=True):
    """What became of one sink's notices. `failed` counts given up ones by reason, `errors` failed attempts."""

    attempts: int = 0
    delivered: int = 0
    failed: Mapping[str, int] = msgspec.field(default_factory=dict)
    errors: Mapping[str, int] = msgspec.field(default_factory=dict)
    waiting: int = 0


@contextmanager
def _without_telemetry(sink: Sink) -> Iterator[None]:
    if not sink.is_remote:
        yield
        return
    with suppressed():
        yield


class Courier:
    """One sink's queue and thread, `stx-alerts-NAME`; started by the first notice, ended by `stop`."""

    def __init__(
        self,
        sink: Sink,
        *,
        retry: Retry | None = None,
        size: int = QUEUE_SIZE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.sink = sink
        self._retry = retry or Retry()
        self._size = size
        self._jitter = jitter
        self._queue: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._attempts = self._delivered = 0
        self._failed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def put(self, notice: Notice) -> None:
        """Queue one notice; never blocks."""
        with self._changed:
            if self._stopping:
                return
            if len(self._queue) >= self._size:
                # The first may be on its way: the one after it is the oldest that is not.
                del self._queue[min(1, len(self._queue) - 1)]
                self._failed[FailureReason.QUEUE_FULL] += 1
            self._queue.append(notice)
            if self._thread is None:
                name = f"stx-alerts-{self.sink.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def waiting(self) -> list[Notice]:
        """Return what was not delivered yet, oldest first."""
        with self._changed:
            return list(self._queue)

    def counts(self) -> SinkCounts:
        """Return what became of the notices so far."""
        with self._changed:
            return SinkCounts(self._attempts, self._delivered, dict(self._failed), dict(self._errors), len(self._queue))

    def settle(self, deadline_s: float) -> bool:
        """Wait until nothing waits any more; False when the monotonic time `deadline_s` came first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, max(0.0, deadline_s - time.monotonic()))

    def stop(self) -> threading.Thread | None:
        """Send what waits without waiting between attempts, end at the first that fails; returns the thread to join."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return self._thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    return
                notice = self._queue[0]
            arrived = self._deliver(notice)
            with self._changed:
                stopping = self._stopping
                if arrived is not None and self._queue and self._queue[0] is notice:
                    self._queue.popleft()
                self._changed.notify_all()
            if stopping and arrived is None:
                return  # what is left is kept for the next process

    def _deliver(self, notice: Notice) -> bool | None:
        """Return whether the notice arrived (False: given up), None when a stop cut the attempts short."""
        for attempt in range(1, self._retry.attempts + 1):
            error = self._attempt(notice)
            if error is None:
                return True
            if error.reason in PERMANENT or attempt == self._retry.attempts:
                self._give_up(notice, error)
                return False
            with self._changed:
                wait_s = self._retry.wait_s(attempt, error, self._jitter())
                if self._changed.wait_for(lambda: self._stopping, wait_s):
                    return None
        return None

    def _attempt(self, notice: Notice) -> SinkError | None:
        problem: SinkError | None = None
        try:
            with _without_telemetry(self.sink):
                self.sink.send(notice)
        except SinkError as error:
            problem = error
        except Exception as error:
            problem = SinkError(FailureReason.INTERNAL, type(error).__name__)
        with self._changed:
            self._attempts += 1
            if problem is None:
                self._delivered += 1
            else:
                self._errors[problem.reason] += 1
        return problem

    def _give_up(self, notice: Notice, error: SinkError) -> None:
        with self._changed:
            self._failed[error.reason] += 1
        fields = {
            "event": "alerts.not_delivered",
            "sink": self.sink.name,
            "reason": str(error.reason),
            "detail": str(error),
            "kind": str(notice.kind),
            "alerts": [alert.rule.name for alert in notice.alerts],
        }
        _log.error("an alert did not reach its sink", extra=fields)


class Delivery:
    """All sinks of a process, each with its courier.

    Arguments:
        sinks: whom to tell; their names differ.
        retry: when a failed notice is tried again.
    """

    def __init__(self, sinks: Sequence[Sink] = (), *, retry: Retry | None = None, size: int = QUEUE_SIZE) -> None:
        self._couriers = {sink.name: Courier(sink, retry=retry, size=size) for sink in sinks}
        if len(self._couriers) != len(sinks):
            raise ValueError("two sinks have one name")

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The sinks in their order."""
        return tuple(courier.sink for courier in self._couriers.values())

    def put(self, notices: Sequence[Notice]) -> None:
        """Queue notices for every sink; never blocks, never raises."""
        for courier in self._couriers.values():
            for notice in notices:
                courier.put(notice)

    def restore(self, outbox: Mapping[str, Sequence[Notice]]) -> None:
        """Queue again what a process before could not deliver, for the sinks that are still there."""
        for name, notices in outbox.items():
            courier = self._couriers.get(name)
            for notice in notices if courier is not None else ():
                assert courier is not None
                courier.put(notice)

    def outbox(self) -> dict[str, list[Notice]]:
        """Return by sink what was not delivered yet."""
        return {name: held for name, courier in self._couriers.items() if (held := courier.waiting())}

    def counts(self) -> dict[str, SinkCounts]:
        """Return by sink what became of the notices."""
        return {name: courier.counts() for name, courier in self._couriers.items()}

    def settle(self, timeout_s: float) -> bool:
        """Wait until everything is delivered or given up; False when the time was over first."""
        deadline_s = time.monotonic() + timeout_s
        return all(courier.settle(deadline_s) for courier in self._couriers.values())

    def stop(self, timeout_s: float) -> bool:
        """End every thread within `timeout_s` in all; False when one still hangs in its sink."""
        deadline_s = time.monotonic() + timeout_s
        threads = [thread for courier in self._couriers.values() if (thread := courier.stop()) is not None]
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)
