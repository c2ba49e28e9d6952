"""E-mail to a real SMTP server: STARTTLS, TLS from the first byte, authentication, and what may go wrong."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, trial_notice
from streamlit_extension.alerts.model import NoticeKind
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.alerts.sinks.email import EmailSink
from streamlit_extension.settings import Email, Secret, Settings
from tests.alerts.fakes import dripping
from tests.alerts.sinks.test_http_sinks import TRACE, notice
from tests.alerts.support import threads

LINKS = Links("https://shop.example.com")


@dataclass
class Mailbox:
    """A running server and what it took."""

    port: int = 0
    taken: list[EmailMessage] = field(default_factory=list)
    sessions: list[tuple[bool, bool]] = field(default_factory=list)
    answer: str = "250 taken"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message."""
        secure = session.ssl is not None
        self.sessions.append((bool(secure), session.authenticated))
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.taken.append(parsed)
        return self.answer

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Take some recipients."""
        if address.startswith("nobody"):
            return "550 no such user"
        if address.startswith("later"):
            return "451 greylisted"
        envelope.rcpt_tos.append(address)
        return "250 fine"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    return AuthResult(success=(data.login, data.password) == (b"app", b"s3cr3t"), handled=False)


@contextmanager
def mail_server(tls: ssl.SSLContext | None, *, implicit: bool = False, auth: bool = False) -> Iterator[Mailbox]:
    box = Mailbox()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        box.port = probe.getsockname()[1]
    options: dict[str, Any] = {"hostname": "localhost", "port": box.port}
    if tls is not None and implicit:
        options["ssl_context"] = tls
    elif tls is not None:
        options["tls_context"] = tls
        options["require_starttls"] = True
    if auth:
        options |= {"auth_required": True, "authenticator": authenticate, "auth_require_tls": not implicit}
    controller = Controller(box, **options)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def config(port: int, **changes: Any) -> Email:
    given = {"host": "localhost", "port": port, "sender": "app@shop.example.com", "recipients": ("ops@example.com",)}
    return Email(**{**given, **changes})


ACCOUNT: dict[str, Any] = {"username": "app", "password": Secret("s3cr3t")}


def test_starttls_with_authentication(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The conversation turns to TLS before the password is sent; the message tells trace, link and what to do."""
    with mail_server(server_tls, auth=True) as box:
        EmailSink(config(box.port, **ACCOUNT), LINKS, tls=client_tls).send(notice(NoticeKind.FIRED))
    assert box.sessions == [(True, True)]
    (mail,) = box.taken
    assert mail["To"] == "ops@example.com" and mail["From"] == "app@shop.example.com"
    assert mail["Subject"] == "[FIRING] shop (pod-1): CPU usage" and mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_content()
    assert "CPU usage is 97.25% (threshold 85%)" in text and "What to do:" in text
    assert f"https://shop.example.com/telemetry/traces/{TRACE}" in text


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # the server means STARTTLS
def test_tls_from_the_first_byte(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """With `implicit_tls` nothing is said in the clear, on whichever port, `starttls` or not."""
    with mail_server(server_tls, implicit=True, auth=True) as box:
        sink = EmailSink(config(box.port, implicit_tls=True, **ACCOUNT), tls=client_tls)
        sink.send(notice(NoticeKind.FIRED))
    # The server does not tell a session of the TLS around it, but nothing else is understood on that port.
    assert [authenticated for _, authenticated in box.sessions] == [True] and len(box.taken) == 1


def test_a_resolve_is_a_reply_to_its_alert(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Mail programs show alert, reminder and resolve as one conversation."""
    with mail_server(server_tls) as box:
        sink = EmailSink(config(box.port), tls=client_tls)
        for kind in (NoticeKind.FIRED, NoticeKind.REPEATED, NoticeKind.RESOLVED):
            sink.send(notice(kind))
    first, again, end = box.taken
    assert first["In-Reply-To"] is None and first["Importance"] == "high"
    assert again["In-Reply-To"] == end["In-Reply-To"] == first["Message-ID"]
    assert str(first["Message-ID"]).endswith("@shop.example.com>") and "RESOLVED" in end["Subject"]


def test_the_end_of_one_of_several_alerts_belongs_to_their_message() -> None:
    """What it answers to is named by the message that told of both."""
    with mail_server(None) as box:
        sink = EmailSink(config(box.port, starttls=False))
        sink.send(notice(NoticeKind.FIRED, *default_rules()[:2]))
        sink.send(notice(NoticeKind.RESOLVED, default_rules()[1]))
    first, second = box.taken
    assert second["In-Reply-To"] == first["References"] != first["Message-ID"]


def test_a_server_that_nobody_vouches_for_is_refused(server_tls: ssl.SSLContext) -> None:
    """A certificate of an unknown authority ends the conversation before anything is sent."""
    with mail_server(server_tls, auth=True) as box:
        with pytest.raises(SinkError) as caught:
            EmailSink(config(box.port, **ACCOUNT)).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.TLS and box.taken == []


def test_a_server_without_starttls_is_refused() -> None:
    """Where TLS is asked for and not offered, nothing is sent."""
    with mail_server(None) as box:
        with pytest.raises(SinkError) as caught:
            EmailSink(config(box.port)).send(notice(NoticeKind.FIRED))
        EmailSink(config(box.port, starttls=False)).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.TLS and len(box.taken) == 1


def test_a_password_does_not_cross_a_network_in_the_clear() -> None:
    """Without TLS a password is sent to this machine alone; to another host it is an error of the configuration."""
    with mail_server(None) as box:
        # A spelling of 127.0.0.1 that is resolved as any host's name is.
        sink = EmailSink(config(box.port, host="0x7f.1", starttls=False, **ACCOUNT))
        with pytest.raises(SinkError) as caught:
            sink.send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.CONFIGURATION and box.taken == []


@pytest.mark.parametrize(
    ("changes", "answer", "reason"),
    [
        ({"username": "app", "password": Secret("wrong")}, "250 taken", FailureReason.AUTHENTICATION),
        ({**ACCOUNT, "recipients": ("nobody@example.com",)}, "250 taken", FailureReason.REFUSED),
        ({**ACCOUNT, "recipients": ("later@example.com",)}, "250 taken", FailureReason.SERVER_ERROR),
        ({**ACCOUNT, "recipients": ("nobody@example.com", "ops@example.com")}, "250 taken", FailureReason.REFUSED),
        (ACCOUNT, "451 later", FailureReason.SERVER_ERROR),
        (ACCOUNT, "554 spam", FailureReason.REFUSED),
    ],
)
def test_every_refusal_has_its_reason(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, changes: Any, answer: str, reason: FailureReason
) -> None:
    """A wrong password, refused recipients and a refused message are told apart, and what may pass is tried again."""
    with mail_server(server_tls, auth=True) as box:
        box.answer = answer
        with pytest.raises(SinkError) as caught:
            EmailSink(config(box.port, **changes), tls=client_tls).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is reason
    assert "s3cr3t" not in str(caught.value) and "wrong" not in str(caught.value)


def test_a_server_that_is_silent_is_given_up_in_time() -> None:
    """A server that accepts and says nothing is a time-out, one that is not there a connection failure."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SinkError) as caught:
            EmailSink(config(port), timeout_s=0.3).send(notice(NoticeKind.FIRED))
        assert caught.value.reason is FailureReason.TIMEOUT and "set implicit_tls" in str(caught.value)
    with pytest.raises(SinkError) as caught:
        EmailSink(config(port), timeout_s=5).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.CONNECTION


def test_the_settings_ask_for_implicit_tls() -> None:
    """Unset, it is port 465's; set, it counts on every port."""
    assert Settings.load({}, Path("/")).notify.email.implicit_tls is None
    assert Settings.load({"STX_NOTIFY__EMAIL__IMPLICIT_TLS": "true"}, Path("/")).notify.email.implicit_tls is True


@pytest.mark.parametrize("drip", [b"a", b"220-wait\r\n"])
def test_a_server_that_never_ends_its_greeting_is_given_up_in_time(drip: bytes) -> None:
    """Each byte is in time, all of them together are not."""
    with dripping(b"220-", drip) as port, pytest.raises(SinkError) as caught:
        EmailSink(config(port, starttls=False), timeout_s=0.25).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.TIMEOUT and threads("stx-deadline") == []


def test_a_rude_good_bye_sends_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server took is delivered, whatever it answers to QUIT afterwards."""

    async def rude(server: Any, arg: str) -> None:
        await server.push("421 busy")

    monkeypatch.setattr("aiosmtpd.smtp.SMTP.smtp_QUIT", rude)
    with mail_server(None) as box:
        EmailSink(config(box.port, starttls=False)).send(notice(NoticeKind.FIRED))
    assert len(box.taken) == 1


def test_a_test_is_marked(client_tls: ssl.SSLContext, server_tls: ssl.SSLContext) -> None:
    """Subject and text of a test say what it is."""
    with mail_server(server_tls) as box:
        EmailSink(config(box.port), tls=client_tls).send(trial_notice(0.0, service="shop"))
    assert box.taken[0]["Subject"].startswith("[TEST] ") and "This is a test" in box.taken[0].get_content()
