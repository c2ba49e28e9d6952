"""Any further service by its URL, through Apprise; imported when such a URL is set."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Final

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, describe
from streamlit_extension.alerts.model import Notice, NoticeKind, Severity

_KINDS: Final = {
    Severity.CRITICAL: "failure",
    Severity.ERROR: "failure",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}


class _Quiet:
    """Leaves out log lines that may show parts of a URL while a sink of ours sends.

    The library sends on threads of its own, so it can't be told by the thread whose lines they are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sending = 0

    def __enter__(self) -> None:
        with self._lock:
            self._sending += 1
        for name in ("apprise", "urllib3.connectionpool"):  # the latter writes each path, at DEBUG
            logging.getLogger(name).addFilter(self.passes)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._sending -= 1

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether a record may be written now."""
        return not self._sending or (record.name != "apprise" and record.levelno > logging.DEBUG)


_QUIET: Final = _Quiet()


class UrlSink:
    """Tells one service by its URL.

    Arguments:
        number: the place in the list of URLs, from 0.
        urls: returns the secret URLs; asked for each message, so that a changed file counts.
        links: bases of the links.
    """

    is_remote = True

    def __init__(self, number: int, urls: Callable[[], tuple[str, ...]], links: Links | None = None) -> None:
        self._number = number
        self._urls = urls
        self._links = links or Links()
        self.name = f"url{number + 1}-{scheme_of(self._url())}"

    def _url(self) -> str:
        found = self._urls()
        return found[self._number] if self._number < len(found) else ""

    def send(self, notice: Notice, /) -> None:
        """Send one message; which way it fails, the library keeps to itself."""
        url = self._url()
        if not url:
            raise SinkError(FailureReason.CONFIGURATION, "the URL is not in the list any more")
        message = describe(notice, self._links)
        kind = "success" if notice.kind is NoticeKind.RESOLVED else _KINDS[notice.severity]
        with _QUIET:
            import apprise

            service = apprise.Apprise()
            if not service.add(url):
                raise SinkError(FailureReason.CONFIGURATION, "the notification library does not know such a URL")
            if not service.notify(body=message.as_text(), title=message.title, notify_type=kind, body_format="text"):
                raise SinkError(FailureReason.SERVER_ERROR, "the service did not take it")


def scheme_of(url: str) -> str:
    """Return the part of a URL that is no secret: its scheme, `unknown` where there is none."""
    scheme = url.partition("://")[0].lower()
    return scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}", scheme) else "unknown"
