"""What the real back ends hold, asked as their users would."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from scripts.stack import Stack

T = TypeVar("T")


def ask(url: str, **parameters: Any) -> bytes:
    """One answer."""
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=60) as got:
        return bytes(got.read())


def answers(url: str) -> bool:
    """Whether it answers 200."""
    with urllib.request.urlopen(url, timeout=5) as got:
        return bool(got.status == 200)


def own(address: str, metric: str, label: str = "") -> float:
    """The sum of what a collector tells of itself under a name, at the address of its own metrics.

    Arguments:
        label: of those that have it alone (`exporter="otlp/traces"`).
    """
    text = ask(f"http://{address}/metrics").decode()
    found = re.findall(rf"^{metric}(?:_total)?(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in found if label in labels)


def until(look: Callable[[], T], accept: Callable[[T], bool], timeout_s: float = 60.0) -> T:
    """Look until what is seen is accepted, and return it; what was seen last when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(OSError):
            seen = look()
            if accept(seen) or time.monotonic() > deadline:
                return seen
        if time.monotonic() > deadline:
            raise AssertionError("there was no answer")
        time.sleep(0.25)


@dataclass
class Backends:
    """The programs of a running stack."""

    stack: Stack

    # -- Jaeger -------------------------------------------------------------------------------------------------

    def spans(self, service: str) -> list[dict[str, Any]]:
        """Every span of a service."""
        now = time.time_ns() // 1000
        window = {"start": now - 3_600_000_000, "end": now + 60_000_000}
        body = ask(f"{self.stack.url('jaeger')}/api/traces", service=service, limit=100_000, **window)
        return [span for trace in json.loads(body)["data"] or () for span in trace["spans"]]

    def runs(self, service: str) -> dict[str, dict[str, Any]]:
        """Spans of runs, by trace id."""
        return {each["traceID"]: each for each in self.spans(service) if each["operationName"].startswith("script_run")}

    def has_trace(self, trace_id: str) -> bool:
        """Whether Jaeger knows a trace."""
        try:
            return bool(json.loads(ask(f"{self.stack.url('jaeger')}/api/traces/{trace_id}"))["data"])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise

    # -- VictoriaLogs -------------------------------------------------------------------------------------------

    def logs(self, query: str) -> list[dict[str, str]]:
        """Records that a query of LogsQL finds."""
        body = ask(f"{self.stack.url('victorialogs')}/select/logsql/query", query=query, limit=1_000_000)
        return [json.loads(line) for line in body.splitlines()]

    # -- Prometheus ---------------------------------------------------------------------------------------------

    def value(self, expression: str) -> float:
        """The value of an expression that has one series; 0 where it has none."""
        body = json.loads(ask(f"{self.stack.url('prometheus')}/api/v1/query", query=expression))
        found = body["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def exemplars(self, expression: str) -> list[str]:
        """Trace ids of a series' exemplars."""
        window = {"start": time.time() - 3600, "end": time.time() + 60}
        body = ask(f"{self.stack.url('prometheus')}/api/v1/query_exemplars", query=expression, **window)
        return [each["labels"]["trace_id"] for series in json.loads(body)["data"] for each in series["exemplars"]]

    def everything_in_prometheus(self) -> str:
        """All series and exemplars, as text."""
        window = {"start": time.time() - 3600, "end": time.time() + 60}
        url = f"{self.stack.url('prometheus')}/api/v1"
        series = ask(f"{url}/series", **{"match[]": '{__name__=~".+"}'}, **window)
        return (series + ask(f"{url}/query_exemplars", query='{__name__=~".+"}', **window)).decode()

    # -- the collector ------------------------------------------------------------------------------------------

    def own(self, metric: str, label: str = "") -> float:
        """The sum of what the collector tells of itself under a name, of those that have a label."""
        return own(self.stack.address("collector_metrics"), metric, label)


def twice(ids: list[str]) -> int:
    """How many are there more than once."""
    return sum(count - 1 for count in Counter(ids).values())
