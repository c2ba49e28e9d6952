"""Business events of models: counted by outermost commits on real databases."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry, relationship

import streamlit_extension
from otel.trace_context import suppressed
from streamlit_extension.logs.business import business_events
from streamlit_extension.monitoring.track import Tracking, track


class Base(DeclarativeBase):
    """The tests' tables."""


class Phase(Enum):
    """A column's Python type whose names are stored."""

    OPEN = "open"
    SHUT = "shut"


class Client(Base):
    __tablename__ = "t_clients"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    jobs: Mapped[list[Job]] = relationship(back_populates="client")


class Job(Base):
    __tablename__ = "t_jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[int | None] = mapped_column(ForeignKey("t_clients.id", deferrable=True, initially="DEFERRED"))
    status: Mapped[str] = mapped_column(String(20), default="todo")
    phase: Mapped[Phase] = mapped_column(SqlEnum(Phase), default=Phase.OPEN)
    kind: Mapped[str] = mapped_column(String(10), default="job")
    client: Mapped[Client | None] = relationship(back_populates="jobs")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "job"}  # noqa: RUF012


class Rush(Job):
    """Shares its parent's table."""

    __mapper_args__ = {"polymorphic_identity": "rush"}  # noqa: RUF012


CLIENTS: Any = Client.__table__
JOBS: Any = Job.__table__


