"""The long-term store of metrics, which is no part of the stack, and what it holds."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.stack.backends import answers, ask
from tests.stack.programs import end, until_healthy
from tests.support.backends import free_port
from tests.support.stack import built

#: Series, time in ms and value.
Sample = tuple[str, int, float]
#: What Prometheus makes itself is not in what is pushed.
PUSHED = '{job="shop",__name__!~".*:.*|ALERTS.*"}'


class LongTerm:
    """A VictoriaMetrics that can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._program = built("victoriametrics", "victoria-metrics")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        command = [
            self._program, f"-httpListenAddr={self.address}", f"-storageDataPath={self.folder / 'long-term'}",
            "-search.latencyOffset=0s", "-search.disableCache",  # tests ask for what came just now
        ]  # fmt: skip
        path = self.folder / "long-term.log"
        with path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until_healthy(self._process, lambda: answers(f"{self.url}/health"), path)

    def end(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression has now."""
        found: list[dict[str, Any]] = json.loads(ask(f"{self.url}/api/v1/query", query=expression))["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that has one series; 0 where it has none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def samples(self, selector: str) -> list[Sample]:
        """Each sample, as often as it is there."""
        body = ask(f"{self.url}/api/v1/export", **{"match[]": selector})
        return [
            (named(series["metric"]), at, value)
            for series in map(json.loads, body.splitlines())
            for at, value in zip(series["timestamps"], series["values"], strict=True)
        ]


def named(labels: dict[str, str]) -> str:
    """A series by name and labels."""
    return json.dumps(labels, sort_keys=True)


def newest(found: Iterable[Sample]) -> dict[str, int]:
    """The time of the newest sample of each series, in ms."""
    return {name: at for name, at, _ in sorted(found)}


def series(url: str, selector: str = PUSHED) -> set[str]:
    """The series that a store has."""
    window = {"start": time.time() - 3600, "end": time.time() + 60}
    return {named(each) for each in json.loads(ask(f"{url}/api/v1/series", **{"match[]": selector}, **window))["data"]}


def samples(url: str, selector: str) -> set[Sample]:
    """Each sample that Prometheus has of the last hour."""
    found = json.loads(ask(f"{url}/api/v1/query", query=f"{selector}[1h]"))["data"]["result"]
    return {
        (named(each["metric"]), round(float(at) * 1000), float(value))
        for each in found
        for at, value in each["values"]
    }  # fmt: skip
