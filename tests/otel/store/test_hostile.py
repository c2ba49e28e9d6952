"""Whatever telemetry holds and whatever is typed: answers come, fast and safely."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel.store import plain
from otel.store.model import LogQuery, RunFilter
from otel.store.queries import conditions
from otel.store.tree import nodes
from tests.otel.store.conftest import Place
from tests.support.storing import SECOND, fact, logs_batch, now_ns, run, span, traces_batch


def test_huge_attributes_are_cut_and_said(place: Place) -> None:
    """A value of 1 MiB and 10,000 attributes: what is kept is bounded, and says what is missing."""
    store = place.store()
    huge: dict[str, Any] = {"big": "x" * 2**20, "small": 1}
    many = {f"key{i}": "value" * 10 for i in range(10_000)}
    place.commit(
        store,
        traces_batch([span(7, 1, attributes=huge), span(7, 2, parent_id=1, attributes=many)]),
        logs_batch([fact("huge", attributes=huge), fact("many", attributes=many), fact("y" * 2**20)]),
    )
    trace = place.reader.trace(format(7, "032x"))
    assert trace is not None
    first, second = sorted(trace.spans, key=lambda each: each.span_id)
    assert first.attributes["small"] == 1
    assert first.attributes["big"].endswith("(1,048,576 characters)")
    assert len(first.attributes["big"]) < plain.MAX_TEXT + 100
    assert second.attributes[plain.LEFT_OUT] == 10_000 - (len(second.attributes) - 1)
    assert len(place.reader.logs(LogQuery(text="huge")).items) == 1
    assert all(len(each.message) < plain.MAX_TEXT + 100 for each in place.reader.logs().items)


@pytest.mark.parametrize(
    "value",
    [
        "a\0b",
        "lone \ud800 surrogate",
        "\x1b[31mred",
        "<script>alert(1)</script>",
        math.nan,
        math.inf,
        2**70,
        b"\xff\x00",
        ("a", "\udfff"),
        {"deep": {"er": [1, {"x": "\ud801"}]}},
        object(),
        None,
    ],
)
def test_any_value_is_kept(place: Place, value: Any) -> None:
    """Strange values stand for themselves as far as JSON can say them; the record is never lost."""
    store = place.store()
    place.commit(store, logs_batch([fact(f"{value!r}"[:50], attributes={"value": value, "fine": "yes", "\ud800": 1})]))
    [found] = place.reader.logs(LogQuery(text="fine:yes")).items
    assert found.attributes["fine"] == "yes"
    assert place.balance() == [0, 0, 0]
    assert store.state().lost == 0


def test_fields_of_wrong_types_cost_no_other_record(place: Place) -> None:
    """A record that some bridge has made of anything is kept as text, and those beside it as they are."""
    store = place.store()
    wrong = fact("wrong", severity_text=["a"], scope={"x": 1}, attributes=None, severity_number="x", event_name=[1])
    place.commit(store, logs_batch([fact("before"), wrong, fact("after")]))
    assert [each.message for each in place.reader.logs().items] == ["after", "wrong", "before"]


@pytest.mark.parametrize("time_ns", [0, 1, -5, 2**63 - 1, 2**63, 2**70, now_ns() + 10**9 * 86400 * 365])
def test_clocks_may_be_wrong(place: Place, time_ns: int) -> None:
    """Any moment can be written and read; good records beside it are in order, and are followed."""
    store = place.store()
    place.commit(store, logs_batch([fact("good 1"), fact("skewed", time_ns=time_ns), fact("good 2")]))
    place.commit(store, traces_batch(run(9, start_ns=min(max(time_ns, 0), 2**62))))
    found = [each.message for each in place.reader.logs().items]
    assert sorted(found) == ["good 1", "good 2", "skewed"]
    assert [each for each in found if each != "skewed"] == ["good 2", "good 1"]
    tail = place.reader.tail()
    place.commit(store, logs_batch([fact("good 3")]))
    assert [each.message for each in tail.poll()] == ["good 3"]
    assert place.balance() == [0, 0, 0]


def test_many_records_of_one_moment(place: Place) -> None:
    """Ten thousand records with the same timestamp, long ago: each is kept, numbered and found once."""
    store = place.store()
    for part in range(10):
        place.commit(store, logs_batch([fact(f"same {part} {i}", time_ns=5 * SECOND) for i in range(1000)]))
    seen: set[str] = set()
    cursor = ""
    while True:
        page = place.reader.logs(LogQuery(text="same"), limit=1000, cursor=cursor)
        assert seen.isdisjoint(each.id for each in page.items)
        seen.update(each.id for each in page.items)
        if not (cursor := page.next):
            break
    assert len(seen) == 10_000


def test_spans_in_a_circle_make_a_tree(place: Place) -> None:
    """Parents that are missing, themselves, or children of their children: every span has one place."""
    store = place.store()
    spans = [
        span(5, 1, "a", parent_id=2),
        span(5, 2, "b", parent_id=3),
        span(5, 3, "c", parent_id=1),
        span(5, 4, "self", parent_id=4),
        span(5, 5, "lost", parent_id=99),
        span(5, 5, "twice", parent_id=99),
    ]
    place.commit(store, traces_batch(spans))
    trace = place.reader.trace(format(5, "032x"))
    assert trace is not None
    placed = nodes(trace.spans)
    assert sorted(node.span.name for node in placed) == ["a", "b", "c", "lost", "self", "twice"]
    assert max(node.depth for node in placed) == 2
    assert len(place.reader.find_traces("0" * 31 + "5")) == 1


def test_a_trace_of_ten_thousand_spans(place: Place) -> None:
    """A chain of 10,000 spans, each the parent of the next, is told whole, and bounded on demand."""
    store = place.store()
    spans = [span(5, i, parent_id=i - 1 if i > 1 else None) for i in range(1, 10_001)]
    place.commit(store, traces_batch(spans))
    trace = place.reader.trace(format(5, "032x"))
    assert trace is not None and trace.total == len(trace.spans) == 10_000
    assert max(node.depth for node in nodes(trace.spans)) == 9_999
    bounded = place.reader.trace(format(5, "032x"), limit=100)
    assert bounded is not None and (len(bounded.spans), bounded.total) == (100, 10_000)


@pytest.fixture
def filled(place: Place) -> Place:
    """A store with some records."""
    store = place.store()
    place.commit(
        store,
        logs_batch([fact("order 42 paid", attributes={"user": "ann"}), fact("refused", severity_number=17)]),
        traces_batch(run(3, queries=["SELECT 1"])),
    )
    return place


TYPED = st.text(max_size=60) | st.text(alphabet="\"*-():^+{}[]\\'% ANDORNEAT:\0\ud800", max_size=60)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TYPED, cursor=st.text(max_size=20), prefix=st.text(max_size=40))
def test_whatever_is_typed_is_no_syntax(filled: Place, text: str, cursor: str, prefix: str) -> None:
    """No search, cursor or id makes an error or names a file as broken."""
    filled.reader.logs(LogQuery(text=text))
    filled.reader.logs(LogQuery(text=text), cursor=cursor)
    filled.reader.runs(RunFilter(text=text, page=text.encode("utf-8", "replace").decode()), cursor=cursor)
    filled.reader.find_traces(prefix)
    filled.reader.trace(prefix)
    filled.reader.session(text)
    filled.reader.sessions(cursor=cursor)
    filled.reader.transitions(cursor=cursor)
    assert filled.reader.facts().problems == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("order", True),
        ("ORDER", True),
        ("ord*", True),
        ("ord", False),
        ("order paid", True),
        ('"42 paid"', True),
        ('"order paid"', False),
        ("order -paid", False),
        ("-refused", True),
        ("-order", False),
        ("user:ann", True),
        ("user:bob", False),
        ("level:error", False),
        ("logger:app.orders", True),
        ("logger:other", False),
        ("trace_id:zz", False),
    ],
)
def test_what_a_search_means(filled: Place, text: str, found: bool) -> None:
    """Words all occur, phrases stand together, `-` leaves out, fields compare."""
    messages = [each.message for each in filled.reader.logs(LogQuery(text=text)).items]
    assert ("order 42 paid" in messages) is found


def test_a_query_is_bounded() -> None:
    """A query of a megabyte is read as far as anybody can have meant it."""
    assert len(conditions(LogQuery(text="word " * 200_000)).match) < 1000
