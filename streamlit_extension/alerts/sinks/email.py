"""E-mail by SMTP: STARTTLS, or TLS from the first byte (port 465, or asked for); a resolve is a reply to its alert."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, Message, describe
from streamlit_extension.alerts.model import Alert, Notice, NoticeKind, Severity
from streamlit_extension.alerts.sinks._deadline import Deadline
from streamlit_extension.alerts.sinks._http import reason_of

if TYPE_CHECKING:
    from streamlit_extension.settings import Email

#: Submission with TLS from the first byte (RFC 8314).
IMPLICIT_TLS_PORT: Final = 465
#: How many times the time-out of a step the whole conversation may take.
_STEPS: Final = 4.0
_IMPORTANT: Final = (Severity.CRITICAL, Severity.ERROR)


class _Server(smtplib.SMTP):
    """Is cut off at the deadline; `SMTP_SSL` begins TLS on what this one has connected."""

    def __init__(self, host: str, port: int, deadline: Deadline, **kwargs: Any) -> None:
        self._deadline = deadline
        super().__init__(host, port, **kwargs)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        self._deadline.watch(connected)
        return connected


class _TlsServer(smtplib.SMTP_SSL, _Server):
    def __init__(self, host: str, port: int, deadline: Deadline, **kwargs: Any) -> None:
        self._deadline = deadline
        smtplib.SMTP_SSL.__init__(self, host, port, **kwargs)


class EmailSink:
    """Sends one message for a notice.

    Arguments:
        settings: server, account, sender and recipients.
        links: bases of the links.
        tls: by default the system's certificate authorities, host names checked.
        timeout_s: of each step of the conversation; all of it may take `_STEPS` times as long.
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
    ) -> None:
        self._settings = settings
        self._links = links or Links()
        self._tls = tls
        self._timeout_s = timeout_s

    def send(self, notice: Notice, /) -> None:
        """Hand one message to the server."""
        message = compose(notice, describe(notice, self._links), self._settings)
        with Deadline(_STEPS * self._timeout_s) as deadline:
            try:
                refused = self._hand_over(message, deadline)
            except SinkError:
                raise
            except smtplib.SMTPException as error:
                raise (SinkError(FailureReason.TIMEOUT) if deadline.is_over else _failure_of(error)) from None
            except (OSError, ValueError) as error:
                raise SinkError(FailureReason.TIMEOUT if deadline.is_over else reason_of(error)) from None
        if refused:
            raise SinkError(FailureReason.REFUSED, f"{refused} of the recipients were refused")

    def _hand_over(self, message: EmailMessage, deadline: Deadline) -> int:
        """Return how many recipients were refused; how the server says good-bye changes nothing any more."""
        server = self._connect(deadline)
        try:
            self._secure(server)
            refused = len(server.send_message(message))
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()
            return refused
        finally:
            server.close()

    def _connect(self, deadline: Deadline) -> smtplib.SMTP:
        host, port = self._settings.host or "", self._settings.port
        asked = self._settings.implicit_tls
        if port == IMPLICIT_TLS_PORT if asked is None else asked:
            return _TlsServer(host, port, deadline, timeout=self._timeout_s, context=self._context())
        try:
            return _Server(host, port, deadline, timeout=self._timeout_s)
        except smtplib.SMTPServerDisconnected as error:
            if isinstance(error.__context__, TimeoutError):
                detail = "no greeting; where the port speaks TLS from the first byte, set implicit_tls"
                raise SinkError(FailureReason.TIMEOUT, detail) from None
            raise

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
            raise SinkError(FailureReason.CONFIGURATION, "a password needs TLS; set starttls or implicit_tls")
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
