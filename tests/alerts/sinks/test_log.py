"""Alerts as log events."""

from __future__ import annotations

import logging

import pytest

from streamlit_extension.alerts.message import trial_notice
from streamlit_extension.alerts.model import NoticeKind
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.alerts.sinks.log import LogSink
from tests.alerts.sinks.test_http_sinks import TRACE, notice


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (NoticeKind.FIRED, logging.CRITICAL),
        (NoticeKind.REPEATED, logging.CRITICAL),
        (NoticeKind.ACKNOWLEDGED, logging.INFO),
        (NoticeKind.RESOLVED, logging.INFO),
    ],
)
def test_each_alert_is_one_event(kind: NoticeKind, level: int, caplog: pytest.LogCaptureFixture) -> None:
    """The event is named after what happened, and has value, threshold and the example's trace."""
    caplog.set_level(logging.DEBUG)
    LogSink().send(notice(kind, *default_rules()[:2]))
    assert [(record.levelno, vars(record)["event"]) for record in caplog.records] == [(level, f"alert.{kind}")] * 2
    fields = vars(caplog.records[0])
    assert (fields["alert"], fields["value"], fields["threshold"]) == ("cpu_usage", 97.25, 85.0)
    assert fields["example_trace_id"] == TRACE and "CPU usage" in caplog.records[0].getMessage()
    assert ("cause" in fields) == (kind is NoticeKind.RESOLVED)
    assert ("silence" in fields) == (kind is NoticeKind.ACKNOWLEDGED)


def test_a_test_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    """A test's line says so."""
    caplog.set_level(logging.INFO)
    LogSink().send(trial_notice(0.0, service="shop"))
    (record,) = caplog.records
    assert record.getMessage().startswith("[TEST] ") and vars(record)["test"] is True
