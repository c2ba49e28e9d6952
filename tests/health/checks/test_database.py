"""The database check against real PostgreSQL and SQLite, with the faults that production brings."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from streamlit_extension import ComponentChecker
from streamlit_extension.health.checks.database import DatabaseCheck
from streamlit_extension.health.model import CheckResult, Outcome
from tests.support.backends import Postgres, free_port

#: Cycles of a leak test.
CYCLES = 10_000 if os.environ.get("SOAK") else 1_000
SECRET = "hunter2-Geheim/§"

Make = Callable[..., sqlalchemy.Engine]


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "never held"
        time.sleep(0.02)


def check_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("stx-check")]


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[Make]:
    """Makes engines on the PostgreSQL server; disposed of with the test."""
    made: list[sqlalchemy.Engine] = []

    def make(driver: str = "psycopg", **options: Any) -> sqlalchemy.Engine:
        url = postgres.url(driver)
        made.append(
            create_async_engine(url, **options).sync_engine
            if driver == "asyncpg"
            else sqlalchemy.create_engine(url, **options)
        )
        return made[-1]

    yield make
    for each in made:
        each.dispose(close=not each.dialect.is_async)


@pytest.fixture
def check() -> Iterator[Callable[[sqlalchemy.Engine], DatabaseCheck]]:
    """Makes checks; closed with the test."""
    made: list[DatabaseCheck] = []

    def make(engine: sqlalchemy.Engine) -> DatabaseCheck:
        made.append(DatabaseCheck(lambda: engine, slow_s=60.0))
        return made[-1]

    yield make
    for each in made:
        each.close()


Check = Callable[[sqlalchemy.Engine], DatabaseCheck]


def ask(postgres: Postgres, statement: str) -> list[tuple[Any, ...]]:
    """Ask the server past the product."""
    with psycopg.connect(f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres", autocommit=True) as own:
        cursor = own.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def clients(postgres: Postgres) -> int:
    """Connections that the server has, the one that asks left out."""
    [(count,)] = ask(
        postgres,
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    return int(count)


def kill_clients(postgres: Postgres) -> int:
    """End every other connection on the server's side; returns how many."""
    killed = ask(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    eventually(lambda: clients(postgres) == 0)
    return len(killed)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_server_that_stops_and_starts_is_failed_and_well_again(
    postgres: Postgres, engine: Make, check: Check, driver: str
) -> None:
    """Each run tells how the server is now, and the first run after its return is well."""
    one = check(engine(driver))
    assert one().outcome is Outcome.OK
    postgres.stop()
    try:
        for _ in range(3):
            down = one()
            assert down.outcome is Outcome.FAILED
            assert down.error
            assert "\n" not in down.error
    finally:
        postgres.start()
    assert one().outcome is Outcome.OK


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_connections_killed_by_the_server_are_no_alarm(
    postgres: Postgres, engine: Make, check: Check, driver: str
) -> None:
    """`pg_terminate_backend` on the application's pool and on the check's own connection fails no run."""
    made = engine(driver)
    one = check(made)
    assert one().outcome is Outcome.OK
    if driver == "psycopg":
        with made.connect():
            pass
        assert clients(postgres) >= 2
        assert kill_clients(postgres) >= 2
    for _ in range(5):
        assert one().outcome is Outcome.OK
        kill_clients(postgres)


def test_an_exhausted_pool_is_said_and_is_not_down(postgres: Postgres, engine: Make, check: Check) -> None:
    """With every connection taken the check still asks, on one of its own, and calls the pool by its name."""
    made = engine(pool_size=1, max_overflow=1, pool_timeout=0.1)
    one = check(made)
    with made.connect(), made.connect():
        before = clients(postgres)
        found = one()
        assert found.outcome is Outcome.DEGRADED
        assert found.error == "the pool is exhausted"
        assert found.detail["reason"] == "pool exhausted"
        assert found.detail["connections"] == {"active": 2, "idle": 0, "max": 2}
        assert clients(postgres) == before + 1
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            made.connect()
    assert one().outcome is Outcome.OK


def test_an_exhausted_pool_hides_no_dead_server(postgres: Postgres, engine: Make, check: Check) -> None:
    """A pool that is exhausted because the server is gone is a failure."""
    made = engine(pool_size=1, max_overflow=0)
    one = check(made)
    held = made.connect()
    postgres.stop()
    try:
        assert one().outcome is Outcome.FAILED
    finally:
        postgres.start()
        held.invalidate()
        held.close()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_frozen_server_is_a_timeout_and_its_thread_comes_free(postgres: Postgres, engine: Make, driver: str) -> None:
    """A server that hangs in the middle of a conversation is reported on time, and the run is woken while it hangs."""
    checker = ComponentChecker(engines={"database": engine(driver)}, timeout_s=0.5)
    assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    with postgres.frozen():
        found = checker.check_database()
        assert found.outcome is Outcome.TIMEOUT
        assert found.error == "no answer within 0.5 s"
        eventually(lambda: not check_threads())
    eventually(lambda: checker.check_database().outcome is Outcome.OK)
    checker.close()


def test_a_server_frozen_while_connecting_keeps_one_thread_at_most(postgres: Postgres, engine: Make) -> None:
    """However often it is asked, one thread waits, and it is gone when the server wakes up."""
    checker = ComponentChecker(engines={"database": engine()}, timeout_s=0.1)
    with postgres.frozen():
        for _ in range(10):
            assert checker.check_database().outcome is Outcome.TIMEOUT
        assert len(check_threads()) <= 1
    eventually(lambda: checker.check_database().outcome is Outcome.OK)
    eventually(lambda: not check_threads())
    checker.close()


@pytest.fixture
def with_password(postgres: Postgres) -> Iterator[None]:
    """A user `guarded` who needs a password."""
    rules = postgres.folder / "data/pg_hba.conf"
    before = rules.read_text()
    ask(postgres, "CREATE USER guarded PASSWORD 'the-right-one'")
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
    ask(postgres, "SELECT pg_reload_conf()")
    yield
    rules.write_text(before)
    ask(postgres, "SELECT pg_reload_conf()")
    ask(postgres, "DROP USER guarded")


def test_a_wrong_password_is_told_without_the_password(postgres: Postgres, with_password: None, check: Check) -> None:
    """What the server says comes through; the password and the right one don't."""
    url = sqlalchemy.URL.create("postgresql+psycopg", "guarded", SECRET, "127.0.0.1", postgres.port, "postgres")
    made = sqlalchemy.create_engine(url)

    def refused() -> CheckResult:
        return check(made)()

    eventually(lambda: refused().outcome is Outcome.FAILED)  # until the server has read its rules again
    found = refused()
    assert "guarded" in str(found.error)
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:{secret}@127.0.0.1:{port}/none?connect_timeout=5",
        "postgresql+psycopg://me@127.0.0.1:{port}/none?connect_timeout=5&password={secret}",
        "postgresql+psycopg://me:{secret}@no-such-host.invalid/none?connect_timeout=5",
        "postgresql+psycopg://me:part@{secret}@no-such-host.invalid/none?connect_timeout=5",
        "postgresql+psycopg://127.0.0.1:{port}/none?sslpassword={secret}&nonsense={secret}",
        "postgresql+nodriver://me:{secret}@127.0.0.1/none",
        "nosuch://me:{secret}@127.0.0.1/none",
        "postgresql+psycopg://me:{secret}@127.0.0.1:port/none",
        "{secret}",
        "",
    ],
)
def test_a_wrong_url_fails_in_one_line_without_its_secrets(url: str) -> None:
    """Whatever is wrong with a configured URL, the result is one line that repeats no secret of it."""
    checker = ComponentChecker(database_url=url.format(secret="hunter2hunter2", port=free_port()), timeout_s=10.0)
    found = checker.check_database()
    checker.close()
    assert found.outcome is Outcome.FAILED
    assert found.error
    assert "\n" not in found.error
    assert "hunter2" not in str(found)


