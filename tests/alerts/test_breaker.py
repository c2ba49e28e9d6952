"""Circuits: consecutive failures and alerts open them, time half-opens them, and a database engine is guarded."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from interlock import CircuitOpenError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from streamlit.runtime.scriptrunner import StopException

from streamlit_extension.alerts.breaker import Circuit, CircuitChange, Circuits, CircuitState, circuit_breaker
from streamlit_extension.alerts.engine_breaker import protect_engine, release_engine
from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.model import Reading
from tests.support.backends import Postgres


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Dependency:
    """Fails when it is told to."""

    def __init__(self) -> None:
        self.down = True
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.down:
            raise ConnectionError("down")
        return "here"


def state_of(circuit: Circuit) -> str:
    return str(circuit.state)


def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError), circuit:
            raise ConnectionError


def test_consecutive_failures_open_and_time_half_opens() -> None:
    """Three failures in a row open it, nothing is asked while it is open, one call tries again, and its end decides."""
    clock, dependency = Clock(), Dependency()
    changes: list[CircuitChange] = []
    circuit = Circuit("billing", failures=3, reset_s=30, clock=clock, on_change=changes.append)
    protected = circuit(dependency)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            protected()
    with pytest.raises(CircuitOpenError) as caught:
        protected()
    assert dependency.asked == 3 and caught.value.retry_after == 30.0
    clock.now_s += 30
    with pytest.raises(ConnectionError):
        protected()
    assert state_of(circuit) == "open" and dependency.asked == 4
    clock.now_s += 30
    dependency.down = False
    assert protected() == "here" and state_of(circuit) == "closed"
    assert [(change.old.value, change.new.value) for change in changes] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    snapshot = circuit.snapshot()
    assert (snapshot.calls, snapshot.failed, snapshot.rejected) == (5, 4, 1)


def test_a_success_between_failures_counts_anew() -> None:
    """Failures that are not in a row don't open it."""
    circuit = Circuit("billing", failures=3)
    for _ in range(10):
        fail(circuit, 2)
        with circuit:
            pass
    assert circuit.state is CircuitState.CLOSED


