"""The stack without containers: `stack.py up | down | status`, for development and tests.

`up` builds the OpenTelemetry Collector, Prometheus, Jaeger and VictoriaLogs (once, see stack_build.py), starts them
with the files that Compose and Kubernetes use, on loopback, and waits until all are healthy. Logs, data and what is
running are in one folder (`--folder`, .cache/stack-run here). `down` stops what `up` started there, also when `up` has
crashed: each program notes its own pid, and when it began, before it becomes the program.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts import stack_build, stack_notes, stack_ports, stack_signals  # noqa: E402  (found through the line above)
from scripts.stack_programs import PORTS, PROGRAMS, Program, environment  # noqa: E402

_BY_NAME: Final = {each.name: each for each in PROGRAMS}
_START_S: Final = 60.0
_STOP_S: Final = 30.0
#: All of it is on loopback, whatever proxy the environment names.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StackError(Exception):
    """The stack can't do what was asked; the text says why."""


class Stack:
    """The programs, in a folder.

    Arguments:
        folder: for logs, data, and the notes of what is running.
        ports: by the names in `PORTS`, and free; what is not named is the default, or a free one where that is taken.
        layers: further files for the collector, the last one wins.
        environ: further variables for the programs (`COLLECTOR_…`).
        prometheus: another configuration than deploy/prometheus/prometheus.yaml.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: Mapping[str, int] | None = None,
        layers: Sequence[Path] = (),
        environ: Mapping[str, str] | None = None,
        prometheus: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.ports = dict(ports or {})
        self.layers = [each.absolute() for each in layers]
        self.environ = dict(environ or {})
        self.prometheus = prometheus.absolute() if prometheus else None
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def noted(cls, folder: Path) -> Stack:
        """The stack that `up` noted in a folder."""
        noted = folder / "stack.json"
        try:
            facts = json.loads(noted.read_text(encoding="utf-8"))
            ports = {name: int(facts["ports"][name]) for name in PORTS}
            return cls(folder, ports=ports, layers=[Path(each) for each in facts["layers"]])
        except OSError as error:
            raise StackError(f"nothing was started in {folder}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StackError(f"{noted} is damaged; `down` stops what runs there") from error

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
        self.ports = stack_ports.chosen(self.ports)
        facts = {"ports": self.ports, "layers": [str(each) for each in self.layers]}
        draft = self.folder / "stack.json.new"
        draft.write_text(json.dumps(facts), encoding="utf-8")
        draft.replace(self.folder / "stack.json")

    def up(self, told: Callable[[str, int, int], None] = lambda *_: None) -> None:
        """Build, start, and wait until all are healthy; what fails stops all that was started.

        Arguments:
            told: is called with what happens, how much of it is done, and of how much.

        Raises:
            StackError: something runs there already, a layer is missing, or a program didn't build, start or become
                healthy.
            PortError: a port that was given is taken.
        """
        missing = [str(each) for each in self.layers if not each.is_file()]
        if missing:
            raise StackError(f"there is no layer {', '.join(missing)}")
        with self._alone():
            running = [each.name for each in PROGRAMS if self.pid(each.name)]
            if running:
                raise StackError(f"{', '.join(running)} already run in {self.folder}")
            self.prepare()
            self._up(told)

    def _up(self, told: Callable[[str, int, int], None]) -> None:
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
            self._end_all()
            raise
        told("all are healthy", total, total)

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start one program and, with `wait`, wait until it is healthy."""
        program = _BY_NAME[name]
        self.data(name).mkdir(parents=True, exist_ok=True)
        command = [self._built(program), *program.arguments(self)]
        with self.log(name).open("ab") as log, stack_signals.later():
            self._children[name] = subprocess.Popen(
                ["sh", "-c", stack_notes.NOTE, str(self._note(name)), *command],
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
            with _DIRECT.open(_BY_NAME[name].health(self), timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def pid(self, name: str) -> int | None:
        """The pid of what was started here and still runs."""
        child = self._children.get(name)
        if child is not None and child.poll() is None:
            return child.pid  # noted or not yet: the shell that notes itself becomes the program
        try:
            return stack_notes.pid(self._note(name))
        except ValueError as error:
            raise StackError(f"{self._note(name)} is damaged; end what it told of, and remove it") from error

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
        """End all that was started here, who sends first, and return their names.

        Raises:
            StackError: somebody is starting it right now.
        """
        with self._alone():
            return self._end_all()

    def _end_all(self) -> list[str]:
        ended, damaged = [], None
        for name in reversed(_BY_NAME):
            try:
                if self.pid(name) or name in self._children:
                    self.end(name)
                    ended.append(name)
            except StackError as error:
                damaged = error
        if damaged is not None:  # after all others
            raise damaged
        return ended

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Of two at work in one folder the second would overwrite the notes of the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "stack.lock").open("w") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(f"another `up` or `down` is at work in {self.folder}") from error
            yield

    def _built(self, program: Program) -> str:
        try:
            return str(stack_build.build(program.module) / program.name)
        except stack_build.BuildError as error:
            raise StackError(str(error)) from error


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""


def _bar(what: str, done: int, total: int) -> None:
    width = 24
    full = width * done // total
    line = f"[{'#' * full}{'.' * (width - full)}] {what}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def _up(asked: argparse.Namespace) -> int:
    stack = Stack(asked.folder, ports=stack_ports.given(asked.port), layers=asked.layer)
    stack.up(_bar)
    print(f"OTLP           {stack.url('otlp_http')} (gRPC {stack.address('otlp_grpc')})")
    for name, port in (("Jaeger", "jaeger"), ("VictoriaLogs", "victorialogs"), ("Prometheus", "prometheus")):
        print(f"{name:<14} {stack.url(port)}")
    print(f"logs           {stack.folder / 'logs'}")
    print(f"OTEL_EXPORTER_OTLP_ENDPOINT={stack.url('otlp_http')} streamlit-extension demo")
    return 0


def _down(asked: argparse.Namespace) -> int:
    if not any((asked.folder / each).exists() for each in ("stack.json", *(f"{name}.pid" for name in _BY_NAME))):
        raise StackError(f"nothing was started in {asked.folder}")
    names = Stack(asked.folder).down()
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
        with stack_signals.stopped_once():
            return {"up": _up, "down": _down, "status": _status}[asked.command](asked)
    except (StackError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{asked.command} was stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