def test_a_password_in_connect_args_is_not_shown(check: Check) -> None:
    """A driver that repeats what it was given shows no secret that came by `connect_args` or a listener."""
    made = sqlalchemy.create_engine(
        "postgresql+psycopg://me@127.0.0.1:1/none", connect_args={"connect_timeout": 2, "password": "hunter2hunter2"}
    )
    assert "hunter2" not in str(check(made)())


# -- SQLite ---------------------------------------------------------------------------------------------------------


def test_a_missing_sqlite_file_is_never_created(tmp_path: Path, check: Check) -> None:
    """A file that was never there is noted, one that has gone is a failure, and neither is made by asking."""
    file = tmp_path / "app.db"
    made = sqlalchemy.create_engine(f"sqlite:///{file}")
    one = check(made)
    early = one()
    assert early.outcome is Outcome.OK
    assert early.detail["note"] == "the database file does not exist yet"
    assert not file.exists()
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    made.dispose()
    found = one()
    assert found.outcome is Outcome.OK
    assert "note" not in found.detail
    file.unlink()
    gone = one()
    assert (gone.outcome, gone.error) == (Outcome.FAILED, "the database file does not exist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{file}",
        "sqlite+aiosqlite:///{file}",
        "sqlite:///file:{file}?uri=true",
        "sqlite:///file:{file}?mode=rwc&uri=true",
    ],
)
def test_no_spelling_of_a_sqlite_url_creates_a_file(tmp_path: Path, url: str) -> None:
    """A configured URL of a file that is not there leaves the folder empty."""
    checker = ComponentChecker(database_url=url.format(file=tmp_path / "app.db"))
    for _ in range(3):
        assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    checker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    """Something else under the database's name is a failure, not a database that works."""
    file = tmp_path / "app.db"
    file.write_bytes(b"certainly no SQLite database\n" * 100)
    checker = ComponentChecker(database_url=f"sqlite:///{file}")
    found = checker.check_database()
    assert found.outcome is Outcome.FAILED
    assert "not a database" in str(found.error)
    checker.close()


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_sqlite_file_locked_by_a_writer_is_busy_and_not_down(tmp_path: Path, driver: str) -> None:
    """A long transaction of the application's own locks everybody out for a while; that kills no pod."""
    file = tmp_path / "app.db"
    checker = ComponentChecker(database_url=f"{driver}:///{file}", timeout_s=10.0)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE t (x)")
        assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
        writer.execute("BEGIN EXCLUSIVE")
        found = checker.check_database()
        assert found.outcome is Outcome.DEGRADED
        assert (found.detail["reason"], found.error) == ("locked", "another connection has locked the database")
        writer.execute("COMMIT")
    assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    checker.close()


