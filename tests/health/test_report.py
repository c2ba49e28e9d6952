"""What is told of a snapshot: formats, components, dependencies, and for how long an answer holds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.health import report
from streamlit_extension.health.model import (
    CheckResult,
    CheckSpec,
    CheckState,
    HealthStatus,
    Maintenance,
    Outcome,
    ServicePhase,
)
from streamlit_extension.health.state import Entry, SharedFailure, Snapshot, next_state

WALL = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
NOW_S = 1000.0


def good() -> CheckResult:
    return CheckResult(Outcome.OK)


def entry(name: str, *results: CheckResult, at_s: float = NOW_S, **spec: Any) -> Entry:
    """A check that has had these results, all at the same time."""
    made = CheckSpec(name, spec.pop("function", good), **spec)
    state = CheckState()
    for result in results:
        state = next_state(state, made, result, at_s, WALL)
    return Entry(made, state)


def snapshot(*entries: Entry, **more: Any) -> Snapshot:
    return Snapshot("1.2.3", 0.0, ServicePhase.SERVING, {each.spec.name: each for each in entries}, **more)


def components(*entries: Entry, now_s: float = NOW_S) -> dict[str, Any]:
    """The components that the entitled are told."""
    body = report.detailed(snapshot(*entries), now_s, WALL, entitled=True).response.body
    msgspec.json.encode(body)
    found: dict[str, Any] = body["components"]
    return found


# -- formats --------------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_formats_hold_for_any_number(value: float) -> None:
    """No number makes an uptime, a percentage or a duration of another form; what is below 0 counts as 0."""
    assert re.fullmatch(r"\d{2,}:[0-5]\d:[0-5]\d", report.format_uptime(value))
    assert re.fullmatch(r"\d+%", report.format_percent(value))
    assert re.fullmatch(r"\d+ms", report.format_milliseconds(value))


@given(st.floats(0, 1e9), st.floats(0, 1e6))
def test_uptime_never_goes_back(seconds: float, later: float) -> None:
    """Later is never shown as earlier, whatever the number of hours."""

    def hours_first(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(":")))

    before, after = report.format_uptime(seconds), report.format_uptime(seconds + later)
    assert hours_first(before) <= hours_first(after)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.999, "00:00:00"), (3599.99, "00:59:59"), (261_015, "72:30:15"), (360_000, "100:00:00")]
)
def test_uptime_as_the_specification_writes_it(seconds: float, text: str) -> None:
    """Seconds are cut off, and hours go beyond a day."""
    assert report.format_uptime(seconds) == text


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_timestamps_read_back(moment: datetime) -> None:
    """Every timestamp is RFC 3339 in UTC, to the second."""
    text = report.format_timestamp(moment)
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == moment.replace(microsecond=0)


# -- components -----------------------------------------------------------------------------------------------------


def test_a_component_tells_its_numbers_its_age_and_what_went_wrong_last() -> None:
    """Percentages and durations in words, the rest as it is; history beside them."""
    detail = {"response_time_s": 0.0021, "connections": {"active": 5, "idle": 3, "max": 20}, "hit_rate_percent": 94.6}
    failed = CheckResult(Outcome.FAILED, error="OperationalError: gone")
    found = components(entry("database", failed, CheckResult(Outcome.OK, detail=detail)), now_s=NOW_S + 2.34)
    assert found["database"] == {
        "status": "healthy",
        "response_time": "2ms",
        "connections": {"active": 5, "idle": 3, "max": 20},
        "hit_rate": "95%",
        "age": 2.3,
        "last_transition": "2026-01-15T10:30:00Z",
        "last_error": "OperationalError: gone",
        "trace_id": None,
    }
    assert found["cache"] == found["external_apis"] == found["system"] == {"status": "not_configured"}


@pytest.mark.parametrize(
    ("result", "age_s", "status", "reason", "dependency"),
    [
        (CheckResult(Outcome.OK), 0, "healthy", None, "connected"),
        (CheckResult(Outcome.OK), 31, "unhealthy", "stale", "stale"),
        (CheckResult(Outcome.DEGRADED, detail={"reason": "slow"}), 0, "degraded", "slow", "connected"),
        (CheckResult(Outcome.DEGRADED, detail={"reason": "slow"}), 31, "unhealthy", "stale", "stale"),
        (CheckResult(Outcome.FAILED), 0, "unhealthy", "failed", "disconnected"),
        (CheckResult(Outcome.TIMEOUT), 0, "unhealthy", "timeout", "timeout"),
        (CheckResult(Outcome.SKIPPED, cause="vpn"), 0, "skipped", "vpn failed", "skipped"),
        (CheckResult(Outcome.NOT_CONFIGURED), 0, "not_configured", None, "not_configured"),
        (None, 0, "pending", None, "pending"),
    ],
)
def test_every_outcome_has_its_words(
    result: CheckResult | None, age_s: float, status: str, reason: str | None, dependency: str
) -> None:
    """Status, reason and dependency of a database by what its check last found, and how long ago."""
    made = entry("database", *([] if result is None else [result]), critical=True, max_age_s=30)
    component = components(made, now_s=NOW_S + age_s)["database"]
    assert (component["status"], component.get("reason")) == (status, reason)
    body = report.ready(snapshot(made), NOW_S + age_s, WALL).response.body
    assert body["dependencies"]["database"] == dependency


def test_a_component_of_several_checks_shows_the_worst() -> None:
    """`system` is as bad as its worst part and tells the numbers of all."""
    memory = entry("memory", CheckResult(Outcome.OK, detail={"memory_usage_percent": 60.0}), component="system")
    disk = entry(
        "disk",
        CheckResult(Outcome.DEGRADED, detail={"disk_usage_percent": 99.9, "reason": "full"}, error="99.9 % used"),
        component="system",
    )
    for both in ((memory, disk), (disk, memory)):
        found = components(*both)["system"]
        assert (found["status"], found["reason"], found["last_error"]) == ("degraded", "full", "99.9 % used")
        assert (found["memory_usage"], found["disk_usage"]) == ("60%", "100%")


def test_each_api_is_told_alone_and_all_together() -> None:
    """`external_apis` gives every API's status, and each has a component of its own."""
    up = entry("external_apis:billing", CheckResult(Outcome.OK))
    down = entry("external_apis:mail", CheckResult(Outcome.FAILED, error="HTTP 500"))
    found = components(up, down)
    assert found["external_apis"]["status"] == "unhealthy"
    assert found["external_apis"]["apis"] == {"billing": "healthy", "mail": "unhealthy"}
    assert found["external_apis:billing"]["status"] == "healthy"
    assert found["external_apis:mail"]["last_error"] == "HTTP 500"


