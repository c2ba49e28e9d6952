"""A running stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.stack import ROOT, Stack
from scripts.stack_programs import PORTS, PROGRAMS
from tests.stack.backends import Backends
from tests.support.backends import free_port
from tests.support.stack import built

StartStack = Callable[..., Backends]


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator[StartStack]:
    """Starts the stack: `start_stack("keep-every-trace", COLLECTOR_KEEP_PERCENT="5")`; ended with the test."""
    for program in PROGRAMS:
        built(program.module, program.name)
    started: list[Stack] = []

    def start(*layers: str, prometheus: Path | None = None, **environ: str) -> Backends:
        quick = {"COLLECTOR_SPAN_METRICS_FLUSH": "1s", "COLLECTOR_DECISION_WAIT": "2s", "COLLECTOR_SLOW_MS": "500"}
        stack = Stack(
            tmp_path / f"stack-{len(started)}",
            ports={name: free_port() for name in PORTS},
            layers=[ROOT / "deploy" / "collector" / f"{name}.yaml" for name in layers],
            environ={**quick, **environ},
            prometheus=prometheus,
        )
        started.append(stack)
        stack.up()
        return Backends(stack)

    yield start
    for stack in started:
        stack.down()
