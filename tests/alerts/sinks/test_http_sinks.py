"""Slack and PagerDuty: what is sent passes their published rules, and every failure has a bounded reason."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, describe, trial_notice
from streamlit_extension.alerts.model import Alert, AlertRule, Cause, Notice, NoticeKind, Severity, Silence
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.alerts.sinks._http import post_json, seconds_of
from streamlit_extension.alerts.sinks.pagerduty import PagerDutySink, dedup_key, event
from streamlit_extension.alerts.sinks.slack import SlackSink, payload
from tests.alerts.fakes import Service, check_pagerduty, check_slack, dripping, pagerduty, slack
from tests.alerts.support import threads

KEY = "0123456789abcdef0123456789abcdef"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LINKS = Links("https://shop.example.com/ops", "https://jaeger.example.com")
NOW = 1_700_000_000.0


def notice(kind: NoticeKind, *rules: AlertRule) -> Notice:
    cause = Cause.CLEARED if kind is NoticeKind.RESOLVED else None
    silence = Silence("*", NOW + 60, "deploying") if kind is NoticeKind.ACKNOWLEDGED else None
    alerts = tuple(
        Alert(rule, f"shop/pod-1/{rule.name}", 97.25, rule.threshold, NOW, NOW + 45, TRACE, cause, silence)
        for rule in rules or default_rules()[:1]
    )
    return Notice(kind, alerts, NOW + 45, "shop", "pod-1")


@pytest.fixture
def slack_service() -> Iterator[Service]:
    with slack() as service:
        yield service


@pytest.fixture
def pagerduty_service() -> Iterator[Service]:
    with pagerduty() as service:
        yield service


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_slack_takes_every_kind_of_notice(slack_service: Service, kind: NoticeKind) -> None:
    """Each kind passes Slack's models; a resolve is green, and the example trace and both links are there."""
    SlackSink(lambda: slack_service.url, LINKS).send(notice(kind, *default_rules()))
    assert slack_service.refused == []
    (body,) = slack_service.taken
    (attachment,) = body["attachments"]
    assert (attachment["color"] == "#2E7D32") == (kind is NoticeKind.RESOLVED)
    text = str(body)
    assert TRACE in text and f"https://shop.example.com/ops/telemetry/traces/{TRACE}|Example trace" in text
    assert f"https://jaeger.example.com/trace/{TRACE}|Jaeger" in text
    assert ("deploying" in text) == (kind is NoticeKind.ACKNOWLEDGED)


def test_pagerduty_trigger_acknowledge_and_resolve_share_a_key(pagerduty_service: Service) -> None:
    """One alert's events have one dedup key; the trigger carries severity, example trace and links."""
    sink = PagerDutySink(lambda: KEY, LINKS, events_url=pagerduty_service.url)
    for kind in NoticeKind:
        sink.send(notice(kind))
    assert pagerduty_service.refused == []
    events = pagerduty_service.taken
    assert [each["event_action"] for each in events] == ["trigger", "trigger", "acknowledge", "resolve"]
    assert {each["dedup_key"] for each in events} == {"shop/pod-1/cpu_usage"}
    body = events[0]["payload"]
    assert body["severity"] == "critical" and body["custom_details"]["trace_id"] == TRACE
    assert body["source"] == "pod-1" and "97.25%" in body["summary"]
    assert [link["text"] for link in events[0]["links"]] == ["Example trace", "Jaeger"]
    assert events[0]["client_url"] == f"https://shop.example.com/ops/telemetry/traces/{TRACE}"


def test_pagerduty_gets_one_event_for_each_alert_of_a_group(pagerduty_service: Service) -> None:
    """What fires together is several incidents, each with a key of its own."""
    PagerDutySink(lambda: KEY, events_url=pagerduty_service.url).send(notice(NoticeKind.FIRED, *default_rules()))
    assert len({each["dedup_key"] for each in pagerduty_service.taken}) == 6
    assert all("links" not in each for each in pagerduty_service.taken)


