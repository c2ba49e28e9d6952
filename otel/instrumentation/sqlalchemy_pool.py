"""Connection pools: what they hold is read from the real pools when somebody asks, what takes time is timed.

Connections are counted one by one, from the pool's own records, not by adding up events, which drifts: a record holds a
connection or it holds none, and is in use or it isn't. So no count is ever negative, in any kind of pool, and what a
disposed pool still has open is counted too.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation

from otel.instrumentation.patching import patch_method
from otel.instrumentation.sqlalchemy import ENGINES
from otel.instrumentation.sqlalchemy_database import Database, Databases, note_failure
from otel.names import DB_BUCKETS, DESCRIPTIONS, UNITS, Attribute, Metric
from otel.trace_context import is_suppressed

#: Where a borrowed connection's beginning is kept: in the record's own `record_info`, which is for such use.
_BORROWED = "otel.borrowed"


class PoolInstruments:
    """The nine instruments of one meter; `watch` is what they read now, None while nobody watches."""

    def __init__(self, meter: Meter) -> None:
        self.watch: PoolWatch | None = None
        for metric, read in (
            (Metric.DB_CONNECTION_COUNT, _read_count),
            (Metric.DB_CONNECTION_MAX, _read_max),
            (Metric.DB_CONNECTION_IDLE_MAX, _read_idle_max),
            (Metric.DB_CONNECTION_IDLE_MIN, _read_idle_min),
            (Metric.DB_CONNECTION_PENDING, _read_pending),
        ):
            meter.create_observable_up_down_counter(
                metric, [self._callback(read)], unit=UNITS[metric], description=DESCRIPTIONS[metric]
            )
        self.timeouts: Counter = meter.create_counter(
            Metric.DB_CONNECTION_TIMEOUTS,
            unit=UNITS[Metric.DB_CONNECTION_TIMEOUTS],
            description=DESCRIPTIONS[Metric.DB_CONNECTION_TIMEOUTS],
        )
        self.create_time = _histogram(meter, Metric.DB_CONNECTION_CREATE_TIME)
        self.wait_time = _histogram(meter, Metric.DB_CONNECTION_WAIT_TIME)
        self.use_time = _histogram(meter, Metric.DB_CONNECTION_USE_TIME)

    def _callback(
        self, read: Callable[[PoolWatch], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            try:
                return [] if self.watch is None else list(read(self.watch))
            except Exception as error:
                note_failure(error)
                return []

        return callback


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric,
        unit=UNITS[metric],
        description=DESCRIPTIONS[metric],
        explicit_bucket_boundaries_advisory=DB_BUCKETS,
    )


class PoolWatch:
    """Watches the pools of all engines."""

    def __init__(self, databases: Databases, instruments: PoolInstruments) -> None:
        self._databases = databases
        self._instruments = instruments
        self._active = False
        self._timeout_error: type[Exception] = Exception
        #: Connections whose engine was not known when they were made.
        self._strays: weakref.WeakSet[Any] = weakref.WeakSet()

    def install(self) -> Callable[[], None]:
        """Watch from now on; returns what ends it and leaves nothing behind."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError
        from sqlalchemy.pool import Pool
        from sqlalchemy.pool.base import _ConnectionRecord

        self._timeout_error = PoolTimeoutError
        undoes = [patch_method(Engine, "raw_connection", self._timed_checkout)]
        try:
            undoes.append(patch_method(_ConnectionRecord, "_ConnectionRecord__connect", self._timed_connect))
        except AttributeError as error:  # connections are still counted, from their first use on
            note_failure(error)
        event.listen(Pool, "checkin", self._returned)
        event.listen(Pool, "detach", self._detached)
        self._find_records(_ConnectionRecord)
        self._instruments.watch = self
        self._active = True

        def undo() -> None:
            self._active = False
            self._instruments.watch = None
            event.remove(Pool, "checkin", self._returned)
            event.remove(Pool, "detach", self._detached)
            for each in undoes:
                each()

        return undo

    # -- what takes time ----------------------------------------------------------------------------------------

    def _timed_checkout(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def raw_connection(engine: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                database = None if is_suppressed() or not self._active else self._databases.of(engine)
            except Exception as error:
                note_failure(error)
                database = None
            if database is None:
                return original(engine, *args, **kwargs)
            waiter = object()
            database.waiting.add(waiter)
            began_s = time.perf_counter()
            try:
                connection = original(engine, *args, **kwargs)
            except self._timeout_error:
                self._instruments.timeouts.add(1, database.pool_attributes)
                raise
            finally:
                database.waiting.discard(waiter)
            self._borrowed(database, connection, began_s)
            return connection

        return raw_connection

    def _borrowed(self, database: Database, connection: Any, began_s: float) -> None:
        try:
            now_s = time.perf_counter()
            self._instruments.wait_time.record(now_s - began_s, database.pool_attributes)
            info = connection.record_info
            if info is not None:
                if _BORROWED not in info:
                    database.add_record(connection._connection_record)
                info[_BORROWED] = (now_s, database)
        except Exception as error:
            note_failure(error)

    def _timed_connect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(record: Any) -> None:
            began_s = time.perf_counter()
            original(record)
            if not self._active:
                return
            try:
                self._connected(record, time.perf_counter() - began_s)
            except Exception as error:
                note_failure(error)

        return connect

    def _connected(self, record: Any, took_s: float) -> None:
        database = self._databases.of_dialect(record._ConnectionRecord__pool._dialect)
        if database is None:
            self._strays.add(record)
            return
        database.add_record(record)
        if not is_suppressed():
            self._instruments.create_time.record(took_s, database.pool_attributes)

    def _returned(self, _connection: Any, record: Any) -> None:
        try:
            found = record.record_info.get(_BORROWED)
            if found is not None and found[0] is not None:
                began_s, database = found
                record.record_info[_BORROWED] = (None, database)
                self._instruments.use_time.record(time.perf_counter() - began_s, database.pool_attributes)
        except Exception as error:
            note_failure(error)

    def _detached(self, _connection: Any, record: Any) -> None:
        found = record.record_info.get(_BORROWED)
        if found is not None:  # it is never returned
            record.record_info[_BORROWED] = (None, found[1])

    # -- what is read -------------------------------------------------------------------------------------------

    def _find_records(self, record_class: type) -> None:
        import gc

        for found in gc.get_objects():
            if type(found) is record_class:
                self._strays.add(found)

    def engines(self) -> list[Any]:
        """The engines that are alive, as discovery knows them."""
        found = [each() for entry in ENGINES.entries for each in tuple(entry.engines)]
        return [engine for engine in found if engine is not None]

    def databases(self) -> dict[str, list[Database]]:
        """The databases by the names of their pools; several engines may share one name."""
        for engine in self.engines():
            self._databases.of(engine)
        for record in list(self._strays):
            database = self._databases.of_dialect(record._ConnectionRecord__pool._dialect)
            if database is not None:
                database.add_record(record)
                self._strays.discard(record)
        named: dict[str, list[Database]] = {}
        for database in self._databases:
            named.setdefault(database.pool_name, []).append(database)
        return named

    def limits(self) -> dict[str, tuple[int | None, int | None]]:
        """By the pool's name, the most connections and the most idle ones; None: unknown, or no limit."""
        pools: dict[str, dict[int, Any]] = {}
        for engine in self.engines():
            pools.setdefault(self._databases.of(engine).pool_name, {})[id(engine.pool)] = engine.pool
        return {name: _sum_limits(map(_limits, found.values())) for name, found in pools.items()}


def _limits(pool: Any) -> tuple[int | None, int | None]:
    from sqlalchemy import pool as pools

    if isinstance(pool, pools.QueuePool):
        size, overflow = pool.size(), pool._max_overflow
        return (None if overflow < 0 or size == 0 else size + overflow), size or None
    if isinstance(pool, pools.NullPool):
        return None, 0
    if isinstance(pool, (pools.StaticPool, pools.AssertionPool)):
        return 1, 1
    if isinstance(pool, pools.SingletonThreadPool):
        return pool.size, pool.size
    return None, None


def _sum_limits(found: Iterable[tuple[int | None, int | None]]) -> tuple[int | None, int | None]:
    most, idle = zip(*found, strict=True)
    return (None if None in most else sum(most)), (None if None in idle else sum(idle))


def _named(name: str, **more: str) -> dict[str, str]:
    return {Attribute.DB_POOL_NAME.value: name, **more}


def _read_count(watch: PoolWatch) -> Iterator[Observation]:
    for name, databases in watch.databases().items():
        counts = [database.count() for database in databases]
        for index, state in enumerate(("idle", "used")):
            attributes = {**_named(name), Attribute.DB_CONNECTION_STATE.value: state}
            yield Observation(sum(count[index] for count in counts), attributes)


def _read_pending(watch: PoolWatch) -> Iterator[Observation]:
    for name, databases in watch.databases().items():
        yield Observation(sum(len(database.waiting) for database in databases), _named(name))


def _read_max(watch: PoolWatch) -> Iterator[Observation]:
    for name, (most, _) in watch.limits().items():
        if most is not None:
            yield Observation(most, _named(name))


def _read_idle_max(watch: PoolWatch) -> Iterator[Observation]:
    for name, (_, idle) in watch.limits().items():
        if idle is not None:
            yield Observation(idle, _named(name))


def _read_idle_min(watch: PoolWatch) -> Iterator[Observation]:
    for name in watch.limits():
        yield Observation(0, _named(name))  # SQLAlchemy's pools keep no minimum
