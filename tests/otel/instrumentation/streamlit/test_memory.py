"""Where memory goes: estimates at a bounded cost that run no line of the application's code."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from otel.instrumentation.streamlit.memory import MemorySample, MemorySampler, SessionMemory
from otel.instrumentation.streamlit.sizing import size_of
from streamlit_extension.demo.client import StreamlitClient
from tests.support.telemetry import StartTraced

MIB = 2**20


class Hostile:
    """Every method that a careless measurement would call."""

    called: ClassVar[list[str]] = []

    def __init__(self, held: Any) -> None:
        self.held = held

    def _call(self, name: str) -> Any:
        Hostile.called.append(name)
        raise RuntimeError(name)

    def __sizeof__(self) -> int:
        return int(self._call("sizeof"))

    def __len__(self) -> int:
        return int(self._call("len"))

    def __iter__(self) -> Any:
        return self._call("iter")

    def __getattr__(self, name: str) -> Any:
        return self._call(name)

    def __eq__(self, other: object) -> bool:
        return bool(self._call("eq"))

    def __hash__(self) -> int:
        return 1

    @property
    def __class__(self) -> Any:
        return self._call("class")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class HostileList(list[Any]):
    """A list whose own methods must not be called."""

    __len__ = __iter__ = __getitem__ = __sizeof__ = lambda *_: Hostile.called.append("list")  # type: ignore[assignment]


#: Each holds a mebibyte.
HOLDERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"x" * MIB,
    "few strings": lambda: ["x" * (MIB // 8) + str(n) for n in range(8)],
    "dict": lambda: {n: bytes(1024) + str(n).encode() for n in range(1024)},
    "ordered dict": lambda: OrderedDict((n, bytes(1024) + str(n).encode()) for n in range(1024)),
    "list": lambda: [bytes(1024) + str(n).encode() for n in range(1024)],
    "set": lambda: {bytes(1024) + str(n).encode() for n in range(1024)},
    "deque": lambda: deque(bytes(1024) + str(n).encode() for n in range(1024)),
    "stream": lambda: io.BytesIO(b"x" * MIB),
    "hostile": lambda: Hostile(b"x" * MIB),
    "hostile list": lambda: HostileList([b"x" * MIB]),
    "nested": lambda: [[{"deep": (b"x" * MIB,)}]],
}


@pytest.mark.parametrize("name", HOLDERS)
def test_an_estimate_is_near_and_runs_no_code_of_the_object(name: str) -> None:
    """A mebibyte is found wherever it lies, within a quarter, and no method of the object is called."""
    value = HOLDERS[name]()
    Hostile.called.clear()
    found = size_of([value]).bytes
    called = list(Hostile.called)
    assert 0.95 * MIB < found < 1.25 * MIB
    assert called == []


def test_arrays_and_frames_are_seen() -> None:
    """Numpy's arrays and pandas' frames hold their data out of the collector's sight, which is known."""
    import numpy as np
    import pandas as pd

    array = np.zeros(MIB // 8)
    assert size_of([array]).bytes == pytest.approx(MIB, rel=0.01)
    assert size_of([array[::2]]).bytes == pytest.approx(MIB, rel=0.01)
    assert size_of([array, array[1:], [array]]).bytes == pytest.approx(MIB, rel=0.01)
    assert size_of([pd.DataFrame({"a": array, "b": array})]).bytes >= 1.9 * MIB


def test_what_is_shared_counts_once_and_cycles_end() -> None:
    """The same object by two ways is one object."""
    held = b"x" * MIB
    loop: list[Any] = [held]
    loop.append(loop)
    assert size_of([loop, [held], {"again": held}]).bytes < 1.01 * MIB
    assert size_of([loop]).complete


def test_the_cost_is_bounded() -> None:
    """A million objects are not all looked at: the estimate says that it is not complete."""
    nested: Any = [[[object() for _ in range(50)] for _ in range(50)] for _ in range(50)]
    found = size_of([nested], max_objects=500)
    assert not found.complete
    assert found.bytes > 0


def test_a_container_that_changes_meanwhile_breaks_nothing() -> None:
    """Scripts go on while they are measured."""
    values: dict[int, Any] = {n: [n] * 10 for n in range(1000)}
    done = threading.Event()

    def change() -> None:
        number = 1000
        while not done.is_set():
            values[number] = [number]
            values.pop(number - 500, None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert size_of([values]).bytes > 0
    finally:
        done.set()
        thread.join()


def test_the_largest_sessions_come_first() -> None:
    """The largest are told by all that they hold."""
    sessions = tuple(SessionMemory(f"s{n}", n, 100 - 2 * n, True) for n in range(10))
    assert [each.session_id for each in MemorySample(sessions=sessions).largest(2)] == ["s0", "s1"]


def test_the_sampler_s_thread_ends_with_it() -> None:
    """Starting twice is one thread; after the stop there is none, and nothing is known any more."""
    sampler = MemorySampler(interval_s=0.01, first_s=0.01)

    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name == "streamlit-memory-sampler"]

    sampler.start()
    sampler.start()
    assert len(threads()) == 1
    sampler.stop()
    assert threads() == []
    assert sampler.sample == MemorySample()


SCRIPT = """
import streamlit as st

@st.cache_data
def load():
    return b"c" * (2 * 2**20)

@st.cache_resource
def model():
    return [b"m" * 2**20]

st.session_state.data = b"s" * (3 * 2**20)
load(), model()
st.download_button("File", b"d" * 2**20)
"""


async def test_an_application_s_memory_is_told_by_kind(
    trace_server: StartTraced, script: Callable[[str], Path]
) -> None:
    """Session state, caches and media of a running application are told in bytes, and the session that holds them."""
    more = """
import threading
from otel.instrumentation.streamlit import memory
memory.FIRST_S = 0.1
def tell():
    while True:
        threading.Event().wait(0.2)
        found = StreamlitInstrumentor().memory.largest(1)
        write("largest", sessions=[(each.session_id, each.bytes, each.complete) for each in found])
threading.Thread(target=tell, daemon=True).start()
StreamlitInstrumentor()._sampler.first_s = 0.1
"""
    options = ("--server.fileWatcherType", "none")
    traced = trace_server(script(SCRIPT), *options, more=more, env={"MEMORY_S": "0.2"})
    async with StreamlitClient(traced.url) as client:
        await client.wait_finished(1)

        def all_there() -> dict[str, int] | None:
            kinds = ("session_state", "cache", "media", "uploads")
            found = {kind: traced.metric(f"streamlit.memory.{kind}") for kind in kinds}
            values = {kind: points[0]["value"] for kind, points in found.items() if points}
            full = len(values) == 4 and values["cache"] > 3 * MIB and values["session_state"] and values["media"]
            return values if full else None  # a sample can have been taken in the middle of the run

        values = traced.wait_for(all_there)
        assert values["session_state"] == pytest.approx(3 * MIB, rel=0.05)
        assert values["cache"] == pytest.approx(3 * MIB, rel=0.05)
        assert values["media"] == MIB
        assert values["uploads"] == 0
        largest = traced.wait_for(lambda: [each for each in traced.records("largest") if each["sessions"]])[-1]
        assert largest["sessions"][0][0] == client.session_id
        assert largest["sessions"][0][1] == pytest.approx(3 * MIB, rel=0.05)
