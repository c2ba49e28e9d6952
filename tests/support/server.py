"""The product as its users start it: a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Server:
    """A running process that serves on a port."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    base: str = ""
    ended_after_s: float = field(default=0.0, init=False)

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}{self.base}"

    def get(self, path: str, method: str = "GET", timeout_s: float = 10.0, **headers: str) -> Answer:
        """Ask one path."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def wait_for(self, path: str, accept: Callable[[Answer], bool], timeout_s: float = 30.0) -> Answer:
        """Ask until the answer is accepted."""
        deadline = time.monotonic() + timeout_s
        last: Answer | None = None
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                last = self.get(path)
                if accept(last):
                    return last
            if self.process.poll() is not None:
                raise AssertionError(f"the process ended with {self.process.returncode}:\n{self.output}")
            time.sleep(0.05)
        raise AssertionError(f"{path} never was as expected, last: {last}\n{self.output}")

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log lines that are JSON."""
        found = []
        for line in self.output.splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log events of one name."""
        return [line for line in self.lines if line.get("event") == name]

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self.ended_after_s = time.monotonic() - began
        return code


Start = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    """Starts servers: `serve(script)`; ended with the test."""
    started: list[Server] = []

    def start(
        script: Path | str,
        *options: str,
        env: Mapping[str, str] | None = None,
        command: list[str] | None = None,
        port: int | None = None,
        base: str = "",
        ready: str | None = "/health/startup",
        data_dir: Path | None = None,
        cwd: Path | None = None,
    ) -> Server:
        chosen = port or free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "STREAMLIT_"))}
        environment |= {
            "STX_DATA_DIR": str(data_dir or tmp_path / "data"),
            "STREAMLIT_SERVER_HEADLESS": "true",
            "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
            "STREAMLIT_SERVER_PORT": str(chosen),
            # A machine whose disk or memory is nearly full is no failure of a test.
            "STX_ALERTS__THRESHOLDS__DISK_USAGE": "100",
            "STX_ALERTS__THRESHOLDS__MEMORY_USAGE": "100",
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        words = command or [sys.executable, "-m", "streamlit_extension", "run", str(script), *options]
        log = tmp_path / f"server-{len(started)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                words, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=cwd or tmp_path
            )
        server = Server(process, chosen, log, base)
        started.append(server)
        if ready is not None:
            server.wait_for(ready, lambda answer: answer.status == 200, 60)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a Streamlit script: `script("import streamlit as st …")`."""

    def write(source: str, name: str = "app.py") -> Path:
        path = tmp_path / name
        path.write_text(source)
        return path

    return write
