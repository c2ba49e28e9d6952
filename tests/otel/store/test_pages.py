"""Pages, put together, are what a plain look through all records finds: each once, in order, whatever the files."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel.store.model import LogQuery, LogRow, RunFilter, RunRow
from tests.otel.store.conftest import Place
from tests.support.storing import SECOND, fact, logs_batch, now_ns, run, traces_batch

WORDS = ("order", "client", "invoice", "payment")
PAGES = ("home", "list", "edit")
BEGIN_NS = now_ns() - 1000 * SECOND


@pytest.fixture(scope="module")
def filled() -> Iterator[tuple[Place, list[Any], list[Any]]]:
    """Five files, as of five processes that wrote at once, with what was put in them."""
    chance = random.Random(4)
    facts: list[Any] = []
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name) / "store")
        stores = [place.store() for _ in range(5)]
        for number in range(600):
            time_ns = BEGIN_NS + number * SECOND + chance.randrange(SECOND)
            each = fact(
                f"{chance.choice(WORDS)} {chance.choice(WORDS)} {number}",
                time_ns=time_ns,
                severity_number=chance.choice((5, 9, 9, 13, 17)),
                attributes={"user": chance.choice(("ann", "bob"))},
                trace_id=(number + 1) << 64 if number % 3 else 0,
            )
            facts.append(each)
            told: dict[str, Any] = {
                "session": f"s{number % 7}",
                "page": chance.choice(PAGES),
                "outcome": chance.choice(("success", "rerun", "error")),
                "start_ns": time_ns,
                "seconds": chance.choice((0.1, 0.5, 2.0)),
                "queries": [f"SELECT {chance.choice(WORDS)}"],
            }
            runs.append({**told, "trace": number + 1})
            store = stores[chance.randrange(5)]
            place.commit(store, logs_batch([each]), traces_batch(run(number + 1, **told)))
        assert len(list(place.folder.glob("*.db"))) == 5
        yield place, facts, runs
        place.close()


def all_pages(ask: Callable[[str], Any]) -> list[Any]:
    """Every item, page by page."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = ask(cursor)
        found += page.items
        assert page.complete
        cursor = page.next
        if not cursor:
            return found


LOG_QUERIES = st.builds(
    LogQuery,
    text=st.sampled_from(
        ("", "order", "client order", '"order client"', "user:ann", "pay*", "-invoice", "order -client")
    ),
    min_severity=st.sampled_from((0, 9, 13, 17)),
    since_ns=st.none() | st.integers(0, 600).map(lambda each: BEGIN_NS + each * SECOND),
    until_ns=st.none() | st.integers(0, 600).map(lambda each: BEGIN_NS + each * SECOND),
)


def fits(each: Any, query: LogQuery) -> bool:
    """Whether a record is what a query asks for."""
    words = each.body.split()
    text = {
        "": True,
        "order": "order" in words,
        "client order": {"client", "order"} <= set(words),
        '"order client"': words[:2] == ["order", "client"],
        "user:ann": each.attributes["user"] == "ann",
        "pay*": "payment" in words,
        "-invoice": "invoice" not in words,
        "order -client": "order" in words and "client" not in words,
    }[query.text]
    since, until = query.since_ns or 0, query.until_ns if query.until_ns is not None else 1 << 63
    return bool(text and each.severity_number >= query.min_severity and since <= each.timestamp_ns < until)


@settings(max_examples=120, deadline=None)
@given(query=LOG_QUERIES, limit=st.integers(1, 200), newest_first=st.booleans())
def test_log_records_page_by_page(
    filled: tuple[Place, list[Any], list[Any]], query: LogQuery, limit: int, newest_first: bool
) -> None:
    """Any query, any size of a page, both directions."""
    place, facts, _ = filled
    found: list[LogRow] = all_pages(
        lambda cursor: place.reader.logs(query, limit=limit, cursor=cursor, newest_first=newest_first)
    )
    expected = [each.body for each in facts if fits(each, query)]
    assert [each.message for each in found] == (expected[::-1] if newest_first else expected)


