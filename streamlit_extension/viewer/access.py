"""Who may see the telemetry page, and whose wish a POST is.

A session is a signed cookie and kept nowhere: its key is made from the token, so every process and replica with the
same token knows it, it outlives a restart, and a new token ends them all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from streamlit_extension.endpoints.entitlement import Entitlement

#: How long a viewer session lasts, in seconds: a working day and the evening after it.
SESSION_S: Final = 12 * 3600.0
#: What a caller without a session (by token, or at the machine) is bound to in a form's token.
_NO_SESSION: Final = "none"
_MOST_COOKIE: Final = 4096


class Caller(msgspec.Struct, frozen=True):
    """Somebody who is entitled; `session` names their viewer session."""

    session: str = _NO_SESSION


class Access(msgspec.Struct, frozen=True):
    """Decides for one port who may see the page.

    Arguments:
        entitlement: the token and the loopback rule.
        token: gives the current token, which sessions are signed with.
        wall: seconds since the Unix epoch.
    """

    entitlement: Entitlement
    token: Callable[[], str | None]
    wall: Callable[[], float] = time.time

    def caller(self, scope: Mapping[str, Any]) -> Caller | None:
        """Who asks, None for a stranger."""
        session = self._session_in(scope)
        if session is not None:
            return Caller(session)
        return Caller() if self.entitlement.for_operators(scope) else None

    # -- sessions -------------------------------------------------------------------------------------------------

    def begin_session(self, *, path: str, secure: bool) -> str | None:
        """The `Set-Cookie` of a new session below `path`; None where there is no token to sign it with."""
        name = self._cookie_name()
        if name is None:
            return None
        session = f"{int(self.wall() + SESSION_S)}.{secrets.token_urlsafe(18)}"
        value = f"{session}.{self._sign('session', session)}"
        flags = f"Path={path}; Max-Age={int(SESSION_S)}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        return f"{name}={value}; {flags}"

    def end_session(self, *, path: str, secure: bool) -> str:
        """The `Set-Cookie` that makes a browser forget its session."""
        flags = f"Path={path}; Max-Age=0; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        return f"{self._cookie_name() or 'stx'}=; {flags}"

    def _session_in(self, scope: Mapping[str, Any]) -> str | None:
        name = self._cookie_name()
        if name is None:
            return None
        for header, value in scope["headers"]:
            if header == b"cookie" and len(value) <= _MOST_COOKIE:
                for part in value.decode("latin-1").split(";"):
                    key, _, content = part.strip().partition("=")
                    if key == name and (session := self._checked(content)) is not None:
                        return session
        return None

    def _checked(self, content: str) -> str | None:
        session, _, signature = content.rpartition(".")
        expected = self._sign("session", session)
        if expected is None or not hmac.compare_digest(signature.encode("latin-1"), expected.encode()):
            return None
        until = session.partition(".")[0]
        return session if until.isdecimal() and self.wall() < int(until) else None

    # -- forms ----------------------------------------------------------------------------------------------------

    def form_token(self, caller: Caller) -> str:
        """What a form of this caller must send back; other sites can't read it."""
        made_at = str(int(self.wall()))
        return f"{made_at}.{self._sign('form', caller.session, made_at)}"

    def may_post(self, scope: Mapping[str, Any], caller: Caller, form_token: str) -> bool:
        """Whether a POST is this caller's own wish and no other site's."""
        made_at, _, signature = form_token.partition(".")
        expected = self._sign("form", caller.session, made_at)
        if expected is None or not hmac.compare_digest(signature.encode("utf-8"), expected.encode()):
            return False
        if not made_at.isdecimal() or self.wall() - int(made_at) > SESSION_S:
            return False
        return from_same_origin(scope)

    # -- keys -----------------------------------------------------------------------------------------------------

    def _key(self) -> bytes | None:
        token = self.token()
        return None if not token else hashlib.sha256(b"streamlit-extension viewer\0" + token.encode("utf-8")).digest()

    def _sign(self, *parts: str) -> str | None:
        key = self._key()
        if key is None:
            return None
        digest = hmac.new(key, "\0".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def _cookie_name(self) -> str | None:
        """A name of this application's own: browsers send cookies of one host to all of its ports."""
        key = self._key()
        return None if key is None else "stx_" + hmac.new(key, b"cookie", hashlib.sha256).hexdigest()[:12]


def header(scope: Mapping[str, Any], name: bytes) -> str:
    """The first header of that name (lower case); empty where there is none."""
    return next((value.decode("latin-1") for each, value in scope["headers"] if each == name), "")


def from_same_origin(scope: Mapping[str, Any]) -> bool:
    """Whether a request that changes something comes from a page of ours, as far as the browser says."""
    site = header(scope, b"sec-fetch-site")
    if site:
        return site == "same-origin"
    origin = header(scope, b"origin")
    return not origin or urlsplit(origin).netloc.lower() == header(scope, b"host").lower()


def from_elsewhere(scope: Mapping[str, Any]) -> bool:
    """Whether a person follows a link from another site: browsers keep a strict cookie back then, once."""
    return (
        scope["method"] == "GET"
        and header(scope, b"sec-fetch-site") in ("cross-site", "same-site")
        and header(scope, b"sec-fetch-mode") == "navigate"
        and header(scope, b"sec-fetch-dest") == "document"
    )


def by_tls(scope: Mapping[str, Any]) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy; a lie here only keeps the liar's cookie from plain HTTP."""
    return scope.get("scheme") == "https" or "https" in header(scope, b"x-forwarded-proto").lower()
