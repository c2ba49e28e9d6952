"""What a setting may be: the rule of one value, where it came from, and secrets that never show themselves."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

_log = logging.getLogger("streamlit_extension.settings")

HIDDEN: Final = "***"
_SECRET_CHECK_S: Final = 1.0
_SHOWN_LENGTH: Final = 80


class SettingsError(Exception):
    """A setting that stops the start. Its text is one line, fit for standard error, without any secret."""


class OriginKind(StrEnum):
    """Where the value of a setting was written."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from: `kind`, and in `name` the file's path or the environment variable's name."""

    kind: OriginKind = OriginKind.DEFAULT
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else str(self.kind)


class Secrecy(StrEnum):
    """How much of a value may be shown."""

    OPEN = "open"
    URL = "url"  # without its user-info, query and fragment
    SECRET = "secret"


class Rule(msgspec.Struct, frozen=True):
    """What one setting accepts.

    Arguments:
        allowed: completes "allowed: …" in an error.
        raw: the type that msgspec converts to first; its constraints are the ranges.
        finish: turns the converted value into the final one; raises ValueError for what is not allowed.
        secrecy: how much of the value an error or a dump shows.
    """

    allowed: str
    raw: Any
    finish: Callable[[Any], Any] = lambda value: value
    secrecy: Secrecy = Secrecy.OPEN

    def parse(self, value: object, *, is_text: bool) -> Any:
        """Convert a value from the file, or from the environment (`is_text`); raises ValueError."""
        if is_text and isinstance(value, str):
            return self.finish(self._from_text(value))
        return self.finish(msgspec.convert(value, self.raw))

    def _from_text(self, text: str) -> Any:
        if getattr(self.raw, "__origin__", None) is tuple:
            return msgspec.json.decode(text.encode("utf-8", "surrogateescape"), type=self.raw)
        return msgspec.convert(text, self.raw, strict=False)


class Secret:
    """A secret given as it is or by a file that is read again when it changes. It never shows in a repr or a log."""

    __slots__ = ("_checked_at_s", "_file", "_lock", "_stamp", "_value")

    def __init__(self, value: str = "", *, file: Path | None = None) -> None:
        self._value = value
        self._file = file
        self._stamp: tuple[int, ...] = ()
        self._checked_at_s = 0.0
        self._lock = threading.Lock()
        if file is not None:
            self._read(file)

    @property
    def file(self) -> Path | None:
        """The file that holds the secret, None for one given as it is."""
        return self._file

    def reveal(self) -> str:
        """Return the secret. A file is looked at once a second at most; while it can't be read the last one holds."""
        if self._file is None:
            return self._value
        with self._lock:
            if time.monotonic() - self._checked_at_s >= _SECRET_CHECK_S:
                self._refresh(self._file)
            return self._value

    def _refresh(self, file: Path) -> None:
        try:
            self._read(file)
        except (OSError, ValueError) as error:
            fields = {"event": "settings.secret_unreadable", "file": str(file), "error_type": type(error).__name__}
            _log.warning("a secret's file can't be read; the last value holds", extra=fields)
            self._checked_at_s = time.monotonic() + 59.0  # said once a minute, not once a second

    def _read(self, file: Path) -> None:
        self._checked_at_s = time.monotonic()
        info = file.stat()
        stamp = (info.st_mtime_ns, info.st_size, info.st_ino, info.st_dev)
        if stamp == self._stamp:
            return
        value = file.read_text("utf-8").rstrip("\r\n")
        if not value:
            raise ValueError("the file is empty")
        self._value, self._stamp = value, stamp

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._file, self._value) == (other._file, other._value)

    __hash__ = None  # type: ignore[assignment]


def redact_url(url: str) -> str:
    """Return a URL without user-info, query and fragment; `***` when it can't be told apart safely."""
    scheme, mark, rest = url.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+._-]*", scheme):
        return HIDDEN
    user, at, place = rest.rpartition("@")  # the last one: a password may hold "@", "/", "?" or "#"
    place = re.split(r"[?#]", place if at else rest, maxsplit=1)[0]
    host = place.partition("/")[0]
    if not at and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(:\d{0,5})?", host):
        return HIDDEN
    return f"{scheme}://{HIDDEN + '@' if user or at else ''}{place}"


def shown(value: object, secrecy: Secrecy) -> str:
    """Return one short line for a value, with nothing of a secret in it."""
    if secrecy is Secrecy.SECRET:
        return HIDDEN
    if secrecy is Secrecy.URL:
        return repr(redact_url(value)) if isinstance(value, str) else HIDDEN
    text = repr(value)
    if "://" in text or "@" in text:  # a URL in the wrong place may carry a password
        return HIDDEN
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def url_checker(schemes: tuple[str, ...] | None, *, needs_host: bool = True) -> Callable[[str], str]:
    """Return a function that passes a URL of one of `schemes` (None: any but HTTP) and raises ValueError otherwise."""

    def check(url: str) -> str:
        scheme = url.partition("://")[0]
        known = scheme in schemes if schemes else re.fullmatch(r"(?!https?$)[a-z][a-z0-9_]*(\+[a-z0-9_]+)?", scheme)
        if "://" not in url or not known or re.search(r"\s", url):
            raise ValueError("scheme")
        if needs_host:
            parts = urlsplit(url)
            if parts.scheme != "unix" and not parts.hostname:
                raise ValueError("host")
            _ = parts.port  # raises ValueError when it is no port
        return url

    return check