@settings(max_examples=120, deadline=None)
@given(
    wanted=st.builds(
        RunFilter,
        page=st.sampled_from(("", *PAGES)),
        outcome=st.sampled_from(("", "success", "error")),
        failed=st.booleans(),
        min_duration_s=st.none() | st.sampled_from((0.2, 1.0)),
        text=st.sampled_from(("", "ORDER", "client home")),
        session_id=st.sampled_from(("", "s3")),
        since_ns=st.none() | st.integers(0, 600).map(lambda each: BEGIN_NS + each * SECOND),
    ),
    limit=st.integers(1, 100),
)
def test_runs_page_by_page(filled: tuple[Place, list[Any], list[Any]], wanted: RunFilter, limit: int) -> None:
    """Any filter, any size of a page."""
    place, _, runs = filled
    found: list[RunRow] = all_pages(lambda cursor: place.reader.runs(wanted, limit=limit, cursor=cursor))

    def fits_run(each: dict[str, Any]) -> bool:
        text = f"{each['page']} {each['queries'][0]}".lower()
        return (
            wanted.page in ("", each["page"])
            and wanted.outcome in ("", each["outcome"])
            and (not wanted.failed or each["outcome"] == "error")
            and each["seconds"] >= (wanted.min_duration_s or 0)
            and all(word in text for word in wanted.text.lower().split())
            and wanted.session_id in ("", each["session"])
            and each["start_ns"] >= (wanted.since_ns or 0)
        )

    expected = [format(each["trace"], "032x") for each in runs if fits_run(each)]
    assert [each.trace_id for each in found] == expected[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_sessions_page_by_page(filled: tuple[Place, list[Any], list[Any]], limit: int) -> None:
    """A session whose runs are in several files is one, by its newest run, with all its runs."""
    place, _, runs = filled
    found = all_pages(lambda cursor: place.reader.sessions(limit=limit, cursor=cursor))
    assert {each.session_id for each in found} == {f"s{i}" for i in range(7)}
    assert [each.last_ns for each in found] == sorted((each.last_ns for each in found), reverse=True)
    assert len(found) == 7
    assert sum(each.runs for each in found) == len(runs)


def test_previous_and_next_run(filled: tuple[Place, list[Any], list[Any]]) -> None:
    """The neighbours of each run of a session, over files."""
    place, _, _ = filled
    found = all_pages(lambda cursor: place.reader.session_runs("s3", limit=10, cursor=cursor))[::-1]
    for number, each in enumerate(found):
        before, after = place.reader.neighbours(each)
        assert before == (found[number - 1] if number else None)
        assert after == (found[number + 1] if number + 1 < len(found) else None)


def test_the_overview_adds_up(filled: tuple[Place, list[Any], list[Any]]) -> None:
    """Runs, failures, pages and levels are those of all files; percentiles are within 5 %."""
    place, facts, runs = filled
    overview = place.reader.overview(BEGIN_NS, now_ns())
    assert overview.runs == len(runs) == sum(step.runs for step in overview.steps)
    assert overview.failed == sum(each["outcome"] == "error" for each in runs)
    assert {page.page: page.runs for page in overview.pages} == {
        page: sum(each["page"] == page for each in runs) for page in PAGES
    }
    assert overview.sessions == 7
    assert overview.log_levels["error"] == sum(each.severity_number == 17 for each in facts)
    assert overview.p99_s == pytest.approx(2.0, rel=0.09)


@given(first=st.integers(0, 5000), length=st.integers(1, 3000), steps=st.integers(1, 90))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_of_hours_tell_the_same_as_minutes(spread: Place, first: int, length: int, steps: int) -> None:
    """Whatever the time: what whole tens and hours tell and what the minutes at the ends tell add up to every run."""
    minute = 60 * 10**9
    overview = spread.reader.overview(first * minute, (first + length) * minute, steps=steps)
    expected = [at for at in SPREAD if first <= at < first + length]
    assert overview.runs == sum(page.runs for page in overview.pages) == len(expected)
    width = round(overview.step_s) // 60
    for step in overview.steps:
        begin = step.time_ns // minute
        assert step.runs == sum(begin <= at < begin + width for at in expected)


#: Minutes since the epoch at which runs ended.
SPREAD = [*range(0, 130, 7), 599, 600, 601, *range(1200, 4800, 13)]


@pytest.fixture
def spread(place: Place) -> Place:
    """A store with a run at each of those minutes."""
    store = place.store()
    spans = [
        each
        for number, at in enumerate(SPREAD)
        for each in run(number + 1, page=f"p{number % 3}", start_ns=at * 60 * 10**9 + 10**9)
    ]
    place.commit(store, traces_batch(spans))
    return place
