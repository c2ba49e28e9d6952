"""Any further service by its URL, through Apprise; imported when such a URL is set."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, describe
from streamlit_extension.alerts.model import Notice, NoticeKind, Severity

_KINDS: Final = {
    Severity.CRITICAL: "failure",
    Severity.ERROR: "failure",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}
_quiet = threading.local()


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
        apprise = _library()
        service = apprise.Apprise()
        message = describe(notice, self._links)
        kind = "success" if notice.kind is NoticeKind.RESOLVED else _KINDS[notice.severity]
        _quiet.now = True
        try:
            if not service.add(url):
                raise SinkError(FailureReason.CONFIGURATION, "the notification library does not know such a URL")
            if not service.notify(body=message.as_text(), title=message.title, notify_type=kind, body_format="text"):
                raise SinkError(FailureReason.SERVER_ERROR, "the service did not take it")
        finally:
            _quiet.now = False


def scheme_of(url: str) -> str:
    """Return the part of a URL that is no secret: its scheme, `unknown` where there is none."""
    scheme = url.partition("://")[0].lower()
    return scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}", scheme) else "unknown"


def _library() -> Any:
    """Import Apprise; its log lines, which may show parts of a URL, are left out while a sink of ours sends."""
    import apprise

    logger = logging.getLogger("apprise")
    if _keep not in logger.filters:
        logger.addFilter(_keep)
    return apprise


def _keep(_: logging.LogRecord) -> bool:
    return not getattr(_quiet, "now", False)
