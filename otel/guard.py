"""One chain that everything passes before it leaves the process: secrets are replaced, in linear time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What stands where a secret stood.
REDACTED = "[REDACTED]"
#: Deepest nesting that is looked into; what lies deeper is replaced by its type's name.
MAX_DEPTH = 8

_WORDS = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "dsn",
    "privatekey",
    "accesskey",
    "secretkey",
    "clientsecret",
    "connectionstring",
    "webhook",
    "webhookurl",
    "routingkey",
    "sessionid",
    "jwt",
    "bearer",
]
#: Names that hold a sensitive word and are none: counts and limits of tokens, as language models have them.
_HARMLESS = re.compile(
    r"(^|_)(max|min|num|count|total|prompt|completion|input|output)_?tokens?$|tokens?_(count|used|limit|total|type)$|tokens$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SPLIT = re.compile(r"[^a-z0-9]+")

# Each pattern has one bounded or possessive-like run between fixed words, so that none can go back and forth.
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.\-]{0,30}://)([^\s/?#\"'<>@\[\]]{0,2048})@")
_QUERY = re.compile(r"([?&;][^\s=&;#\"'<>?]{1,256}=)([^\s&;#\"'<>]+)")
_HEADER = re.compile(r"\b(bearer|basic|digest|negotiate)\s+[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*)?")
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_KNOWN_KEY = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abeprs]-[A-Za-z0-9\-]{10,}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_\-]{30,}|glpat-[A-Za-z0-9_\-]{15,})"
)
_ASSIGNMENT = re.compile(
    r"((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|cookie"
    r"|authorization|dsn)[\"']?\s{0,4}[=:]\s{0,4})(\"[^\"\n]{0,4096}\"|'[^'\n]{0,4096}'|[^\s,;&\"'\[\]{}()]+)",
    re.IGNORECASE,
)
#: A text without any of these can't hold what the patterns look for.
_TRIGGER = re.compile(
    r"[=:]|eyJ|-----|AKIA|ASIA|gh[pousr]_|github_pat_|xox|sk_|AIza|glpat-|bearer|basic|digest|negotiate", re.IGNORECASE
)


def redact_text(text: str) -> str:
    """`text` with every secret replaced: keys, URL user-info and query values, headers, JWTs, private keys."""
    if not _TRIGGER.search(text):
        return text
    if "-----" in text:
        text = _KEY_BLOCK.sub(REDACTED, text)
    if "://" in text:
        text = _URL.sub(rf"\1{REDACTED}@", text)
        text = _QUERY.sub(rf"\1{REDACTED}", text)
    text = _HEADER.sub(rf"\1 {REDACTED}", text)
    text = _JWT.sub(REDACTED, text)
    text = _KNOWN_KEY.sub(REDACTED, text)
    return _ASSIGNMENT.sub(rf"\1{REDACTED}", text)


def redact_url(url: str) -> str:
    """`url` with scheme, host, port, path and query names; user-info and query values are replaced."""
    return _QUERY.sub(rf"\1{REDACTED}", _URL.sub(rf"\1{REDACTED}@", url))


def is_sensitive(key: str) -> bool:
    """Whether a field of this name holds a secret: `password`, `apiKey`, `X-Auth-Token`, not `max_tokens`."""
    name = _SPLIT.sub("_", _CAMEL.sub("_", key).lower()).strip("_")
    if _HARMLESS.search(name):
        return False
    parts = name.split("_")
    joined = name.replace("_", "")
    return any(word in parts for word in _WORDS) or any(word in joined for word in _WORDS if len(word) > 6)


def redact_value(key: str, value: Any, depth: int = 0) -> Any:
    """A field's value as it may leave: replaced where its name is sensitive, looked into where it is nested."""
    if value is not None and not isinstance(value, bool) and is_sensitive(key):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return redact_fields(value, depth + 1) if depth < MAX_DEPTH else type(value).__name__
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_value("", each, depth + 1) for each in value] if depth < MAX_DEPTH else type(value).__name__
    return value


def redact_fields(fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Every field as it may leave."""
    return {str(key): redact_value(str(key), value, depth) for key, value in fields.items()}
