"""One HTTP question, and every way in which it may fail as one line."""

from __future__ import annotations

import base64
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Final

import click

from streamlit_extension._settings_types import redact_url

_TIMEOUT_S: Final = 15.0
_MAX_BYTES: Final = 256 * 1024 * 1024


class RemoteError(click.ClickException):
    """A back end didn't answer; one line, without secrets, that ends a command with 2."""

    exit_code = 2


def ask(name: str, root: str, path: str, parameters: Mapping[str, object]) -> bytes | None:
    """What a back end answers; None when it says 404.

    Arguments: its name for messages, the root of its API (user-info becomes basic authentication), path and query.
    Raises: RemoteError.
    """
    parts = urllib.parse.urlsplit(root)
    user, at, host = parts.netloc.rpartition("@")
    query = urllib.parse.urlencode(parameters)
    url = urllib.parse.urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}{path}", query, ""))
    headers = {"Accept": "application/json"}
    if at:
        pair = urllib.parse.unquote(user).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    where = f"{name} at {redact_url(root)}"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the settings let in http and https alone)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            body = bytes(answer.read(_MAX_BYTES + 1))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise RemoteError(f"{where} answered {error.code}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise RemoteError(f"{where} does not answer: {type(reason).__name__}") from error
    if len(body) > _MAX_BYTES:
        raise RemoteError(f"{where} answered more than {_MAX_BYTES >> 20} MiB; ask for less")
    return body
