"""Engines are found as they are made, told of to who wants to know, and held by nobody here."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.engine.base import Engine
from sqlalchemy.orm import Session

from otel.guard import REDACTED, forget_secrets, redact_text
from otel.instrumentation import sqlalchemy as discovery
from otel.instrumentation.sqlalchemy import (
    ENGINES,
    MAX_ENGINES,
    EngineEntry,
    EngineRegistry,
    Subscriber,
    install_engine_discovery,
    uninstall_engine_discovery,
)

NO_QUERY: dict[str, str] = {}


@dataclass
class Told:
    """What a subscriber was told, in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    interested: bool = True

    def subscriber(self) -> Subscriber:
        return Subscriber(
            added=lambda entry: self.events.append(("added", entry.name)),
            removed=lambda entry: self.events.append(("removed", entry.name)),
            alive=lambda: self.interested,
        )


def engine(folder: Path, name: str = "app") -> Engine:
    return sqlalchemy.create_engine(f"sqlite:///{folder / name}.db")


# -- what an engine's URL gives away --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("postgresql+psycopg://app:kYm7-rain%2F42@db:5432/shop", ["kYm7-rain/42", "kYm7-rain%2F42"]),
        ("postgresql+psycopg://app:kYm7-rain@db/shop?sslpassword=drizzle99&application_name=shop-one", ["drizzle99"]),
        ("postgresql+psycopg://postgres:postgres@db/postgres", []),
        ("postgresql+psycopg://shop:database@db/database", []),
        ("postgresql+psycopg://app:password@db/shop", []),
        ("sqlite:///shop.db", []),
    ],
)
def test_the_passwords_of_engines_are_secrets_by_value(url: str, secrets: list[str]) -> None:
    """Wherever they turn up; not the word that user and database are called by, which would hide them everywhere."""
    forget_secrets()
    made = sqlalchemy.create_engine(url)
    registry = EngineRegistry()
    with registry.ignoring():
        registry.add(made)
    try:
        for secret in secrets:
            assert (
                redact_text(f"could not log in by {secret} at postgres")
                == f"could not log in by {REDACTED} at postgres"
            )
        assert redact_text("database postgres, shop-one, password") == "database postgres, shop-one, password"
    finally:
        forget_secrets()


def test_an_engine_whose_password_cannot_be_asked_is_noted_all_the_same(tmp_path: Path) -> None:
    """A password may be an object that fetches itself."""

    class Absent:
        def __str__(self) -> str:
            raise OSError

    class Url:
        password, username, host, query, database = Absent(), None, None, NO_QUERY, "x"

        def render_as_string(self, hide_password: bool) -> str:
            return "sqlite:///x"

    made, registry = engine(tmp_path), EngineRegistry()
    made.url = Url()  # type: ignore[assignment]
    registry.add(made)
    assert [entry.url for entry in registry.entries] == ["sqlite:///x"]


# -- the registry ---------------------------------------------------------------------------------------------------


def test_engines_are_named_by_their_database_and_told_in_order(tmp_path: Path) -> None:
    """The first is `database`, others carry their database's name, the same URL again is no new one."""
    registry, told = EngineRegistry(), Told()
    engines = [engine(tmp_path), engine(tmp_path, "reports"), engine(tmp_path), engine(tmp_path / "other", "reports")]
    registry.add(engines[0])
    registry.subscribe(told.subscriber())
    for each in engines[1:]:
        registry.add(each)
    assert told.events == [
        ("added", "database"),
        ("added", "database:reports"),
        ("added", "database:reports-2"),
    ]
    assert [entry.name for entry in registry.entries] == [name for _, name in told.events]
    assert registry.entries[0].engine is engines[2]  # the newest one that lives


def test_an_engine_is_held_weakly_and_forgotten_when_it_is_gone(tmp_path: Path) -> None:
    """Nobody keeps it alive; asking for it, or another engine's coming, tells that its database is no more."""
    registry, told = EngineRegistry(), Told()
    registry.subscribe(told.subscriber())
    first: Engine | None = engine(tmp_path)
    registry.add(first)
    (entry,) = registry.entries
    first = None
    gc.collect()
    assert told.events == [("added", "database")]  # never told by the garbage collector
    assert entry.engine is None
    assert told.events == [("added", "database"), ("removed", "database")]
    assert registry.entries == ()
    second, third = engine(tmp_path, "second"), engine(tmp_path, "third")
    registry.add(second)
    del second
    gc.collect()
    registry.add(third)
    assert told.events[2:] == [("added", "database"), ("removed", "database"), ("added", "database")]


def test_a_thousand_engines_for_one_url_are_one_database(tmp_path: Path) -> None:
    """A script that makes one on every rerun adds nothing, whether the earlier ones live or not."""
    registry, told = EngineRegistry(), Told()
    registry.subscribe(told.subscriber())
    kept = []
    for number in range(1000):
        made = engine(tmp_path)
        registry.add(made)
        registry.add(made)
        if number % 100 == 0:
            kept.append(made)
    gc.collect()
    registry.add(kept[0])
    (entry,) = registry.entries
    assert len(entry.engines) <= len(kept) + 1
    assert told.events == [("added", "database")]


