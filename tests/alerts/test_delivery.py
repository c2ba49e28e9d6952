"""Delivery: each sink has a queue and a thread of its own, tries again, counts, and ends within its time."""

from __future__ import annotations

import logging
import time

import pytest

from otel.trace_context import is_suppressed
from streamlit_extension.alerts.delivery import Delivery, FailureReason, Retry, SinkCounts, SinkError
from streamlit_extension.alerts.message import trial_notice
from streamlit_extension.alerts.model import Notice
from tests.alerts.support import HangingSink, ListSink, eventually, threads

QUICK = Retry(attempts=3, first_s=0.01, most_s=0.02)


def notices(count: int) -> list[Notice]:
    return [trial_notice(float(number), service="shop") for number in range(count)]


def test_every_sink_gets_every_notice_in_order() -> None:
    """Two sinks, each on a thread with its name, take all notices in the order in which they were made."""
    one, two = ListSink("one"), ListSink("two")
    delivery = Delivery([one, two], retry=QUICK)
    delivery.put(notices(20))
    assert delivery.settle(20)
    assert one.taken == two.taken == notices(20)
    assert set(threads("stx-alerts-")) >= {"stx-alerts-one", "stx-alerts-two"}
    assert delivery.counts()["one"] == SinkCounts(attempts=20, delivered=20)
    assert delivery.stop(10)
    assert not {"stx-alerts-one", "stx-alerts-two"} & set(threads("stx-alerts-"))


def test_a_failure_that_may_pass_is_tried_again_and_counted() -> None:
    """An attempt that failed is repeated; the notice arrives once, and the error is counted by its reason."""
    sink = ListSink(fails=lambda attempt: SinkError(FailureReason.TIMEOUT) if attempt < 3 else None)
    delivery = Delivery([sink], retry=QUICK)
    delivery.put(notices(1))
    assert delivery.settle(20)
    assert sink.taken == notices(1)
    assert delivery.counts()["list"] == SinkCounts(attempts=3, delivered=1, errors={"timeout": 2})
    delivery.stop(5)


@pytest.mark.parametrize(
    ("error", "attempts", "reason"),
    [
        (SinkError(FailureReason.REFUSED, "status 400"), 1, "refused"),
        (SinkError(FailureReason.CONNECTION), 3, "connection"),
        (RuntimeError("hush-hush"), 3, "internal"),
    ],
)
def test_what_can_not_arrive_is_given_up_and_said(
    error: Exception, attempts: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is final at once, other failures after the last attempt; one line tells it, and the next one is sent."""
    sink = ListSink(fails=lambda attempt: error if attempt <= attempts else None)
    delivery = Delivery([sink], retry=QUICK)
    delivery.put(notices(2))
    assert delivery.settle(20)
    assert sink.taken == notices(2)[1:]
    counts = delivery.counts()["list"]
    assert (counts.attempts, counts.delivered, counts.failed) == (attempts + 1, 1, {reason: 1})
    told = [record for record in caplog.records if getattr(record, "event", "") == "alerts.not_delivered"]
    assert [(record.levelno, vars(record)["reason"]) for record in told] == [(logging.ERROR, reason)]
    assert "hush-hush" not in caplog.text + str([vars(record) for record in told])
    delivery.stop(5)


def test_a_sink_that_hangs_delays_nobody_and_a_stop_is_bounded() -> None:
    """While one sink hangs the other delivers, queueing returns, and a stop ends in its time and says that it hangs."""
    hanging, well = HangingSink(), ListSink("well")
    delivery = Delivery([hanging, well], retry=QUICK, size=5)
    delivery.put(notices(1))
    assert hanging.entered.wait(20)
    delivery.put(notices(20)[1:])
    eventually(lambda: len(well.taken) >= 5)
    counts = delivery.counts()["hanging"]
    assert counts.waiting == 5 and counts.failed == {"queue_full": 15}
    began = time.monotonic()
    assert delivery.stop(0.2) is False
    assert time.monotonic() - began < 10
    # The one on its way and the newest four are what is kept for the next process.
    assert [notice.at for notice in delivery.outbox()["hanging"]] == [0.0, 16.0, 17.0, 18.0, 19.0]
    hanging.go_on.set()
    eventually(lambda: "stx-alerts-hanging" not in threads("stx-alerts-"))


def test_a_stop_does_not_wait_for_the_next_attempt_and_keeps_what_is_left() -> None:
    """A sink that is down is not waited for; what it has not got is in the outbox, from which another goes on."""
    down = ListSink(fails=lambda _: SinkError(FailureReason.CONNECTION))
    delivery = Delivery([down], retry=Retry(attempts=8, first_s=600, most_s=600))
    delivery.put(notices(3))
    eventually(lambda: down.attempts == 1)
    assert delivery.stop(20)
    kept = delivery.outbox()
    assert kept == {"list": notices(3)}
    up = ListSink()
    successor = Delivery([up], retry=QUICK)
    successor.restore({**kept, "no_longer_configured": notices(1)})
    assert successor.settle(20)
    assert up.taken == notices(3)
    successor.put(notices(1))
    assert successor.stop(20) and len(up.taken) == 4
    successor.put(notices(1))
    assert len(up.taken) == 4


def test_waits_double_up_to_a_bound_and_what_the_service_asks_counts() -> None:
    """The wait doubles with jitter below it, never above the bound, and is at least what `Retry-After` asked for."""
    retry, error = Retry(first_s=1, most_s=120), SinkError(FailureReason.TIMEOUT)
    assert [retry.wait_s(attempt, error, 1.0) for attempt in (1, 2, 3, 8, 500)] == [1, 2, 4, 120, 120]
    assert retry.wait_s(3, error, 0.0) == 2.0
    asked = SinkError(FailureReason.RATE_LIMITED, retry_after_s=30.0)
    assert retry.wait_s(1, asked, 0.5) == 30.0
    assert retry.wait_s(1, SinkError(FailureReason.RATE_LIMITED, retry_after_s=1e9), 0.5) == 1200.0


def test_what_goes_over_the_network_makes_no_telemetry() -> None:
    """A remote sink sends with telemetry suppressed, and the log does not."""
    seen: dict[str, bool] = {}

    class Looking(ListSink):
        def __init__(self, name: str, is_remote: bool) -> None:
            super().__init__(name)
            self.is_remote = is_remote

        def send(self, notice: Notice, /) -> None:
            seen[self.name] = is_suppressed()
            super().send(notice)

    delivery = Delivery([Looking("remote", True), Looking("local", False)])
    delivery.put(notices(1))
    assert delivery.settle(20)
    delivery.stop(5)
    assert seen == {"remote": True, "local": False}
    assert not is_suppressed()


def test_two_sinks_of_one_name_are_refused() -> None:
    """Names tell sinks apart in counts and in what is kept."""
    with pytest.raises(ValueError, match="one name"):
        Delivery([ListSink(), ListSink()])
