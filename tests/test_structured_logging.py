"""`StructuredLogger`: one line and one record for OTLP a call, correlated and redacted, whatever it is given."""

from __future__ import annotations

import io
import json
import logging
import random
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel.guard import forget_secrets, remember_secret
from otel.logsink import set_log_sink
from otel.records import LogFact
from otel.trace_context import suppressed
from streamlit_extension.logs.business import BusinessEvents
from streamlit_extension.logs.handler import LineHandler, StreamOutlet
from streamlit_extension.logs.owasp import VOCABULARY
from streamlit_extension.utils.structured_logging import LogFormat, LogLevel, StructuredLogger, configure_logging

TRACER = TracerProvider().get_tracer("test")
ORDER = ["timestamp", "level", "logger", "message", "event", "trace_id", "span_id", "service"]
FORGING = [
    *(
        "\r\n",
        "\n",
        "\r",
        "\x85",
        "\u2028",
        "\u2029",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x00",
        "\x1b[31m",
        "\x1b]0;x\x07",
        "\x7f",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u200f",
        "\u061c",
        "\ud800",
        "\udfff",
        '"',
        '","level":"ERROR',
        "\\",
        "}",
        "{",
        "\t",
        "=",
        "💥",
    ),
    *('{"timestamp":"2000-01-01T00:00:00Z","level":"INFO"}', "trace_id=00000000000000000000000000000000 ", "%s%n", "é"),
]


def detached(name: str = "app", level: int = logging.DEBUG) -> logging.Logger:
    """A logger without a parent: the test runner's handlers would send every record the long way."""
    return logging.Logger(name, level)  # noqa: LOG001


class Log:
    """A logger, the lines that it wrote and the records that it handed to the sink."""

    def __init__(self, log_format: LogFormat = LogFormat.JSON, logger: logging.Logger | None = None) -> None:
        self.stream = io.StringIO()
        self.handler = LineHandler(log_format, "shop", StreamOutlet(self.stream))
        standard = logger or detached()
        self.logger = StructuredLogger(logger=standard, handler=self.handler)
        self.facts: list[LogFact] = []
        set_log_sink(self.facts.append)

    @property
    def text(self) -> str:
        """All that was written."""
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was written, parsed; nothing but a line feed parts it into lines."""
        assert self.text.splitlines() == self.text.split("\n")[:-1]
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        """The only line."""
        (line,) = self.lines
        return line


@pytest.fixture(autouse=True)
def _no_sink_is_left() -> Iterator[None]:
    yield
    set_log_sink(None)
    forget_secrets()


@pytest.fixture(params=["short", "through logging"])
def log(request: pytest.FixtureRequest) -> Log:
    """A log by the short way, and one whose logger has a handler of the user's beside ours."""
    if request.param == "short":
        return Log()
    standard = detached()
    standard.addHandler(logging.NullHandler())
    return Log(logger=standard)


def test_structured_logging(log: Log) -> None:
    """A line is JSON with its keys in their order, the time in UTC, and the fields behind; a second one is the same."""
    for number in range(2):  # the first call learns the names, the second goes the short way
        log.logger.log_with_correlation(LogLevel.INFO, "client saved", client_id=number, ok=True, ratio=0.5, note=None)
    for number, line in enumerate(log.lines):
        names = [name for name in ORDER if name != "event"]
        assert list(line) == [*names, "client_id", "ok", "ratio", "note"]
        assert (line["level"], line["logger"], line["message"], line["service"]) == (
            "INFO",
            "app",
            "client saved",
            "shop",
        )
        assert (line["client_id"], line["ok"], line["ratio"], line["note"]) == (number, True, 0.5, None)
        assert line["timestamp"].endswith("Z")
        age = datetime.now().astimezone() - datetime.fromisoformat(line["timestamp"])
        assert timedelta(0) <= age < timedelta(minutes=1)


def test_a_record_for_otlp_has_what_the_line_has(log: Log) -> None:
    """Each call hands one fact to the sink: severity, body, attributes, event name and ids of its line."""
    for _ in range(2):
        log.logger.log_business_event("client.created", plan="free")
    for line, fact in zip(log.lines, log.facts, strict=True):
        assert (fact.severity_number, fact.severity_text, fact.scope) == (9, "INFO", "app")
        assert (fact.body, fact.event_name) == ("client.created", "client.created")
        assert fact.attributes["plan"] == "free"
        assert (f"{fact.trace_id:032x}", f"{fact.span_id:016x}") == (line["trace_id"], line["span_id"])