def declare(tracking: Tracking) -> None:
    tracking.track(Client, created="client.created")
    tracking.track(Job, "status", to="done", event="job.done")
    tracking.track(Job, "phase", to="shut", event="job.shut")
    tracking.track(Rush, created="rush.created")


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    """What has been counted so far."""
    found: Counter[str] = Counter()
    tracking = Tracking(lambda name, times: found.update({name: times}))
    declare(tracking)
    yield found
    tracking.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    made = create_engine(f"sqlite:///{tmp_path / 'db'}")
    # The driver's own BEGIN comes too late for savepoints (SQLAlchemy's documentation, "SQLite").
    from sqlalchemy import event

    event.listen(made, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def test_a_created_row_counts_when_the_transaction_has_been_committed(engine: Any, counted: Counter[str]) -> None:
    """A flush alone counts nothing."""
    with Session(engine) as session:
        session.add_all([Client(name="a"), Client(name="b")])
        session.flush()
        assert counted == {}
        session.commit()
    assert counted == {"client.created": 2}


def test_a_rollback_counts_nothing(engine: Any, counted: Counter[str]) -> None:
    """Neither by call, nor by an error, nor by closing a connection that was not committed."""
    with Session(engine) as session:
        session.add(Client(name="a"))
        session.flush()
        session.rollback()
        session.add(Client(name="b"))
        session.commit()
        session.add(Client(name="b"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
    with engine.connect() as connection:
        connection.execute(insert(Client).values(name="c"))
    assert counted == {"client.created": 1}


def test_a_commit_that_the_database_refuses_counts_nothing(engine: Any, counted: Counter[str]) -> None:
    """A deferred constraint fails at the commit itself."""
    with Session(engine) as session:
        session.add(Job(status="done", client_id=999))
        session.flush()
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        assert counted == {}
        session.add(Job(status="done"))
        session.commit()
    assert counted == {"job.done": 1}


def test_a_change_counts_and_a_row_that_stays_does_not(engine: Any, counted: Counter[str]) -> None:
    """What has the value already is not written again by the unit of work."""
    with Session(engine) as session:
        job = Job()
        session.add(job)
        session.commit()
        assert counted == {}
        job.status = "done"
        session.commit()
        assert job.status == "done"  # which loads it: the same value again is no change then
        job.status = "done"
        session.commit()
        job.phase = Phase.SHUT
        session.commit()
    assert counted == {"job.done": 1, "job.shut": 1}


def test_savepoints_take_back_what_came_after_them(engine: Any, counted: Counter[str]) -> None:
    """Nested ones too; one that is released counts with its transaction."""
    with Session(engine) as session:
        session.add(Client(name="outer"))
        session.flush()
        with session.begin_nested():
            session.add(Client(name="kept"))
        nested = session.begin_nested()
        session.add(Client(name="lost"))
        session.flush()
        inner = session.begin_nested()
        session.add(Client(name="lost too"))
        session.flush()
        inner.commit()
        nested.rollback()
        assert counted == {}
        session.commit()
    assert counted == {"client.created": 2}


STATEMENTS: dict[str, tuple[Callable[[Any], Any], dict[str, int]]] = {
    "bulk update": (lambda s: s.execute(update(Job).where(Job.id <= 2).values(status="done")), {"job.done": 2}),
    "bulk update by keyword of nothing": (lambda s: s.execute(update(Job).where(Job.id > 99).values(status="done")), {}),
    "bulk update to something else": (lambda s: s.execute(update(Job).values(status="doing")), {}),
    "bulk update by primary key": (
        lambda s: s.execute(update(Job), [{"id": 1, "status": "done"}, {"id": 2, "status": "doing"}]),
        {"job.done": 1},
    ),
    "legacy query": (lambda s: s.query(Job).filter(Job.id == 1).update({"status": "done"}), {"job.done": 1}),
    "legacy query by attribute": (lambda s: s.query(Job).update({Job.status: "done"}), {"job.done": 3}),
    "bulk insert": (lambda s: s.execute(insert(Client), [{"name": "x"}, {"name": "y"}]), {"client.created": 2}),
    "insert of several": (
        lambda s: s.execute(insert(Client).values([{"name": "x"}, {"name": "y"}])), {"client.created": 2},
    ),
    "insert returning": (
        lambda s: s.scalars(insert(Client).returning(Client.id), [{"name": "x"}, {"name": "y"}]).all(),
        {"client.created": 2},
    ),
    "bulk_save_objects": (lambda s: s.bulk_save_objects([Client(name="x")]), {"client.created": 1}),
    "core update with parameters": (
        lambda s: s.connection().execute(update(cast("Table", inspect(Job).local_table)), {"status": "done"}), {"job.done": 3},
    ),
    "an enum's value": (lambda s: s.execute(update(Job).where(Job.id == 1).values(phase=Phase.SHUT)), {"job.shut": 1}),
    "one kind of a shared table": (lambda s: s.execute(insert(Job), [{"kind": "rush"}, {"kind": "job"}]), {"rush.created": 1}),
    "an object of one kind": (lambda s: (s.add(Rush()), s.flush()), {"rush.created": 1}),
    "two events of one row": (
        lambda s: s.execute(update(Job).where(Job.id == 1).values(status="done", phase=Phase.SHUT)),
        {"job.done": 1, "job.shut": 1},
    ),
    "deletes": (lambda s: s.query(Job).delete(), {}),
    # Named as not counted:
    "text": (lambda s: s.execute(text("UPDATE t_jobs SET status = 'done'")), {}),
    "a value of the database's": (lambda s: s.execute(update(Job).values(status=func.lower("DONE"))), {}),
}  # fmt: skip


@pytest.mark.parametrize("way", STATEMENTS)
def test_statements(engine: Any, counted: Counter[str], way: str) -> None:
    """Bulk statements are counted by the rows that they wrote, by whatever way."""
    with Session(engine) as session:
        session.add_all([Job(), Job(), Job()])
        session.commit()
        run, expected = STATEMENTS[way]
        run(session)
        assert counted == {}
        session.rollback()
        assert counted == {}
        run(session)
        session.commit()
    assert counted == expected


def test_insert_or_ignore_counts_what_was_written(engine: Any, counted: Counter[str]) -> None:
    """A conflict that is passed over creates nothing."""
    from sqlalchemy.dialects.sqlite import insert as upsert

    with Session(engine) as session:
        for _ in range(2):
            session.execute(upsert(Client).values(name="a").on_conflict_do_nothing())
        session.commit()
    assert counted == {"client.created": 1}


def test_autocommit_counts_each_statement(tmp_path: Path, counted: Counter[str]) -> None:
    """There is no transaction to wait for, and none to roll back."""
    engine = create_engine(f"sqlite:///{tmp_path / 'auto'}", isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(insert(Client).values(name="a"))
        assert counted == {"client.created": 1}
    engine.dispose()
    assert counted == {"client.created": 1}


async def test_asynchronous_sessions(tmp_path: Path, counted: Counter[str]) -> None:
    """They count as the others do."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add(Client(name="lost"))
        await session.flush()
        await session.rollback()
        session.add(Client(name="kept"))
        await session.commit()
        await session.execute(update(Client).values(name="same"))
        await asyncio.gather()
    await engine.dispose()
    assert counted == {"client.created": 1}


def test_a_thousand_reruns_that_declare_again_add_nothing(engine: Any) -> None:
    """The models of a script are made anew with each run; a row still counts once."""
    found: Counter[str] = Counter()
    tracking = Tracking(lambda name, times: found.update({name: times}))
    try:
        for _ in range(1000):
            model = type("Client", (), {})
            registry().map_imperatively(
                model,
                Table("t_clients", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(40))),
            )
            tracking.track(model, created="client.created")
        assert tracking.rules == 1
        with Session(engine) as session:
            session.add(_named(model, "a"))
            session.commit()
    finally:
        tracking.close()
    assert found == {"client.created": 1}


def _named(model: type[Any], name: str) -> Any:
    made = model()
    made.name = name
    return made


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (((Client,), {}), "created= or a column"),
        (((Client, "nome"), {"to": 1, "event": "x"}), "no such column"),
        (((Client, "name"), {"to": 1}), "event= are needed"),
        (((Client, "name"), {"event": "x"}), "to= and event= are needed"),
        (((Client,), {"event": "x"}), "need the name of a column"),
        (((Client, "nome"), {"to": 1, "event": "x"}), "there are id, name"),
        ((("Client",), {"created": "x"}), r"track\(str\): this is no mapped class"),
        (((Client.__table__,), {"created": "x"}), "this is no mapped class"),
        (((int,), {"created": "x"}), "this is no mapped class"),
        (((Client(),), {"created": "x"}), "this is no mapped class"),
        (((Client,), {"created": True}), "created= is no event's name"),
        (((Client,), {"created": "a\nb"}), "created= is no event's name"),
        (((Client,), {"created": "  "}), "created= is no event's name"),
        (((Client, "name"), {"to": 1, "event": 5}), "event= is no event's name"),
        (((Client, "name"), {"to": 1, "event": "x" * 101}), "event= is no event's name"),
    ],
)
def test_a_declaration_that_can_count_nothing_is_refused(arguments: Any, line: str) -> None:
    """One line says what is missing."""
    with pytest.raises(ValueError, match=line):
        Tracking().track(*arguments[0], **arguments[1])


def test_a_refused_declaration_leaves_nothing_behind() -> None:
    """Half a declaration does not count."""
    tracking = Tracking()
    with pytest.raises(ValueError, match="no such column"):
        tracking.track(Client, "nome", to=1, event="x", created="client.created")
    assert tracking.rules == 0


def test_rows_that_a_select_brings_are_counted(engine: Any, counted: Counter[str]) -> None:
    """`INSERT … SELECT` counts what it wrote."""
    with Session(engine) as session:
        session.add_all([Client(name="a"), Client(name="b")])
        session.flush()
        session.execute(insert(CLIENTS).from_select(["name"], select(Client.name + "'")))
        session.commit()
    assert counted == {"client.created": 4}


def test_a_columns_own_default_counts_where_nobody_says_otherwise(engine: Any) -> None:
    """A row that is created without the value has it from its column; what a SELECT brings is not known."""
    found: Counter[str] = Counter()
    tracking = Tracking(lambda name, times: found.update({name: times}))
    try:
        tracking.track(Job, Job.status, to="todo", event="job.planned")  # the attribute itself, not its name
        with Session(engine) as session:
            session.add_all([Job(), Job(status="done"), Job()])
            session.flush()
            session.execute(insert(JOBS).from_select(["status"], select(Job.status).where(Job.id < 0)))
            session.execute(insert(JOBS).from_select(["status"], select(Job.status)))
            session.commit()
        assert found == {"job.planned": 2}
    finally:
        tracking.close()


def test_values_of_named_parameters_count(engine: Any, counted: Counter[str]) -> None:
    """Core's way of many different rows: the statement names parameters, and each row brings them."""
    with engine.begin() as connection:
        rows = [{"state": "done"}, {"state": "todo"}, {"state": "done"}]
        connection.execute(insert(JOBS).values(status=bindparam("state")), rows)
        which = update(JOBS).where(JOBS.c.id == bindparam("which")).values(status=bindparam("state"))
        connection.execute(which, [{"which": 2, "state": "done"}, {"which": 3, "state": "todo"}])
    assert counted == {"job.done": 3}


def test_what_shall_leave_no_telemetry_is_not_counted(engine: Any, counted: Counter[str]) -> None:
    """The canary's runs create no business."""
    with suppressed(), Session(engine) as session:
        session.add(Client(name="nobody's"))
        session.commit()
    assert counted == {}


def test_a_counter_that_fails_breaks_no_transaction(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The failure is contained and told."""

    def fail(_name: str, _times: int) -> None:
        raise RuntimeError

    tracking = Tracking(fail)
    declare(tracking)
    try:
        with Session(engine) as session:
            session.add(Client(name="a"))
            session.commit()
            assert session.query(Client).count() == 1
    finally:
        tracking.close()
    assert "could not be counted: RuntimeError" in caplog.text


def _listeners(engine_class: Any) -> list[Any]:
    return list(engine_class.dispatch.after_execute._clslevel.get(engine_class, ()))


def test_closing_leaves_sqlalchemy_as_it_was() -> None:
    """Listeners and wrappers are gone."""
    from sqlalchemy.engine import Connection, Engine

    before = vars(Connection)["_commit_impl"], len(_listeners(Engine))
    tracking = Tracking()
    declare(tracking)
    assert vars(Connection)["_commit_impl"] is not before[0]
    tracking.close()
    assert (vars(Connection)["_commit_impl"], len(_listeners(Engine))) == before


def test_the_public_function_counts_into_the_metric(engine: Any) -> None:
    """`track` is exported, and its events are those of the process's counter."""
    assert streamlit_extension.track is track
    name = "track.test_event"
    before = business_events().pace.read().get(name, (0, 0.0))[0]
    track(Client, created=name)
    with Session(engine) as session:
        session.add(Client(name="a"))
        session.commit()
    assert business_events().pace.read()[name][0] == before + 1


ACTIONS = st.lists(
    st.sampled_from(["add", "flush", "begin", "release", "rollback_to", "commit", "rollback"]), max_size=14
)
numbers = itertools.count()


@settings(max_examples=200, deadline=None)
@given(actions=ACTIONS)
def test_whatever_a_transaction_does_the_count_is_what_the_table_holds(actions: list[str]) -> None:
    """For any series of inserts, savepoints, commits and rollbacks."""
    engine = create_engine("sqlite://")
    from sqlalchemy import event

    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(engine)
    found: Counter[str] = Counter()
    tracking = Tracking(lambda name, times: found.update({name: times}))
    declare(tracking)
    try:
        with Session(engine) as session:
            nested: list[Any] = []
            for action in actions:
                if action == "add":
                    session.add(Client(name=f"n{next(numbers)}"))
                elif action == "flush":
                    session.flush()
                elif action == "begin":
                    nested.append(session.begin_nested())
                elif nested and action == "release":
                    nested.pop().commit()
                elif nested and action == "rollback_to":
                    nested.pop().rollback()
                elif action in ("commit", "rollback"):
                    nested.clear()
                    getattr(session, action)()
            session.rollback()
            assert found["client.created"] == session.query(Client).count()
    finally:
        tracking.close()
        engine.dispose()
