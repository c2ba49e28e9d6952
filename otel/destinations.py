"""Where each signal's batches go: one destination that accounts for them, and the console beside it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from otel.config import TelemetryConfig
from otel.ledger import Ledger
from otel.quiet import OncePerMinute
from otel.records import Batch, Destination, LogFact, Signal

if TYPE_CHECKING:
    from otel.spool import Spool
    from otel.store.store import Store

_logger = logging.getLogger("otel.export.destinations")
_logger.addFilter(OncePerMinute())

#: Sees batches beside the destination, on the worker's thread; counts nothing.
Tap = Callable[[Batch], None]


@runtime_checkable
class Flushable(Protocol):
    """A destination that holds records back and can be told to send them now."""

    def flush(self, timeout_s: float, /) -> bool:
        """Send what waits; False when it was not done in `timeout_s` seconds."""


@runtime_checkable
class Closable(Protocol):
    """A destination that has something to end: threads, files, connections."""

    def close(self, timeout_s: float, /) -> None:
        """End, within `timeout_s` seconds."""


@runtime_checkable
class ForkAware(Protocol):
    """A destination that begins anew in a forked child."""

    def begin_in_child(self) -> None:
        """Called in the child before anything is committed there; what is held is the parent's."""


class Router:
    """Hands each signal's batches to its destination, and shows them to its taps first.

    Arguments:
        ledger: counts as delivered what a tap alone takes (`OTEL_TRACES_EXPORTER=console`).
        destinations: accounts for a signal's records; several signals may share one.
        taps: by signal.
        store: takes all that is committed, also what another destination accounts for.
    """

    def __init__(
        self,
        ledger: Ledger,
        destinations: Mapping[Signal, Destination],
        taps: Mapping[Signal, Sequence[Tap]],
        store: Store | None = None,
    ) -> None:
        self._ledger = ledger
        self._destinations = dict(destinations)
        self._taps = {signal: tuple(each) for signal, each in taps.items() if each}
        self.signals = frozenset(self._destinations) | frozenset(self._taps)
        #: The signals whose batches need their OTLP request: those that are sent.
        self.encoded = frozenset(signal for signal, each in self._destinations.items() if each is not store)
        self.store = store
        #: The spool, where there is one among the destinations.
        self.spool: Spool | None = None

    def commit(self, batches: Sequence[Batch]) -> None:
        """Return once `batches` are where they belong."""
        groups: dict[int, tuple[Destination, list[Batch]]] = {}
        for batch in batches:
            for tap in self._taps.get(batch.signal, ()):
                _contained(tap, batch)
            destination = self._destinations.get(batch.signal)
            if destination is None:
                self._ledger.delivered(batch.signal, batch.count, source="queued")
            elif destination is not self.store:
                groups.setdefault(id(destination), (destination, []))[1].append(batch)
        for destination, group in groups.values():
            destination.commit(group)
        if self.store is not None:
            self.store.commit(batches)

    def flush(self, timeout_s: float) -> bool:
        """Let every destination that holds something back send it."""
        deadline = time.monotonic() + timeout_s
        done = [
            each.flush(max(0.0, deadline - time.monotonic())) for each in self._each() if isinstance(each, Flushable)
        ]
        return all(done)

    def close(self, timeout_s: float) -> None:
        """End every destination."""
        deadline = time.monotonic() + timeout_s
        for each in self._each():
            if isinstance(each, Closable):
                each.close(max(0.0, deadline - time.monotonic()))

    def begin_in_child(self) -> None:
        """Let every destination begin anew."""
        for each in self._each():
            if isinstance(each, ForkAware):
                each.begin_in_child()

    def _each(self) -> Iterable[Destination]:
        found: dict[int, Destination] = {id(each): each for each in self._destinations.values()}
        if self.store is not None:
            found[id(self.store)] = self.store
        return found.values()


def _contained(tap: Tap, batch: Batch) -> None:
    try:
        tap(batch)
    except Exception as error:
        _logger.warning("a tap failed: %s", type(error).__name__, extra={"event": "telemetry.internal_error"})


class ConsoleTap:
    """Writes every record as one JSON line (`OTEL_*_EXPORTER=console`); for looking at, not for parsing."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream

    def __call__(self, batch: Batch) -> None:
        """Write a batch."""
        lines = [_as_json(record) for record in batch.records]
        stream = self._stream or sys.stdout
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()


def _as_json(record: Any) -> str:
    if isinstance(record, LogFact):
        return json.dumps(
            {name: getattr(record, name) for name in LogFact.__struct_fields__ if name != "size_bytes"}, default=str
        )
    return " ".join(line.strip() for line in record.to_json().splitlines())


def destination_of(config: TelemetryConfig, ledger: Ledger) -> Router:
    """The destinations that a configuration asks for.

    This is the seam of durable export: the one place that decides what stands between the worker and the network. With
    neither an OTLP target nor the console nor a store there is no signal that goes anywhere, and `signals` is empty.
    """
    targets = {signal: target for signal in Signal if (target := config.destinations(signal).otlp) is not None}
    taps = {signal: [CONSOLE] for signal in Signal if config.destinations(signal).console}
    store = _make_store(config, ledger, frozenset(Signal) - targets.keys())
    destinations: dict[Signal, Destination] = {} if store is None else dict.fromkeys(Signal, store)
    if not targets:
        return Router(ledger, destinations, taps, store)
    spool = _start_spool(config, ledger)
    router = Router(ledger, {**destinations, **dict.fromkeys(targets, spool)}, taps, store)
    router.spool = spool
    return router


def _make_store(config: TelemetryConfig, ledger: Ledger, signals: frozenset[Signal]) -> Store | None:
    """The embedded store, which accounts for those signals that nothing else takes; None where there is none."""
    if not config.store or config.data_dir is None:
        return None
    from otel.store import FOLDER
    from otel.store.store import Store

    return Store(
        config.data_dir / FOLDER,
        ledger,
        accounts_for=signals,
        max_bytes=config.store_max_bytes,
        max_age_s=config.store_max_age_s,
    )


def _start_spool(config: TelemetryConfig, ledger: Ledger) -> Spool:
    """A spool with its senders; what has no sender that works waits until a start with one that does."""
    from otel.export.target import make_senders
    from otel.spool import FOLDER, Spool

    def complain(signal: Signal, error: Exception) -> None:
        _logger.warning("%s can't be sent: %s", signal, error, extra={"event": "telemetry.no_sender"})

    spool = Spool(
        None if config.data_dir is None else config.data_dir / FOLDER,
        ledger,
        make_senders(config, complain),
        max_bytes=config.spool_max_bytes,
        max_age_s=config.spool_max_age_s,
    )
    spool.start()
    return spool


CONSOLE: Final = ConsoleTap()


class ListDestination:
    """Keeps every batch; for tests and for whoever wants to look at what would be sent."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed = threading.Condition()
        self.batches: list[Batch] = []

    def commit(self, batches: Sequence[Batch]) -> None:
        """Keep them; they count as delivered."""
        with self._changed:
            self.batches.extend(batches)
            for batch in batches:
                self._ledger.delivered(batch.signal, batch.count, source="queued")
            self._changed.notify_all()

    def begin_in_child(self) -> None:
        """Forget the parent's."""
        self._changed = threading.Condition()
        self.batches = []

    def records(self, signal: Signal) -> list[Any]:
        """The records of one signal so far, in order."""
        with self._changed:
            return [record for batch in self.batches if batch.signal is signal for record in batch.records]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds, asked after each commit."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)