def test_correlation_id_logging(log: Log) -> None:
    """Inside a span a record has its ids; outside, each has a correlation of its own, or that which was opened."""
    with TRACER.start_as_current_span("run") as span:
        given = [log.logger.log_with_correlation("INFO", "inside") for _ in range(2)]
    context = span.get_span_context()
    assert set(given) == {f"{context.trace_id:032x}"}
    assert {(line["trace_id"], line["span_id"]) for line in log.lines} == {(given[0], f"{context.span_id:016x}")}
    assert {fact.trace_flags for fact in log.facts} == {int(context.trace_flags)}
    alone = [log.logger.log_with_correlation("INFO", "outside") for _ in range(50)]
    assert len(set(alone)) == 50 and all(re.fullmatch("[0-9a-f]{32}", each) for each in alone)
    with log.logger.correlation() as together:
        assert {log.logger.log_with_correlation("INFO", "outside") for _ in range(3)} == {together}
        with TRACER.start_as_current_span("run"):
            assert log.logger.log_with_correlation("INFO", "inside") != together
    assert log.logger.log_with_correlation("INFO", "outside") != together


def test_ids_do_not_repeat_when_a_script_seeds_the_generator() -> None:
    """A script that seeds `random` for its figures gets other ids in its next run."""
    log = Log()
    found = set()
    for _ in range(3):
        random.seed(42)
        found.add(log.logger.log_with_correlation("INFO", "x"))
    assert len(found) == 3


@pytest.mark.parametrize(("event", "level"), VOCABULARY.items())
def test_security_event_logging(log: Log, event: str, level: str) -> None:
    """Every name of the OWASP vocabulary is written at the level given there, its secrets replaced."""
    log.logger.log_security_event(event, user="ada", password="hunter2", attempts=3)
    line = log.line
    assert (line["event"], line["level"], line["user"], line["attempts"]) == (event, level, "ada", 3)
    assert "hunter2" not in log.text
    assert log.facts[0].event_name == event and "hunter2" not in repr(log.facts)


def test_a_security_event_with_details_has_a_static_name(log: Log) -> None:
    """`authz_fail:ada,reports` is the event `authz_fail`; what follows stays in the message."""
    log.logger.log_security_event("authz_fail:ada,reports")
    assert (log.line["event"], log.line["level"], log.line["message"]) == (
        "authz_fail",
        "CRITICAL",
        "authz_fail:ada,reports",
    )


def test_an_unknown_security_event_is_written_and_told_once(log: Log) -> None:
    """A slip in a name costs no audit line: it is a WARNING, and the nearest name is told once."""
    for _ in range(3):
        log.logger.log_security_event("authn_login_fial", user="ada")
    events = [line["event"] for line in log.lines]
    assert events == ["security_event.unknown", *["authn_login_fial"] * 3]
    assert "did you mean authn_login_fail?" in log.lines[0]["message"]
    assert {line["level"] for line in log.lines} == {"WARNING"}


def test_performance_logging(log: Log) -> None:
    """A duration is a number in milliseconds; one that is none is written too."""
    log.logger.log_performance("load clients", 12.5, rows=3)
    log.logger.log_performance("load clients", "soon")  # type: ignore[arg-type]
    first, second = log.lines
    assert (first["message"], first["event"]) == ("load clients took 12.5 ms", "performance")
    assert (first["operation"], first["duration_ms"], first["rows"]) == ("load clients", 12.5, 3)
    assert second["duration_ms"] == "soon"


def test_business_events_are_counted_with_a_bounded_number_of_names() -> None:
    """Each event is a line and one in `business.events`; beyond the bound names are counted as `other`, told once."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    log = Log()
    log.logger._business = BusinessEvents(meter=meter, max_names=2)
    for name in ("client.created", "task.done", "client.created", "a", "b"):
        log.logger.log_business_event(name, plan="free")
    data = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]
    metric = data["resource_metrics"][0]["scope_metrics"][0]["metrics"][0]
    points = {each["attributes"]["business.event.name"]: each["value"] for each in metric["data"]["data_points"]}
    assert (metric["name"], metric["unit"]) == ("business.events", "{event}")
    assert points == {"client.created": 2, "task.done": 1, "other": 2}
    assert [line["event"] for line in log.lines].count("business_event.too_many") == 1
    assert [line["event"] for line in log.lines][-1] == "b"


class Nasty:
    """Raises whatever it is asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Endless:
    """Calls itself."""

    def __str__(self) -> str:
        return f"{self}"


