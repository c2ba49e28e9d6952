"""The steps of a drain on an event loop that does not always move."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from otel.instrumentation.streamlit import RunWatcher
from streamlit_extension.gate import Gate
from streamlit_extension.health.service import HealthService
from streamlit_extension.lifecycle import STEP_S, Drain
from streamlit_extension.utils.graceful_shutdown import Deadline


def drain_of(service: HealthService, pre_drain_s: float, closed: list[float]) -> Drain:
    """A drain in front of nothing."""
    gate = Gate(cast("Any", None), cast("Any", None))
    return Drain(gate, service, RunWatcher(), pre_drain_s, lambda: closed.append(time.monotonic()))


async def test_a_blocked_loop_does_not_use_up_the_pre_drain() -> None:
    """Who can't be asked tells nobody that he is not ready: the pre-drain goes on for as long as it was to take."""
    closed: list[float] = []
    drain = drain_of(HealthService(version="1"), 1.0, closed)
    stopping = asyncio.create_task(drain.stop_accepting(Deadline(time.monotonic() + 30)))
    await asyncio.sleep(0)
    time.sleep(2.0)
    moves_again = time.monotonic()
    await stopping
    assert closed[0] - moves_again > 1.0 - 2 * STEP_S


async def test_a_pre_drain_ends_with_the_budget() -> None:
    """However long it was to take."""
    closed: list[float] = []
    await drain_of(HealthService(version="1"), 600.0, closed).stop_accepting(Deadline(time.monotonic() + 0.3))
    assert len(closed) == 1
