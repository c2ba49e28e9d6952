"""Log records by OpenTelemetry's own API are facts like all others, whatever they hold."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber

from otel.guard import MAX_TEXT
from otel.log_bridge import FactLoggerProvider
from otel.records import LogFact


class Mute(Exception):
    """An error, and a body, that can't be printed."""

    def __str__(self) -> str:
        raise RuntimeError


def emitted(**fields: Any) -> LogFact:
    """What becomes of one record."""
    found: list[LogFact] = []
    FactLoggerProvider(found.append).get_logger("mine").emit(LogRecord(**fields))
    (fact,) = found
    return fact


def test_an_exception_has_the_names_of_the_conventions_and_its_stack() -> None:
    """Type with its module, message and stack, redacted; what the caller says of it counts before."""
    try:
        raise pytest.UsageError("password=hunter22")
    except pytest.UsageError as error:
        fact = emitted(body="failed", exception=error, severity_number=SeverityNumber.ERROR)
        named = emitted(exception=error, attributes={"exception.type": "theirs"})
    assert fact.attributes["exception.type"] == "pytest.UsageError"
    assert fact.attributes["exception.message"] == "password=[REDACTED]"
    assert "test_log_bridge.py" in fact.attributes["exception.stacktrace"]
    assert "hunter22" not in fact.attributes["exception.stacktrace"]
    assert named.attributes["exception.type"] == "theirs"


@pytest.mark.parametrize("body", [Mute(), {"a": Mute()}, "x" * 100_000, "\ud800", b"\xff", None])
def test_no_body_reaches_the_caller_as_an_error(body: Any) -> None:
    """It becomes a text of bounded length."""
    fact = emitted(body=body, exception=Mute(), attributes={"value": Mute()})
    assert len(fact.body) < MAX_TEXT + 100
    fact.body.encode()


def test_a_sink_that_fails_is_not_the_caller_s_concern() -> None:
    """Telemetry never breaks its host."""

    def fail(fact: LogFact) -> None:
        raise OSError

    FactLoggerProvider(fail).get_logger("mine").emit(LogRecord(body="x"))