_text = st.text(max_size=4000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(AlertRule, name=_text, metric=_text, threshold=st.floats(-1e300, 1e300), severity=st.sampled_from(list(Severity)), title=_text, runbook=_text), min_size=1, max_size=30),
    st.sampled_from(list(NoticeKind)),
    st.text(max_size=300),
    st.booleans(),
)  # fmt: skip
def test_any_rule_makes_messages_that_are_taken(
    rules: list[AlertRule], kind: NoticeKind, service: str, test: bool
) -> None:
    """Whatever a rule's texts hold and however many fire at once, both services' limits are kept."""
    made = replace(notice(kind, *rules), service=service, test=test)
    made = replace(made, alerts=tuple(replace(each, key=f"{service}/{each.rule.name}") for each in made.alerts))
    message = describe(made, LINKS)
    assert check_slack(payload(made, message)) is None
    for alert, text in zip(made.alerts, message.alerts, strict=True):
        assert check_pagerduty(event(made, alert, text, KEY)) is None


def test_what_a_message_quotes_mentions_nobody() -> None:
    """Slack's own marks are escaped: a title can't call the channel."""
    rule = replace(default_rules()[0], title="<!channel> & <@U1>")
    body = payload(notice(NoticeKind.FIRED, rule), describe(notice(NoticeKind.FIRED, rule)))
    assert "<!channel>" not in body["text"]
    section = body["attachments"][0]["blocks"][1]["text"]["text"]
    assert "&lt;!channel&gt; &amp; &lt;@U1&gt;" in section


def test_long_keys_stay_apart() -> None:
    """Keys over 255 characters are cut and still differ."""
    one, two = dedup_key("x" * 300 + "a"), dedup_key("x" * 300 + "b")
    assert one != two and len(one) == len(two) == 255 and dedup_key("short") == "short"


@pytest.mark.parametrize(
    ("status", "headers", "reason", "retry_after_s"),
    [
        (400, {}, FailureReason.REFUSED, None),
        (404, {}, FailureReason.REFUSED, None),
        (410, {}, FailureReason.REFUSED, None),
        (302, {"Location": "http://127.0.0.1:1/"}, FailureReason.REFUSED, None),
        (401, {}, FailureReason.AUTHENTICATION, None),
        (403, {}, FailureReason.AUTHENTICATION, None),
        (408, {}, FailureReason.TIMEOUT, None),
        (429, {"Retry-After": "30"}, FailureReason.RATE_LIMITED, 30.0),
        (500, {}, FailureReason.SERVER_ERROR, None),
        (503, {"Retry-After": "2"}, FailureReason.SERVER_ERROR, 2.0),
    ],
)
def test_every_refusal_has_its_reason(
    slack_service: Service, status: int, headers: dict[str, str], reason: FailureReason, retry_after_s: float | None
) -> None:
    """A status means one of the bounded reasons, a redirect is not followed, and the address is in no error."""
    slack_service.trouble.append((status, headers))
    sink = SlackSink(lambda: slack_service.url)
    with pytest.raises(SinkError) as caught:
        sink.send(notice(NoticeKind.FIRED))
    assert (caught.value.reason, caught.value.retry_after_s) == (reason, retry_after_s)
    assert "s3cr3t" not in str(caught.value) and caught.value.__cause__ is None
    sink.send(notice(NoticeKind.FIRED))
    assert len(slack_service.taken) == 1


