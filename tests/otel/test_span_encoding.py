"""Our encoder of spans makes what the official one makes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common import trace_encoder
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from otel.sdk import QuickResource
from otel.span_encoding import MAX_KEPT_TEXT, encode_spans

RESOURCES = [QuickResource({"service.name": "shop"}), QuickResource({"service.name": "till"}, "https://schema")]
SCOPES = [
    None,
    InstrumentationScope("scope", "1.0", "https://schema", {"a": 1}),
    InstrumentationScope("other"),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.one_of(
    texts,
    st.just("x" * (MAX_KEPT_TEXT + 1)),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)
values: st.SearchStrategy[Any] = st.one_of(
    plain, st.none(), st.binary(max_size=4), st.lists(plain, max_size=3).map(tuple), st.dictionaries(texts, plain)
)
attributes = st.dictionaries(texts.filter(bool), values, max_size=5)
states = st.sampled_from([None, TraceState(), TraceState([("vendor", "1"), ("other", "2")])])
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    states,
)
times = st.integers(0, 2**63 - 1)
spans = st.builds(
    ReadableSpan,
    name=texts,
    context=contexts,
    parent=st.none() | contexts,
    resource=st.sampled_from(RESOURCES),
    attributes=st.none() | attributes,
    events=st.lists(st.builds(Event, texts, attributes, times), max_size=2),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=2),
    kind=st.sampled_from(SpanKind),
    status=st.one_of(
        st.sampled_from([Status(StatusCode.UNSET), Status(StatusCode.OK)]),
        st.builds(Status, st.just(StatusCode.ERROR), st.none() | texts),
    ),
    start_time=st.none() | times,
    end_time=st.none() | times,
    instrumentation_scope=st.sampled_from(SCOPES),
)


@given(st.lists(spans, max_size=4))
def test_spans_are_encoded_as_the_official_encoder_does(given_spans: list[ReadableSpan]) -> None:
    """Whatever they hold: kinds, states, events, links, nested values, several resources and scopes, in that order."""
    assert encode_spans(given_spans) == trace_encoder.encode_spans(given_spans)
    assert encode_spans(given_spans) == trace_encoder.encode_spans(given_spans), "and so with what is kept"
