"""Each statement is one span and one duration, with nothing of its values."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord

from otel.instrumentation import stable_names_opt_in
from otel.instrumentation.sqlalchemy_database import MAX_SUMMARIES, Database
from otel.instrumentation.sqlalchemy_instrumentor import SQLAlchemyInstrumentor
from otel.trace_context import suppressed
from tests.otel.instrumentation.telemetry import Telemetry, whole
from tests.support.backends import Postgres, postgres

__all__ = ["postgres"]


class Base(DeclarativeBase):
    """Tables of these tests."""


class Song(Base):
    """A table."""

    __tablename__ = "songs"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    kept = Telemetry()
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
    yield kept
    instrumentor.uninstrument()
    kept.close()


def told(name: str, attributes: dict[str, Any], status: str = "UNSET") -> dict[str, Any]:
    return {
        "name": name,
        "kind": "CLIENT",
        "status": status,
        "description": None,
        "attributes": attributes,
        "events": [],
        "links": 0,
    }


def test_whole_spans_on_sqlite(telemetry: Telemetry, tmp_path: Path) -> None:
    """Statements, batches and errors are told under the stable names, without parameters, literals or texts of errors."""
    file = tmp_path / "app.db"
    engine = sa.create_engine(f"sqlite:///{file}")
    common = {"db.system.name": "sqlite", "db.namespace": str(file)}
    with trace.use_span(telemetry.tracers.get_tracer("t").start_span("run")) as run, engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE songs (id integer primary key, title text)"))
        connection.execute(sa.text("INSERT INTO songs (title) VALUES (:t)"), [{"t": "secret-1"}, {"t": "secret-2"}])
        connection.execute(sa.text("SELECT * FROM songs WHERE title = 'secret-3' AND id = :i"), {"i": 4711})
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT * FROM nothing WHERE a = 'secret-4'"))
    engine.dispose()
    table = {"db.collection.name": "songs"}
    assert [whole(span) for span in telemetry.spans] == [
        told(
            "CREATE TABLE songs",
            {
                **common,
                **table,
                "db.operation.name": "CREATE TABLE",
                "db.query.summary": "CREATE TABLE songs",
                "db.query.text": "CREATE TABLE songs (id integer primary key, title text)",
            },
        ),
        told(
            "BATCH INSERT songs",
            {
                **common,
                **table,
                "db.operation.name": "BATCH INSERT",
                "db.query.summary": "BATCH INSERT songs",
                "db.query.text": "INSERT INTO songs (title) VALUES (?)",
                "db.operation.batch.size": 2,
            },
        ),
        told(
            "SELECT songs",
            {
                **common,
                **table,
                "db.operation.name": "SELECT",
                "db.query.summary": "SELECT songs",
                "db.query.text": "SELECT * FROM songs WHERE title = ? AND id = ?",
            },
        ),
        told(
            "SELECT nothing",
            {
                **common,
                "db.collection.name": "nothing",
                "db.operation.name": "SELECT",
                "db.query.summary": "SELECT nothing",
                "db.query.text": "SELECT * FROM nothing WHERE a = ?",
                "error.type": "SQLITE_ERROR",
                "db.response.status_code": "SQLITE_ERROR",
            },
            "ERROR",
        ),
    ]
    assert {span.parent.span_id for span in telemetry.spans if span.parent} == {run.get_span_context().span_id}
    points = telemetry.points()
    assert (
        {
            **common,
            "db.collection.name": "nothing",
            "db.operation.name": "SELECT",
            "db.query.summary": "SELECT nothing",
            "error.type": "SQLITE_ERROR",
            "db.response.status_code": "SQLITE_ERROR",
        },
        1,
    ) in points["db.client.operation.duration"]
    assert "secret" not in repr(points) + repr([whole(span) for span in telemetry.spans])


def test_whole_spans_on_postgresql(telemetry: Telemetry, postgres: Postgres) -> None:
    """The server's address and its SQLSTATE are told; what SQLAlchemy asks for itself at the first connection is too."""
    engine = sa.create_engine(postgres.url())
    with engine.connect() as connection:
        telemetry.clear()
        connection.execute(sa.text("SELECT relname FROM pg_class WHERE relname = :name"), {"name": "secret"}).all()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT * FROM missing"))
    engine.dispose()
    common = {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "server.address": "127.0.0.1",
        "server.port": postgres.port,
        "db.operation.name": "SELECT",
    }
    assert [whole(span) for span in telemetry.spans] == [
        told(
            "SELECT pg_class",
            {
                **common,
                "db.collection.name": "pg_class",
                "db.query.summary": "SELECT pg_class",
                "db.query.text": "SELECT relname FROM pg_class WHERE relname = %(name)s",
            },
        ),
        told(
            "SELECT missing",
            {
                **common,
                "db.collection.name": "missing",
                "db.query.summary": "SELECT missing",
                "db.query.text": "SELECT * FROM missing",
                "error.type": "42P01",
                "db.response.status_code": "42P01",
            },
            "ERROR",
        ),
    ]


