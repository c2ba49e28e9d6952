"""What answers mean, and how long to wait: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel.export import outcome
from otel.export.outcome import MOST_RETRY_AFTER_S, Kind
from otel.records import Signal
from otel.spool.lane import LONGEST_WAIT_S, wait_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def kind_of(status: int) -> Kind:
    """The kind of an HTTP status without a body."""
    return outcome.of_http(Signal.LOGS, status, {}, b"", count=1, now_s=0).kind


def test_every_http_status_has_its_meaning() -> None:
    """Taken, split, tried for ever, tried a few times, refused: as the protocol and the design say."""
    assert {status for status in range(200, 600) if kind_of(status) is Kind.TAKEN} == set(range(200, 300))
    assert {status for status in range(400, 600) if kind_of(status) is Kind.LATER} == {408, 429, 502, 503, 504}
    assert kind_of(413) is Kind.TOO_LARGE
    refused = {status for status in range(100, 600) if kind_of(status) is Kind.REFUSED}
    assert refused == set(range(400, 500)) - {408, 413, 429}
    assert kind_of(500) is kind_of(501) is kind_of(307) is Kind.FAILED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, Kind.LATER) for code in (1, 4, 10, 11, 14, 15)),
        *((code, Kind.REFUSED) for code in (3, 5, 6, 7, 8, 9, 12, 16)),
        *((code, Kind.FAILED) for code in (2, 13)),
    ],
)
def test_every_grpc_status_has_its_meaning(code: int, kind: Kind) -> None:
    """Without details an exhausted resource is final, as the protocol says; unknown and internal are tried again."""
    assert outcome.of_grpc(code, "", None).kind is kind


def test_an_exhausted_resource_may_be_tried_again_or_too_large() -> None:
    """`RetryInfo` allows another try; a message above the limit is split."""
    again = outcome.of_grpc(8, "", 2.5)
    assert (again.kind, again.retry_after_s) == (Kind.LATER, 2.5)
    assert outcome.of_grpc(8, "Received message larger than max (9 vs. 4)", None).kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999", MOST_RETRY_AFTER_S),
        ("9" * 400, MOST_RETRY_AFTER_S),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(days=30), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=30), usegmt=True), MOST_RETRY_AFTER_S),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds or a date, never longer than five minutes, nothing for what is neither."""
    assert outcome.retry_after_s(value, NOW.timestamp()) == seconds


@given(st.text(max_size=60), st.floats(0, 2e9))
def test_retry_after_takes_anything(value: str, now_s: float) -> None:
    """Whatever a receiver writes gives a sensible wait or none."""
    found = outcome.retry_after_s(value, now_s)
    assert found is None or 0 <= found <= MOST_RETRY_AFTER_S


@given(st.binary(max_size=100), st.sampled_from(["application/json", "application/x-protobuf", ""]))
def test_an_unreadable_success_is_a_success(body: bytes, kind: str) -> None:
    """No answer rejects more than was sent, or less than nothing."""
    found = outcome.of_http(Signal.LOGS, 200, {"content-type": kind}, body, count=5, now_s=0)
    assert found.kind is Kind.TAKEN
    assert 0 <= found.rejected <= 5


def test_partial_success_in_both_encodings() -> None:
    """The number that was left out is read from protobuf and from JSON, where it may be text."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 3
    assert outcome.of_http(Signal.LOGS, 200, {}, answer.SerializeToString(), count=5, now_s=0).rejected == 3
    headers = {"content-type": "application/json; charset=utf-8"}
    for body in (b'{"partialSuccess":{"rejectedLogRecords":"3"}}', b'{"partialSuccess":{"rejectedLogRecords":3}}'):
        assert outcome.of_http(Signal.LOGS, 200, headers, body, count=5, now_s=0).rejected == 3


@given(st.integers(0, 10_000), st.one_of(st.none(), st.floats(0, MOST_RETRY_AFTER_S)), st.floats(0, 1))
def test_the_back_off_is_bounded(attempt: int, asked: float | None, chance: float) -> None:
    """Full jitter up to five seconds, on top of what the receiver asked for."""
    least = asked or 0.0
    assert least <= wait_s(attempt, asked, chance) <= least + LONGEST_WAIT_S


def test_the_back_off_grows() -> None:
    """The longest wait doubles from a quarter of a second up to five seconds."""
    assert [wait_s(attempt, None, 1.0) for attempt in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert wait_s(3, None, 0.0) == 0.0
