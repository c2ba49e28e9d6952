"""The stack without containers: `stack.py up | down | status`, for development and tests.

`up` builds the OpenTelemetry Collector, Prometheus, Jaeger and VictoriaLogs (once, see stack_build.py), starts them
with the files that Compose and Kubernetes use, on loopback, and waits until all are healthy. Logs, data and what is
running are in one folder (`--folder`, .cache/stack-run here). `down` stops what `up` started there, also when `up` has
crashed: each program notes its own pid, and when it began, before it becomes the program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts import stack_build  # noqa: E402  (found through the line above)
from scripts.stack_programs import PORTS, PROGRAMS, Program, environment  # noqa: E402

_BY_NAME: Final = {each.name: each for each in PROGRAMS}
_START_S: Final = 60.0
_STOP_S: Final = 30.0
# A shell that notes who it is, and then becomes the program: nobody is lost when we die in between.
_NOTE = """
began=$(cut -d' ' -f22 /proc/$$/stat 2>/dev/null || ps -o lstart= -p $$)
echo "$$ $began" > "$0.new" && mv "$0.new" "$0" && exec "$@"
"""


class StackError(Exception):
    """The stack can't do what was asked; the text says why."""


class Stack:
    """The programs, in a folder.

    Arguments:
        folder: for logs, data, and the notes of what is running.
        ports: by the names in `PORTS`; what is not named is the default, or a free one where that is taken.
        layers: further files for the collector, the last one wins.
        environ: further variables for the programs (`COLLECTOR_…`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: Mapping[str, int] | None = None,
        layers: Sequence[Path] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.ports = dict(ports or {})
        self.layers = [each.absolute() for each in layers]
        self.environ = dict(environ or {})
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def noted(cls, folder: Path) -> Stack:
        """The stack that `up` noted in a folder."""
        try:
            facts = json.loads((folder / "stack.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StackError(f"nothing was started in {folder}") from error
        return cls(folder, ports=facts["ports"], layers=[Path(each) for each in facts["layers"]])

    # -- where things are ---------------------------------------------------------------------------------------

    def address(self, port: str) -> str:
        """Host and port of what listens at a name of `PORTS`."""
        return f"127.0.0.1:{self.ports[port]}"

    def url(self, port: str) -> str:
        """Where it answers HTTP."""
        return f"http://{self.address(port)}"

    def log(self, name: str) -> Path:
        """A program's log."""
        return self.folder / "logs" / f"{name}.log"

    def data(self, name: str) -> Path:
        """A program's data."""
        return self.folder / "data" / name

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.pid"

    # -- what it does -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Choose the ports, make the folders, and note both."""
        for each in ("logs", "data"):
            (self.folder / each).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:  # all at once, so that none is given twice
            for name, default in PORTS.items():
                if name not in self.ports:
                    self.ports[name] = _free(default, held, set(self.ports.values()))
        facts = {"ports": self.ports, "layers": [str(each) for each in self.layers]}
        (self.folder / "stack.json").write_text(json.dumps(facts), encoding="utf-8")

    def up(self, told: Callable[[str, int, int], None] = lambda *_: None) -> None:
        """Build, start, and wait until all are healthy; what fails stops all that was started.

        Arguments:
            told: is called with what happens, how much of it is done, and of how much.

        Raises:
            StackError: something runs there already, or a program didn't build, start or become healthy.
        """
        running = [each.name for each in PROGRAMS if self.pid(each.name)]
        if running:
            raise StackError(f"{', '.join(running)} already run in {self.folder}")
        self.prepare()
        total = 3 * len(PROGRAMS)
        for done, each in enumerate(PROGRAMS):
            told(f"building {each.name}", done, total)
            self._built(each)
        try:
            for done, each in enumerate(PROGRAMS, len(PROGRAMS)):
                told(f"starting {each.name}", done, total)
                self.start(each.name, wait=False)
            for done, each in enumerate(PROGRAMS, 2 * len(PROGRAMS)):
                told(f"waiting for {each.name}", done, total)
                self.wait_healthy(each.name)
        except BaseException:
            self.down()
            raise
        told("all are healthy", total, total)

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start one program and, with `wait`, wait until it is healthy."""
        program = _BY_NAME[name]
        self.data(name).mkdir(parents=True, exist_ok=True)
        command = [self._built(program), *program.arguments(self)]
        with self.log(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                ["sh", "-c", _NOTE, str(self._note(name)), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data(name),
                env={**os.environ, **environment(self), **self.environ},
                start_new_session=True,  # Ctrl+C is for us
            )  # fmt: skip
        if wait:
            self.wait_healthy(name)

    def wait_healthy(self, name: str) -> None:
        """Wait until a program answers 200.

        Raises:
            StackError: it has ended, or not within a minute.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.healthy(name):
                return
            child = self._children.get(name)
            if child is not None and child.poll() is not None:
                break
            time.sleep(0.1)
        raise StackError(f"{name} is not healthy; {self.log(name)} ends with:\n{_tail(self.log(name))}")

    def healthy(self, name: str) -> bool:
        """Whether it runs and answers 200."""
        if self.pid(name) is None:
            return False
        try:
            with urllib.request.urlopen(_BY_NAME[name].health(self), timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def pid(self, name: str) -> int | None:
        """The pid of what was started here and still runs."""
        try:
            pid, _, began = self._note(name).read_text(encoding="utf-8").strip().partition(" ")
        except OSError:
            return None
        child = self._children.get(name)
        if child is not None and child.pid == int(pid) and child.poll() is not None:
            return None
        return int(pid) if began and _began(int(pid)) == began else None

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one program and wait; whoever isn't gone after half a minute is killed."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            deadline = time.monotonic() + _STOP_S
            while self.pid(name) is not None:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        child = self._children.pop(name, None)
        if child is not None:
            child.wait()
        self._note(name).unlink(missing_ok=True)

    def down(self) -> list[str]:
        """End all that was started here, who sends first, and return their names."""
        names = [each.name for each in reversed(PROGRAMS) if self.pid(each.name) or each.name in self._children]
        for name in names:
            self.end(name)
        return names

    def _built(self, program: Program) -> str:
        try:
            return str(stack_build.build(program.module) / program.name)
        except stack_build.BuildError as error:
            raise StackError(str(error)) from error


def _free(wanted: int, held: contextlib.ExitStack, others: set[int]) -> int:
    """A port that nobody has: the one wanted, else any."""
    for port in (wanted, 0, 0, 0):
        if port in others:
            continue
        opened = held.enter_context(socket.socket())
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who has just left is no obstacle
        with contextlib.suppress(OSError):
            opened.bind(("127.0.0.1", port))
            return int(opened.getsockname()[1])
    raise StackError("no port is free")


def _began(pid: int) -> str:
    """When a process began, as the kernel or ps tells it; nothing when there is none, or only its remains."""
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")[-2000:]
    return ""


def _bar(what: str, done: int, total: int) -> None:
    width = 24
    full = width * done // total
    line = f"[{'#' * full}{'.' * (width - full)}] {what}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def _up(asked: argparse.Namespace) -> int:
    ports = {name: int(number) for name, _, number in (each.partition("=") for each in asked.port)}
    unknown = sorted(set(ports) - set(PORTS))
    if unknown:
        raise StackError(f"no port is named {unknown[0]!r}; there are {', '.join(PORTS)}")
    stack = Stack(asked.folder, ports=ports, layers=asked.layer)
    stack.up(_bar)
    print(f"OTLP           {stack.url('otlp_http')} (gRPC {stack.address('otlp_grpc')})")
    for name, port in (("Jaeger", "jaeger"), ("VictoriaLogs", "victorialogs"), ("Prometheus", "prometheus")):
        print(f"{name:<14} {stack.url(port)}")
    print(f"logs           {stack.folder / 'logs'}")
    print(f"OTEL_EXPORTER_OTLP_ENDPOINT={stack.url('otlp_http')} streamlit-extension demo")
    return 0


def _down(asked: argparse.Namespace) -> int:
    names = Stack.noted(asked.folder).down()
    print(f"stopped: {', '.join(names)}" if names else "nothing was running")
    return 0


def _status(asked: argparse.Namespace) -> int:
    stack = Stack.noted(asked.folder)
    healthy = True
    for each in PROGRAMS:
        pid, well = stack.pid(each.name), stack.healthy(each.name)
        healthy &= well
        state = "healthy" if well else "running, not healthy" if pid else "stopped"
        print(f"{each.name:<14} {state:<20} {pid or '':<8} {each.health(stack)}")
    return 0 if healthy else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; 0 when it worked, for `status` when all are healthy."""
    parser = argparse.ArgumentParser(description="The telemetry back ends without containers.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "stack-run", help="for logs, data and notes")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=N", help=f"of {', '.join(PORTS)}")
    parser.add_argument("--layer", action="append", default=[], type=Path, help="further file for the collector")
    asked = parser.parse_args(arguments)
    try:
        return {"up": _up, "down": _down, "status": _status}[asked.command](asked)
    except (StackError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
