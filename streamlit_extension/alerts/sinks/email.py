"""E-mail by SMTP: STARTTLS, or TLS from the first byte on port 465; a resolve is a reply to its alert."""

from __future__ import annotations

import hashlib
import ipaddress
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, Message, describe
from streamlit_extension.alerts.model import Alert, Notice, NoticeKind, Severity
from streamlit_extension.alerts.sinks._http import reason_of

if TYPE_CHECKING:
    from streamlit_extension.settings import Email

#: Submission with TLS from the first byte (RFC 8314).
IMPLICIT_TLS_PORT: Final = 465
_IMPORTANT: Final = (Severity.CRITICAL, Severity.ERROR)


class EmailSink:
    """Sends one message for a notice.

    Arguments:
        settings: server, account, sender and recipients.
        links: bases of the links.
        tls: by default the system's certificate authorities, host names checked.
        timeout_s: of each step of the conversation.
        implicit_tls_port: the port that speaks TLS from the first byte.
    """

    name = "email"
    is_remote = True

    def __init__(
        self,
        settings: Email,
        links: Links | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 15.0,
        implicit_tls_port: int = IMPLICIT_TLS_PORT,
    ) -> None:
        self._settings = settings
        self._links = links or Links()
        self._tls = tls
        self._timeout_s = timeout_s
        self._implicit_tls_port = implicit_tls_port

    def send(self, notice: Notice, /) -> None:
        """Hand one message to the server."""
        message = compose(notice, describe(notice, self._links), self._settings)
        try:
            with self._connect() as server:
                self._secure(server)
                refused = server.send_message(message)
        except SinkError:
            raise
        except smtplib.SMTPException as error:
            raise _failure_of(error) from None
        except (OSError, ValueError) as error:
            raise SinkError(reason_of(error)) from None
        if refused:
            raise SinkError(FailureReason.REFUSED, f"{len(refused)} of the recipients were refused")

    def _connect(self) -> smtplib.SMTP:
        host, port = self._settings.host or "", self._settings.port
        if port == self._implicit_tls_port:
            return smtplib.SMTP_SSL(host, port, timeout=self._timeout_s, context=self._context())
        return smtplib.SMTP(host, port, timeout=self._timeout_s)

    def _secure(self, server: smtplib.SMTP) -> None:
        """Begin TLS and log in, as configured; a password never crosses a network in the clear."""
        settings = self._settings
        implicit = isinstance(server, smtplib.SMTP_SSL)
        if settings.starttls and not implicit:
            if server.ehlo()[0] != 250 or not server.has_extn("starttls"):
                raise SinkError(FailureReason.TLS, "the server offers no STARTTLS")
            server.starttls(context=self._context())
        if settings.username is None:
            return
        if not (implicit or settings.starttls or _is_loopback(settings.host or "")):
            raise SinkError(FailureReason.CONFIGURATION, "a password needs TLS; set starttls or port 465")
        password = settings.password.reveal() if settings.password is not None else ""
        server.login(settings.username, password)

    def _context(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()


def compose(notice: Notice, message: Message, settings: Email) -> EmailMessage:
    """Return the message: plain text, with headers by which mail programs put alert and resolve together."""
    mail = EmailMessage()
    mail["Subject"] = " ".join(message.title.split())
    mail["From"] = settings.sender or ""
    mail["To"] = ", ".join(settings.recipients)
    mail["Date"] = formatdate(notice.at)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notice answers it
    thread = [_id_of(alert, settings) for alert in notice.alerts]
    if notice.kind is NoticeKind.FIRED:
        mail["Message-ID"] = thread[0]
        if thread[1:]:  # whoever answers to one of these belongs here
            mail["References"] = " ".join(thread[1:])
    elif thread:
        mail["In-Reply-To"] = thread[0]
        mail["References"] = " ".join(dict.fromkeys(thread))
    if notice.kind is NoticeKind.FIRED and notice.severity in _IMPORTANT:
        mail["Importance"] = "high"
    mail.set_content(message.as_text())
    return mail


def _id_of(alert: Alert, settings: Email) -> str:
    """The Message-ID of the message that told of an alert first."""
    domain = (settings.sender or "").rpartition("@")[2].strip("<> ") or "localhost"
    return f"<{hashlib.sha256(f'{alert.key} {alert.fired_at}'.encode()).hexdigest()[:32]}@{domain}>"


def _failure_of(error: smtplib.SMTPException) -> SinkError:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return SinkError(FailureReason.AUTHENTICATION, f"status {error.smtp_code}")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in error.recipients.values()}
        passing = any(400 <= code < 500 for code in codes)
        return SinkError(FailureReason.SERVER_ERROR if passing else FailureReason.REFUSED, "recipients refused")
    if isinstance(error, smtplib.SMTPResponseException):
        passing = error.smtp_code < 500
        detail = f"status {error.smtp_code}"
        return SinkError(FailureReason.SERVER_ERROR if passing else FailureReason.REFUSED, detail)
    if isinstance(error, smtplib.SMTPServerDisconnected):
        if isinstance(error.__context__, TimeoutError):  # smtplib says "disconnected" for a time-out too
            return SinkError(FailureReason.TIMEOUT)
        return SinkError(FailureReason.CONNECTION, "the server hung up")
    return SinkError(FailureReason.REFUSED, type(error).__name__)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