def values() -> dict[str, Any]:
    """Values that no encoder takes."""
    cyclic: list[Any] = []
    cyclic.append({"again": cyclic})
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    return {
        "raises": Nasty(),
        "endless": Endless(),
        "cyclic": cyclic,
        "deep": deep,
        "nan": float("nan"),
        "infinite": [float("inf"), -float("inf")],
        "bytes": b"\xff\x00\n",
        "surrogate": "a\ud800b",
        "huge": "x" * 2**20,
        "number": 2**80,
        "set": {1, 2},
        "type": int,
        "keys": {None: 1, (1, 2): 2, Nasty(): 3, "\n": 4},
        "many": list(range(100_000)),
        "when": datetime(2025, 1, 15),
        "message": "field of that name",
    }


def test_whatever_a_value_is_it_is_one_line(log: Log) -> None:
    """What doesn't serialise, raises, recurses, is cyclic, huge or not finite is one bounded line and one record."""
    fields = values()
    fields["field_named_message"] = fields.pop("message")
    log.logger.log_with_correlation("INFO", "odd", **fields)
    line = log.line
    assert line["raises"] == "<Nasty>" and line["endless"] == "<Endless>"
    assert line["nan"] == "nan" and line["infinite"] == ["inf", "-inf"]
    assert line["surrogate"] == "a\\ud800b" and line["number"] == str(2**80)
    assert line["huge"].endswith("(1048576 characters)") and len(log.text) < 100_000
    assert len(log.facts) == 1 and len(repr(log.facts)) < 200_000


def test_ten_thousand_fields_are_one_bounded_line(log: Log) -> None:
    """What is beyond the bound is left out, and how much is said."""
    for _ in range(2):  # also once all names are known
        log.logger.log_with_correlation("INFO", "many", **{f"key{number}": number for number in range(10_000)})
    for line in log.lines:
        assert line["fields_left_out"] == 10_000 - 128 and line["key127"] == 127


def test_a_field_never_takes_the_place_of_a_lines_own_key(log: Log) -> None:
    """A field called like a key of the line is written as `field.NAME`."""
    log.logger.log_with_correlation("INFO", "x", timestamp="t", trace_id="forged", service="other", name="n", args=1)
    line = log.line
    assert (line["field.timestamp"], line["field.trace_id"], line["field.service"]) == ("t", "forged", "other")
    assert line["service"] == "shop" and line["trace_id"] != "forged"
    assert (line["name"], line["args"]) == ("n", 1)


def test_exceptions_have_their_causes_and_groups(log: Log) -> None:
    """An exception is three attributes of the semantic conventions; its text is redacted, its story is whole."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ExceptionGroup("several\nthings", [ValueError("password=hunter2"), OSError("disk")]) from inner
    except ExceptionGroup as error:
        log.logger.log_with_correlation("ERROR", "failed", exc_info=error)
        log.logger.log_with_correlation("ERROR", "failed", exc_info=True)
    for line in log.lines:
        assert line["exception.type"] == "ExceptionGroup" and line["exception.message"].startswith("several\nthings")
        for part in ("KeyError: 'inner'", "direct cause", "OSError: disk", "ValueError: password="):
            assert part in line["exception.stacktrace"]
    assert "hunter2" not in log.text + repr(log.facts)
    assert "exc_info" not in log.lines[0]


def test_an_exception_whose_text_fails_is_told(log: Log) -> None:
    """An exception that can't say what it is leaves its type."""

    class Mute(Exception):
        __str__ = Nasty.__str__

    log.logger.log_with_correlation("ERROR", "failed", exc_info=Mute())
    assert log.line["exception.type"].endswith("Mute") and log.line["exception.message"] == "<Mute>"


