"""What a person types into a search box, as conditions; whatever it is, it never is syntax of the full-text index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from otel.store.ids import prefix_ranges
from otel.store.model import LogQuery

#: Longest query, and most words of one.
MAX_QUERY: Final = 1024
MAX_WORDS: Final = 24

#: Name of a level → the least severity number (log data model).
LEVELS: Final = {
    "trace": 1,
    "debug": 5,
    "info": 9,
    "warn": 13,
    "warning": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}
_PART: Final = re.compile(
    r'(?P<no>-)?(?:(?P<field>[A-Za-z_][\w.\-]{0,127}):(?!//))?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))', re.ASCII
)
#: What the tokenizer makes words of; all else parts them.
_TOKEN: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a log record has to fulfil.

    `match` is a query of the full-text index, "" for none, `unwanted` one of what must not be there where `match` does
    not say so; `fields` are attributes with their text; `impossible` is whether nothing can fulfil it (a trace id that
    is none).
    """

    match: str = ""
    unwanted: str = ""
    trace: tuple[int, int, int, int] | None = None
    min_severity: int = 0
    logger: str = ""
    event: str = ""
    span_id: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    impossible: bool = False


def conditions(query: LogQuery) -> Conditions:
    """Read a query, typed text included."""
    words: list[str] = []
    unwanted: list[str] = []
    given: dict[str, str] = {}
    fields = list(query.fields)
    severity = query.min_severity
    for part in list(_PART.finditer(query.text[:MAX_QUERY]))[:MAX_WORDS]:
        name, value = part["field"], part["phrase"] if part["phrase"] is not None else part["word"] or ""
        if name is None:
            (unwanted if part["no"] else words).extend(_terms(value, phrase=part["phrase"] is not None))
        elif name == "level" and value.lower() in LEVELS:
            severity = max(severity, LEVELS[value.lower()])
        elif name in ("trace_id", "span_id", "logger", "event"):
            given[name] = value
        elif value:
            fields.append((name, value))
            words += _terms(value, phrase=True)
    for field_value in query.fields:
        words += _terms(field_value[1], phrase=True)
    event = query.event or given.get("event", "")
    if event:
        words += _terms(event, phrase=True)
    trace_id = query.trace_id or given.get("trace_id", "")
    ranges = prefix_ranges(trace_id.strip().lower()) if trace_id else None
    match = " AND ".join(words)
    if unwanted and words:
        match = f"({match}) NOT ({' OR '.join(unwanted)})"
    return Conditions(
        match,
        "" if words else " OR ".join(unwanted),
        ranges,
        severity,
        query.logger or given.get("logger", ""),
        event,
        (query.span_id or given.get("span_id", "")).lower(),
        tuple(fields),
        impossible=bool(trace_id) and ranges is None,
    )


def _terms(value: str, *, phrase: bool) -> list[str]:
    """Terms of the full-text index: quoted, so that nothing in them is its syntax."""
    tokens = _TOKEN.findall(value)
    if not tokens:
        return []
    star = "*" if value.endswith("*") and not phrase else ""
    return [f'"{" ".join(tokens)}"{star}']


def field_matches(attributes: dict[str, Any], fields: tuple[tuple[str, str], ...]) -> bool:
    """Whether attributes hold all of these values; a text holds what is part of it, without regard to case."""
    for name, wanted in fields:
        value = attributes.get(name)
        if value is None:
            return False
        found = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if wanted.rstrip("*").lower() not in found.lower():
            return False
    return True
