"""Slack with a bot's token: what follows an alert is a reply to its message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.model import NoticeKind
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.alerts.sinks import sinks_from
from streamlit_extension.alerts.sinks.slack_api import SlackApiSink
from streamlit_extension.settings import Settings, SettingsError
from tests.alerts.fakes import Service, slack_api
from tests.alerts.sinks.test_http_sinks import LINKS, TRACE, notice

CPU, MEMORY, *_ = default_rules()
TOKEN = "xoxb-s3cr3t"


@pytest.fixture
def service() -> Iterator[Service]:
    with slack_api() as running:
        yield running


def sink_for(service: Service, token: str = TOKEN) -> SlackApiSink:
    return SlackApiSink(lambda: token, "#alerts", LINKS, api_url=service.url.rpartition("/")[0])


def test_a_resolve_is_a_reply_that_the_channel_sees(service: Service) -> None:
    """Reminders, acknowledgement and resolve stand below the alert's message, which names the example trace."""
    sink = sink_for(service)
    for kind in NoticeKind:
        sink.send(notice(kind, CPU))
    assert service.refused == []
    first, *replies = service.taken
    assert "thread_ts" not in first and first["channel"] == "#alerts" and TRACE in str(first)
    assert {reply["thread_ts"] for reply in replies} == {"1700000000.000001"}
    assert [reply["reply_broadcast"] for reply in replies] == [False, False, True]


def test_alerts_of_different_messages_are_resolved_below_each(service: Service) -> None:
    """Told apart when they fired, together when they end; one that nobody remembers is a message of its own."""
    sink = sink_for(service)
    sink.send(notice(NoticeKind.FIRED, CPU))
    sink.send(notice(NoticeKind.FIRED, MEMORY))
    sink.send(notice(NoticeKind.RESOLVED, *default_rules()[:3]))
    told = [body.get("thread_ts") for body in service.taken[2:]]
    assert told == ["1700000000.000001", "1700000000.000002", None]


def test_what_has_arrived_is_not_sent_again(service: Service) -> None:
    """When the second of two replies fails, another attempt sends that one alone."""
    sink = sink_for(service)
    sink.send(notice(NoticeKind.FIRED, CPU))
    sink.send(notice(NoticeKind.FIRED, MEMORY))
    ended = notice(NoticeKind.RESOLVED, CPU, MEMORY)
    apart = replace(ended, alerts=ended.alerts[:1])
    sink.send(apart)
    sink._under_way, sink._done = ended, {"1700000000.000001"}
    service.trouble = [(503, {})]
    with pytest.raises(SinkError):
        sink.send(ended)
    sink.send(ended)
    assert [body["thread_ts"] for body in service.taken[2:]] == ["1700000000.000001", "1700000000.000002"]


def test_slacks_own_errors_have_reasons_without_secrets(service: Service) -> None:
    """A wrong token, a limit with its time, and an answer that nobody understands."""
    with pytest.raises(SinkError) as refused:
        sink_for(service, "xoxb-wrong").send(notice(NoticeKind.FIRED, CPU))
    assert refused.value.reason is FailureReason.AUTHENTICATION and "xoxb" not in str(refused.value)
    service.trouble = [(429, {"Retry-After": "7"}), (200, {})]
    with pytest.raises(SinkError) as limited:
        sink_for(service).send(notice(NoticeKind.FIRED, CPU))
    assert (limited.value.reason, limited.value.retry_after_s) == (FailureReason.RATE_LIMITED, 7.0)
    with pytest.raises(SinkError) as odd:
        sink_for(service).send(notice(NoticeKind.FIRED, CPU))
    assert odd.value.reason is FailureReason.SERVER_ERROR


def test_settings_make_it_and_refuse_half_of_it() -> None:
    """Token and channel belong together, and beside a webhook there is none."""
    env = {"STX_NOTIFY__SLACK__TOKEN": TOKEN, "STX_NOTIFY__SLACK__CHANNEL": "#alerts"}
    settings = Settings.load(env, Path("/"))
    assert isinstance(sinks_from(settings)[1], SlackApiSink) and TOKEN not in str(settings.dump())
    webhook = {**env, "STX_NOTIFY__SLACK__WEBHOOK_URL": "https://hooks.example.com/x"}
    for wrong in ({"STX_NOTIFY__SLACK__TOKEN": TOKEN}, webhook):
        with pytest.raises(SettingsError) as refused:
            Settings.load(wrong, Path("/"))
        assert TOKEN not in str(refused.value)
