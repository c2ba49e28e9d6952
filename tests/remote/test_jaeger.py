"""Pages of traces from Jaeger: each once, also where a page ends among those of one moment."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from streamlit_extension.remote import jaeger
from streamlit_extension.remote.asking import Answer


def trace(number: int, start_us: int) -> dict[str, object]:
    """A trace of one run."""
    span = {
        "traceID": f"{number:032x}", "spanID": f"{number:016x}", "operationName": "script_run Work", "processID": "p1",
        "startTime": start_us, "duration": 5, "tags": [{"key": "streamlit.run.type", "value": "full"}],
    }  # fmt: skip
    return {"traceID": span["traceID"], "spans": [span], "processes": {"p1": {"serviceName": "shop"}}}


def test_no_run_is_lost_between_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 450 runs, 30 a microsecond, none is left out and none comes twice."""
    now_us = 1_790_000_000_000_000
    kept = [trace(number, now_us - number // 30) for number in range(450)]

    def ask(_name: str, _root: str, _path: str, parameters: Mapping[str, object]) -> Answer:
        end, limit = int(str(parameters["end"])), int(str(parameters["limit"]))
        fitting = [each for each in kept if each["spans"][0]["startTime"] <= end]  # type: ignore[index]
        return Answer(200, json.dumps({"data": fitting[:limit]}).encode())

    monkeypatch.setattr(jaeger, "ask", ask)
    found = jaeger.Jaeger("http://127.0.0.1", "shop").runs(limit=1000).items
    assert sorted(each.trace_id for each in found) == [f"{number:032x}" for number in range(450)]
