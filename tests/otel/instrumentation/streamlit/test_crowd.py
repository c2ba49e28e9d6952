"""Many sessions at once, and one that reruns for a long time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.telemetry import StartTraced

SESSIONS = 20
#: Every line and span names its session, so that a stray one is found.
SCRIPT = """
import logging, threading

import streamlit as st
from opentelemetry import trace
from streamlit.runtime.scriptrunner import get_script_run_ctx

tracer = trace.get_tracer("user")
me = get_script_run_ctx().session_id

def work(what):
    with tracer.start_as_current_span(what, attributes={"me": me}):
        logging.getLogger("user").info("%s %s", me, what)

def called():
    work("callback")

work("script")
st.button("Call", on_click=called)
if st.button("Thread"):
    threads = [threading.Thread(target=work, args=("thread",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
if st.button("Again"):
    st.rerun()

@st.fragment
def part():
    work("fragment")
    if st.button("Part"):
        st.write("part")

part()
if st.button("Fail"):
    raise ValueError(me)
for number in range(20):
    st.write(number)
"""
OPTIONS = ("--server.fileWatcherType", "none")


async def user(url: str) -> int:
    """A hasty user: presses without waiting for the run before, whose requests queue and pre-empt one another."""
    async with StreamlitClient(url) as client:
        page = await client.wait_finished(1)
        known = dict(page.widgets)
        for label in ("Call", "Thread", "Part", "Again", "Call", "Fail", "Thread", "Part"):
            client.page.widgets.update(known)
            await client.click(label)
            await asyncio.sleep(0)
        await client.rerun()
        await client.wait_finished(client.runs_finished + 1)
        return client.runs_finished


async def test_twenty_hasty_sessions_share_nothing(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """Traces are runs, no span is below another session's run, and every log line is of its own session's run."""
    more = """
from otel.instrumentation.streamlit import WATCHER
WATCHER.add_listener(lambda run: write("run", session=run.session_id, outcome=run.outcome.value))
"""
    traced = trace_server(script(SCRIPT), *OPTIONS, more=more)
    await asyncio.gather(*(user(traced.url) for _ in range(SESSIONS)))
    traced.wait_for(lambda: [each["value"] for each in traced.metric("streamlit.session.active")] == [0])
    traced.wait_for(lambda: {each["value"] for each in traced.metric("streamlit.script_run.active")} == {0})
    runs = {each["trace"]: each for each in traced.runs}
    told = traced.records("run")
    assert len(runs) == len(traced.runs) == len(told)
    assert Counter(each["attributes"]["streamlit.run.outcome"] for each in traced.runs) == Counter(
        each["outcome"] for each in told
    )
    assert len({each["attributes"]["session.id"] for each in traced.runs}) == SESSIONS
    assert {each["trace"] for each in traced.spans} == set(runs)
    strays = [
        each
        for each in traced.spans
        if each["scope"] == "user" and each["attributes"]["me"] != runs[each["trace"]]["attributes"]["session.id"]
    ]
    assert strays == []
    lines = [each for each in traced.records("log") if each["logger"] == "user"]
    assert lines
    assert [
        each for each in lines if each["message"].split()[0] != runs[each["trace"]]["attributes"]["session.id"]
    ] == []
    assert len(lines) == len([each for each in traced.spans if each["scope"] == "user"])
    failed = [each for each in traced.runs if each["attributes"]["streamlit.run.outcome"] == "error"]
    errors = [each for each in traced.records("log") if each["error"] == "ValueError"]
    assert sorted(each["trace"] for each in errors) == sorted(each["trace"] for each in failed)
    by_session: dict[str, list[str]] = {}
    for each in traced.runs:
        by_session.setdefault(each["attributes"]["session.id"], []).append(each["trace"])
    for each in traced.runs:  # each is linked to a run of its own session, and no two to the same
        assert set(each["links"]) <= set(by_session[each["attributes"]["session.id"]])
    links = [link for each in traced.runs for link in each["links"]]
    assert len(links) == len(set(links)) == len(traced.runs) - SESSIONS
    assert traced.records("warning") == []
    assert [each for each in traced.records("log") if each["logger"].startswith(("otel", "opentelemetry"))] == []


COUNT = """
import gc, os, threading
import psutil

def facts():
    gc.collect()
    return {
        "threads": sorted(each.name for each in threading.enumerate() if "ScriptRunner" not in each.name),
        "descriptors": psutil.Process().num_fds(),
        "handlers": [len(logging.getLogger(name).handlers) for name in ("", "streamlit", "otel")],
        "processors": len(tracers._active_span_processor._span_processors),
        "listeners": len(WATCHER._listeners),
        "open": len(WATCHER._open), "sessions": len(WATCHER._sessions), "runners": len(WATCHER._runners),
        "objects": len(gc.get_objects()),
        "memory": psutil.Process().memory_info().rss,
    }

def tell(run):
    counted[0] += 1
    if counted[0] in (WARM, WARM + RERUNS):
        threading.Thread(target=lambda: write("facts", **facts()), name="teller").start()

counted = [0]
WATCHER.add_listener(tell)
"""


@pytest.mark.timeout(1800)
async def test_reruns_leave_nothing_behind(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """After many reruns there are as many threads, descriptors, handlers and objects as before, and no warning."""
    warm, reruns = 50, 10_000 if os.environ.get("SOAK") else 400
    more = f"WARM, RERUNS = {warm}, {reruns}\n" + COUNT
    traced = trace_server(script(SCRIPT), *OPTIONS, more=more)
    async with StreamlitClient(traced.url) as client:
        for number in range(1, warm + reruns + 1):
            await client.wait_finished(number)
            await client.rerun()
        before, after = traced.wait_for(lambda: r if len(r := traced.records("facts")) == 2 else None)
    for name in ("handlers", "processors", "listeners", "sessions"):
        assert after[name] == before[name], name
    assert len(after["threads"]) <= len(before["threads"])
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["open"] <= 1
    assert after["runners"] <= 3
    assert after["objects"] <= before["objects"] + 2_000
    assert after["memory"] <= before["memory"] + 20 * 2**20
    assert traced.records("warning") == []
    assert traced.server.process.poll() is None