async def test_asynchronous_engines(telemetry: Telemetry, postgres: Postgres) -> None:
    """A statement of an asynchronous engine is a child of its own task's span, its error and its cancellation are told."""
    engine = create_async_engine(postgres.url("asyncpg"))
    tracer = telemetry.tracers.get_tracer("t")

    async def ask(name: str) -> None:
        with tracer.start_as_current_span(name):
            async with engine.connect() as connection:
                await connection.execute(sa.text("SELECT pg_sleep(0.01)"))

    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
    telemetry.clear()
    await asyncio.gather(*(ask(f"task {number}") for number in range(3)))
    spans = telemetry.spans
    owners = {span.context.span_id: span.name for span in spans if span.context and span.name.startswith("task")}
    asked = [span for span in spans if span.name == "SELECT"]
    assert sorted(owners[span.parent.span_id] for span in asked if span.parent) == ["task 0", "task 1", "task 2"]
    telemetry.clear()
    async with engine.connect() as connection:
        with pytest.raises(sa.exc.ProgrammingError):
            await connection.execute(sa.text("SELECT * FROM missing"))
    async with engine.connect() as connection:
        task = asyncio.create_task(connection.execute(sa.text("SELECT pg_sleep(30)")))
        done, _ = await asyncio.wait({task}, timeout=0.2)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await engine.dispose()
    errors = [(span.attributes or {}).get("error.type") for span in telemetry.spans]
    assert errors == ["42P01", "asyncio.exceptions.CancelledError"]


async def test_aiosqlite(telemetry: Telemetry, tmp_path: Path) -> None:
    """The asynchronous SQLite driver is told as SQLite."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
    await engine.dispose()
    assert [span.name for span in telemetry.spans] == ["SELECT"]
    assert (telemetry.spans[0].attributes or {})["db.system.name"] == "sqlite"


def test_many_rows_of_the_orm_are_few_spans_of_one_name(telemetry: Telemetry, tmp_path: Path) -> None:
    """However many rows an ORM flush inserts, their number is in no text."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    Base.metadata.create_all(engine)
    texts = set()
    for count in (3, 1500):
        telemetry.clear()
        with Session(engine) as session:
            session.add_all([Song(title=f"secret {number}") for number in range(count)])
            session.commit()
            assert session.scalars(sa.select(Song.title).limit(2)).all() == ["secret 0", "secret 1"]
        inserts = [span for span in telemetry.spans if span.name == "INSERT songs"]
        assert len(inserts) == 1
        texts |= {str((span.attributes or {})["db.query.text"]) for span in inserts}
    engine.dispose()
    assert len(texts) == 1


def test_streamed_results_and_a_stopped_server(telemetry: Telemetry, postgres: Postgres) -> None:
    """A server-side cursor is one span; a connection that the server ends is an error with its SQLSTATE or type."""
    engine = sa.create_engine(postgres.url())
    with engine.connect() as connection:
        telemetry.clear()
        streaming = {"stream_results": True, "yield_per": 10}
        rows = connection.execute(sa.text("SELECT * FROM generate_series(1, 100)"), execution_options=streaming)
        assert len(rows.all()) == 100
        assert [span.name for span in telemetry.spans] == ["SELECT"]
        telemetry.clear()
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        with engine.connect() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 1"))
        span = telemetry.spans[-1]
        assert span.status.status_code.name == "ERROR"
        assert (span.attributes or {})["error.type"] in {
            "57P01",
            "psycopg.OperationalError",
        }  # an older driver has no code
    engine.dispose()


def test_a_health_checks_own_statements_make_nothing(telemetry: Telemetry) -> None:
    """Under a suppressed context there is neither span nor duration."""
    engine = sa.create_engine("sqlite://")
    with suppressed(), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
    assert telemetry.spans == []
    found = telemetry.points()
    assert {name for name in found if "duration" in name or "time" in name} == set()