def test_an_asynchronous_driver_s_thread_ends_before_its_event_loop(tmp_path: Path) -> None:
    """After a failure no thread of the driver is left that would call back a loop that is no more."""

    class Slow(sqlite3.Connection):
        """Takes its time to close, as on a busy machine."""

        def close(self) -> None:
            time.sleep(0.2)
            super().close()

    file = tmp_path / "app.db"
    before = set(threading.enumerate())
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", connect_args={"factory": Slow})
    check = DatabaseCheck(lambda: engine.sync_engine)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN EXCLUSIVE")
        for _ in range(2):
            assert check().outcome is Outcome.DEGRADED
            eventually(lambda: set(threading.enumerate()) <= before)  # it has told, and is about to be gone
        writer.execute("COMMIT")
    assert check().outcome is Outcome.OK
    check.close()


def test_a_database_in_memory_is_not_asked(check: Check) -> None:
    """There is nothing to reach, and asking would meet another database or the application's transaction."""
    for made in (
        sqlalchemy.create_engine("sqlite://"),
        sqlalchemy.create_engine("sqlite://", poolclass=StaticPool),
        sqlalchemy.create_engine("sqlite:///file:shared?mode=memory&cache=shared&uri=true", poolclass=NullPool),
    ):
        found = check(made)()
        assert found.outcome is Outcome.OK
        assert found.detail["note"] == "a database in memory is not asked"
        assert made.pool.status()
        made.dispose()


# -- pools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_pools_without_figures_are_checked_too(postgres: Postgres, engine: Make, check: Check, pool: Any) -> None:
    """NullPool and StaticPool tell no figures; the server is asked all the same, on a connection of the check's own."""
    made = engine(poolclass=pool)
    one = check(made)
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE mine (x int) ON COMMIT DROP")
        found = one()
        assert found.outcome is Outcome.OK
        assert "connections" not in found.detail
        connection.exec_driver_sql("INSERT INTO mine VALUES (1)")  # the transaction was left alone
    postgres.stop()
    try:
        assert one().outcome is Outcome.FAILED
    finally:
        postgres.start()


