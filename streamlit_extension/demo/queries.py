"""What the sample's pages ask the database: one statement for each table or chart."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, case, func, select, update
from sqlalchemy.orm import Session

from streamlit_extension.demo.models import Client, Project, ProjectStatus, Task, TaskStatus

Rows = list[dict[str, Any]]


def _rows(engine: Engine, statement: Any) -> Rows:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def figures(engine: Engine, today: date) -> dict[str, float]:
    """The overview's key figures, with those of the four weeks before for comparison."""
    since, before = _ago(today, 28), _ago(today, 56)
    statement = select(
        select(func.count()).select_from(Client).scalar_subquery().label("clients"),
        select(func.count()).where(Client.created_at >= since).scalar_subquery().label("new_clients"),
        select(func.count()).where(Project.status == ProjectStatus.ACTIVE).scalar_subquery().label("active"),
        select(func.count()).where(Project.completed_at >= since).scalar_subquery().label("completed"),
        select(func.count()).where(Task.done_at >= since).scalar_subquery().label("done"),
        select(func.count()).where(Task.done_at >= before, Task.done_at < since).scalar_subquery().label("done_before"),
        select(func.coalesce(func.sum(Project.budget), 0))
        .where(Project.status == ProjectStatus.ACTIVE)
        .scalar_subquery()
        .label("budget"),
    )
    with engine.connect() as connection:
        return {key: float(value) for key, value in connection.execute(statement).mappings().one().items()}


def throughput(engine: Engine, today: date, weeks: int = 8) -> Rows:
    """Tasks done in each of the last weeks: `week` (its Monday) and `tasks`."""
    first = today - timedelta(days=today.weekday() + 7 * (weeks - 1))
    done = _rows(engine, select(Task.done_at).where(Task.done_at >= _midnight(first)))
    counts = {first + timedelta(days=7 * each): 0 for each in range(weeks)}
    for row in done:
        day = row["done_at"].date()
        monday = day - timedelta(days=day.weekday())
        if monday in counts:
            counts[monday] += 1
    return [{"week": week, "tasks": count} for week, count in counts.items()]


def budget_by_industry(engine: Engine) -> Rows:
    """Budget of projects that are not completed, by the client's industry: `industry`, `budget`."""
    total = func.sum(Project.budget).label("budget")
    statement = (
        select(Client.industry, total)
        .join(Project)
        .where(Project.status != ProjectStatus.COMPLETED)
        .group_by(Client.industry)
        .order_by(total.desc())
    )
    return _rows(engine, statement)


def deadlines(engine: Engine, today: date, limit: int = 6) -> Rows:
    """The next deadlines of projects that are under way."""
    statement = (
        select(Project.name.label("project"), Client.name.label("client"), Project.due_on, _progress())
        .join(Client)
        .outerjoin(Task)
        .where(Project.status != ProjectStatus.COMPLETED, Project.due_on >= today)
        .group_by(Project.id, Project.name, Client.name, Project.due_on)
        .order_by(Project.due_on)
        .limit(limit)
    )
    return _rows(engine, statement)


def clients(engine: Engine, industry: str | None = None, search: str = "") -> Rows:
    """Clients with the number and the budget of their projects."""
    statement = (
        select(
            Client.name,
            Client.industry,
            Client.contact,
            func.count(Project.id).label("projects"),
            func.coalesce(func.sum(Project.budget), 0).label("budget"),
            Client.created_at,
        )
        .outerjoin(Project)
        .group_by(Client.id, Client.name, Client.industry, Client.contact, Client.created_at)
        .order_by(Client.name)
    )
    if industry:
        statement = statement.where(Client.industry == industry)
    if search:
        statement = statement.where(func.lower(Client.name).contains(search.lower(), autoescape=True))
    return _rows(engine, statement)


def industries(engine: Engine) -> list[str]:
    """Every industry that a client is in."""
    return [row["industry"] for row in _rows(engine, select(Client.industry).distinct().order_by(Client.industry))]


def add_client(engine: Engine, name: str, industry: str, contact: str) -> None:
    """Add a client; raises IntegrityError when the name is taken."""
    with Session(engine) as session:
        session.add(Client(name=name, industry=industry, contact=contact, created_at=datetime.now(UTC)))
        session.commit()


def projects(engine: Engine, status: str | None = None) -> Rows:
    """Projects with their client and progress."""
    statement = (
        select(
            Project.id,
            Project.name.label("project"),
            Client.name.label("client"),
            Project.status,
            Project.budget,
            Project.due_on,
            _progress(),
        )
        .join(Client)
        .outerjoin(Task)
        .group_by(Project.id, Project.name, Client.name, Project.status, Project.budget, Project.due_on)
        .order_by(Project.due_on)
    )
    return _rows(engine, statement if status is None else statement.where(Project.status == status))


def complete_project(engine: Engine, project_id: int) -> None:
    """Complete a project and whatever of its tasks is open."""
    now = datetime.now(UTC)
    with Session(engine) as session:
        session.execute(
            update(Project).where(Project.id == project_id).values(status=ProjectStatus.COMPLETED, completed_at=now)
        )
        session.execute(
            update(Task)
            .where(Task.project_id == project_id, Task.status != TaskStatus.DONE)
            .values(status=TaskStatus.DONE, done_at=now)
        )
        session.commit()


def tasks(engine: Engine, assignee: str | None = None, limit: int = 240) -> Rows:
    """Open tasks and those done last, with their project."""
    statement = (
        select(Task.id, Task.title, Task.assignee, Task.status, Task.hours, Project.name.label("project"))
        .join(Project)
        .order_by(case((Task.status == TaskStatus.DONE, 1), else_=0), Task.done_at.desc(), Project.due_on, Task.id)
        .limit(limit)
    )
    return _rows(engine, statement if assignee is None else statement.where(Task.assignee == assignee))


def assignees(engine: Engine) -> list[str]:
    """Everybody who has a task."""
    return [row["assignee"] for row in _rows(engine, select(Task.assignee).distinct().order_by(Task.assignee))]


def move_task(engine: Engine, task_id: int, status: TaskStatus) -> None:
    """Give a task another status."""
    done_at = datetime.now(UTC) if status is TaskStatus.DONE else None
    with Session(engine) as session:
        session.execute(update(Task).where(Task.id == task_id).values(status=status, done_at=done_at))
        session.commit()


def workload(engine: Engine) -> Rows:
    """Hours by person: `assignee`, `open` and `done`."""
    done = Task.status == TaskStatus.DONE
    statement = (
        select(
            Task.assignee,
            func.sum(case((done, Decimal(0)), else_=Task.hours)).label("open"),
            func.sum(case((done, Task.hours), else_=Decimal(0))).label("done"),
        )
        .group_by(Task.assignee)
        .order_by(Task.assignee)
    )
    return _rows(engine, statement)


def open_tasks(engine: Engine) -> int:
    """How many tasks are not done."""
    with engine.connect() as connection:
        return int(connection.scalar(select(func.count()).where(Task.status != TaskStatus.DONE)) or 0)


def _progress() -> Any:
    """Share of a project's tasks that is done, 0 to 1."""
    done = func.sum(case((Task.status == TaskStatus.DONE, 1.0), else_=0.0))
    return (func.coalesce(done, 0.0) / func.coalesce(func.nullif(func.count(Task.id), 0), 1)).label("progress")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _ago(today: date, days: int) -> datetime:
    return _midnight(today - timedelta(days=days))