def test_one_component_alone_and_none_of_that_name() -> None:
    """Its own object with its own status code, 404 for an unknown one, and the status alone for strangers."""
    shot = snapshot(entry("database", CheckResult(Outcome.FAILED, error="x")), entry("cache", CheckResult(Outcome.OK)))
    for name, code, entitled in (
        ("database", 503, True),
        ("cache", 200, True),
        ("cache", 200, False),
        ("no", 404, True),
    ):
        answer = report.component(shot, NOW_S, WALL, name, entitled=entitled).response
        assert answer.status_code == code
        if code != 404:
            assert ("age" in answer.body) is entitled
    assert report.component(shot, NOW_S, WALL, "database", entitled=False).response.body == {"status": "unhealthy"}


# -- how long an answer holds ---------------------------------------------------------------------------------------


_specs = st.fixed_dictionaries(
    {
        "critical": st.booleans(),
        "max_age_s": st.sampled_from([0.1, 1.0, 29.9, 30.0]),
        "function": st.sampled_from([good, None]),
        "enabled": st.booleans(),
    }
)
_results = st.builds(
    CheckResult, st.sampled_from(list(Outcome)), cause=st.just("x"), error=st.none() | st.just("Error: y")
)


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    entries = []
    for name in draw(
        st.lists(st.sampled_from(["database", "cache", "disk", "external_apis:a", "script"]), unique=True)
    ):
        made = entry(name, *draw(st.lists(_results, max_size=4)), at_s=NOW_S - draw(st.floats(0, 60)), **draw(_specs))
        entries.append(Entry(made.spec, made.state, draw(st.booleans()), draw(st.sampled_from(list(SharedFailure)))))
    maintenance = None
    if draw(st.booleans()):
        maintenance = Maintenance("why", WALL + timedelta(seconds=draw(st.floats(-5, 100))))
    return Snapshot(
        "1", 0.0, draw(st.sampled_from(list(ServicePhase))), {each.spec.name: each for each in entries}, maintenance
    )


def _unentitled(shot: Snapshot, now_s: float, wall: datetime) -> report.Rendered:
    return report.detailed(shot, now_s, wall, entitled=False)


@pytest.mark.parametrize("kind", [report.ready, report.startup, report.basic, _unentitled])
@given(_snapshots(), st.floats(0, 1, exclude_max=True))
def test_an_answer_is_right_for_as_long_as_it_says(
    kind: Callable[[Snapshot, float, datetime], report.Rendered], shot: Snapshot, share: float
) -> None:
    """At any moment before an answer's time is over, a new one would have the same code and the same words."""
    first = kind(shot, NOW_S, WALL)
    assert 0 <= first.valid_for_s <= report.MAX_VALID_S
    passed_s = first.valid_for_s * share
    if NOW_S + passed_s >= math.nextafter(NOW_S + first.valid_for_s, 0):
        return
    later = kind(shot, NOW_S + passed_s, WALL + timedelta(seconds=passed_s))
    assert later.response.status_code == first.response.status_code
    assert _timeless(later.response.body) == _timeless(first.response.body)


def _timeless(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("timestamp", "uptime")}


@given(_snapshots())
def test_every_answer_can_be_written_and_agrees_with_the_others(shot: Snapshot) -> None:
    """All answers of any snapshot are JSON; health's code follows its status, and nothing unready is called healthy."""
    basic = report.basic(shot, NOW_S, WALL).response
    detailed = report.detailed(shot, NOW_S, WALL, entitled=True).response
    ready = report.ready(shot, NOW_S, WALL).response
    for each in (basic, detailed, ready, report.startup(shot, NOW_S, WALL).response):
        msgspec.json.encode(each.body)
    assert (
        basic.status_code
        == detailed.status_code
        == (503 if basic.body["status"] in ("unhealthy", "maintenance") else 200)
    )
    assert basic.body["status"] == detailed.body["status"]
    assert (ready.status_code == 200) is ready.body["ready"] is ("reason" not in ready.body)
    if ready.body.get("reason") in shot.checks:
        assert basic.body["status"] == HealthStatus.UNHEALTHY
    if ready.body["ready"]:
        assert basic.status_code == 200