def test_slow_calls_do_not_wait_for_one_another() -> None:
    """Two calls are inside at the same time: a circuit is no lock."""
    circuit, meeting = Circuit("billing"), threading.Barrier(2, timeout=20)
    threads = [threading.Thread(target=circuit.call, args=(meeting.wait,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not meeting.broken and circuit.snapshot().failed == 0


async def test_coroutines_are_protected_too() -> None:
    """A coroutine function and an asynchronous block are guarded by the same circuit; a cancelled one counts as nothing."""
    circuit = Circuit("billing", failures=2)

    @circuit
    async def ask() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await ask()
    task = asyncio.ensure_future(circuit(asyncio.sleep)(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert circuit.state is CircuitState.CLOSED
    with pytest.raises(ConnectionError):
        async with circuit:
            raise ConnectionError
    with pytest.raises(CircuitOpenError):
        await ask()


def test_a_script_that_runs_again_gets_the_same_circuit() -> None:
    """One name is one circuit, with the values of its first use; a thousand reruns add nothing."""
    first = circuit_breaker("tests-of-reruns", failures=2)
    assert all(circuit_breaker("tests-of-reruns") is first for _ in range(1000))
    assert first.failures == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"failures": -1},
        {"failures": 1.5},
        {"failures": True},
        {"reset_s": 0},
        {"reset_s": -1.0},
        {"reset_s": float("nan")},
        {"reset_s": "30"},
        {"name": ""},
        {"name": 5},
    ],
)
def test_what_no_circuit_can_be_made_of_is_refused(wrong: dict[str, Any]) -> None:
    """One line names the value; nothing is taken for a default."""
    with pytest.raises(ValueError, match="circuit "):
        Circuits().get(**{"name": "billing", **wrong})


def test_one_metric_may_stand_alone() -> None:
    """A text is one metric, not its letters."""
    circuit = Circuits().get("billing", opens_on="error_rate")
    assert circuit.opens_on == {"error_rate"}


def test_a_generator_is_refused() -> None:
    """What runs after its call is over can't be protected by it: better said than silently unprotected."""
    billing = Circuits().get("billing")

    def rows() -> Iterator[int]:
        yield 1

    async def pages() -> AsyncIterator[int]:
        yield 1

    for each in (rows, pages):
        with pytest.raises(TypeError, match="a generator can't be decorated"):
            billing(each)


def test_what_ends_a_script_is_no_failure_and_no_answer() -> None:
    """`st.stop` and a cancelled task inside a protected block leave the circuit as it was, half-open too."""
    clock = Clock()
    circuit = Circuit("billing", failures=2, reset_s=30, clock=clock)
    for _ in range(3):
        with pytest.raises(StopException), circuit:
            raise StopException
    assert state_of(circuit) == "closed"
    fail(circuit, 2)
    clock.now_s += 31
    with pytest.raises(StopException), circuit:
        raise StopException
    assert state_of(circuit) == "half_open"
    with circuit:  # whoever comes next tries
        pass
    assert state_of(circuit) == "closed"


def test_guarding_something_else_is_refused() -> None:
    """One line says what is taken."""
    engine = sqlalchemy.create_engine("sqlite://")
    for wrong in (("sqlite://", Circuits().get("a")), (engine, "a")):
        with pytest.raises(TypeError, match="takes a SQLAlchemy engine and a circuit"):
            protect_engine(*wrong)
    engine.dispose()


def test_an_alert_opens_what_names_it(caplog: pytest.LogCaptureFixture) -> None:
    """A firing alert opens the circuits that name its metric, half-opens by time, with an audit event and a call back."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    circuits = Circuits(failures=3, reset_s=30, on_alerts=["error_rate"], clock=clock)
    default, own, other = (
        circuits.get("default"),
        circuits.get("own", opens_on=["cpu_usage"]),
        circuits.get("o", opens_on=()),
    )
    told: list[str] = []
    end = circuits.subscribe(lambda change: told.append(f"{change.name} {change.new}"))
    manager = AlertManager(actions=[circuits])
    manager.define_thresholds(for_s=0)
    manager.check_alerts({"cpu_usage": Reading(99.0)})
    assert [each.state for each in (default, own, other)] == [
        CircuitState.CLOSED,
        CircuitState.OPEN,
        CircuitState.CLOSED,
    ]
    manager.check_alerts({"cpu_usage": Reading(99.0), "error_rate": Reading(50.0, samples=20)})
    assert default.state is CircuitState.OPEN
    clock.now_s += 30
    with own:
        pass
    manager.check_alerts({"cpu_usage": Reading(99.0)})
    assert own.state is CircuitState.CLOSED, "an alert that goes on opens nothing again"
    end()
    assert default.open()
    assert told == ["own open", "default open", "own half_open", "own closed"]
    events = [getattr(record, "event", "") for record in caplog.records]
    assert {
        "audit.circuit_open",
        "audit.circuit_opened_by_alert",
        "audit.circuit_half_open",
        "audit.circuit_closed",
    } <= set(events)
    states = {snapshot.name: snapshot.state for snapshot in circuits.snapshots()}
    assert states == {"default": "open", "own": "closed", "o": "closed"}


def test_an_alert_opens_in_spite_of_successes_at_the_same_time() -> None:
    """Calls that succeed meanwhile don't keep it closed for long."""
    circuit, over = Circuit("busy", failures=3, reset_s=3600), threading.Event()

    def succeed() -> None:
        while not over.is_set():
            circuit.succeeded()

    threads = [threading.Thread(target=succeed) for _ in range(2)]
    for thread in threads:
        thread.start()
    opened = circuit.open()
    over.set()
    for thread in threads:
        thread.join(20)
    assert opened == (circuit.state is CircuitState.OPEN)
    assert circuit.open()


def test_a_subscriber_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The protected call's own error is what its caller sees."""
    circuits = Circuits(failures=1)
    circuits.subscribe(lambda _: 1 / 0)
    fail(circuits.get("a"), 1)
    assert "telemetry.internal_error" in [getattr(record, "event", "") for record in caplog.records]


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(postgres.url(), pool_size=2, max_overflow=0, pool_timeout=0.05)
    yield made
    made.dispose()


def test_an_engine_whose_database_is_away_is_not_asked(engine: sqlalchemy.Engine, postgres: Postgres) -> None:
    """Lost connections and refused ones open the circuit; then nobody waits; when it is back, one proven connection closes it."""
    clock = Clock()
    circuit = Circuit("database", failures=3, reset_s=30, clock=clock)
    assert protect_engine(protect_engine(engine, circuit), circuit) is engine
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    postgres.stop()
    try:
        for _ in range(3):
            with pytest.raises(sqlalchemy.exc.OperationalError), engine.connect() as connection:
                connection.scalar(text("SELECT 1"))
        assert state_of(circuit) == "open"
        with pytest.raises(CircuitOpenError), engine.connect():
            pass
    finally:
        postgres.start()
    with pytest.raises(CircuitOpenError), engine.connect():
        pass
    clock.now_s += 30
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert circuit.state is CircuitState.CLOSED


def test_what_is_no_failure_of_the_database_does_not_count(engine: sqlalchemy.Engine) -> None:
    """Wrong SQL and an exhausted pool say nothing about the database."""
    circuit = Circuit("database", failures=1)
    protect_engine(engine, circuit)
    with pytest.raises(sqlalchemy.exc.ProgrammingError), engine.connect() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))
    with engine.connect(), engine.connect():
        with pytest.raises(sqlalchemy.exc.TimeoutError), engine.connect():
            pass
    assert circuit.state is CircuitState.CLOSED


def test_the_guard_is_taken_away_as_if_it_had_not_been(tmp_path: Path) -> None:
    """After the release an open circuit no longer matters, and the engine has nothing of ours."""
    made = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    before = dict(vars(made))
    circuit = protect_and_open(made)
    with pytest.raises(CircuitOpenError), made.connect():
        pass
    release_engine(made)
    release_engine(made)
    with made.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    # SQLAlchemy keeps its own note that there were listeners.
    assert vars(made).keys() - before.keys() <= {"dispatch", "_has_events"}
    assert circuit.snapshot().rejected == 1
    made.dispose()


def protect_and_open(engine: Any) -> Circuit:
    circuit = Circuit("x", failures=1)
    protect_engine(engine, circuit)
    circuit.open()
    return circuit


async def test_an_asynchronous_engine_is_guarded(postgres: Postgres) -> None:
    """The same holds for an asyncio engine, whose half-open connection is proven too."""
    made = create_async_engine(postgres.url("asyncpg"))
    clock = Clock()
    circuit = Circuit("x", failures=1, reset_s=30, clock=clock)
    protect_engine(made, circuit)
    circuit.open()
    with pytest.raises(CircuitOpenError):
        async with made.connect():
            pass
    clock.now_s += 30
    async with made.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    assert circuit.state is CircuitState.CLOSED
    await made.dispose()