def test_secrets_are_replaced_by_the_short_way_too(log: Log) -> None:
    """Names, patterns and known values are found in messages and fields, also once all names are known."""
    remember_secret("correct horse battery")
    call = log.logger.log_with_correlation
    for _ in range(2):
        call("INFO", "plain", note="plain", other="x")
        call("INFO", "got token=hunter2", note="plain")
        call("INFO", "plain", note="postgresql://u:hunter2@h/db")
        call("INFO", "plain", note="eyJhbGciOiJI.eyJzdWIhunter2.c2ln")
        call("INFO", "plain", note="Bearer abc-hunter2-123")
        call("INFO", "plain", note="correct horse battery")
        call("INFO", "correct horse battery", note="plain")
        call("INFO", "plain", api_key="hunter2", nested=[{"password": "hunter2"}])
    whole = log.text + repr(log.facts)
    assert "hunter2" not in whole and "correct horse" not in whole
    assert len(log.lines) == len(log.facts) == 16
    remember_secret("plain but known now")
    remember_secret("note that is plain")
    call("INFO", "x", note="note that is plain")
    assert log.lines[-1]["note"] == "[REDACTED]"


def test_a_text_that_was_clean_is_searched_again_when_a_secret_is_learnt() -> None:
    """What was found clean before a secret was known is not taken on trust afterwards."""
    log = Log()
    for _ in range(3):
        log.logger.log_with_correlation("INFO", "zebra-crossing", where="zebra-crossing")
    remember_secret("zebra-crossing")
    log.logger.log_with_correlation("INFO", "zebra-crossing", where="zebra-crossing")
    assert (log.lines[-1]["message"], log.lines[-1]["where"]) == ("[REDACTED]", "[REDACTED]")


def test_nothing_that_a_log_call_is_given_raises(log: Log) -> None:
    """Levels, messages, events and names of any kind are written as far as they can be."""
    log.logger.log_with_correlation("LOUD", "x")
    log.logger.log_with_correlation(Nasty(), Nasty())  # type: ignore[arg-type]
    log.logger.log_with_correlation(logging.ERROR, None)  # type: ignore[arg-type]
    log.logger.log_security_event(Nasty())  # type: ignore[arg-type]
    log.logger.log_business_event(Nasty())  # type: ignore[arg-type]
    told = [line for line in log.lines if line.get("event") == "log.unknown_level"]
    assert "'LOUD' is no level; allowed: DEBUG, INFO" in told[0]["message"]
    assert [line["level"] for line in log.lines if line["message"] in ("x", "None")] == ["WARNING", "ERROR"]
    assert not [line for line in log.lines if line.get("event") == "telemetry.internal_error"]


def test_a_stream_and_a_sink_that_fail_never_reach_the_caller() -> None:
    """A closed stream is counted, and the record still goes to the sink; a sink that raises costs no line."""
    log = Log()
    log.stream.close()
    log.logger.log_with_correlation("INFO", "x", a=1)
    log.logger.log_with_correlation("INFO", "x", a=1)
    assert log.handler.lost == 2 and len(log.facts) == 2
    other = Log()

    def fail(fact: LogFact) -> None:
        raise RuntimeError

    set_log_sink(fail)
    for _ in range(2):
        other.logger.log_with_correlation("INFO", "x", a=1)
    assert len(other.lines) == 2


def test_records_of_suppressed_code_and_of_the_export_path_are_lines_alone() -> None:
    """What the exporter says about itself must not feed its own queue."""
    log = Log()
    with suppressed():
        for _ in range(2):
            log.logger.log_with_correlation("INFO", "quiet", a=1)
    for name in ("opentelemetry.sdk", "otel.export.http", "otel.spool", "urllib3.connectionpool", "grpc"):
        StructuredLogger(logger=detached(name), handler=log.handler).log_with_correlation("INFO", "x")
    assert len(log.lines) == 7 and log.facts == []
    log.logger.log_with_correlation("INFO", "heard", a=1)
    assert len(log.facts) == 1


def test_other_handlers_get_the_record_too_and_filters_decide() -> None:
    """A handler of the user's gets each record once, with the fields and where the call stands; a filter drops both."""
    standard = detached()
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    standard.addHandler(Keep())
    log = Log(logger=standard)
    standard.addHandler(log.handler)
    log.logger.log_with_correlation("INFO", "x", plan="free", name="ada")
    assert len(log.lines) == len(records) == len(log.facts) == 1
    (record,) = records
    assert record.__dict__["plan"] == "free" and record.name == "app" and log.line["name"] == "ada"
    assert (record.filename, record.funcName) == (
        "test_structured_logging.py",
        "test_other_handlers_get_the_record_too_and_filters_decide",
    )
    standard.addFilter(lambda record: "drop" not in record.getMessage())
    log.logger.log_with_correlation("INFO", "drop this")
    assert len(log.lines) == len(records) == 1


