"""Spans, logs and metrics of real sessions with a real server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit

from streamlit_extension.demo.client import StreamlitClient
from tests.support.telemetry import StartTraced, Traced

SCRIPT = """
import asyncio, logging, sys, threading
from concurrent.futures import ThreadPoolExecutor

import streamlit as st
from opentelemetry import trace

tracer = trace.get_tracer("user")

def work(name):
    with tracer.start_as_current_span(name):
        logging.getLogger("user").info("works")

def greet(word):
    work("in callback")

def break_down():
    raise ValueError("password=hunter2hunter2")

st.title("Orders")
st.button("Greet", on_click=greet, args=("hello",))
st.button("Break", on_click=break_down)
if st.button("Again"):
    st.rerun()
if st.button("Enough"):
    st.stop()
if st.button("Leave"):
    sys.exit(3)
if st.button("Fail"):
    raise KeyError("no such client")
if st.button("Threads"):
    thread = threading.Thread(target=work, args=("in thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor() as pool:
        pool.submit(work, "in executor").result()
    async def tasks():
        await asyncio.gather(asyncio.create_task(asyncio.to_thread(work, "in task")))
    asyncio.run(tasks())

@st.fragment
def part():
    if st.button("Part"):
        work("in fragment")
    if st.button("Break part"):
        raise RuntimeError("part")

part()
"""
PAGES = """
import streamlit as st
from opentelemetry import trace

def first():
    st.button("Here")

def second():
    st.write("second")

@st.fragment
def clock():
    st.write("tick")

st.navigation([st.Page(first, title="First page", default=True), st.Page(second, title="Second page")]).run()
clock()
"""
PARALLEL = """
import streamlit as st
from opentelemetry import trace

tracer = trace.get_tracer("user")

@st.fragment(parallel=True)
def one():
    with tracer.start_as_current_span("one"):
        st.write("one")

@st.fragment(parallel=True)
def two():
    with tracer.start_as_current_span("two"):
        st.write("two")
    raise RuntimeError("two is broken")

one()
two()
"""
#: Every session of the server is nobody's, as the canary's own is.
HIDE = """
from streamlit.runtime.app_session import AppSession
begin = AppSession.__init__
def init(session, *args, **kwargs):
    begin(session, *args, **kwargs)
    WATCHER.hide_session(session.id)
AppSession.__init__ = init
"""
OPTIONS = ("--runner.fastReruns", "true", "--server.fileWatcherType", "none")


async def press(client: StreamlitClient, label: str, runs: int = 1) -> None:
    """Press a button and wait for the end of what follows."""
    if label not in [widget.label for widget in client.page.widgets.values()]:
        before = client.runs_finished
        await client.rerun()
        await client.wait_finished(before + 1)
    before = client.runs_finished
    await client.click(label)
    await client.wait_finished(before + runs)


async def session(traced: Traced, *labels: str) -> StreamlitClient:
    """A session that presses buttons and has left."""
    async with StreamlitClient(traced.url) as client:
        await client.wait_finished(1)
        for label in labels:
            await press(client, label)
    return client


def whole(span: dict[str, Any]) -> dict[str, Any]:
    """A span without its ids."""
    return {key: value for key, value in span.items() if key not in ("trace", "id", "parent", "links", "kind")}


async def test_a_run_is_one_trace_with_all_its_attributes(
    trace_server: StartTraced, script: Callable[[str], Path]
) -> None:
    """The first run and a callback's run: whole spans, each run a root that is linked to the one before."""
    traced = trace_server(script(SCRIPT), *OPTIONS)
    client = await session(traced, "Greet")
    runs = traced.wait_for(lambda: traced.runs if len(traced.runs) == 2 else None)
    attributes = {
        "session.id": client.session_id,
        "streamlit.run.type": "full",
        "streamlit.run.trigger": "connect",
        "app.screen.name": "app",
        "streamlit.run.outcome": "success",
    }
    run: dict[str, Any] = {
        "name": "script_run app",
        "span_kind": "SERVER",
        "attributes": attributes,
        "status": "UNSET",
        "description": None,
        "events": [],
        "scope": "otel.instrumentation.streamlit",
    }
    assert [whole(each) for each in runs] == [
        run,
        {**run, "attributes": {**attributes, "streamlit.run.trigger": "widget"}},
    ]
    assert [each["parent"] for each in runs] == [None, None]
    assert [each["links"] for each in runs] == [[], [runs[0]["trace"]]]
    assert len({each["trace"] for each in runs}) == 2
    callback, inner = (
        next(each for each in traced.spans if each["name"] == name) for name in ("callback greet", "in callback")
    )
    assert whole(callback) == {
        **run,
        "name": "callback greet",
        "span_kind": "INTERNAL",
        "attributes": {"code.function.name": "__main__.greet"},
    }
    assert (callback["trace"], callback["parent"]) == (runs[1]["trace"], runs[1]["id"])
    assert (inner["trace"], inner["parent"]) == (runs[1]["trace"], callback["id"])


async def test_frames_probes_and_files_make_nothing(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """A page's files, Streamlit's own probe and the WebSocket leave no span: there is the run's alone."""
    traced = trace_server(script("import streamlit as st\nst.write('x')"), *OPTIONS)
    await session(traced)
    for path in ("/", "/_stcore/health", "/_stcore/host-config", "/favicon.png", "/no/such"):
        traced.server.get(path)
    await session(traced)
    traced.wait_for(lambda: len(traced.runs) == 2)
    assert [each["name"] for each in traced.spans] == ["script_run app"] * 2


async def test_outcomes_and_triggers(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """`st.rerun`, `st.stop` and `sys.exit` are no errors, and what follows `st.rerun` says so."""
    traced = trace_server(script(SCRIPT), *OPTIONS)
    async with StreamlitClient(traced.url) as client:
        await client.wait_finished(1)
        await press(client, "Again", runs=2)
        await press(client, "Enough")
        await client.rerun()
        await client.wait_finished(5)
        await client.click("Leave")
        traced.wait_for(lambda: len(traced.runs) == 6)
    found = [
        (each["attributes"]["streamlit.run.trigger"], each["attributes"]["streamlit.run.outcome"])
        for each in traced.runs
    ]
    assert found[:4] == [("connect", "success"), ("widget", "rerun"), ("rerun", "success"), ("widget", "stopped")]
    assert found[-1] == ("widget", "stopped")
    assert {each["status"] for each in traced.runs} == {"UNSET"}
    assert [each for each in traced.records("log") if each["error"]] == []


ERRORS = {
    "Fail": ("KeyError", "'no such client'", "full"),
    "Break": ("ValueError", "password=[REDACTED]", "full"),
    "Break part": ("RuntimeError", "part", "fragment"),
}


@pytest.mark.parametrize("label", ERRORS)
@pytest.mark.parametrize("rich", ["false", "true"])
async def test_an_error_is_told_once_in_the_span_and_once_as_a_log(
    trace_server: StartTraced, script: Callable[[str], Path], label: str, rich: str
) -> None:
    """In the script, a callback or a fragment: one event, one log record with the run's ids, however it is printed."""
    kind, message, run_type = ERRORS[label]
    traced = trace_server(script(SCRIPT), *OPTIONS, env={"STREAMLIT_LOGGER_ENABLE_RICH": rich})
    await session(traced, label)
    run = traced.wait_for(lambda: [each for each in traced.runs if each["status"] == "ERROR"])[0]
    assert run["attributes"]["streamlit.run.outcome"] == "error"
    assert run["attributes"]["streamlit.run.type"] == run_type
    assert ("streamlit.fragment.id" in run["attributes"]) is (run_type == "fragment")
    assert (run["attributes"]["error.type"], run["description"]) == (kind, kind)
    assert [each["attributes"]["exception.type"] for each in run["events"]] == [kind]
    assert run["events"][0]["attributes"]["exception.message"] == message
    assert kind in run["events"][0]["attributes"]["exception.stacktrace"]
    logs = [each for each in traced.records("log") if each["error"]]
    assert [(each["error"], each["trace"], each["span"]) for each in logs] == [(kind, run["trace"], run["id"])]
    assert [each["trace"] for each in traced.spans if each["events"]] == [run["trace"]]


async def test_a_compile_error_is_told_once(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """A script that can't be compiled ends its run with that outcome, one event and one log record."""
    traced = trace_server(script("import streamlit as st\nst.write('x'\n"), *OPTIONS)
    async with StreamlitClient(traced.url):
        run = traced.wait_for(lambda: traced.runs)[0]
    assert run["attributes"]["streamlit.run.outcome"] == "compile_error"
    assert (run["attributes"]["error.type"], run["status"]) == ("SyntaxError", "ERROR")
    assert [each["attributes"]["exception.type"] for each in run["events"]] == ["SyntaxError"]
    logs = [each for each in traced.records("log") if each["error"]]
    assert [(each["error"], each["trace"]) for each in logs] == [("SyntaxError", run["trace"])]


async def test_a_page_that_can_not_be_compiled_is_told_so(
    trace_server: StartTraced, script: Callable[..., Path]
) -> None:
    """Streamlit compiles a page while the main script runs: the outcome is the same as for the script itself."""
    broken = script("import streamlit as st\nst.write('x'\n", "broken.py")
    main = script(f"import streamlit as st\nst.navigation([st.Page({str(broken)!r})]).run()\n")
    traced = trace_server(main, *OPTIONS)
    async with StreamlitClient(traced.url):
        run = traced.wait_for(lambda: traced.runs)[0]
    assert (run["attributes"]["streamlit.run.outcome"], run["attributes"]["error.type"]) == (
        "compile_error", "SyntaxError"
    )  # fmt: skip
    assert [each["attributes"]["exception.type"] for each in run["events"]] == ["SyntaxError"]


async def test_a_module_that_can_not_be_compiled_is_an_error_of_the_script(
    trace_server: StartTraced, script: Callable[..., Path]
) -> None:
    """The script itself was compiled: its import failed."""
    script("def\n", "half_written.py")
    traced = trace_server(script("import half_written\n"), *OPTIONS)
    async with StreamlitClient(traced.url):
        run = traced.wait_for(lambda: traced.runs)[0]
    assert (run["attributes"]["streamlit.run.outcome"], run["attributes"]["error.type"]) == ("error", "SyntaxError")


async def test_threads_executors_and_tasks_keep_the_run(
    trace_server: StartTraced, script: Callable[[str], Path]
) -> None:
    """Spans and log records of what a script starts are the run's."""
    traced = trace_server(script(SCRIPT), *OPTIONS)
    await session(traced, "Threads", "Part")
    runs = traced.wait_for(lambda: traced.runs if len(traced.runs) == 3 else None)
    found = {each["name"]: each["trace"] for each in traced.spans if each["scope"] == "user"}
    assert found == {
        **dict.fromkeys(("in thread", "in executor", "in task"), runs[1]["trace"]),
        "in fragment": runs[2]["trace"],
    }
    logs = [each["trace"] for each in traced.records("log") if each["logger"] == "user"]
    assert logs == [runs[1]["trace"]] * 3 + [runs[2]["trace"]]


@pytest.mark.skipif(
    "parallel" not in inspect.signature(streamlit.fragment).parameters, reason="needs parallel fragments"
)
async def test_parallel_fragments_belong_to_their_run(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """Fragments on other threads make spans below their run, and the error of one is the run's."""
    traced = trace_server(script(PARALLEL), *OPTIONS)
    await session(traced)
    run = traced.wait_for(lambda: traced.runs)[0]
    assert {each["name"]: each["parent"] for each in traced.spans if each["scope"] == "user"} == {
        "one": run["id"],
        "two": run["id"],
    }
    assert run["attributes"]["streamlit.run.outcome"] == "error"
    assert [each["attributes"]["exception.message"] for each in run["events"]] == ["two is broken"]
    assert [each["trace"] for each in traced.records("log") if each["error"]] == [run["trace"]]


async def test_pages_and_timers(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """A change of page is told with the page's name, a fragment's timer as one, and a plain rerun as neither."""
    traced = trace_server(script(PAGES), *OPTIONS)
    async with StreamlitClient(traced.url) as client:
        await client.wait_finished(1)
        await client.rerun()
        await client.wait_finished(2)
        second = next(name for name in client.pages.values() if "econd" in name)
        await client.open_page(second)
        await client.wait_finished(3)
    runs = traced.wait_for(lambda: traced.runs if len(traced.runs) == 3 else None)
    found = [(each["attributes"]["app.screen.name"], each["attributes"]["streamlit.run.trigger"]) for each in runs]
    assert found == [("First page", "connect"), ("First page", "other"), ("Second page", "page")]
    assert [each["name"] for each in runs] == ["script_run First page"] * 2 + ["script_run Second page"]


async def test_metrics_of_runs_sessions_and_caches(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """Runs are counted by type, trigger, outcome and page and never by session; exemplars lead to traces."""
    traced = trace_server(script(SCRIPT), *OPTIONS, env={"MEMORY_S": "0.2"})
    await session(traced, "Greet", "Fail")
    name = "streamlit.script_run.duration"
    points = traced.wait_for(lambda: traced.metric(name) if sum(p["count"] for p in traced.metric(name)) == 3 else None)
    common = {"streamlit.run.type": "full", "app.screen.name": "app"}
    assert [each["attributes"] for each in points] == [
        {**common, "streamlit.run.trigger": "connect", "streamlit.run.outcome": "success"},
        {**common, "streamlit.run.trigger": "widget", "streamlit.run.outcome": "success"},
        {**common, "streamlit.run.trigger": "widget", "streamlit.run.outcome": "error", "error.type": "KeyError"},
    ]
    assert {each["unit"] for each in points} == {"s"}
    assert {0.1, 0.5, 1.0, 5.0} <= set(points[0]["bounds"])
    collected = [point for record in traced.records("metrics") for point in record["metrics"].get(name, ())]
    assert {each for point in collected for each in point["exemplars"]} == {each["trace"] for each in traced.runs}
    traced.wait_for(lambda: [each["value"] for each in traced.metric("streamlit.script_run.active")] == [0])
    traced.wait_for(lambda: [each["value"] for each in traced.metric("streamlit.session.active")] == [0])


async def test_an_exponential_histogram_by_choice(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """An exporter that prefers exponential histograms gets them: our bounds are advice."""
    traced = trace_server(script("import streamlit as st\nst.write('x')"), *OPTIONS, env={"EXPONENTIAL": "1"})
    await session(traced)
    points = traced.wait_for(lambda: traced.metric("streamlit.script_run.duration"))
    assert points[0]["scale"] is not None
    assert points[0]["bounds"] is None


async def test_a_hidden_session_leaves_nothing(trace_server: StartTraced, script: Callable[[str], Path]) -> None:
    """A session that is nobody's makes no span of a run or a callback and is counted nowhere."""
    traced = trace_server(script(SCRIPT), *OPTIONS, more=HIDE)
    await session(traced, "Greet", "Fail")
    traced.wait_for(lambda: traced.records("metrics"))
    assert [each["name"] for each in traced.spans if each["scope"] != "user"] == []
    assert traced.metric("streamlit.script_run.duration") == []
