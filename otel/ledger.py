"""The accounts of telemetry: where every record that was ever made is now, read and written under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import msgspec

from otel.names import Attribute, Metric
from otel.records import DropReason, Signal

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

#: Where a record was until now.
Source = Literal["queued", "spooled"]


class Account(msgspec.Struct, frozen=True):
    """One signal's records at one moment: `emitted == delivered + sum(dropped.values()) + spooled + queued`."""

    emitted: int = 0
    delivered: int = 0
    dropped: Mapping[DropReason, int] = msgspec.field(default_factory=dict)
    spooled: int = 0
    queued: int = 0

    @property
    def balance(self) -> int:
        """What is emitted and accounted for nowhere; always 0."""
        return self.emitted - self.delivered - sum(self.dropped.values()) - self.spooled - self.queued


class LedgerSnapshot(msgspec.Struct, frozen=True):
    """All accounts at one moment; `snapshot[Signal.LOGS].queued`."""

    accounts: Mapping[Signal, Account]

    def __getitem__(self, signal: Signal) -> Account:
        return self.accounts[signal]


class OpenAccount:
    """One signal's running figures; changed only under the ledger's lock."""

    __slots__ = ("delivered", "dropped", "emitted", "queued", "spooled")

    def __init__(self) -> None:
        self.emitted = self.delivered = self.spooled = self.queued = 0
        self.dropped: dict[DropReason, int] = {}

    def seen(self, at_door: int) -> Account:
        """The figures of this moment, with those that wait at the door."""
        dropped = MappingProxyType(dict(self.dropped))
        return Account(self.emitted + at_door, self.delivered, dropped, self.spooled, self.queued + at_door)

    def leave(self, source: Source, n: int) -> None:
        """Take `n` records out of where they were."""
        if source == "queued":
            self.queued -= n
        else:
            self.spooled -= n


class Ledger:
    """Counts every record once, from its making to its end; safe to call from any thread.

    The lock may be taken again by the thread that holds it: a log call can come out of a signal handler or a finalizer
    in the middle of another one.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._accounts = {signal: OpenAccount() for signal in Signal}
        self._doors: dict[Signal, Callable[[], int]] = {}
        self._reading = threading.local()

    def waits_at_door(self, signal: Signal, count: Callable[[], int]) -> None:
        """Records of `signal` that `count` tells are made and queued too, although nobody has counted them yet.

        It spares producers the lock: they append to a queue, and whoever takes records out of it does so, and calls
        `queued`, under `lock`. Held until the next call or `reset`.
        """
        with self.lock:
            self._doors[signal] = count

    def queued(self, signal: Signal, n: int) -> None:
        """`n` records were made and wait in memory."""
        with self.lock:
            account = self._accounts[signal]
            account.emitted += n
            account.queued += n

    def dropped_at_door(self, signal: Signal, n: int, reason: DropReason) -> None:
        """`n` records were made and given up at once."""
        with self.lock:
            account = self._accounts[signal]
            account.emitted += n
            account.dropped[reason] = account.dropped.get(reason, 0) + n

    def spooled(self, signal: Signal, n: int) -> None:
        """`n` records that waited in memory are on disk."""
        with self.lock:
            account = self._accounts[signal]
            account.queued -= n
            account.spooled += n

    def dropped(self, signal: Signal, n: int, reason: DropReason, *, source: Source) -> None:
        """`n` records that waited were given up."""
        with self.lock:
            account = self._accounts[signal]
            account.leave(source, n)
            account.dropped[reason] = account.dropped.get(reason, 0) + n

    def delivered(self, signal: Signal, n: int, *, source: Source) -> None:
        """`n` records that waited have arrived."""
        with self.lock:
            account = self._accounts[signal]
            account.leave(source, n)
            account.delivered += n

    def adopted(self, signal: Signal, n: int) -> None:
        """`n` records of an earlier or dead process were found on disk; whoever takes them counts them, once."""
        with self.lock:
            account = self._accounts[signal]
            account.emitted += n
            account.spooled += n

    def snapshot(self) -> LedgerSnapshot:
        """Every account at one and the same moment."""
        with self.lock:
            accounts = {signal: each.seen(self._at_door(signal)) for signal, each in self._accounts.items()}
        return LedgerSnapshot(MappingProxyType(accounts))

    def _at_door(self, signal: Signal) -> int:
        count = self._doors.get(signal)
        return 0 if count is None else count()

    def reset(self) -> None:
        """Begin anew in a forked child: the parent keeps its accounts, and whoever held the lock does not live here."""
        self.lock = threading.RLock()
        self._accounts = {signal: OpenAccount() for signal in Signal}
        self._doors = {}
        self._reading = threading.local()

    # -- as metrics ---------------------------------------------------------------------------------------------

    def observe(self, meter: Meter) -> None:
        """Make the five instruments `telemetry.*`; a reader that collects them all reads one snapshot."""
        meter.create_observable_counter(
            Metric.TELEMETRY_EMITTED, [self._emitted], "{record}", "Telemetry records that were made"
        )
        meter.create_observable_counter(
            Metric.TELEMETRY_DELIVERED, [self._delivered], "{record}", "Telemetry records that arrived"
        )
        meter.create_observable_counter(
            Metric.TELEMETRY_DROPPED, [self._dropped], "{record}", "Telemetry records that were given up, by reason"
        )
        meter.create_observable_up_down_counter(
            Metric.TELEMETRY_SPOOLED, [self._spooled], "{record}", "Telemetry records that wait on disk"
        )
        meter.create_observable_up_down_counter(
            Metric.TELEMETRY_QUEUED, [self._queued], "{record}", "Telemetry records that wait in memory"
        )

    def _read(self, name: str) -> LedgerSnapshot:
        """The snapshot of this thread's collection, which begins when an instrument is asked again."""
        reading = self._reading
        served: set[str] = getattr(reading, "served", set())
        if not served or name in served:
            served = reading.served = set()
            reading.snapshot = self.snapshot()
        served.add(name)
        return reading.snapshot  # type: ignore[no-any-return]  # a thread-local is untyped

    def _observations(self, name: Literal["emitted", "delivered", "spooled", "queued"]) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        for signal, account in self._read(name).accounts.items():
            yield Observation(getattr(account, name), {Attribute.TELEMETRY_SIGNAL: signal.value})

    def _emitted(self, _options: CallbackOptions) -> Iterable[Observation]:
        return self._observations("emitted")

    def _delivered(self, _options: CallbackOptions) -> Iterable[Observation]:
        return self._observations("delivered")

    def _spooled(self, _options: CallbackOptions) -> Iterable[Observation]:
        return self._observations("spooled")

    def _queued(self, _options: CallbackOptions) -> Iterable[Observation]:
        return self._observations("queued")

    def _dropped(self, _options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        for signal, account in self._read("dropped").accounts.items():
            for reason, count in account.dropped.items():
                yield Observation(
                    count, {Attribute.TELEMETRY_SIGNAL: signal.value, Attribute.TELEMETRY_REASON: reason.value}
                )