def test_levels_decide_what_is_written() -> None:
    """The standard logger's level holds, and `logging.disable`; without any configuration it is INFO."""
    log = Log(logger=detached(level=logging.WARNING))
    stream = io.StringIO()
    alone = StructuredLogger(name="tests.alone", stream=stream)
    log.logger._threshold = 100
    for each in (log.logger, alone):
        each.log_with_correlation("DEBUG", "low")
        each.log_with_correlation("INFO", "middle")
        each.log_with_correlation("WARNING", "high")
    assert [line["message"] for line in log.lines] == ["high"]
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["middle", "high"]
    logging.disable(logging.CRITICAL)
    try:
        alone.log_with_correlation("ERROR", "disabled")
    finally:
        logging.disable(logging.NOTSET)
    assert "disabled" not in stream.getvalue()


def test_it_works_without_any_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """`StructuredLogger()` writes JSON to standard output as it is at the moment."""
    StructuredLogger().log_with_correlation(LogLevel.INFO, "hello", a=1)
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


def parse_json(line: str) -> str:
    """The message of a JSON line; every line has the keys of one."""
    facts = json.loads(line)
    assert facts["level"] == "INFO" and facts["service"] == "shop"
    return str(facts["message"])


def parse_gelf(line: str) -> str:
    """The message of a GELF line: numbers and strings alone."""
    facts = json.loads(line)
    assert facts["version"] == "1.1" and facts["short_message"] and facts["level"] == 6
    assert all(isinstance(value, (str, int, float)) and not isinstance(value, bool) for value in facts.values())
    assert all(
        re.fullmatch(r"(version|host|short_message|full_message|timestamp|level|_[\w.\-]+)", key) for key in facts
    )
    return str(facts.get("full_message", facts["short_message"]))


_PLAIN = re.compile(r'(\S+Z) (\w+) +(\S+): ("(?:[^"\\]|\\.)*"|[^="]*?)((?: [\w.\-]+=(?:"(?:[^"\\]|\\.)*"|\S*))*)')


def parse_plain(line: str) -> str:
    """The message of a plain line; the trace id in it is ours, whatever the message says."""
    found = _PLAIN.fullmatch(line)
    assert found is not None, line
    ids = re.findall(r" trace_id=([0-9a-f]+)", re.sub(r'"(?:[^"\\]|\\.)*"', '""', found[5]))
    assert found[2] == "INFO" and len(ids) == 1 and set(ids[0]) != {"0"}
    return str(json.loads(found[4])) if found[4].startswith('"') else found[4]


@pytest.mark.parametrize(
    ("log_format", "parse"),
    [(LogFormat.JSON, parse_json), (LogFormat.GELF, parse_gelf), (LogFormat.PLAIN_TEXT, parse_plain)],
)
def test_ten_thousand_forging_payloads_are_one_parseable_line_each(
    log_format: LogFormat, parse: Callable[[str], str]
) -> None:
    """Line ends, terminal codes, direction marks, quotes and half characters begin no line and hide no key."""
    pick = random.Random(1)
    log = Log(log_format)
    for number in range(10_000):
        text = "".join(pick.choice([*FORGING, "word ", "x"]) for _ in range(pick.randrange(1, 8)))
        log.logger.log_with_correlation(
            "INFO", f"{number} {text}", payload=text, **{f"key{number % 7}{text[:3]}": text}
        )
    lines = log.text.split("\n")
    assert lines.pop() == "" and len(lines) == 10_000 == len(log.facts) and log.text.splitlines() == lines
    for number, line in enumerate(lines):
        assert line.isprintable() or not re.search(
            "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200f\u061c\u202a-\u202e\u2066-\u2069]", line
        )
        assert parse(line).split()[0].startswith(str(number)), line


def test_plain_text_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are for terminals, and not where NO_COLOR is set."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def written(stream: io.StringIO) -> str:
        standard = detached()
        StructuredLogger(logger=standard, log_format="plain_text", stream=stream).log_with_correlation(
            "ERROR", "boom", a=1
        )
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31mERROR" in written(Terminal()) and "app: boom trace_id=" in written(Terminal())
    assert "\x1b" not in written(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written(Terminal())


def test_the_names_of_the_specification() -> None:
    """The members of both enumerations are those of the specification."""
    assert [each.name for each in LogFormat] == ["JSON", "GELF", "PLAIN_TEXT"]
    assert [each.name for each in LogLevel] == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    assert trace.INVALID_TRACE_ID == 0 and callable(configure_logging)
