"""One chain that everything passes before it leaves the process: secrets are replaced, in linear time.

Texts: `redact_text`, `redact_url`. Fields: `redact_fields`, `redact_value`; what comes out is plain data (None, bool,
int, float, str, list, dict), bounded in depth, number and length, whatever the values do when they are asked.
Values that are known to be secret (`remember_secret`) are replaced wherever they turn up.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from otel.plain import Budget, open_up, text_of, tidy
from otel.secret_text import REDACTED, is_sensitive, maybe_secret, redact_patterns, redact_url

__all__ = [
    "MAX_DEPTH",
    "MAX_FIELDS",
    "MAX_TEXT",
    "REDACTED",
    "clean_text",
    "forget_secrets",
    "is_sensitive",
    "known_secrets",
    "looks_clean",
    "redact_fields",
    "redact_text",
    "redact_url",
    "redact_value",
    "remember_secret",
    "remember_secrets",
]

#: Deepest nesting that is looked into; what lies deeper is replaced by its type's name.
MAX_DEPTH: Final = 8
#: Characters of one text; a longer one is cut, and says so.
MAX_TEXT: Final = 8192
#: Fields of one record (the default of OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT); how many were left out is a field too.
MAX_FIELDS: Final = 128
#: Secrets shorter than this turn up in ordinary texts and are left to the patterns and names.
MIN_SECRET: Final = 6
#: Values remembered at once; the oldest goes (secrets rotate).
MAX_SECRETS: Final = 128
#: Read beyond `MAX_TEXT`, so that a secret at the cut is recognised.
_SLACK: Final = 1024
_INT64: Final = range(-(2**63), 2**63)

_lock = threading.Lock()
_remembered: dict[str, None] = {}
#: What is searched for: (text, whether it is a plain word, which is replaced only where it stands alone).
_known: tuple[tuple[str, bool], ...] = ()


def remember_secret(value: str) -> bool:
    """Replace this very value wherever it turns up, also in its percent-encoded form; False when it is too short.

    A plain word of fewer than twelve letters ("postgres") is replaced only where it stands alone.
    """
    if len(value) < MIN_SECRET:
        return False
    if value not in _remembered:
        remember_secrets(value)
    return True


def remember_secrets(*values: str) -> None:
    """Do the same with several; too short ones are passed over, of too many the one said longest ago is forgotten."""
    global _known  # noqa: PLW0603 - readers take the tuple as it is, without the lock
    with _lock:
        for value in values:
            if value in _remembered:
                _remembered[value] = _remembered.pop(value)
        new = [value for value in values if len(value) >= MIN_SECRET and value not in _remembered]
        if not new:
            return
        _remembered.update(dict.fromkeys(new))
        while len(_remembered) > MAX_SECRETS:
            del _remembered[next(iter(_remembered))]
        forms = {form for each in _remembered for form in (each, quote(each, safe=""), quote(each))}
        longest_first = sorted(forms, key=len, reverse=True)
        _known = tuple((form, len(form) < 12 and form.isalpha()) for form in longest_first)


def forget_secrets() -> None:
    """Remember no values any more."""
    global _known  # noqa: PLW0603
    with _lock:
        _remembered.clear()
        _known = ()


def known_secrets() -> tuple[tuple[str, bool], ...]:
    """The texts that are replaced wherever they turn up, each with whether it is a plain word."""
    return _known


def looks_clean(text: str) -> bool:
    """Whether a text surely holds nothing that `redact_text` would replace; cheap, and True for most texts."""
    for secret, _ in _known:
        if secret in text:
            return False
    return not maybe_secret(text)


def redact_text(text: str) -> str:
    """`text` with every secret replaced: keys, URL user-info and query values, headers, JWTs, private keys."""
    for secret, is_word in _known:
        if secret in text:
            pattern = rf"(?<!\w){secret}(?!\w)" if is_word else None
            text = re.sub(pattern, REDACTED, text) if pattern else text.replace(secret, REDACTED)
    return redact_patterns(text) if maybe_secret(text) else text


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """`text` redacted, without lone surrogates, and cut at `limit` characters."""
    short = redact_text(tidy(text[: limit + _SLACK]))
    if len(text) <= limit + _SLACK and len(short) <= limit:
        return short
    return f"{short[:limit]}… ({len(text)} characters)"


def redact_value(key: str, value: Any, depth: int = 0, budget: Budget | None = None) -> Any:
    """A field's value as it may leave: replaced where its name is sensitive, plain data of bounded size elsewhere."""
    if value is None or value is True or value is False:
        return value
    if key and is_sensitive(key):
        return REDACTED
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is int:
        return value if value in _INT64 else clean_text(text_of(value))
    if kind is float:
        return value if value - value == 0.0 else str(value)  # JSON has no NaN and no infinity
    return _redact_other(value, depth, budget or Budget())


def _redact_other(value: Any, depth: int, budget: Budget) -> Any:
    opened = open_up(value, budget)
    if isinstance(opened, (str, int, float)):
        return redact_value("", opened)
    if depth >= MAX_DEPTH or not budget.enter(value):
        return f"<{type(value).__name__}>"
    try:
        if isinstance(opened, Mapping):
            return _redact_mapping(opened, depth + 1, budget)
        items = [redact_value("", each, depth + 1, budget) for each in opened[: budget.left()]]
        budget.spend(len(items))
        return items if len(items) == len(opened) else [*items, f"… ({len(opened)} items)"]
    finally:
        budget.leave(value)


def _redact_mapping(fields: Mapping[Any, Any], depth: int, budget: Budget, most: int | None = None) -> dict[str, Any]:
    room = budget.left() if most is None else most
    budget.spend(min(room, len(fields)))
    found: dict[str, Any] = {}
    for number, (key, value) in enumerate(fields.items()):
        if number >= room:
            found["fields_left_out"] = len(fields) - number
            break
        name = key if type(key) is str else text_of(key, budget)
        found[clean_text(name, 256)] = redact_value(name, value, depth, budget)
    return found


def redact_fields(fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Every field as it may leave; at most `MAX_FIELDS`, and then `fields_left_out` says how many are missing."""
    return _redact_mapping(fields, depth, Budget(), MAX_FIELDS)