def test_engines_of_before_and_of_after(tmp_path: Path) -> None:
    """Engines and connections that were there are told from now on; afterwards nothing is, and nothing is left."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    old = sa.create_engine(url)
    connection = old.connect()
    classes = (Engine, Connection, Pool, _ConnectionRecord)
    before = [dict(vars(each)) for each in classes]
    kept = Telemetry()
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
    instrumentor.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
    new = sa.create_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    connection.execute(sa.text("SELECT 1"))
    with new.connect() as other:
        other.execute(sa.text("SELECT 2"))
    assert len(kept.spans) == 2
    instrumentor.uninstrument()
    instrumentor.uninstrument()
    connection.execute(sa.text("SELECT 3"))
    assert len(kept.spans) == 2
    assert [dict(vars(each)) for each in classes] == before
    assert "db.client.connection.count" not in kept.points()
    instrumentor.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
    connection.execute(sa.text("SELECT 4"))
    assert len(kept.spans) == 3
    counts = [
        value for attributes, value in kept.points()["db.client.connection.count"] if str(tmp_path) in str(attributes)
    ]
    assert sorted(counts) == [1, 1]
    instrumentor.uninstrument()
    connection.close()
    old.dispose()
    new.dispose()
    kept.close()


def test_a_wrapper_on_top_of_ours_stays_and_ours_falls_silent(telemetry: Telemetry) -> None:
    """Somebody else's patch is not taken away, and nothing is told through it any more."""
    instrumentor = SQLAlchemyInstrumentor()
    mine = Telemetry()
    instrumentor.instrument(tracer_provider=mine.tracers, meter_provider=mine.meters)
    below = Connection._exec_single_context

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return below(self, *args, **kwargs)

    Connection._exec_single_context = theirs  # type: ignore[method-assign]
    try:
        instrumentor.uninstrument()
        assert Connection._exec_single_context is theirs
        with sa.create_engine("sqlite://").connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
        assert mine.spans == []
        assert len(telemetry.spans) == 1
    finally:
        Connection._exec_single_context = vars(below)["__wrapped__"]  # type: ignore[method-assign]
        mine.close()


def test_a_thousand_reruns_that_make_engines_leave_nothing(telemetry: Telemetry) -> None:
    """Neither listeners nor databases nor connections add up, and the metric has one pool."""
    gc.collect()
    known = sum(isinstance(each, Database) for each in gc.get_objects())
    listeners = len(list(Pool.dispatch.checkin._clslevel[Pool]))  # type: ignore[attr-defined]
    for _ in range(1000):
        engine = sa.create_engine("sqlite://", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    del engine, connection
    gc.collect()
    assert len(list(Pool.dispatch.checkin._clslevel[Pool])) == listeners  # type: ignore[attr-defined]
    points = telemetry.points()
    assert len(points["db.client.connection.wait_time"]) == 1
    assert len(telemetry.spans) == 1000
    assert sum(isinstance(each, Database) for each in gc.get_objects()) <= known + 1


def test_made_up_tables_do_not_make_series_without_end(telemetry: Telemetry) -> None:
    """Spans keep their summary; the metric's number of series is bounded."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        for number in range(MAX_SUMMARIES + 20):
            connection.execute(sa.text(f"CREATE TABLE t{number} (a integer)"))
    assert len(telemetry.points()["db.client.operation.duration"]) == MAX_SUMMARIES + 1
    assert telemetry.spans[-1].name == f"CREATE TABLE t{MAX_SUMMARIES + 19}"


def test_sqlalchemy_is_not_imported_for_its_own_sake(tmp_path: Path) -> None:
    """An application without a database pays nothing; one that imports it later is told; greenlet is never needed."""
    script = """
import sys
sys.modules["greenlet"] = None
from otel.instrumentation.sqlalchemy_instrumentor import SQLALCHEMY
from tests.otel.instrumentation.telemetry import Telemetry
kept = Telemetry()
SQLALCHEMY.instrument(tracer_provider=kept.tracers, meter_provider=kept.meters)
assert "sqlalchemy" not in sys.modules
import sqlalchemy
assert "sqlalchemy.ext.asyncio" not in sys.modules
with sqlalchemy.create_engine("sqlite://").connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 1"))
print([span.name for span in kept.spans])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("['SELECT']\n", 0), done.stderr


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        (None, "http,database"),
        ("", "http,database"),
        ("gen_ai_latest_experimental", "gen_ai_latest_experimental,http,database"),
        ("http/dup", "http/dup,database"),
        ("database, http", "database, http"),
    ],
)
def test_the_opt_in_is_merged_with_the_users(given: str | None, merged: str) -> None:
    """Stable names are asked for beside what the user asks for, whose own choice for a signal stands."""
    environ = {} if given is None else {"OTEL_SEMCONV_STABILITY_OPT_IN": given}
    stable_names_opt_in(environ)
    assert environ == {"OTEL_SEMCONV_STABILITY_OPT_IN": merged}
