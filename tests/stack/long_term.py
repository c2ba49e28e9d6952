"""The long-term store of metrics, which is no part of the stack, and what it holds."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.stack.backends import ask, until
from tests.support.backends import free_port
from tests.support.stack import built

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
        with (self.folder / "long-term.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert until(lambda: urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200, bool)

    def end(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression has now."""
        found: list[dict[str, Any]] = json.loads(ask(f"{self.url}/api/v1/query", query=expression))["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that has one series; 0 where it has none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def samples(self, selector: str) -> list[tuple[str, int, float]]:
        """Series, time in ms and value of each sample, as often as it is there."""
        body = ask(f"{self.url}/api/v1/export", **{"match[]": selector})
        return [
            (named(series["metric"]), at, value)
            for series in map(json.loads, body.splitlines())
            for at, value in zip(series["timestamps"], series["values"], strict=True)
        ]


def named(labels: dict[str, str]) -> str:
    """A series by name and labels."""
    return json.dumps(labels, sort_keys=True)


def series(url: str, selector: str = PUSHED) -> set[str]:
    """The series that a store has."""
    window = {"start": time.time() - 3600, "end": time.time() + 60}
    return {named(each) for each in json.loads(ask(f"{url}/api/v1/series", **{"match[]": selector}, **window))["data"]}


def samples(url: str, selector: str) -> set[tuple[str, int, float]]:
    """Series, time in ms and value of each sample that Prometheus has of the last hour."""
    found = json.loads(ask(f"{url}/api/v1/query", query=f"{selector}[1h]"))["data"]["result"]
    return {
        (named(each["metric"]), round(float(at) * 1000), float(value))
        for each in found
        for at, value in each["values"]
    }  # fmt: skip
