"""Levels: their names, logging's numbers and the severities of the OpenTelemetry log data model."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec


class LogLevel(StrEnum):
    """Severity of a log line."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    # The name is the value: a string's own hash, written in C, finds it in a table three times as fast.
    __hash__ = str.__hash__


class Level(msgspec.Struct, frozen=True, eq=False):
    """One level: `number` is logging's, `severity` the log data model's (1 to 24), `syslog` GELF's (0 to 7)."""

    name: str
    number: int
    severity: int
    syslog: int


def _severity(number: int) -> int:
    """The log data model has four steps within each of logging's tens (10 DEBUG → 5, 20 INFO → 9, … 50 → 21)."""
    return min(24, 1 + 4 * (max(number, 0) // 10) + min(max(number, 0) % 10, 3)) if number < 60 else 24


def _syslog(number: int) -> int:
    """RFC 5424's severities: 7 debug, 6 informational, 4 warning, 3 error, 2 critical."""
    return next((value for limit, value in ((50, 2), (40, 3), (30, 4), (20, 6)) if number >= limit), 7)


@lru_cache(maxsize=256)
def level_of(number: int, name: str) -> Level:
    """The level of a logging record, also of one that a library has invented."""
    return Level(name, number, _severity(number), _syslog(number))


#: Level by its name in large or small letters, or logging's number.
NAMED: dict[Any, Level] = {}
for _each in LogLevel:
    _number = logging.getLevelNamesMapping()[_each.value]
    NAMED |= dict.fromkeys((_each, _each.value, _each.value.lower(), _number), level_of(_number, _each.value))
NAMED |= {"WARN": NAMED["WARNING"], "warn": NAMED["WARNING"], "FATAL": NAMED["CRITICAL"]}


def find_level(level: Any) -> Level | None:
    """The level of that name or number, in any case; None when there is none."""
    try:
        return NAMED.get(level) or NAMED.get(str(level).upper())
    except Exception:  # what can't be hashed or has no text is no level
        return None
