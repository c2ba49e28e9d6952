"""`scripts/stack.py` as a command line: one line for what can't be done, nothing that is left, also when it is stopped.

The programs are stand-ins that answer 200; what the real ones do is in tests/stack/test_stack_script.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import stack_build, stack_signals
from scripts.stack import ROOT, Stack
from scripts.stack_programs import PORTS, PROGRAMS
from tests.support.backends import free_port

NAMES = [each.name for each in PROGRAMS]
STAND_IN = f"""#!{sys.executable}
import http.server, os, sys, time
name = os.path.basename(sys.argv[0])
place = {{"jaeger": os.environ["JAEGER_HEALTH"], "otelcol": os.environ["COLLECTOR_HEALTH"]}}.get(name)
place = place or next(word.partition("=")[2] for word in sys.argv if "isten" in word)

class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass

time.sleep(float(os.environ.get("STAND_IN_WAITS", "0")))
host, _, port = place.rpartition(":")
http.server.HTTPServer((host, int(port)), Well).serve_forever()
"""


class Line:
    """The command, in a folder that is cleared afterwards."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.environ: dict[str, str] = {}

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """Call it, with ports that nobody has unless some are given."""
        ports = [f"--port={name}={free_port()}" for name in PORTS] if command == "up" and not words else []
        line = [sys.executable, str(ROOT / "scripts/stack.py"), command, f"--folder={self.folder}", *ports, *words]
        environ = {**os.environ, "STACK_CACHE": str(self.cache), **self.environ}
        return subprocess.Popen(line, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, command: str, *words: str) -> tuple[int, str, list[str]]:
        """Its exit code, what it says, and its complaints, line by line."""
        started = self.start(command, *words)
        said, complained = started.communicate(timeout=120)
        return started.returncode, said, [each for each in complained.splitlines() if not each.startswith("[")]

    def pids(self) -> dict[str, int]:
        """What it noted."""
        notes = {name: self.folder / f"{name}.pid" for name in NAMES}
        return {name: int(note.read_text().split()[0]) for name, note in notes.items() if note.exists()}


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The command with stand-ins for the programs; whatever is left is ended."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("STACK_CACHE", str(cache))
    for each in PROGRAMS:
        folder = stack_build.folder_of(each.module)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / each.name).write_text(STAND_IN)
        (folder / each.name).chmod(0o755)
    made = Line(tmp_path / "stack", cache)
    yield made
    Stack(tmp_path / "stack").down()


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(seen: Callable[[], bool]) -> None:
    """Wait until it is seen."""
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port=otlp_http=many"], "--port otlp_http=many: a number from 1 to 65535 is needed"),
        (["--port=otlp_http=65536"], "--port otlp_http=65536: a number from 1 to 65535 is needed"),
        (["--port=otlp_http"], "--port otlp_http=: a number from 1 to 65535 is needed"),
        (["--port=otlp_http=4400", "--port=otlp_grpc=4400"], "port 4400 was given twice"),
        (["--port=grafana=3000"], f"no port is named 'grafana'; there are {', '.join(PORTS)}"),
        (["--layer=/nowhere/at-all.yaml"], "there is no layer /nowhere/at-all.yaml"),
    ],
)
def test_what_makes_no_sense_is_one_line(line: Line, words: list[str], complaint: str) -> None:
    """And nothing is begun."""
    assert line("up", *words) == (1, "", [complaint])
    assert line.pids() == {}


def test_a_folder_that_is_none_is_one_line(line: Line, tmp_path: Path) -> None:
    """Where no folder can be made nothing is started, and nothing was."""
    line.folder = tmp_path / "file"
    line.folder.write_text("")
    expected = {"up": "File exists", "down": "nothing was started", "status": "nothing was started"}
    for command in ("up", "down", "status"):
        code, said, complaints = line(command)
        assert (code, said, len(complaints)) == (1, "", 1), command
        assert str(line.folder) in complaints[0] and expected[command] in complaints[0]


