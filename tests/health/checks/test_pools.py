"""The pools of one database: each engine has its own, and one that is exhausted is never hidden by another."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool, QueuePool

from otel.instrumentation.sqlalchemy import EngineRegistry
from streamlit_extension.health.checks.pools import look_at
from streamlit_extension.health.model import CheckResult, Outcome
from streamlit_extension.health.service import HealthService
from streamlit_extension.health.wiring import register_checks
from streamlit_extension.settings import Settings

Make = Callable[..., sqlalchemy.Engine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes engines of one database; disposed of with the test."""
    made: list[sqlalchemy.Engine] = []
    (tmp_path / "one.db").touch()

    def engine(**options: Any) -> sqlalchemy.Engine:
        options = {"poolclass": QueuePool, **options}
        made.append(sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'one.db'}", **options))
        return made[-1]

    yield engine
    for each in made:
        each.dispose()


def found_by_the_service(engines: EngineRegistry, tmp_path: Path) -> CheckResult:
    """What the check that discovery registers finds."""
    settings = Settings.load({"STX_DATA_DIR": str(tmp_path)}, tmp_path)
    service = HealthService(version="1")
    close = register_checks(service, settings, engines)
    try:
        return service.run_now("database")
    finally:
        service.stop()
        close()


def test_a_newer_engine_of_the_same_url_hides_no_exhausted_pool(make: Make, tmp_path: Path) -> None:
    """The database answers, and yet its check says which pool has no connection left; figures are of all pools."""
    engines = EngineRegistry()
    first, second = make(pool_size=1, max_overflow=0), make(pool_size=5, max_overflow=2)
    engines.add(first)
    engines.add(second)
    assert found_by_the_service(engines, tmp_path).outcome is Outcome.OK
    with first.connect(), second.connect():
        found = found_by_the_service(engines, tmp_path)
    assert found.outcome is Outcome.DEGRADED
    assert found.detail["reason"] == "pool exhausted"
    assert found.error == "the pool of engine 1 of 2 is exhausted: 1 of 1 in use"
    assert found.detail["connections"] == {"active": 2, "idle": 0, "max": 8}
    after = found_by_the_service(engines, tmp_path)
    assert after.outcome is Outcome.OK
    assert after.detail["connections"] == {"active": 0, "idle": 2, "max": 8}


ASKED = """
import sys, sqlalchemy
from otel.instrumentation.sqlalchemy import install_engine_discovery
from streamlit_extension import ComponentChecker
install_engine_discovery()
first = sqlalchemy.create_engine(sys.argv[1], pool_size=1, max_overflow=0, pool_logging_name="reports")
second = sqlalchemy.create_engine(sys.argv[1], pool_size=5, max_overflow=0)
with first.connect():
    found = ComponentChecker(timeout_s=60).check_database()
print(found.outcome.value, found.error, found.detail["connections"]["max"])
"""


def test_a_check_that_is_asked_for_sees_all_engines_too(tmp_path: Path) -> None:
    """`ComponentChecker` asks one engine of a discovered database and judges the pools of all, told by their names."""
    (tmp_path / "one.db").touch()
    words = [sys.executable, "-c", ASKED, f"sqlite:///{tmp_path / 'one.db'}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "degraded the pool reports is exhausted: 1 of 1 in use 6\n"


def test_an_engine_that_has_died_counts_no_more(make: Make, tmp_path: Path) -> None:
    """The registry holds engines weakly, and so does whoever looks at their pools."""
    engines = EngineRegistry()
    url = f"sqlite:///{tmp_path / 'one.db'}"
    kept, gone = make(pool_size=5, max_overflow=0), sqlalchemy.create_engine(url, pool_size=2, max_overflow=0)
    engines.add(gone)
    engines.add(kept)
    assert found_by_the_service(engines, tmp_path).detail["connections"]["max"] == 7
    gone.dispose()
    del gone
    gc.collect()
    assert found_by_the_service(engines, tmp_path).detail["connections"]["max"] == 5


def test_engines_that_share_a_pool_share_its_figures(make: Make) -> None:
    """An engine with other options (`execution_options`) has the pool of the one that it was made from."""
    engine = make(pool_size=3, max_overflow=0)
    assert look_at([engine, engine.execution_options(isolation_level="SERIALIZABLE")]).connections["max"] == 3


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"pool_size": 2, "max_overflow": -1}])
def test_one_pool_without_a_limit_leaves_the_sum_without_one(make: Make, options: dict[str, int]) -> None:
    """`max` is None where any pool has none, and the pool that has one is still found exhausted."""
    limited, unlimited = make(pool_size=1, max_overflow=0), make(**options)
    with limited.connect(), unlimited.connect():
        found = look_at([limited, unlimited])
    assert found.connections == {"active": 2, "idle": 0, "max": None}
    assert found.exhausted == "the pool of engine 1 of 2 is exhausted: 1 of 1 in use"


def test_pools_that_tell_nothing_are_left_out(make: Make) -> None:
    """Those without figures change nothing of the others' sum, and alone there is none."""
    silent, speaking = make(poolclass=NullPool), make(pool_size=4, max_overflow=0)
    assert look_at([silent, speaking]).connections == {"active": 0, "idle": 0, "max": 4}
    assert look_at([silent]).detail == {}


def test_looking_takes_no_connection_and_waits_for_nothing(make: Make) -> None:
    """Pools are read while another thread waits for one of their connections."""
    engine = make(pool_size=1, max_overflow=0, pool_timeout=60)
    waiting = threading.Thread(target=lambda: engine.connect().close(), daemon=True)
    with engine.connect():
        waiting.start()
        assert look_at([engine]).exhausted == "the pool is exhausted"
    waiting.join(60)
    assert not waiting.is_alive()
