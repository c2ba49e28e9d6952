"""Every logger of the process leaves by one handler, once, and is put back as it was."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel.guard import forget_secrets
from otel.logsink import set_log_sink
from otel.records import LogFact
from streamlit_extension.logs.wiring import log_as_set
from streamlit_extension.settings import Settings
from streamlit_extension.utils.structured_logging import LoggingConfiguration, StructuredLogger, configure_logging
from tests.support.server import Start

ROOT = Path(__file__).parents[2]
TRACER = TracerProvider().get_tracer("test")
NAMES = ("uvicorn.error", "uvicorn.access", "streamlit.runtime.app_session", "any.library")


class Process:
    """The process's logging, as configured."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.facts: list[LogFact] = []
        set_log_sink(self.facts.append)
        self.configuration: LoggingConfiguration = configure_logging(service="shop", stream=self.stream)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def process() -> Iterator[Process]:
    import streamlit.logger

    streamlit.logger.get_logger("streamlit.runtime.app_session")
    streamlit.logger.init_uvicorn_logs()
    made = Process()
    yield made
    made.configuration.restore()
    set_log_sink(None)
    forget_secrets()


@pytest.mark.parametrize("name", NAMES)
def test_each_logger_leaves_once_with_the_ids_of_its_run(process: Process, name: str) -> None:
    """Standard logging, Streamlit's and uvicorn's: one line and one record each, under the span that is active."""
    with TRACER.start_as_current_span("run") as span:
        logging.getLogger(name).warning("it is %s", "so", extra={"plan": "free", "password": "hunter2"})
    trace_id = f"{span.get_span_context().trace_id:032x}"
    (line,), (fact,) = process.lines, process.facts
    assert (line["logger"], line["message"], line["level"]) == (name, "it is so", "WARNING")
    assert (line["trace_id"], line["plan"], line["password"]) == (trace_id, "free", "[REDACTED]")
    assert f"{fact.trace_id:032x}" == trace_id and fact.scope == name
    assert fact.attributes["code.function.name"] == "test_each_logger_leaves_once_with_the_ids_of_its_run"
    assert fact.attributes["code.file.path"] == __file__ and fact.attributes["code.line.number"] > 0


def test_a_record_that_passes_several_loggers_leaves_once(process: Process) -> None:
    """Also when a library's logger hands its records on to the root."""
    logger = logging.getLogger("uvicorn.error")
    logger.propagate = True
    logger.warning("once")
    assert len(process.lines) == len(process.facts) == 1


def test_logging_outside_any_span_has_no_ids(process: Process) -> None:
    """Standard logging opens no correlation of its own, but belongs to one that is open."""
    logging.getLogger("any").warning("x")
    with StructuredLogger().correlation() as opened:
        logging.getLogger("any").warning("x")
    assert "trace_id" not in process.lines[0] and process.facts[0].trace_id == 0
    assert process.lines[1]["trace_id"] == opened


def test_a_message_that_does_not_fit_its_arguments_is_a_line(process: Process) -> None:
    """Logging itself would print a traceback; here it is one line, and an exception is told whole."""
    # Handed to our handler alone: those of the test runner raise.
    record = logging.LogRecord("any", logging.WARNING, __file__, 1, "%d of %d", ("one",), None)
    process.configuration.handler.handle(record)
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        logging.getLogger("any").exception("failed")
    assert process.lines[0]["message"].startswith("%d of %d")
    assert process.lines[1]["exception.type"] == "ValueError" and "hunter2" not in process.stream.getvalue()


def test_the_log_level_reaches_every_logger_and_goes_back(process: Process) -> None:
    """`set_level` changes the root's level, Streamlit's and uvicorn's and StructuredLogger's; None puts them back."""

    def said() -> list[str]:
        before = len(process.lines)
        for name in NAMES:
            logging.getLogger(name).debug("low")
        StructuredLogger(name="mine").log_with_correlation("DEBUG", "low")
        for name in NAMES:
            logging.getLogger(name).info("middle")
        StructuredLogger(name="mine").log_with_correlation("INFO", "middle")
        return [line["message"] for line in process.lines[before:]]

    assert said() == ["middle"] * 5
    process.configuration.set_level("DEBUG")
    assert said() == ["low"] * 5 + ["middle"] * 5
    process.configuration.set_level("ERROR")
    assert said() == []
    process.configuration.set_level(None)
    assert said() == ["middle"] * 5