def test_a_port_that_somebody_has_is_refused(line: Line) -> None:
    """Whoever listens there would be taken for the program."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert line("up", f"--port=jaeger_health={port}") == (1, "", [f"port {port} (jaeger_health) is taken"])
    assert line.pids() == {}


def test_a_proxy_is_not_asked(line: Line) -> None:
    """What is on loopback is asked there, also where the environment names a proxy for everything."""
    line.environ = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
    assert line("up")[0] == 0
    code, said, _ = line("status")
    assert (code, said.count(" healthy ")) == (0, len(NAMES))


@pytest.mark.parametrize("text", ["[]", "{", '{"ports": {}, "layers": []}', "null"])
def test_a_stack_whose_facts_are_damaged_can_be_stopped(line: Line, text: str) -> None:
    """`status` says what is wrong in a line; `down` needs the notes of the programs alone."""
    assert line("up")[0] == 0
    pids = line.pids()
    (line.folder / "stack.json").write_text(text)
    code, said, complaints = line("status")
    assert (code, said) == (1, "")
    assert complaints == [f"{line.folder}/stack.json is damaged; `down` stops what runs there"]
    assert line("down")[0] == 0
    assert not any(alive(pid) for pid in pids.values())


def test_a_damaged_note_is_told_once_all_others_are_stopped(line: Line) -> None:
    """Of whom it told can't be known; nobody else stays because of it."""
    assert line("up")[0] == 0
    pids, note = line.pids(), line.folder / "jaeger.pid"
    kept = note.read_text()
    note.write_text("not a pid\n")
    for command in ("status", "down"):
        code, said, complaints = line(command)
        assert (code, said) == (1, "")
        assert complaints == [f"{note} is damaged; end what it told of, and remove it"]
    assert {name for name, pid in pids.items() if alive(pid)} == {"jaeger"}
    note.write_text(kept)


def test_two_at_once_are_not_at_work_in_one_folder(line: Line) -> None:
    """The second is refused, and so is a `down` that would miss what is being started."""
    line.environ = {"STAND_IN_WAITS": "3"}
    first = line.start("up")
    until(lambda: len(line.pids()) == len(NAMES))
    for command in ("up", "down"):
        assert line(command) == (1, "", [f"another `up` or `down` is at work in {line.folder}"])
    _, complained = first.communicate(timeout=60)
    assert first.returncode == 0, complained


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_leaves_nothing(line: Line, how: signal.Signals) -> None:
    """One line; pressed twice, it still ends what it started."""
    line.environ = {"STAND_IN_WAITS": "30"}
    starting = line.start("up")
    until(lambda: len(line.pids()) == len(NAMES))
    pids = line.pids()
    starting.send_signal(how)
    starting.send_signal(how)
    _, complained = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert [each for each in complained.splitlines() if each and not each.startswith("[")] == ["up was stopped"]
    assert not any(alive(pid) for pid in pids.values())


def test_a_stop_before_a_program_has_noted_itself_leaves_nothing(line: Line, tmp_path: Path) -> None:
    """The shell that would note it takes its time: it is ended all the same, and waited for by nobody."""
    tools, asked, real = tmp_path / "tools", tmp_path / "asked", shutil.which("cut")
    tools.mkdir()
    asked.touch()
    (tools / "cut").write_text(f'#!/bin/sh\necho "$3" >>"{asked}"\nsleep 5\nexec {real} "$@"\n')
    (tools / "cut").chmod(0o755)
    line.environ = {"PATH": f"{tools}:{os.environ['PATH']}"}
    starting = line.start("up")
    try:
        until(lambda: bool(asked.read_text()))
        starting.send_signal(signal.SIGINT)
        _, complained = starting.communicate(timeout=60)
    finally:
        starting.kill()
        starting.wait()
    assert starting.returncode == 130, complained
    assert line.pids() == {}
    shells = [int(each.split("/")[2]) for each in asked.read_text().split()]  # each asks for /proc/PID/stat
    assert not any(alive(pid) for pid in shells)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_a_program_is_being_started_comes_once_it_is_known(how: signal.Signals) -> None:
    """What would otherwise have been started, and be noted nowhere, is one that can be ended."""
    known: list[str] = []
    handler = signal.getsignal(how)

    def start() -> None:
        with stack_signals.later():
            signal.raise_signal(how)
            known.append("started")
        known.append("the next one")

    with pytest.raises(KeyboardInterrupt), stack_signals.stopped_once():
        start()
    assert known == ["started"]
    assert signal.getsignal(how) is handler


def test_a_program_that_is_not_http_is_not_healthy(line: Line, tmp_path: Path) -> None:
    """What answers something else at its address is no traceback."""
    assert line("up")[0] == 0
    facts = json.loads((line.folder / "stack.json").read_text())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        facts["ports"]["prometheus"] = other.getsockname()[1]
        (line.folder / "stack.json").write_text(json.dumps(facts))
        asking = line.start("status")
        answer, _ = other.accept()
        answer.sendall(b"-ERR wrong number of arguments\r\n")
        answer.close()
        said, complained = asking.communicate(timeout=60)
    assert (asking.returncode, complained) == (1, "")
    assert "running, not healthy" in said
