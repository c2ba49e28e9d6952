"""The types that settings have, each with its range in words."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from streamlit_extension._settings_types import (
    Rule,
    Secrecy,
    Secret,
    redact_url,
    url_checker,
)

_MAX_S: Final = 366 * 86_400  # a year; above it, or infinite, is a slip
_RESERVED: Final = ("/_stcore", "/media", "/component", "/static")  # Streamlit's own paths


class Watched(StrEnum):
    """What alerts watch, as `[alerts.thresholds]` spells it."""

    CPU_USAGE = "cpu_usage"
    MEMORY_USAGE = "memory_usage"
    DISK_USAGE = "disk_usage"
    ERROR_RATE = "error_rate"
    RESPONSE_TIME = "response_time"
    DATABASE_CONNECTIONS = "database_connections"
    MEMORY_GROWTH = "memory_growth"


class StoreMode(StrEnum):
    """Whether the embedded store is used."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class HealthDetails(StrEnum):
    """Who may read `/health/detailed` in full."""

    AUTO = "auto"
    ALWAYS = "always"
    TOKEN = "token"
    NEVER = "never"


class SharedFailure(StrEnum):
    """What the failure of a shared dependency does to readiness."""

    UNREADY = "unready"
    DEGRADE = "degrade"


class LogFormat(StrEnum):
    """How a log line is written, as the setting spells it."""

    JSON = "json"
    GELF = "gelf"
    PLAIN_TEXT = "plain_text"


class LogLevel(StrEnum):
    """The lowest level that is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class HttpAddress(str):
    """A URL whose repr leaves out user-info, query and fragment, so that it may stand in a log or a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(redact_url(str(self)))


def _prefix(text: str) -> str:
    text = text.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", text) or text.startswith(_RESERVED) or "/.." in text:
        raise ValueError("path")
    return text


def _choice(enum: type[StrEnum]) -> Rule:
    return Rule("one of " + ", ".join(enum), enum)


def _label(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError("label")
    return text


def _visible(text: str) -> str:
    """Pass a secret that can stand in a header: not empty, no control characters, no space around it."""
    if not text or text.strip() != text or not text.isprintable():
        raise ValueError("text")
    return text


def _secret_url(allowed: str, schemes: tuple[str, ...] | None, *, needs_host: bool = True) -> Rule:
    check = url_checker(schemes, needs_host=needs_host)
    return Rule(allowed, str, lambda text: Secret(check(text)), Secrecy.URL)


def _gelf(text: str) -> str:
    """Pass the address of a GELF server: nothing but scheme, host and port."""
    url = url_checker(("udp", "tcp"))(text)
    parts = urlsplit(url)
    if not parts.port or parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("address")
    return url


def _file(text: str) -> str:
    path = Path(text).expanduser()
    return str(path)


_WORDS = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]

Seconds = Annotated[
    float, Rule("a number of seconds above 0 (at most a year)", Annotated[float, Meta(gt=0, le=_MAX_S)])
]
SecondsOrNone = Annotated[float, Rule("a number of seconds, 0 or more", Annotated[float, Meta(ge=0, le=_MAX_S)])]
Count = Annotated[int, Rule("a whole number from 1 to 1000000", Annotated[int, Meta(ge=1, le=1_000_000)])]
CountOrNone = Annotated[int, Rule("a whole number from 0 to 1000000", Annotated[int, Meta(ge=0, le=1_000_000)])]
Bytes = Annotated[
    int, Rule("a whole number of bytes from 1048576 (1 MiB) to 1 TiB", Annotated[int, Meta(ge=1 << 20, le=1 << 40)])
]
Percent = Annotated[float, Rule("a percentage from 0 to 100", Annotated[float, Meta(ge=0, le=100)])]
Milliseconds = Annotated[
    float, Rule("a number of milliseconds above 0", Annotated[float, Meta(gt=0, le=_MAX_S * 1000)])
]
Connections = Annotated[
    float | Literal["auto"],
    Rule('"auto" or a number of connections above 0', Annotated[float, Meta(gt=0, le=1_000_000)] | Literal["auto"]),
]
Port = Annotated[int, Rule("a port from 1 to 65535", Annotated[int, Meta(ge=1, le=65535)])]
PortOrAny = Annotated[int, Rule("a port from 0 to 65535 (0: any free one)", Annotated[int, Meta(ge=0, le=65535)])]
Flag = Annotated[bool, Rule("true or false", bool)]
Words = Annotated[str, Rule("text of one line, not empty", _WORDS)]
Address = Annotated[
    str, Rule("an IP address or a host name", Annotated[str, Meta(pattern=r"\A[A-Za-z0-9.:_%-]+\Z", max_length=255)])
]
Names = Annotated[tuple[str, ...], Rule("a list of texts", tuple[_WORDS, ...])]
AlertNames = Annotated[
    tuple[str, ...],
    Rule("a list of names out of [alerts.thresholds]", tuple[Watched, ...]),
]
Label = Annotated[str, Rule("a Kubernetes name: lower-case letters, digits and dashes", str, _label)]
Prefix = Annotated[str, Rule('"" or a path that begins with "/", outside ' + ", ".join(_RESERVED), str, _prefix)]
Folder = Annotated[Path, Rule("a folder's path", _WORDS, lambda text: Path(text).expanduser())]
SecretFile = Annotated[str, Rule("the path of a file that holds the secret", _WORDS, _file)]
SecretText = Annotated[
    Secret,
    Rule("text without control characters, not empty", str, lambda t: Secret(_visible(t)), Secrecy.SECRET),
]
SecretNames = Annotated[
    Secret,
    Rule("a list of URLs", tuple[_WORDS, ...], lambda items: Secret("\n".join(items)), Secrecy.SECRET),
]
WebhookUrl = Annotated[
    Secret,
    Rule(
        "a URL with http:// or https://",
        str,
        lambda text: Secret(url_checker(("http", "https"))(text)),
        Secrecy.SECRET,
    ),
]
DatabaseUrl = Annotated[
    Secret, _secret_url("an SQLAlchemy URL such as postgresql+psycopg://host/name", None, needs_host=False)
]
CacheUrl = Annotated[Secret, _secret_url("a URL with redis://, rediss:// or unix://", ("redis", "rediss", "unix"))]
HttpUrl = Annotated[
    str,
    Rule(
        "a URL with http:// or https://",
        str,
        lambda text: HttpAddress(url_checker(("http", "https"))(text)),
        Secrecy.URL,
    ),
]
GelfUrl = Annotated[str, Rule("udp://host:port or tcp://host:port", str, _gelf, Secrecy.URL)]
Store = Annotated[StoreMode, _choice(StoreMode)]
Details = Annotated[HealthDetails, _choice(HealthDetails)]
WhenSharedFails = Annotated[SharedFailure, _choice(SharedFailure)]
Format = Annotated[LogFormat, _choice(LogFormat)]
Level = Annotated[LogLevel, Rule("one of " + ", ".join(LogLevel), str, lambda text: LogLevel(text.upper()))]


def rule_of(hint: Any) -> Rule | None:
    """Return the rule that a field's type carries, also below `| None`; None for a table."""
    for part in (hint, *getattr(hint, "__args__", ())):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Rule):
                return mark
    return None