def snapshot() -> dict[str, Any]:
    """What can be changed on every logger: the very handlers, in their order."""
    loggers = {name: each for name, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {
        name: (each.level, each.propagate, each.disabled, list(each.handlers))
        for name, each in {"root": logging.root, **loggers}.items()
        if name.startswith(("root", "uvicorn", "streamlit"))
    }


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_restore_is_the_exact_inverse(level: str) -> None:
    """Handlers, levels and propagation are as before, also after a level was changed meanwhile."""
    import streamlit.logger

    streamlit.logger.init_uvicorn_logs()
    before = snapshot()
    for _ in range(3):
        configuration = configure_logging(log_level=level, stream=io.StringIO())
        configuration.set_level("DEBUG")
        assert snapshot() != before
        configuration.restore()
        assert snapshot() == before


def test_a_configured_level_holds_for_libraries_too() -> None:
    """`log_level` is the lowest level that is written, whatever level Streamlit gives its loggers."""
    stream = io.StringIO()
    configuration = configure_logging(log_level="ERROR", stream=stream)
    try:
        logging.getLogger("streamlit.runtime.app_session").info("not written")
        logging.getLogger("uvicorn.error").warning("not written")
        assert stream.getvalue() == ""
    finally:
        configuration.restore()


def test_the_settings_secrets_are_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Token, passwords and a URL's password are replaced in any line, whatever they are called there."""
    (tmp_path / "token").write_text("t0ken-of-a-file")
    environ = {
        "STX_TOKEN_FILE": str(tmp_path / "token"),
        "STX_NOTIFY__PAGERDUTY__ROUTING_KEY": "r0uting-key",
        "STX_HEALTH__DATABASE__URL": "postgresql://app:p%40ss-word@db/app",
    }
    configuration = log_as_set(Settings.load(environ, tmp_path))
    try:
        for secret in ("t0ken-of-a-file", "r0uting-key", "p%40ss-word", "p@ss-word"):
            logging.getLogger("any").warning("it is %s, you know", secret)
    finally:
        configuration.restore()
        forget_secrets()
    out = capsys.readouterr().out
    assert out.count("it is [REDACTED], you know") == 4


PROGRAM = """
import logging, os, sys
from streamlit_extension.utils.structured_logging import StructuredLogger, configure_logging
configure_logging()
log = StructuredLogger(name="app")
for number in range(1000):
    log.log_with_correlation("INFO", "short way", number=number)
    logging.getLogger("any").info("long way", extra={"number": number})
    print("print", flush=number % 10 == 0)
"""


def test_lines_stay_whole_beside_prints(tmp_path: Path) -> None:
    """Both ways and `print` share standard output; every line arrives whole, in a file and in a pipe."""
    command = [sys.executable, "-c", PROGRAM]
    with (tmp_path / "out").open("wb") as file:
        subprocess.run(command, stdout=file, cwd=ROOT, check=True, timeout=60)
    piped = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=60)
    for data in (piped.stdout, (tmp_path / "out").read_bytes()):
        lines = data.decode().splitlines()
        assert len(lines) == 3000 and lines.count("print") == 1000
        numbers = [json.loads(line)["number"] for line in lines if line != "print"]
        assert numbers == [each for number in range(1000) for each in (number, number)]


SCRIPT = """
import logging
import logging.config
import streamlit as st
from streamlit_extension import StructuredLogger
st.title("levels")
for say in (logging.getLogger("mine").debug, logging.getLogger("uvicorn.error").debug, logging.getLogger("streamlit.mine").debug):
    say("debug is on")
StructuredLogger(name="structured").log_with_correlation("DEBUG", "debug is on")
"""


