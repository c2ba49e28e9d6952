"""Under load something goes away and comes back: what the application did is compared with what the back ends hold."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.stack import Stack
from tests.stack.backends import Backends, until
from tests.stack.conftest import StartStack
from tests.stack.crowd import SERVICE, crowd, ran, shop
from tests.support.server import Server, Start

#: How long it is away.
AWAY_S = 60.0 if os.environ.get("SOAK") else 5.0
DECISION_WAIT_S = 2.0
#: Of all records, how many may come twice when nobody is killed.
TWICE_SHARE = 0.005
#: What is on its way at one moment: a batch (0.2 s) of each of four consumers and one request of the application
#: (0.25 s), with as much again where the machine is busy.
ON_ITS_WAY_S = 2.0
RUNS = f'sum(streamlit_script_run_duration_seconds_count{{service_name="{SERVICE}"}})'
pytestmark = pytest.mark.timeout(600)


def away(stack: Stack, name: str, how: signal.Signals) -> None:
    """End a program, and start it again after a while."""
    stack.end(name, how)
    threading.Event().wait(AWAY_S)
    stack.start(name)


async def under_load(server: Server, backends: Backends, outage: Callable[[], None]) -> int:
    """Let the crowd work before, during and after; returns how many runs there were."""
    stop = asyncio.Event()
    load = asyncio.create_task(crowd(server.url, [], stop))

    def more(than: int) -> None:
        assert until(lambda: len(ran(server).all), lambda seen: seen > than) > than

    await asyncio.to_thread(more, 60)
    await asyncio.to_thread(outage)
    await asyncio.to_thread(more, len(ran(server).all) + 40)
    stop.set()
    return await load


def logged(backends: Backends) -> list[str]:
    """Trace ids of all lines in the log store, as often as they are there."""
    return [each["trace_id"] for each in backends.logs("_msg:=ran")]


def lines_ended(backends: Backends) -> list[tuple[str, float]]:
    """Trace id and time of each line in the log store, as often as it is there."""
    lines = backends.logs("_msg:=ran")
    return [(each["trace_id"], datetime.fromisoformat(each["_time"]).timestamp()) for each in lines]


def spans_ended(backends: Backends) -> list[tuple[str, float]]:
    """Id and end of each span in Jaeger, as often as it is there."""
    return [
        (f"{each['traceID']}{each['spanID']}", (each["startTime"] + each["duration"]) / 1e6)
        for each in backends.spans(SERVICE)
    ]


def again(records: list[tuple[str, float]]) -> list[float]:
    """When those were made that are there more than once."""
    return sorted(at for (_, at), count in Counter(records).items() for _ in range(count - 1))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("otelcol", signal.SIGTERM),
        ("otelcol", signal.SIGKILL),
        ("victoria-logs", signal.SIGTERM),
        ("prometheus", signal.SIGTERM),
    ],
    ids=["collector stopped", "collector killed", "log store away", "Prometheus away"],
)
async def test_nothing_is_missing_after_an_outage(
    start_stack: StartStack, serve: Start, tmp_path: Path, record_property: Callable[[str, object], None],
    name: str, how: signal.Signals,
) -> None:  # fmt: skip
    """Every run has its trace, its line and its count; what came twice is counted."""
    backends = start_stack("keep-every-trace")
    server = shop(serve, tmp_path, backends.stack)
    ended: list[float] = []

    def outage() -> None:
        ended.append(datetime.now(UTC).timestamp())
        away(backends.stack, name, how)

    finished = await under_load(server, backends, outage)
    did = set(ran(server).all)
    assert len(did) == finished
    lines = until(lambda: logged(backends), lambda seen: set(seen) >= did, 120)
    assert set(lines) == did
    assert until(lambda: set(backends.runs(SERVICE)), lambda seen: seen >= did, 120) == did
    assert until(lambda: backends.value(RUNS), lambda seen: seen >= finished, 120) == finished
    for what, records in (("lines", lines_ended(backends)), ("spans", spans_ended(backends))):
        twice = again(records)
        record_property(f"{what} twice", len(twice))
        before = [round(ended[0] - at, 2) for at in twice]
        print(f"{name} {how.name}, away {AWAY_S:.0f} s, {finished} runs: of {len(records)} {what} twice {before}")
        if how is signal.SIGKILL:  # it can't tell any more what it had taken
            assert all(ended[0] - ON_ITS_WAY_S <= at <= ended[0] + 1 for at in twice)
        else:
            assert len(twice) <= TWICE_SHARE * len(records)


async def test_a_killed_collector_loses_of_the_traces_at_most_what_it_was_deciding_about(
    start_stack: StartStack, serve: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """With tail sampling: logs and metrics are whole, and traces but for those of the last seconds before the kill."""
    backends = start_stack(COLLECTOR_DECISION_WAIT=f"{DECISION_WAIT_S:.0f}s")
    server = shop(serve, tmp_path, backends.stack)
    killed: list[float] = []

    def outage() -> None:
        killed.append(datetime.now(UTC).timestamp())
        away(backends.stack, "otelcol", signal.SIGKILL)

    finished = await under_load(server, backends, outage)
    when = {
        each["trace_id"]: datetime.fromisoformat(each["timestamp"]).timestamp()
        for each in server.lines
        if each.get("message") == "ran"
    }
    did = set(when)
    assert set(until(lambda: logged(backends), lambda seen: set(seen) >= did, 120)) == did
    assert until(lambda: backends.value(RUNS), lambda seen: seen >= finished, 120) == finished
    late = {trace_id for trace_id, at in when.items() if at > killed[0] + 1}
    until(lambda: set(backends.runs(SERVICE)), lambda seen: seen >= late, 120)
    missing = did - set(backends.runs(SERVICE))
    record_property("missing", len(missing))
    print(f"killed with decisions of {DECISION_WAIT_S:.0f} s open: {len(missing)} of {finished} traces are missing")
    # What it decides about, what it ticks in (1 s), and what was on its way to it (1 s).
    oldest = killed[0] - DECISION_WAIT_S - 2
    assert all(oldest <= when[each] <= killed[0] + 1 for each in missing)
