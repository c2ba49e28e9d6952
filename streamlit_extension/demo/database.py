"""The sample's database: migrated and seeded at the start, safely when several processes start at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from otel.trace_context import suppressed
from streamlit_extension.demo.models import Client, Project, ProjectStatus, Task, TaskStatus

#: PostgreSQL's advisory lock that migrations take; any constant does.
LOCK_KEY = 5_851_850_1
_SEED = 20_250_115

_CLIENTS = (
    ("Nordlicht Energie", "Energy", "Ida Brandt"),
    ("Atelier Montclair", "Design", "Louis Girard"),
    ("Harbor & Finch", "Logistics", "Maya Chen"),
    ("Verdant Foods", "Food", "Tom Okafor"),
    ("Quantis Health", "Health", "Priya Raman"),
    ("Studio Kestrel", "Media", "Elena Rossi"),
    ("Bluepeak Outdoor", "Retail", "Jonas Weber"),
    ("Civic Transit", "Public sector", "Amara Diallo"),
    ("Orchard Finance", "Finance", "Hugo Lindqvist"),
    ("Lumen Robotics", "Manufacturing", "Sara Haddad"),
    ("Tidewater Labs", "Research", "Noah Kim"),
    ("Maison Delphine", "Hospitality", "Claire Fontaine"),
)
_PROJECTS = (
    "Customer portal",
    "Data platform",
    "Brand refresh",
    "Mobile app",
    "Warehouse dashboard",
    "Checkout redesign",
)
_TASKS = (
    "Kick-off workshop",
    "Interview five users",
    "Draft the data model",
    "Set up the pipeline",
    "Review accessibility",
    "Write the import",
    "Prototype the main flow",
    "Load test",
    "Prepare the launch",
)
_PEOPLE = ("Ana", "Bilal", "Chiara", "Dmitri", "Esra", "Felix")


def prepare(url: str) -> None:
    """Bring the database at `url` to the newest schema and fill an empty one.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it can't be reached or used.
    """
    engine = create_engine(url)
    try:
        with suppressed(), _alone(engine) as connection:  # invented data is no business
            migrate(connection)
            seed(connection)
    finally:
        engine.dispose()


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other start is in at the same time."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.commit()
            connection.connection.dbapi_connection.isolation_level = None  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        yield connection
        connection.commit()


def migrate(connection: Connection) -> None:
    """Run every migration that this database has not had."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def seed(connection: Connection, today: date | None = None) -> None:
    """Fill an empty database with the same believable data every time, dated around `today`."""
    with Session(bind=connection) as session:
        if session.scalar(select(func.count()).select_from(Client)):
            return
        session.add_all(_clients(today or datetime.now(UTC).date()))
        session.flush()


def _clients(today: date) -> Iterator[Client]:
    chance = random.Random(_SEED)
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    for number, (name, industry, contact) in enumerate(_CLIENTS):
        created = noon - timedelta(days=340 - 30 * number)
        client = Client(name=name, industry=industry, contact=contact, created_at=created)
        client.projects = [_project(chance, noon, each) for each in chance.sample(_PROJECTS, chance.randint(1, 3))]
        yield client


def _project(chance: random.Random, noon: datetime, name: str) -> Project:
    status = chance.choices(list(ProjectStatus), (2, 5, 3))[0]
    due = noon.date() + timedelta(days=chance.randint(4, 90))
    completed = noon - timedelta(days=chance.randint(1, 80)) if status is ProjectStatus.COMPLETED else None
    if completed is not None:
        due = completed.date() + timedelta(days=chance.randint(-5, 12))
    budget = Decimal(chance.randrange(12, 160)) * 1000
    project = Project(name=name, status=status, budget=budget, due_on=due, completed_at=completed)
    project.tasks = [_task(chance, noon, title, status) for title in chance.sample(_TASKS, chance.randint(4, 8))]
    return project


def _task(chance: random.Random, noon: datetime, title: str, project: ProjectStatus) -> Task:
    weights = {ProjectStatus.PLANNED: (8, 1, 0), ProjectStatus.ACTIVE: (3, 3, 5), ProjectStatus.COMPLETED: (0, 0, 1)}
    status = chance.choices(list(TaskStatus), weights[project])[0]
    done = noon - timedelta(days=chance.randint(0, 56)) if status is TaskStatus.DONE else None
    hours = Decimal(chance.randrange(2, 40)) / 2
    return Task(title=title, assignee=chance.choice(_PEOPLE), status=status, hours=hours, done_at=done)