async def test_the_command_changes_a_running_process(serve: Start, script: Any, tmp_path: Path) -> None:
    """`log-level DEBUG` reaches standard logging, uvicorn's and StructuredLogger's lines of a process that runs."""
    from streamlit_extension.demo.client import StreamlitClient

    server = serve(script(SCRIPT))

    async def visit() -> set[str]:
        async with StreamlitClient(server.url) as client:
            await client.wait_finished(1)
        return {line["logger"] for line in server.lines if line["message"] == "debug is on"}

    assert await visit() == set()
    command = [sys.executable, "-m", "streamlit_extension", "log-level", "DEBUG", "--for", "5m"]
    environ = {"STX_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environ, check=True, timeout=60, cwd=tmp_path, capture_output=True)
    server.wait_for("/health", lambda _: bool(server.events("audit.log_level_set")))
    assert {"mine", "uvicorn.error", "structured"} <= await visit()


# -- scripts that configure logging themselves ----------------------------------------------------------------------


def _own_handler() -> None:
    logger = logging.getLogger("any.library")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False


CONFIGURING: dict[str, Callable[[], None]] = {
    "basicConfig": lambda: logging.basicConfig(level=logging.DEBUG),
    "by force": lambda: logging.basicConfig(level=logging.INFO, force=True),
    "to standard output": lambda: logging.basicConfig(stream=sys.stdout, force=True),
    "a handler of its own": _own_handler,
    "dictConfig": lambda: logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "loggers": {"any.library": {"handlers": ["console"], "propagate": False}},
            "root": {"handlers": ["console"], "level": "INFO"},
        }
    ),
}


@pytest.mark.parametrize("way", CONFIGURING)
def test_a_script_that_configures_logging_takes_no_line_away(
    process: Process, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it runs: each line leaves as before, once, and nothing piles up; so do our own."""
    root, library, ours = (logging.getLogger(name) for name in ("", "any.library", "streamlit_extension.shutdown"))
    before = root.level
    try:
        for number in range(3):
            CONFIGURING[way]()
            library.warning("run %d", number)
            ours.warning("ours %d", number)
        assert [line["message"] for line in process.lines if "run" in line["message"]] == ["run 0", "run 1", "run 2"]
        assert [line["message"] for line in process.lines if "ours" in line["message"]] == [
            "ours 0",
            "ours 1",
            "ours 2",
        ]
        assert capsys.readouterr() == ("", "")
        assert root.level == {"by force": logging.INFO, "dictConfig": logging.INFO}.get(way, before)
        assert len(library.handlers) <= 1
    finally:
        library.handlers.clear()
        library.propagate = True
        root.setLevel(before)
        for each in logging.root.manager.loggerDict.values():
            if isinstance(each, logging.Logger):
                each.disabled = False


def test_a_file_of_the_script_gets_its_lines_and_ours_stays(process: Process, tmp_path: Path) -> None:
    """`basicConfig(filename=…, force=True)` adds the file."""
    root = logging.getLogger()
    logging.basicConfig(filename=tmp_path / "own.log", force=True, format="%(message)s")
    try:
        logging.getLogger("any.library").warning("said")
    finally:
        for each in root.handlers[:]:
            if isinstance(each, logging.FileHandler):
                root.removeHandler(each)
                each.close()
    assert (tmp_path / "own.log").read_text() == "said\n"
    assert [line["message"] for line in process.lines] == ["said"]


def test_what_a_script_has_added_is_there_when_the_configuration_ends() -> None:
    """Ours gives its place back, and logging's own method is logging's again."""
    logger, method = logging.getLogger("any.script"), logging.Logger.addHandler
    configuration = configure_logging(stream=io.StringIO())
    theirs = logging.StreamHandler(sys.stderr)
    logger.addHandler(theirs)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    assert logger.handlers == [configuration.handler]
    configuration.restore()
    assert logger.handlers == [theirs]
    assert logging.Logger.addHandler is method
    logger.handlers.clear()