def test_nobody_there_is_a_connection_failure_and_a_wrong_address_a_configuration_failure() -> None:
    """A refused connection, a name that is none, and a file that holds no URL each have a reason without the address."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/s3cr3t"
        for address, reason in ((url, FailureReason.CONNECTION), ("s3cr3t", FailureReason.CONFIGURATION)):
            with pytest.raises(SinkError) as caught:
                SlackSink(lambda address=address: address).send(notice(NoticeKind.FIRED))  # type: ignore[misc]
            assert caught.value.reason is reason and "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("drips", [False, True])
def test_a_service_that_does_not_answer_is_given_up_in_time(drips: bool) -> None:
    """Silence, and an answer that comes byte by byte without end, are time-outs."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            if drips:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not ended.wait(0.02):
                try:
                    if drips:
                        connection.sendall(b"o")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(SinkError) as caught:
            SlackSink(lambda: url, timeout_s=0.3).send(notice(NoticeKind.FIRED))
        ended.set()
        thread.join(20)
    assert caught.value.reason is FailureReason.TIMEOUT


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of the header are understood; anything else asks for nothing."""
    assert seconds_of("120") == 120.0
    assert seconds_of("Tue, 14 Nov 2023 22:13:50 GMT", now=NOW) == 30.0
    assert seconds_of("Tue, 14 Nov 2023 22:00:00 GMT", now=NOW) == 0.0
    assert [seconds_of(text) for text in (None, "", "soon", "-1", "9" * 20)] == [None] * 5


def test_a_test_is_marked(slack_service: Service, pagerduty_service: Service) -> None:
    """A test message says so in its first words, wherever it goes."""
    made: Any = trial_notice(NOW, service="shop")
    SlackSink(lambda: slack_service.url).send(made)
    PagerDutySink(lambda: KEY, events_url=pagerduty_service.url).send(made)
    assert slack_service.taken[0]["text"].startswith("[TEST] ")
    body = pagerduty_service.taken[0]["payload"]
    assert body["summary"].startswith("[TEST] ") and body["custom_details"]["test"] and body["severity"] == "info"


@pytest.mark.parametrize(
    "head", [b"HTT", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"]
)
def test_an_answer_that_never_ends_is_given_up_in_time(head: bytes) -> None:
    """Each byte of the head or the body is in time, all of them together are not."""
    with dripping(head, b"a") as port, pytest.raises(SinkError) as caught:
        post_json(f"http://127.0.0.1:{port}/", {}, timeout_s=0.25)
    assert caught.value.reason is FailureReason.TIMEOUT and threads("stx-deadline") == []


def test_a_service_behind_tls_is_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that is trusted lets a message pass, an unknown one ends it before anything is sent."""
    authority, taken = trustme.CA(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"fine")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, name="fake-tls-service")
    thread.start()
    url = f"https://localhost:{server.server_port}/"
    try:
        with pytest.raises(SinkError) as caught:
            post_json(url, {}, timeout_s=10)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert post_json(url, {"a": 1}, timeout_s=10) == b"fine"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert caught.value.reason is FailureReason.TLS and taken == [b'{"a":1}']


HOSTILE = "<!channel> pay\r\nBcc: all@example.com\x00 at postgresql://app:s3cr3t@db/x, password=hunter22 \ud800"


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_hostile_words_reach_no_reader_as_they_are(
    slack_service: Service, pagerduty_service: Service, kind: NoticeKind
) -> None:
    """Names and reasons that people give hold no secret, break no line and mention nobody where they are shown."""
    rule = AlertRule("x", "cpu_usage", 1.0, title=HOSTILE, runbook=HOSTILE, unit="%")
    alert = Alert(rule, "key", 97.0, 1.0, NOW, NOW, TRACE, None, Silence("*", NOW + 60, HOSTILE))
    told = Notice(kind, (alert,), NOW, HOSTILE, HOSTILE)
    SlackSink(lambda: slack_service.url, LINKS).send(told)
    PagerDutySink(lambda: KEY, LINKS, events_url=pagerduty_service.url).send(told)
    assert slack_service.refused == pagerduty_service.refused == []
    sent = f"{slack_service.taken} {pagerduty_service.taken} {describe(told, LINKS).as_text()}"
    assert "s3cr3t" not in sent and "hunter22" not in sent and "\\r" not in sent and "\\x00" not in sent
    marked = [text for text in _texts(slack_service.taken) if text["type"] == "mrkdwn"]
    assert marked and not any("<!" in text["text"] for text in marked) and "<!" not in slack_service.taken[0]["text"]


def _texts(found: Any) -> Iterator[dict[str, Any]]:
    for each in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        if isinstance(each, dict) and "text" in each and "type" in each and isinstance(each["text"], str):
            yield each
        yield from _texts(each)
