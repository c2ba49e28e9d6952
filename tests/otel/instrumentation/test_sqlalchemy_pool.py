"""The pool metrics say what the real pools hold, whatever was done to them, and are never negative."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import pool as pools
from sqlalchemy.ext.asyncio import create_async_engine

from otel.instrumentation.sqlalchemy_instrumentor import SQLAlchemyInstrumentor
from tests.otel.instrumentation.telemetry import Telemetry
from tests.support.backends import Postgres, postgres

__all__ = ["postgres"]

PREFIX = "db.client.connection."


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with instrumented() as kept:
        yield kept


@contextlib.contextmanager
def instrumented() -> Iterator[Telemetry]:
    kept = Telemetry()
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
    try:
        yield kept
    finally:
        instrumentor.uninstrument()
        kept.close()


def read(telemetry: Telemetry, name: str) -> dict[str, Any]:
    """The nine metrics of one pool by their short names; `count` by state."""
    found: dict[str, Any] = {}
    for metric, points in telemetry.points().items():
        for attributes, value in points:
            if attributes.get(f"{PREFIX}pool.name") == name:
                state = attributes.get(f"{PREFIX}state")
                assert set(attributes) == {f"{PREFIX}pool.name"} | ({f"{PREFIX}state"} if state else set())
                found[state or metric.removeprefix(PREFIX)] = value
    return found


def test_a_queue_pool_from_its_first_connection_to_its_end(telemetry: Telemetry, tmp_path: Path) -> None:
    """Counts, limits and times follow checkout, return, invalidation, detachment and disposal at once."""
    file = tmp_path / "a.db"
    name = f"sqlite/{file}"
    engine = sa.create_engine(f"sqlite:///{file}", pool_size=2, max_overflow=1)
    limits = {"max": 3, "idle.max": 2, "idle.min": 0, "pending_requests": 0}
    assert read(telemetry, name) == {"idle": 0, "used": 0, **limits}
    first, second, third = engine.connect(), engine.connect(), engine.connect()
    assert read(telemetry, name) == {"idle": 0, "used": 3, **limits, "create_time": 3, "wait_time": 3}
    first.close()
    second.close()
    third.close()  # above the pool's size: closed
    found = read(telemetry, name)
    assert (found["idle"], found["used"], found["use_time"]) == (2, 0, 3)
    first = engine.connect()
    first.invalidate()
    found = read(telemetry, name)
    assert (found["idle"], found["used"], found["use_time"]) == (1, 0, 4)
    first.close()
    first = engine.connect()
    first.detach()
    found = read(telemetry, name)
    assert (found["idle"], found["used"], found["use_time"]) == (0, 0, 4)
    first.close()
    held = engine.connect()
    engine.dispose()
    found = read(telemetry, name)
    assert (found["idle"], found["used"]) == (0, 1)
    held.close()
    fresh = engine.connect()
    assert read(telemetry, name)["used"] == 1
    fresh.close()
    engine.dispose()
    del held, fresh, first
    gc.collect()
    found = read(telemetry, name)
    assert (found["idle"], found["used"]) == (0, 0)


KINDS: dict[str, tuple[type[pools.Pool], int | None, int | None, int]] = {
    "NullPool": (pools.NullPool, None, 0, 0),
    "StaticPool": (pools.StaticPool, 1, 1, 1),
    "SingletonThreadPool": (pools.SingletonThreadPool, 5, 5, 1),
    "AssertionPool": (pools.AssertionPool, 1, 1, 1),
    "QueuePool": (pools.QueuePool, 15, 5, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pool(telemetry: Telemetry, tmp_path: Path, kind: str) -> None:
    """Limits are told where the pool has them, and its one connection is used, then idle where it is kept."""
    pool_class, most, most_idle, kept = KINDS[kind]
    file = tmp_path / "a.db"
    engine = sa.create_engine(f"sqlite:///{file}", poolclass=pool_class)
    name = f"sqlite/{file}"
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        found = read(telemetry, name)
        assert (found["idle"], found["used"], found["pending_requests"]) == (0, 1, 0)
    found = read(telemetry, name)
    assert (found["idle"], found["used"]) == (kept, 0)
    assert (found.get("max"), found.get("idle.max"), found["idle.min"]) == (most, most_idle, 0)
    with engine.connect() as connection:
        connection.invalidate()
        found = read(telemetry, name)
        assert (found["idle"], found["used"]) == (0, 0)
    engine.dispose()
    found = read(telemetry, name)
    assert (found["idle"], found["used"]) == (0, 0)


def test_pools_without_limits_tell_none(telemetry: Telemetry, tmp_path: Path) -> None:
    """An overflow of -1 and a size of 0 are no limits, and no number is made up for them."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}", pool_size=3, max_overflow=-1)
    other = sa.create_engine(f"sqlite:///{tmp_path / 'b.db'}", pool_size=0)
    connections = [engine.connect() for _ in range(5)] + [other.connect()]
    found = read(telemetry, f"sqlite/{tmp_path / 'a.db'}")
    assert (found.get("max"), found["idle.max"], found["used"]) == (None, 3, 5)
    found = read(telemetry, f"sqlite/{tmp_path / 'b.db'}")
    assert (found.get("max"), found.get("idle.max"), found["used"]) == (None, None, 1)
    for each in connections:
        each.close()
    engine.dispose()
    other.dispose()


