"""`scripts/stack.py`: starts, tells, and stops what it started, whatever has become of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.stack import ROOT, Stack
from scripts.stack_programs import PORTS, PROGRAMS
from tests.support.backends import free_port
from tests.support.stack import built

NAMES = [each.name for each in PROGRAMS]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a stack runs; whatever is left there is ended."""
    for each in PROGRAMS:
        built(each.module, each.name)
    yield tmp_path / "stack"
    if (tmp_path / "stack" / "stack.json").exists():
        Stack.noted(tmp_path / "stack").down()


def line(folder: Path, command: str) -> list[str]:
    """How it is called, with ports that nobody has."""
    ports = [f"--port={name}={free_port()}" for name in PORTS] if command == "up" else []
    return [sys.executable, str(ROOT / "scripts" / "stack.py"), command, f"--folder={folder}", *ports]


def call(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Call it and wait."""
    return subprocess.run(line(folder, command), capture_output=True, text=True, check=False, timeout=120)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_up_status_down(folder: Path) -> None:
    """Healthy, told of with progress and addresses, refused a second time, and gone afterwards."""
    assert call(folder, "status").returncode == 1
    up = call(folder, "up")
    assert up.returncode == 0, up.stderr
    assert "[########################] all are healthy" in up.stderr
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:" in up.stdout
    status = call(folder, "status")
    assert status.returncode == 0
    assert status.stdout.count(" healthy ") == len(NAMES)
    assert sorted(each.stem for each in (folder / "logs").iterdir()) == sorted(NAMES)
    pids = [Stack.noted(folder).pid(name) for name in NAMES]
    again = call(folder, "up")
    assert again.returncode == 1
    assert "already run" in again.stderr
    down = call(folder, "down")
    assert down.returncode == 0
    assert all(name in down.stdout for name in NAMES)
    assert not any(alive(pid) for pid in pids if pid)
    assert call(folder, "status").returncode == 1


def test_what_was_started_by_one_that_was_killed_is_stopped(folder: Path) -> None:
    """In the middle of its start, too."""
    starting = subprocess.Popen(line(folder, "up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "prometheus.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    starting.kill()
    starting.wait()
    noted = Stack.noted(folder)
    pids = [pid for name in NAMES if (pid := noted.pid(name))]
    assert len(pids) >= 3
    assert call(folder, "down").returncode == 0
    assert not any(alive(pid) for pid in pids)


def test_a_pid_that_somebody_else_has_by_now_is_left_alone(folder: Path) -> None:
    """The note tells when the process began: ours, or another one."""
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder.mkdir()
        (folder / "stack.json").write_text(json.dumps({"ports": dict(PORTS), "layers": []}))
        (folder / "otelcol.pid").write_text(f"{stranger.pid} 1\n")
        down = call(folder, "down")
        assert down.stdout.strip() == "nothing was running"
        assert alive(stranger.pid)
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.communicate()


def test_a_program_that_does_not_start_stops_the_others_and_shows_its_log(folder: Path, tmp_path: Path) -> None:
    """One line of what failed, the end of its log, and nothing is left."""
    layer = tmp_path / "bad.yaml"
    layer.write_text("processors: {tail_sampling: {decision_wait: never}}\n")
    words = [*line(folder, "up"), f"--layer={layer}"]
    up = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert up.returncode == 1
    assert "otelcol is not healthy" in up.stderr
    assert "decision_wait" in up.stderr
    assert [name for name in NAMES if Stack.noted(folder).pid(name)] == []
