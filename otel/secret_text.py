"""Secrets in texts: which names hold one, and what one looks like. Every pass over a text is linear in its length.

Each pattern begins where a run of its own characters begins (a lookbehind) or at a fixed word, and ends at the run's
end, so that no two attempts read the same characters; decisions that need more are made by functions on what was found.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from otel.patterns import lazy

#: What stands where a secret stood.
REDACTED: Final = "[REDACTED]"

#: A name is sensitive when one of its parts is one of these (`db_password`, `X-Auth-Token`, `apiKey`) …
_PARTS: Final = frozenset(
    (
        *("password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "apikey", "apikeys"),
        *("authorization", "cookie", "cookies", "credential", "credentials", "dsn", "jwt", "bearer", "webhook"),
        *("csrf", "xsrf"),
    )
)
#: … or when, written in one word, it holds one of these …
_WORDS: Final = (
    *("password", "passphrase", "apikey", "authorization", "credential", "privatekey", "accesskey", "secretkey"),
    *("clientsecret", "connectionstring", "webhookurl", "routingkey", "sessionid", "signingkey", "encryptionkey"),
    *("authtoken", "accesstoken", "refreshtoken", "idtoken", "securitytoken", "sessiontoken"),
)
#: … or when it is one of these.
_WHOLE: Final = frozenset({"auth", "pass", "pw", "set_cookie"})
#: Not what a secret is but what is said about it: counts and limits (as language models have them), ages, kinds. And
#: `session.id`, which the semantic conventions put on every record of a session.
_HARMLESS: Final = lazy(
    r"tokens$|(?:^|_)(?:has|is|num|max|min|count|total)_|"
    r"_(?:count|counts|used|limit|total|type|types|length|len|age|ttl|expiry|expires|expires_at|expires_in|changed|"
    r"changed_at|updated_at|policy|strength|attempts|name)$|^session\.id$|^session\.previous_id$"
)
_CAMEL: Final = lazy(r"(?<=[a-z0-9])(?=[A-Z])")
_SPLIT: Final = lazy(r"[^a-z0-9]+")
#: Every sensitive name has one of these in it, written in small letters.
_STEMS: Final = (
    *("pass", "pwd", "secret", "token", "key", "authoriz", "cookie", "cred", "dsn", "jwt", "bearer", "webhook"),
    *("connection", "session", "csrf", "xsrf"),
)


@lru_cache(maxsize=4096)
def is_sensitive(key: str) -> bool:
    """Whether a field of this name holds a secret: `password`, `apiKey`, `X-Auth-Token`, not `max_tokens`."""
    if len(key) > 256:
        key = key[-256:]
    if key in ("session.id", "session.previous_id"):
        return False
    name = _SPLIT.sub("_", _CAMEL.sub("_", key).lower()).strip("_")
    if name in _WHOLE:
        return True
    if _HARMLESS.search(name):
        return False
    joined = name.replace("_", "")
    return not _PARTS.isdisjoint(name.split("_")) or any(word in joined for word in _WORDS)


_KEY_BLOCK: Final = lazy(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_AFTER_SCHEME: Final = lazy(r"(?<=://)[^\s\"'<>`]+")
_PORT: Final = lazy(r":\d{1,5}\Z")
_QUERY: Final = lazy(r"(?<=\?)[^\s\"'<>`#?]+")
_HEADER: Final = lazy(r"(?<![A-Za-z0-9])(bearer|basic)(\s{1,4}|%20|\+)([A-Za-z0-9._~+/=\-]{8,})", re.IGNORECASE)
_DOTTED: Final = lazy(r"(?<![A-Za-z0-9_.\-])[A-Za-z0-9_.\-]{16,}")
_JWT: Final = lazy(r"eyJ[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]+){1,4}\.?|eyJ[A-Za-z0-9_\-]{60,}")
_KNOWN_KEY: Final = lazy(
    r"(?<![A-Za-z0-9])(?:A(?:KIA|SIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9\-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_\-]{30,}"
    r"|glpat-[A-Za-z0-9_\-]{15,}|sk-(?:proj-|ant-)?[A-Za-z0-9_\-]{32,}|hf_[A-Za-z0-9]{30,})"
)
_NAMED: Final = lazy(r"(?<![\w.\-])([\w.\-]++)\\{0,4}[\"']?\s{0,4}[=:]")
_VALUE: Final = lazy(r"\s{0,4}(?:\\{0,4}(?:\"[^\"\n]*\"?|'[^'\n]*'?)|([^\s,;&\"']+))")
_REST_OF_LINE: Final = lazy(r"\s{0,4}\\{0,4}[\"']?([^\r\n\"']+)")
#: Headers whose values have several words.
_WHOLE_LINE: Final = ("authorization", "cookie")


def _hide_user_info(found: re.Match[str]) -> str:
    """What follows `://`, without user name and password; a password may hold "@", "/", "?" and "#"."""
    return "://".join(_without_user(part) for part in found[0].split("://"))


def _without_user(part: str) -> str:
    if "@" not in part:
        return part
    authority = re.split(r"[/?#]", part, maxsplit=1)[0]
    if "@" in authority:
        # A password that is not percent-encoded may hold "/" and "@" too: the last "@" counts then.
        cut = part.rfind("@") if ":" in authority.partition("@")[0] else authority.rfind("@")
    elif ":" in authority and not _PORT.search(authority):
        cut = part.rfind("@")
    else:
        return part  # https://example.org/@name
    return f"{REDACTED}{part[cut:]}"


def _hide_query_values(found: re.Match[str]) -> str:
    """`name=value&…` with its names alone; what has no "=" is no query."""
    if "=" not in found[0]:
        return found[0]
    return "".join(map(_hide_query_value, re.split(r"([&;])", found[0])))


def _hide_query_value(pair: str) -> str:
    name, mark, value = pair.partition("=")
    return f"{name}={REDACTED}" if mark and value else pair


def _hide_credentials(found: re.Match[str]) -> str:
    """Prose has "basic authentication" and "bearer tokens"; what follows must look like no word."""
    value = found[3]
    plain = value.rstrip(".").isalpha() and (value.islower() or value.istitle() or value.isupper())
    words = all(each.isalpha() and each.islower() for each in re.split(r"[-/.]", value) if each)
    return found[0] if plain or words else f"{found[1]}{found[2]}{REDACTED}"


def _hide_jwt(found: re.Match[str]) -> str:
    return _JWT.sub(REDACTED, found[0]) if "eyJ" in found[0] else found[0]


def _hide_assignments(text: str) -> str:
    """`name=value`, `name: value`, `"name": "value"` without the values whose names are sensitive."""
    parts: list[str] = []
    position = 0
    while (found := _NAMED.search(text, position)) is not None:
        end = found.end()
        if is_sensitive(found[1]):
            whole_line = any(word in found[1].lower() for word in _WHOLE_LINE)
            value = (_REST_OF_LINE if whole_line else _VALUE).match(text, end)
            if value is not None and not value[0].lstrip(" \\\"'").startswith(REDACTED):
                closers = "" if whole_line else _closers(value[1])
                parts += (text[position:end], value[0][: _leading(value[0])], REDACTED, closers)
                position = value.end()
                continue
        parts.append(text[position:end])
        position = end
    parts.append(text[position:])
    return "".join(parts)


def _leading(value: str) -> int:
    return len(value) - len(value.lstrip(" \t"))


def _closers(bare: str | None) -> str:
    """The brackets that close something around a bare value."""
    return bare[len(bare.rstrip(")]}>")) :] if bare else ""


def maybe_secret(text: str) -> bool:
    """Whether a text could hold what the patterns look for; False for most texts, at a tenth of the cost."""
    return (("=" in text or ":" in text) and maybe_named(text)) or maybe_token(text)


def maybe_token(text: str) -> bool:
    """Whether a text could hold a secret that is known by its own look, without a name before it.

    A row of `in`: each is one pass of the C library, and those for one character are all but free. One regular
    expression for all of it takes five times as long.
    """
    return (
        ("J" in text and "eyJ" in text)
        or ("-" in text and ("-----" in text or "xox" in text or "sk-" in text or "glpat-" in text))
        or ("_" in text and ("k_" in text or "hf_" in text or "pat_" in text or "gh" in text))
        or (" " in text and ("earer" in text or "asic " in text or "asic%" in text))
        or ("A" in text and ("AKIA" in text or "ASIA" in text or "AIza" in text or "EARER" in text or "ASIC " in text))
    )


def maybe_named(text: str) -> bool:
    """Whether a text that has "=" or ":" could hold a URL, a query, or a value of a sensitive name."""
    if "://" in text or "?" in text:
        return True
    small = text.lower()
    return any(stem in small for stem in _STEMS)


def redact_patterns(text: str) -> str:
    """`text` without keys, URL user-info and query values, headers, JWTs, private keys, values of sensitive names."""
    if "-----BEGIN" in text:
        text = _KEY_BLOCK.sub(REDACTED, text)
    if "://" in text:
        text = _AFTER_SCHEME.sub(_hide_user_info, text)
    if "?" in text:
        text = _QUERY.sub(_hide_query_values, text)
    text = _HEADER.sub(_hide_credentials, text)
    if "eyJ" in text:
        text = _DOTTED.sub(_hide_jwt, text)
    text = _KNOWN_KEY.sub(REDACTED, text)
    return _hide_assignments(text) if "=" in text or ":" in text else text


def redact_url(url: str) -> str:
    """`url` with scheme, host, port, path and query names; user-info and query values are replaced."""
    return _QUERY.sub(_hide_query_values, _AFTER_SCHEME.sub(_hide_user_info, url))
