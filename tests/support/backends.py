"""Real PostgreSQL and Redis on loopback, started by the tests and ended with them."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.requirements import program

#: Below those that the kernel gives to connections: nobody else takes one between our look and its use.
_PORTS: Final = range(20_000, 32_000)
_TURNS: Final = itertools.count(random.SystemRandom().randrange(len(_PORTS)))


def free_port() -> int:
    """A TCP port on loopback that is free now, and is not given twice soon."""
    for turn in _TURNS:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", _PORTS[turn % len(_PORTS)]))
            return int(sock.getsockname()[1])
    raise AssertionError  # the turns have no end


def wait_for_port(port: int, timeout_s: float = 20.0) -> None:
    """Wait until something listens there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


def _as_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return (
        [program("runuser", "/usr/sbin/runuser", "/sbin/runuser"), "-u", "postgres", "--", *command]
        if os.getuid() == 0
        else command
    )


@dataclass
class Postgres:
    """A PostgreSQL server of the tests' own."""

    binaries: Path
    folder: Path
    port: int

    def url(self, driver: str = "psycopg") -> str:
        """Its SQLAlchemy URL."""
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._control("start", "-w", "-o", options, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        """Stop it at once."""
        self._control("stop", "-m", mode, "-w")

    def processes(self) -> list[int]:
        """The server's processes."""
        parent = int((self.folder / "data/postmaster.pid").read_text().splitlines()[0])
        children = subprocess.run(
            [program("pgrep"), "-P", str(parent)], capture_output=True, text=True, check=False
        ).stdout.split()
        return [parent, *map(int, children)]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hangs: every process of it is stopped, connections stay open."""
        stopped = self.processes()
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    def _control(self, *words: str) -> None:
        command = _as_user([str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), *words])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; a test that stops it starts it again."""
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    binaries = Path(program("pg_ctl", *places)).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="stx-postgres-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    server = Postgres(binaries, folder, free_port())
    init = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(_as_user(init), check=True, stdout=subprocess.DEVNULL, cwd="/")
    server.start()
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Redis:
    """A Redis server of the tests' own."""

    binary: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "64mb"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd="/")
        wait_for_port(self.port)

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A running Redis; a test that stops it starts it again."""
    server = Redis(program("redis-server"), free_port())
    server.start()
    yield server
    server.stop()