def test_the_one_connection_that_a_creator_hands_out_is_left_alone(postgres: Postgres, check: Check) -> None:
    """Where the user's own creator gives everybody the same connection, it is neither asked nor closed nor rolled back."""
    with psycopg.connect(f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres") as shared:
        made = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: shared, poolclass=StaticPool)
        shared.execute("CREATE TEMPORARY TABLE mine (x int) ON COMMIT DROP")
        found = check(made)()
        assert found.outcome is Outcome.OK
        assert found.detail["note"] == "the application's one shared connection is not asked"
        shared.execute("INSERT INTO mine VALUES (1)")
        assert not shared.closed


def test_a_check_leaves_no_transaction_open(postgres: Postgres, engine: Make, check: Check) -> None:
    """The connection that is kept is idle between runs, so that it holds back no vacuum and no lock."""
    one = check(engine())
    assert one().outcome is Outcome.OK
    states = ask(
        postgres,
        "SELECT state FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    assert states
    assert set(states) == {("idle",)}


def test_a_disposed_engine_is_asked_anew(postgres: Postgres, engine: Make, check: Check) -> None:
    """`engine.dispose()`, as after a change of password, ends the kept connection at the next run."""
    made = engine()
    one = check(made)
    before = clients(postgres)
    for _ in range(5):
        assert one().outcome is Outcome.OK
        made.dispose()
    assert clients(postgres) <= before + 1


def test_no_event_and_no_checkout_of_the_applications_is_concerned(engine: Make, check: Check) -> None:
    """The application's pool and its listeners see nothing of a check."""
    made = engine(pool_size=2)
    seen: list[str] = []
    for name in ("connect", "checkout", "checkin"):
        sqlalchemy.event.listen(made, name, lambda *_: seen.append("pool"))
    sqlalchemy.event.listen(made, "before_cursor_execute", lambda *_: seen.append("statement"))
    one = check(made)
    for _ in range(3):
        assert one().outcome is Outcome.OK
    assert seen == []
    assert one().detail["connections"] == {"active": 0, "idle": 0, "max": 12}


# -- 10,000 cycles --------------------------------------------------------------------------------------------------


def counts(postgres: Postgres) -> tuple[int, int, int]:
    gc.collect()
    return clients(postgres), threading.active_count(), psutil.Process().num_fds()


@pytest.mark.timeout(900 if os.environ.get("SOAK") else 180)
@pytest.mark.parametrize("kind", ["psycopg", "psycopg without pool", "asyncpg", "sqlite", "aiosqlite"])
def test_thousands_of_checks_leave_connections_threads_and_descriptors_where_they_were(
    postgres: Postgres, engine: Make, tmp_path: Path, kind: str
) -> None:
    """After the first run nothing grows, and closing gives back what was kept."""
    file = tmp_path / "app.db"
    file.touch()
    made = {
        "psycopg": lambda: engine(),
        "psycopg without pool": lambda: engine(poolclass=NullPool),
        "asyncpg": lambda: engine("asyncpg"),
        "sqlite": lambda: sqlalchemy.create_engine(f"sqlite:///{file}"),
        "aiosqlite": lambda: create_async_engine(f"sqlite+aiosqlite:///{file}").sync_engine,
    }[kind]()
    checker = ComponentChecker(engines={"database": made}, timeout_s=30.0)
    at_first = counts(postgres)
    assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    eventually(lambda: not check_threads())
    before = counts(postgres)
    # an asynchronous check connects anew at each run: a tenth of the cycles shows as much
    for _ in range(CYCLES // 10 if made.dialect.is_async else CYCLES):
        assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    eventually(lambda: counts(postgres) == before)
    checker.close()
    eventually(lambda: counts(postgres) == at_first)


def test_cycles_through_a_broken_server_leave_nothing_behind(postgres: Postgres, engine: Make) -> None:
    """Failures, too, leave connections, threads and descriptors where they were."""
    checkers = [ComponentChecker(engines={"database": engine(each)}, timeout_s=30.0) for each in ("psycopg", "asyncpg")]
    for checker in checkers:
        assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    eventually(lambda: not check_threads())
    before = counts(postgres)
    postgres.stop()
    try:
        for _ in range(100):
            for checker in checkers:
                assert checker.check_database().outcome is Outcome.FAILED
    finally:
        postgres.start()
    for checker in checkers:
        assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    eventually(lambda: counts(postgres) == before)
    for checker in checkers:
        checker.close()


# -- ComponentChecker -----------------------------------------------------------------------------------------------


def test_several_databases_give_the_worst_result_and_each_ones_outcome(tmp_path: Path, engine: Make) -> None:
    """One that is down does not hide behind one that works, and both are named."""
    dead = sqlalchemy.create_engine(f"postgresql+psycopg://me:hunter2hunter2@127.0.0.1:{free_port()}/x")
    checker = ComponentChecker(engines={"good": engine(), "dead": dead}, timeout_s=20.0)
    found = checker.check_database()
    assert found.outcome is Outcome.FAILED
    assert found.detail["databases"] == {"good": "ok", "dead": "failed"}
    assert "hunter2" not in str(found)
    checker.close()


def test_an_async_engine_may_be_given_as_it_is(postgres: Postgres) -> None:
    """`AsyncEngine` itself is accepted, as users have it in their hands."""
    made: Any = create_async_engine(postgres.url("asyncpg"))
    checker = ComponentChecker(engines={"database": made}, timeout_s=20.0)
    assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    checker.close()


def test_an_engine_that_was_checked_can_still_die() -> None:
    """A checker holds no engine that its owner has let go."""
    engines = {"database": sqlalchemy.create_engine("sqlite://")}
    checker = ComponentChecker(engines=engines)
    assert checker.check_database().outcome in (Outcome.OK, Outcome.DEGRADED)
    seen = weakref.ref(engines.pop("database"))
    gc.collect()
    assert seen() is None
    assert checker.check_database().outcome is Outcome.NOT_CONFIGURED
    checker.close()


CONFIGURED = """
import pathlib, sys, time
from streamlit_extension.health.service import HealthService
from streamlit_extension.health.wiring import register_checks
from streamlit_extension.settings import Settings

class Late:
    # An import that takes longer than the check may.
    def find_spec(self, name, path=None, target=None):
        if name == "sqlalchemy":
            time.sleep(1.2)

assert "sqlalchemy" not in sys.modules
sys.meta_path.insert(0, Late())
folder = pathlib.Path(sys.argv[1])
environ = {"STX_DATA_DIR": str(folder), "STX_HEALTH__TIMEOUT_S": "1"}
service = HealthService(version="1")
register_checks(service, Settings.load({**environ, "STX_HEALTH__DATABASE__URL": f"sqlite:///{folder}/one.db"}, folder))
print(service.run_now("database").outcome.value, service.snapshot.checks["database"].state.status.value)
"""


def test_a_slow_import_of_the_driver_is_no_failure_of_the_database(tmp_path: Path) -> None:
    """In a process that has just begun, SQLAlchemy's import takes longer than the time-out and no alarm is raised."""
    (tmp_path / "one.db").touch()
    words = [sys.executable, "-c", CONFIGURED, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()[1] in ("healthy", "degraded")  # degraded: a slow machine
    assert done.stdout.split()[0] in ("ok", "degraded")


def test_callers_at_the_same_time_share_one_run(postgres: Postgres, engine: Make) -> None:
    """Fifty threads that ask at once open one connection between them."""
    checker = ComponentChecker(engines={"database": engine()}, timeout_s=30.0)
    before = clients(postgres)
    results: list[CheckResult] = []
    threads = [threading.Thread(target=lambda: results.append(checker.check_database())) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.outcome for each in results] == [Outcome.OK] * 50
    assert clients(postgres) <= before + 1
    checker.close()


def test_checkers_made_again_and_again_keep_no_connection(postgres: Postgres, engine: Make) -> None:
    """A script that makes one on each rerun leaves nothing open on the server."""
    found = engine()
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    with found.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        before = connection.execute(sqlalchemy.text(count)).scalar_one()
        for _ in range(20):
            found_out = ComponentChecker(engines={"database": found}).check_database()
            assert found_out.outcome in (Outcome.OK, Outcome.DEGRADED)
        eventually(lambda: connection.execute(sqlalchemy.text(count)).scalar_one() <= before)
