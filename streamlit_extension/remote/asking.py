"""One HTTP question, and every way in which it may fail as one line."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import click

from streamlit_extension._settings_types import redact_url

_TIMEOUT_S: Final = 15.0
#: For a whole answer, however slowly it comes.
_TOTAL_S: Final = 120.0
_MAX_BYTES: Final = 256 * 1024 * 1024


class RemoteError(click.ClickException):
    """A back end didn't answer; one line, without secrets, that ends a command with 2."""

    exit_code = 2


class Answer(NamedTuple):
    """What a back end says: 200 or 404, and the body."""

    status: int
    body: bytes


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: user-info would go along to wherever it leads."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Leave the answer as it is."""


_OPENER: Final = urllib.request.build_opener(_Stay)


def where(name: str, root: str) -> str:
    """A back end and its address, for messages."""
    return f"{name} at {redact_url(root)}"


def ask(name: str, root: str, path: str, parameters: Mapping[str, object]) -> Answer:
    """What a back end answers.

    Arguments: its name for messages, the root of its API (user-info becomes basic authentication), path and query.
    Raises: RemoteError.
    """
    parts = urllib.parse.urlsplit(root)
    user, at, host = parts.netloc.rpartition("@")
    query = urllib.parse.urlencode(parameters)
    whole = urllib.parse.quote(f"{parts.path.rstrip('/')}{path}", safe="/%:@!$&'()*+,;=~")
    url = urllib.parse.urlunsplit((parts.scheme, host, whole, query, ""))
    headers = {"Accept": "application/json"}
    if at:
        pair = urllib.parse.unquote(user).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    place = where(name, root)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the settings let in http and https alone)
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            return Answer(200, _whole(answer, place))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return Answer(404, error.read(65_536))
            staying = ": no redirect is followed" if 300 <= error.code < 400 else ""
            raise RemoteError(f"{place} answered {error.code}{staying}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RemoteError(f"{place} does not answer: {type(reason).__name__}") from error


def _whole(answer: http.client.HTTPResponse, place: str) -> bytes:
    deadline = time.monotonic() + _TOTAL_S
    body = bytearray()
    while part := answer.read1(1 << 20):
        body += part
        if len(body) > _MAX_BYTES:
            raise RemoteError(f"{place} answered more than {_MAX_BYTES >> 20} MiB; ask for less")
        if time.monotonic() > deadline:
            raise RemoteError(f"{place} is slow: its answer is not whole after {_TOTAL_S:.0f} s; ask for less")
    if answer.length:
        raise RemoteError(f"{place} does not answer: IncompleteRead")
    return bytes(body)