def test_who_waits_for_a_connection_is_pending_until_it_has_one(telemetry: Telemetry, tmp_path: Path) -> None:
    """Waiting threads are counted while they wait; a time-out is counted once, and leaves nobody waiting."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}", pool_size=1, max_overflow=0, pool_timeout=30)
    name = f"sqlite/{tmp_path / 'a.db'}"
    held = engine.connect()
    threads = [threading.Thread(target=lambda: engine.connect().close()) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = threading.Event()
    for _ in range(500):
        if read(telemetry, name)["pending_requests"] == 3:
            break
        deadline.wait(0.01)
    assert read(telemetry, name)["pending_requests"] == 3
    held.close()
    for thread in threads:
        thread.join()
    found = read(telemetry, name)
    assert (found["pending_requests"], found["wait_time"], "timeouts" in found) == (0, 4, False)
    engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    held = engine.connect()
    with pytest.raises(sa.exc.TimeoutError):
        engine.connect()
    found = read(telemetry, name)
    assert (found["pending_requests"], found["timeouts"], found["used"]) == (0, 1, 1)
    held.close()
    engine.dispose()


def test_engines_for_one_database_share_a_pools_name(telemetry: Telemetry, tmp_path: Path) -> None:
    """Their connections and limits are added up; a pool's own name is its own."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engines = [sa.create_engine(url, pool_size=2, max_overflow=0) for _ in range(3)]
    named = sa.create_engine(url, pool_logging_name="reports")
    connections = [engine.connect() for engine in (*engines, named)]
    found = read(telemetry, f"sqlite/{tmp_path / 'a.db'}")
    assert (found["used"], found["max"], found["idle.max"]) == (3, 6, 6)
    assert read(telemetry, "reports")["used"] == 1
    for each in connections:
        each.close()
    for engine in (*engines, named):
        engine.dispose()


def test_connections_that_were_there_are_counted(tmp_path: Path) -> None:
    """An engine's connections of before are found when the instrumentation comes."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    held, returned = engine.connect(), engine.connect()
    returned.close()
    with instrumented() as telemetry:
        found = read(telemetry, f"sqlite/{tmp_path / 'a.db'}")
        assert (found["idle"], found["used"]) == (1, 1)
        held.close()
        found = read(telemetry, f"sqlite/{tmp_path / 'a.db'}")
        assert (found["idle"], found["used"]) == (2, 0)
    engine.dispose()


async def test_an_asynchronous_pool(telemetry: Telemetry, postgres: Postgres) -> None:
    """The pool of an asynchronous engine is told like any other, by server and database."""
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=2, max_overflow=0)
    name = f"127.0.0.1:{postgres.port}/postgres"
    before = read(telemetry, name)
    async with engine.connect(), engine.connect():
        found = read(telemetry, name)
        assert found["used"] - before.get("used", 0) == 2
        assert found["pending_requests"] == 0
    found = read(telemetry, name)
    assert (found["used"], found["create_time"], found["use_time"]) == (before.get("used", 0), 2, 2)
    await engine.dispose()
    found = read(telemetry, name)
    assert (found["idle"], found["used"]) == (before.get("idle", 0), before.get("used", 0))


NUMBERS = itertools.count()


class PoolMachine(RuleBasedStateMachine):
    """Does anything to a pool of two connections and one more, and asks the server what is really open."""

    url: str
    name: str
    telemetry: Telemetry
    server: Any

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine {next(NUMBERS)}"
        options = {"connect_args": {"application_name": self.name}, "pool_logging_name": self.name}
        self.engine = sa.create_engine(self.url, pool_size=2, max_overflow=1, pool_timeout=0, **options)
        self.held: list[Any] = []
        self.detached: list[Any] = []

    @rule()
    def check_out(self) -> None:
        try:
            self.held.append(self.engine.connect())
        except sa.exc.TimeoutError:
            assert len(self.held) >= 3

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self._take(data).close()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The connection is never given back: the garbage collector finds it."""
        self._take(data)
        gc.collect()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def invalidate(self, data: st.DataObject) -> None:
        connection = self._take(data)
        connection.invalidate()
        connection.close()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        connection = self._take(data)
        connection.detach()
        self.detached.append(connection)

    @rule(close=st.booleans())
    def dispose(self, close: bool) -> None:
        self.engine.dispose(close=close)

    def _take(self, data: st.DataObject) -> Any:
        return self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    @invariant()
    def says_what_is_open(self) -> None:
        found = read(self.telemetry, self.name)
        used, idle = found.get("used", 0), found.get("idle", 0)
        assert used == len(self.held)
        assert idle >= 0
        assert found.get("pending_requests", 0) == 0
        question = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        wanted = used + idle + len(self.detached)
        for _ in range(200):  # a server's process needs a moment to end
            opened = self.server.scalar(question, {"name": self.name})
            if opened == wanted:
                break
            threading.Event().wait(0.005)
        assert opened == wanted

    def teardown(self) -> None:
        while self.held:
            self.held.pop().close()
        while self.detached:
            self.detached.pop().close()
        self.engine.dispose()


# A disposed pool leaves connections that come back later to the garbage collector, which the driver remarks upon.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_whatever_is_done_to_a_pool_the_server_agrees(telemetry: Telemetry, postgres: Postgres) -> None:
    """Used and idle connections are those that the server has, after any sequence of deeds; no number is negative."""
    watcher = sa.create_engine(postgres.url(), isolation_level="AUTOCOMMIT", poolclass=pools.NullPool)
    with watcher.connect() as server:
        PoolMachine.url, PoolMachine.telemetry, PoolMachine.server = postgres.url(), telemetry, server
        some = settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        run_state_machine_as_test(PoolMachine, settings=some)