def test_more_databases_than_anybody_looks_at_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One for each tenant: the first `MAX_ENGINES` are watched, one line tells of the rest, and room is used again."""
    registry, told = EngineRegistry(), Told()
    registry.subscribe(told.subscriber())
    engines = [engine(tmp_path, f"tenant-{number}") for number in range(MAX_ENGINES + 20)]
    for each in engines:
        registry.add(each)
    assert len(registry.entries) == len(told.events) == MAX_ENGINES
    (line,) = [each for each in caplog.records if each.__dict__.get("event") == "engines.too_many"]
    assert str(MAX_ENGINES) in line.getMessage()
    latest = engines[-1]
    del engines[:10], each
    gc.collect()
    registry.add(latest)
    assert len(registry.entries) == MAX_ENGINES - 9
    assert told.events[-1][0] == "added"


def test_a_subscriber_that_has_ended_is_told_nothing(tmp_path: Path) -> None:
    """Ending twice changes nothing, and the others are told all the same."""
    registry = EngineRegistry()
    ended, stays = Told(), Told()
    end = registry.subscribe(ended.subscriber())
    registry.subscribe(stays.subscriber())
    end()
    end()
    made = engine(tmp_path)
    registry.add(made)
    assert (ended.events, stays.events) == ([], [("added", "database")])


def test_dead_subscribers_do_not_pile_up() -> None:
    """A thousand that came and went leave none but the last."""
    registry = EngineRegistry()
    for _ in range(1000):
        told = Told()
        registry.subscribe(told.subscriber())
        told.interested = False
    assert len(registry._subscribers) == 1


def test_a_subscriber_that_fails_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged by its kind, once, and the application's `create_engine` knows nothing of it."""
    registry, told = EngineRegistry(), Told()

    def fail(_entry: EngineEntry) -> None:
        raise ZeroDivisionError("secret")

    registry.subscribe(Subscriber(added=fail, removed=fail))
    registry.subscribe(told.subscriber())
    discovery._told_errors.discard("ZeroDivisionError")
    registry.add(engine(tmp_path))
    registry.add(engine(tmp_path, "second"))
    assert [name for _, name in told.events] == ["database", "database:second"]
    assert [each.getMessage() for each in caplog.records] == ["an engine could not be noted: ZeroDivisionError"]


def test_what_is_ignored_is_ignored_by_this_thread_alone(tmp_path: Path) -> None:
    """Our own engines are no databases of the application's; another thread's are meanwhile noted."""
    registry = EngineRegistry()
    mine, theirs = engine(tmp_path, "mine"), engine(tmp_path, "theirs")
    with registry.ignoring():
        registry.add(mine)
        other = threading.Thread(target=registry.add, args=(theirs,))
        other.start()
        other.join(20)
    assert [entry.engine for entry in registry.entries] == [theirs]


def test_many_threads_leave_one_entry_for_each_database(tmp_path: Path) -> None:
    """Names stay unique and each is told once, whatever happens at the same time."""
    registry, told = EngineRegistry(), Told()
    registry.subscribe(told.subscriber())
    engines = [engine(tmp_path, f"db-{number % 10}") for number in range(200)]
    threads = [
        threading.Thread(target=lambda part: [*map(registry.add, part)], args=(engines[n::8],)) for n in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    names = [name for _, name in told.events]
    assert len(names) == len(set(names)) == 10


# -- discovery ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean() -> Iterator[None]:
    """Discovery is off before and after; what earlier tests have made is gone."""
    uninstall_engine_discovery()
    gc.collect()
    ENGINES.sweep()
    yield
    uninstall_engine_discovery()
    gc.collect()
    ENGINES.sweep()


def known() -> list[Engine | None]:
    return [entry.engine for entry in ENGINES.entries]


@pytest.mark.usefixtures("clean")
def test_every_way_of_making_an_engine_leads_to_the_registry(tmp_path: Path) -> None:
    """`create_engine`, `engine_from_config` and an asynchronous engine's inner one."""
    from sqlalchemy.ext.asyncio import create_async_engine

    install_engine_discovery()
    made = [
        engine(tmp_path, "a"),
        sqlalchemy.engine_from_config({"sqlalchemy.url": f"sqlite:///{tmp_path / 'b.db'}"}),
        create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'c.db'}").sync_engine,
    ]
    found = known()
    assert all(each in found for each in made)


@pytest.mark.usefixtures("clean")
def test_engines_that_were_there_before_are_found(tmp_path: Path) -> None:
    """One look at what lives; an engine's variant with options of its own is no other database."""
    before = engine(tmp_path, "before")
    variant = before.execution_options(isolation_level="AUTOCOMMIT")
    assert before not in known()
    install_engine_discovery()
    assert before in known()
    assert variant not in known()


@pytest.mark.usefixtures("clean")
def test_uninstalling_is_the_exact_inverse(tmp_path: Path) -> None:
    """The class is as it was found, also after many turns; engines that come then are not noted."""
    original = Engine.__init__
    for _ in range(3):
        install_engine_discovery()
        install_engine_discovery()
        assert Engine.__init__ is not original
        uninstall_engine_discovery()
        assert Engine.__init__ is original
    assert engine(tmp_path, "late") not in known()


@pytest.mark.usefixtures("clean")
def test_what_somebody_else_has_wrapped_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their wrapper is not taken away; ours below it falls silent."""
    caplog.set_level(logging.INFO)
    install_engine_discovery()
    ours = Engine.__init__
    calls: list[int] = []

    def theirs(*args: object, **options: object) -> None:
        calls.append(1)
        ours(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "__init__", theirs)
    uninstall_engine_discovery()
    made = engine(tmp_path, "wrapped")
    assert calls == [1]
    assert made not in known()
    with Session(made) as session:
        assert session.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
    assert caplog.records == []
