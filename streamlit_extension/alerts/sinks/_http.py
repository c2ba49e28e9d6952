"""One POST of JSON with a total deadline, no redirect, and failures in bounded words."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.sinks._deadline import Deadline

_MOST_BYTES: Final = 65_536
#: How many times the time-out of a step all steps together may take.
TOTAL: Final = 3.0


class _Connection(http.client.HTTPConnection):
    """Is cut off at the deadline; `HTTPSConnection` begins TLS on what this one has connected."""

    deadline: Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    pass


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def _of(self, kind: type[_Connection]) -> Any:
        def make(*args: Any, **kwargs: Any) -> _Connection:
            made = kind(*args, **kwargs)
            made.deadline = self._deadline
            return made

        return make

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._of(_Connection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._of(_TlsConnection), req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: what is sent is meant for one address."""


def post_json(
    url: str, body: Mapping[str, Any], *, timeout_s: float, headers: Mapping[str, str] | None = None
) -> bytes:
    """Send a JSON object and return the answer's body.

    Arguments:
        url: `http://` or `https://`; proxies of the environment are used. It never stands in an error.
        headers: further ones.
        timeout_s: for each step on the network, and for the answer's body as a whole; `TOTAL` times as long for all.

    Raises:
        SinkError: anything but a 2xx answer in time.
    """
    sent = {"Content-Type": "application/json", "User-Agent": "streamlit-extension", **(headers or {})}
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    with Deadline(TOTAL * timeout_s) as deadline:
        try:
            request = urllib.request.Request(url, data=data, headers=sent, method="POST")  # noqa: S310 - checked setting
            opener = urllib.request.build_opener(_NoRedirect, _Handler(deadline))
            with opener.open(request, timeout=timeout_s) as answer:
                content = _read(answer, time.monotonic() + timeout_s)
            if deadline.is_over:  # a head that is cut off reads as one that ended
                raise TimeoutError
            return content
        except urllib.error.HTTPError as error:
            with error:
                raise failure_of(error.code, error.headers.get("Retry-After")) from None
        except urllib.error.URLError as error:
            raise SinkError(FailureReason.TIMEOUT if deadline.is_over else reason_of(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SinkError(FailureReason.TIMEOUT if deadline.is_over else reason_of(error)) from None


def _read(answer: Any, deadline_s: float) -> bytes:
    content = b""
    while len(content) < _MOST_BYTES:
        if time.monotonic() > deadline_s:
            raise TimeoutError
        part = answer.read1(_MOST_BYTES - len(content))
        if not part:
            break
        content += part
    return content


def failure_of(status: int, retry_after: str | None) -> SinkError:
    """Return the failure that an HTTP status means; `retry_after` is the header, in seconds or as a date."""
    if status == 429:
        return SinkError(FailureReason.RATE_LIMITED, f"status {status}", retry_after_s=seconds_of(retry_after))
    if status == 408:
        return SinkError(FailureReason.TIMEOUT, f"status {status}")
    if status in (401, 403):
        return SinkError(FailureReason.AUTHENTICATION, f"status {status}")
    if status >= 500:
        return SinkError(FailureReason.SERVER_ERROR, f"status {status}", retry_after_s=seconds_of(retry_after))
    return SinkError(FailureReason.REFUSED, f"status {status}")


def seconds_of(retry_after: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None when it asks for nothing understandable."""
    if not retry_after:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))


def reason_of(error: object) -> FailureReason:
    """Return what an error of the network means; its text, which may repeat an address, is left out."""
    if isinstance(error, TimeoutError):
        return FailureReason.TIMEOUT
    if isinstance(error, ssl.SSLError):
        return FailureReason.TLS
    if isinstance(error, OSError | http.client.HTTPException):
        return FailureReason.CONNECTION
    return FailureReason.CONFIGURATION if isinstance(error, ValueError) else FailureReason.INTERNAL
