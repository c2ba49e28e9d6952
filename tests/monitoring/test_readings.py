"""What alerts are given: exactly the readings that the rules are defined on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from otel.instrumentation.sqlalchemy import EngineRegistry
from otel.instrumentation.streamlit import MemorySample, RunOutcome, RunWatcher, ScriptRun
from streamlit_extension.monitoring.activity import Activity, MemoryGrowth
from streamlit_extension.monitoring.collector import MetricsCollector
from streamlit_extension.monitoring.engagement import Visits
from streamlit_extension.monitoring.machine import Machine
from streamlit_extension.monitoring.model import PoolStatistics
from streamlit_extension.monitoring.readings import fullest, readings


class NoEngines:
    entries = ()


def collector(**options: Any) -> MetricsCollector:
    return MetricsCollector(
        **{
            "machine": Machine(),
            "activity": Activity(RunWatcher()),
            "growth": MemoryGrowth(MemorySample),
            "engines": NoEngines(),
            **options,
        }
    )


def run(outcome: RunOutcome, duration_s: float, trace: str) -> ScriptRun:
    return ScriptRun("s", "p", (), outcome, duration_s, trace_id=trace)


def test_the_error_rate_is_of_runs_and_requests_together() -> None:
    """With the number of samples that it is made of and the trace of a failed run."""
    made = collector()
    for number in range(15):
        made.activity.on_run(run(RunOutcome.SUCCESS, 0.1, "b" * 32))
        made.activity.on_request(0.01, number == 0, "c" * 32)
    made.activity.on_run(run(RunOutcome.ERROR, 0.2, "a" * 32))
    made.activity.on_run(run(RunOutcome.COMPILE_ERROR, 0.2, "d" * 32))
    made.activity.on_run(run(RunOutcome.STOPPED, 0.2, "e" * 32))
    found = readings(made)["error_rate"]
    assert found.value == pytest.approx(100 * 3 / 33)
    assert (found.samples, found.trace_id) == (33, "d" * 32)
    assert found.age_s < 60


def test_the_response_time_is_the_runs_95th_percentile_in_milliseconds() -> None:
    """Requests are not among them; the example is the slowest run."""
    made = collector()
    for number in range(1, 101):
        made.activity.on_run(run(RunOutcome.SUCCESS, number / 100, f"{number:032x}"))
    made.activity.on_request(99.0, False, None)
    found = readings(made)["response_time"]
    assert found.value == pytest.approx(950, rel=0.01)
    assert (found.samples, found.trace_id) == (100, f"{100:032x}")


def test_what_has_no_data_is_absent() -> None:
    """No run, no pool: no reading, and no zero that would resolve an alert."""
    found = readings(collector())
    assert {"error_rate", "response_time", "database_connections"}.isdisjoint(found)
    assert 0 < (found["memory_usage"].value or 0) < 100
    assert 0 < (found["disk_usage"].value or 0) < 100
    assert found["memory_growth"].value == 0


def test_connections_are_those_of_the_fullest_pool_with_its_maximum(tmp_path: Path) -> None:
    """From real engines: what is in use now, and how many there may be."""
    engine = create_engine(f"sqlite:///{tmp_path / 'db'}", pool_size=2, max_overflow=1)
    idle = create_engine(f"sqlite:///{tmp_path / 'idle'}")
    registry = EngineRegistry()
    registry.add(engine)
    registry.add(idle)
    made = collector(engines=registry)
    held = [engine.connect() for _ in range(3)]
    found = readings(made)["database_connections"]
    assert (found.value, found.limit) == (3.0, 3)
    assert [each.percent for each in made.connection_pool_stats()] == [100, 0]
    for each in held:
        each.close()
    assert readings(made)["database_connections"].value == 0.0
    engine.dispose()
    idle.dispose()


def test_the_fullest_pool_is_the_nearest_to_its_maximum() -> None:
    """Not the one with the most connections; one without a maximum counts as one of twenty."""
    pools = (PoolStatistics("a", 50, 0, 100), PoolStatistics("b", 9, 0, 10), PoolStatistics("c", 17, 0, None))
    assert fullest(pools) == pools[1]
    assert fullest(()) is None


def test_hidden_sessions_are_nobodys() -> None:
    """The canary's runs are neither samples nor users."""
    watcher = RunWatcher()
    made = Activity(watcher)
    watcher.hide_session("s")
    made.on_run(run(RunOutcome.ERROR, 1.0, "a" * 32))
    assert made.runs.statistics().count == 0
    assert made.visits.read().active_users == 0


def test_a_leak_is_a_reading_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """In per cent of the memory that may be used an hour; a cache of the same size that stays is none."""
    mib = 1024 * 1024
    sample = MemorySample()
    growth = MemoryGrowth(lambda: sample)
    made = collector(growth=growth)
    for number in range(60):
        sample = MemorySample(session_state=mib * (20 + 4 * number), cache=900 * mib, taken_s=30.0 * (number + 1))
        growth.read()
    limit = made.machine.fast().memory_limit_bytes
    found = readings(made)["memory_growth"]
    assert found.value == pytest.approx(100 * 3600 * 4 * mib / 30 / limit, rel=0.2)
    assert [record.holder for record in caplog.records if record.event == "memory.leak"] == ["session_state"]  # type: ignore[attr-defined]


def test_engagement_is_that_of_the_last_hour() -> None:
    """Active users, reruns a session, how long sessions last, and pages."""
    now = 0.0
    visits = Visits(clock=lambda: now)
    for session, page, at in (("a", "Home", 0), ("a", "Tasks", 60), ("b", "Tasks", 100), ("a", "Tasks", 300)):
        now = float(at)
        visits.add(session, page)
    found = visits.read()
    assert (found.active_users, found.reruns_per_session, found.session_length_s) == (2, 2.0, 150.0)
    assert found.pages == {"Tasks": 3, "Home": 1}
    now = 100.0 + 3601
    assert visits.read().active_users == 1
    now = 8000.0
    assert visits.read().active_users == 0
    assert visits.read().pages == {}


def test_sessions_are_bounded() -> None:
    """Of very many, those seen last are told."""
    visits = Visits(clock=lambda: 0.0)
    for number in range(10_100):
        visits.add(str(number), f"page {number}")
    assert visits.read().active_users == 10_000
    assert len(visits.read().pages) == 100
