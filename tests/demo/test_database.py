"""The sample's database on SQLite and PostgreSQL: migrations, data, and one statement for each question."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from streamlit_extension.demo import queries
from streamlit_extension.demo.database import prepare
from streamlit_extension.demo.models import Base, Client, Project, ProjectStatus, Task, TaskStatus
from tests.support.backends import Postgres

TODAY = datetime.now(UTC).date()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'demo.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    name = f"demo_{tmp_path.name.lower()}"
    admin = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    admin.dispose()
    return server.url().removesuffix("/postgres") + f"/{name}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The database, prepared."""
    prepare(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    """Alembic finds no difference between the migrated database and the models."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_preparing_again_or_at_once_changes_nothing(engine: Engine, url: str) -> None:
    """A second start, and four at the same time, leave the data as it is."""
    with engine.connect() as connection:
        before = [connection.scalar(select(func.count()).select_from(each)) for each in (Client, Project, Task)]
    failures: list[BaseException] = []

    def start() -> None:
        try:
            prepare(url)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    with engine.connect() as connection:
        after = [connection.scalar(select(func.count()).select_from(each)) for each in (Client, Project, Task)]
    assert before == after
    assert min(count or 0 for count in after) >= 12


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("figures", (TODAY,)),
        ("throughput", (TODAY,)),
        ("budget_by_industry", ()),
        ("deadlines", (TODAY,)),
        ("clients", ("Energy", "o_rd")),
        ("industries", ()),
        ("projects", ("active",)),
        ("tasks", ("Ana",)),
        ("assignees", ()),
        ("workload", ()),
        ("open_tasks", ()),
    ],
)
def test_each_question_is_one_statement(engine: Engine, question: str, arguments: tuple[Any, ...]) -> None:
    """However many rows there are, a table or chart costs one statement: no N+1."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    getattr(queries, question)(engine, *arguments)
    assert len(statements) == 1


def test_the_figures_agree_with_the_rows(engine: Engine) -> None:
    """What the overview sums up is what counting by hand gives."""
    with Session(engine) as session:
        clients = session.scalars(select(Client)).all()
        active = [project for client in clients for project in client.projects if project.status == "active"]
        budget = sum(project.budget for project in active)
        open_tasks = session.scalars(select(Task).where(Task.status != TaskStatus.DONE)).all()
    figures = queries.figures(engine, TODAY)
    assert (figures["clients"], figures["active"], figures["budget"]) == (len(clients), len(active), float(budget))
    assert queries.open_tasks(engine) == len(open_tasks)
    assert sum(row["budget"] for row in queries.projects(engine, "active")) == budget
    assert all(0 <= row["progress"] <= 1 for row in queries.projects(engine))
    assert len(queries.throughput(engine, TODAY)) == 8


def test_a_search_takes_wildcards_as_letters(engine: Engine) -> None:
    """`%` and `_` find themselves, not everything; letters are found in any case."""
    assert queries.clients(engine, search="%") == queries.clients(engine, search="_") == []
    assert [row["name"] for row in queries.clients(engine, search="NORDLICHT")] == ["Nordlicht Energie"]


def test_a_client_is_added_once(engine: Engine) -> None:
    """A taken name is refused by the database and leaves nothing behind."""
    queries.add_client(engine, "Robert'); DROP TABLE clients;--", "Retail", "Bobby")
    with pytest.raises(IntegrityError):
        queries.add_client(engine, "Robert'); DROP TABLE clients;--", "Retail", "Bobby")
    assert [row["contact"] for row in queries.clients(engine, search="DROP TABLE")] == ["Bobby"]


def test_completing_a_project_completes_its_tasks(engine: Engine) -> None:
    """The project, and whatever of its tasks was open, is done; no other project changes."""
    before = {row["id"]: row for row in queries.projects(engine)}
    chosen = next(key for key, row in before.items() if row["status"] == ProjectStatus.ACTIVE and row["progress"] < 1)
    queries.complete_project(engine, chosen)
    after = {row["id"]: row for row in queries.projects(engine)}
    assert (after[chosen]["status"], after[chosen]["progress"]) == (ProjectStatus.COMPLETED, 1.0)
    assert {key for key in after if after[key] != before[key]} == {chosen}


def test_a_task_moves_on_and_back(engine: Engine) -> None:
    """A done task has a moment, a reopened one has none."""
    task = next(row for row in queries.tasks(engine) if row["status"] == TaskStatus.TODO)
    queries.move_task(engine, task["id"], TaskStatus.DONE)
    with Session(engine) as session:
        found = session.get_one(Task, task["id"])
        assert found.done_at is not None
        assert found.done_at.date() >= date(2025, 1, 1)
    queries.move_task(engine, task["id"], TaskStatus.DOING)
    with Session(engine) as session:
        assert session.get_one(Task, task["id"]).done_at is None
