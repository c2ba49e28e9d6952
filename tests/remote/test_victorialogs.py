"""Queries of VictoriaLogs: what a person types never is syntax there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel.store.model import LogQuery
from streamlit_extension.remote.victorialogs import logsql


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LogQuery(), "*"),
        (LogQuery(text="two words"), '*:"two" *:"words"'),
        (LogQuery(text='"a phrase" -not pre*'), '*:"a phrase" !*:"not" *:"pre"*'),
        (LogQuery(text="level:warning"), "severity_number:>=13"),
        (LogQuery(text="trace_id:ab12"), 'trace_id:="ab12"*'),
        (LogQuery(trace_id="ab" * 16), f'* trace_id:="{"ab" * 16}"'),
        (LogQuery(text="logger:shop event:paid"), '"scope.name":~"(?i)shop" "event_name":~"(?i)paid"'),
        (LogQuery(min_severity=17, logger="shop", event="paid"), None),
        (LogQuery(fields=(("order.id", "a.b"),)), '* "order.id":~"(?i)a\\\\.b"'),
    ],
)
def test_a_query_in_logsql(query: LogQuery, expected: str | None) -> None:
    """Words in any field, phrases, prefixes, negations, levels, ids and attributes."""
    wanted = '* severity_number:>=17 "scope.name":="shop" "event_name":="paid"' if expected is None else expected
    assert logsql(query) == wanted


@given(st.text(max_size=60))
def test_nothing_that_is_typed_is_syntax(text: str) -> None:
    """Outside quotes there are only the few marks that we write ourselves."""
    written = logsql(LogQuery(text=text))
    decoder, place, outside = json.JSONDecoder(), 0, ""
    while place < len(written):
        if written[place] == '"':
            _, place = decoder.raw_decode(written, place)
        else:
            outside += written[place]
            place += 1
    for allowed in ("trace_id:=", "span_id:=", "severity_number:>="):
        outside = outside.replace(allowed, "")
    assert set(outside) <= set("*:!~ 0123456789")
