"""What `run` sends to a receiver: triggers, uploads, caches, histograms, sampling, own routes, errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.e2e.test_telemetry import environment, visit
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver, attributes
from tests.support.server import Start

Script = Callable[..., Path]
PAGES = """
import streamlit as st
def first():
    st.button("Press", on_click=lambda: None)
    if st.button("Again"):
        st.rerun()
    @st.fragment(run_every=0.3)
    def clock():
        st.write("tick")
    clock()
def second():
    st.write("second")
st.navigation([st.Page(first, default=True), st.Page(second)]).run()
"""
LOGS = "import logging, streamlit as st\nst.title('hello')\nlogging.getLogger('mine').warning('drawn')\n"


def live(receiver: OtlpReceiver, interval_ms: int = 300) -> dict[str, str]:
    """Telemetry that arrives while the process runs."""
    return {**environment(receiver), "OTEL_METRIC_EXPORT_INTERVAL": str(interval_ms)}


def runs(receiver: OtlpReceiver) -> list[dict[str, Any]]:
    """Attributes of the spans of runs, in the order of their starts."""
    spans = sorted(receiver.spans, key=lambda span: span.start_time_unix_nano)
    return [attributes(span.attributes) for span in spans if span.name.startswith("script_run")]


def points(receiver: OtlpReceiver, name: str) -> list[Any]:
    """The newest data points of a metric."""
    for metric in reversed(receiver.metrics):
        if metric.name == name:
            return list(getattr(metric, str(metric.WhichOneof("data"))).data_points)
    return []


def value(receiver: OtlpReceiver, name: str, **wanted: str) -> float | None:
    """The newest value of the point with these attributes (dots are written as underscores)."""
    for point in points(receiver, name):
        if {key.replace(".", "_"): each for key, each in attributes(point.attributes).items()} == wanted:
            return float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)
    return None


async def test_every_trigger(serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """A first run, a callback, what follows `st.rerun`, another page, a browser's own rerun and an edited file."""
    path = script(PAGES)
    server = serve(
        path, "--server.fileWatcherType", "poll", "--server.runOnSave", "true", env=live(otlp)
    )  # fmt: skip
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Press")
        await client.wait_finished(2)
        await client.click("Again")
        await client.wait_finished(4)
        await client.rerun()
        await client.wait_finished(5)
        await client.open_page("second")
        await client.wait_finished(6)
        path.write_text(PAGES.replace('"second"', '"edited"'))
        await client.wait_finished(7)
    assert server.stop() == 0
    assert [(each["streamlit.run.trigger"], each["app.screen.name"]) for each in runs(otlp)] == [
        ("connect", "first"),
        ("widget", "first"),
        ("widget", "first"),
        ("rerun", "first"),
        ("other", "first"),
        ("page", "second"),
        ("source", "second"),
    ]


@pytest.mark.browser
def test_a_fragment_that_refreshes_itself(browser: Any, serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """In a real browser a fragment's `run_every` makes runs of the fragment by its timer."""
    server = serve(script(PAGES), env=live(otlp))
    browser.new_page().goto(server.url)
    timed = {"streamlit.run.trigger": "timer", "streamlit.run.type": "fragment"}
    assert otlp.wait_for(lambda: sum(timed.items() <= each.items() for each in runs(otlp)) >= 2, 60), runs(otlp)
    assert {each["streamlit.run.trigger"] for each in runs(otlp)} == {"connect", "timer"}
    assert all(each.get("streamlit.fragment.id") for each in runs(otlp) if timed.items() <= each.items())


@pytest.mark.browser
def test_uploads_are_measured(browser: Any, serve: Start, script: Script, tmp_path: Path, otlp: OtlpReceiver) -> None:
    """The bytes of the files that browsers have uploaded."""
    server = serve(script("import streamlit as st\nst.file_uploader('File')\n"), env=live(otlp))
    file = tmp_path / "data.bin"
    file.write_bytes(b"x" * 54_321)
    page = browser.new_page()
    page.goto(server.url)
    page.locator("input[type=file]").set_input_files(str(file))
    assert otlp.wait_for(lambda: value(otlp, "streamlit.memory.uploads") == 54_321, 60), server.output


async def test_look_ups_and_evictions_of_caches(serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """Hits, misses and evictions are Streamlit's own numbers."""
    source = """
import streamlit as st
@st.cache_data(max_entries=2)
def double(number):
    return 2 * number
for number in (1, 1, 1, 2, 3, 4):
    double(number)
"""
    server = serve(script(source), env=live(otlp))
    await visit(server)
    assert server.stop() == 0
    name = "streamlit.cache.requests"
    if not points(otlp, name):
        pytest.skip("this Streamlit does not count its caches' look-ups")
    assert value(otlp, name, streamlit_cache_outcome="hit") == 2
    assert value(otlp, name, streamlit_cache_outcome="miss") == 4
    assert value(otlp, "streamlit.cache.evictions") == 2


async def test_exponential_histograms_by_the_standard_variable(
    serve: Start, script: Script, otlp: OtlpReceiver
) -> None:
    """OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION wins over the bounds that we advise."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    server = serve(script(LOGS), env={**live(otlp), name: "base2_exponential_bucket_histogram"})
    await visit(server)
    assert server.stop() == 0
    [metric] = [each for each in otlp.metrics if each.name == "streamlit.script_run.duration"][-1:]
    assert metric.WhichOneof("data") == "exponential_histogram"
    [point] = metric.exponential_histogram.data_points
    assert (point.count, sum(point.positive.bucket_counts)) == (1, 1)
    assert attributes(point.attributes)["app.screen.name"] == "app"


async def test_stable_names_are_asked_for_beside_the_users_choice(serve: Start, script: Script) -> None:
    """Whatever a script instruments itself uses the stable names of HTTP and databases."""
    name = "OTEL_SEMCONV_STABILITY_OPT_IN"
    server = serve(script(f"import os, streamlit as st\nst.text(os.environ['{name}'])\n"), env={name: "rpc"})
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(1)
    assert page.texts == ["rpc,http,database"]


async def test_head_sampling_thins_traces_alone(serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """With a ratio of 0 no span leaves; every record, with its run's ids, and every run's duration does."""
    sampler = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    server = serve(script(LOGS), env={**live(otlp), **sampler})
    for _ in range(3):
        await visit(server)
    assert server.stop() == 0
    assert otlp.spans == []
    drawn = [each for each in otlp.logs if each.body.string_value == "drawn"]
    assert len(drawn) == 3
    assert len({each.trace_id for each in drawn if each.trace_id}) == 3
    assert {each.flags & 1 for each in drawn} == {0}
    assert sum(point.count for point in points(otlp, "streamlit.script_run.duration")) == 3


OWN = """
import streamlit as st
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit_extension import create_app

async def order(request):
    return PlainTextResponse("order " + request.path_params["number"])

app = st.App("app.py", routes=[Route("/orders/{number}", order)])
app = create_app(app)
"""
AROUND = """
from fastapi import FastAPI
from streamlit_extension import create_app
import streamlit as st

inner = st.App("app.py")
api = FastAPI(lifespan=inner.lifespan())

@api.get("/orders/{number}")
def order(number: str):
    return number

api.mount("/", inner)
app = create_app(api)
"""


@pytest.mark.parametrize("source", [OWN, AROUND], ids=["routes of st.App", "FastAPI around it"])
async def test_own_routes_have_spans_and_nothing_else_has(
    serve: Start, script: Script, otlp: OtlpReceiver, source: str
) -> None:
    """A route by its template under a real uvicorn; frames, probes, pages and static files leave nothing."""
    script(LOGS)
    script(source, "launcher.py")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on"]
    server = serve("app.py", command=command, env=live(otlp), port=port)
    assert server.get("/orders/7?token=hush").status == 200
    for path in ("/", "/health/live", "/health/ready", "/_stcore/health", "/_stcore/host-config", "/favicon.png"):
        server.get(path)
    await visit(server)
    assert server.stop() == 0, server.output
    served = [span for span in otlp.spans if not span.name.startswith("health.")]
    assert sorted(span.name for span in served) == ["GET /orders/{number}", "script_run app"]
    found = attributes(next(span for span in served if span.name.startswith("GET")).attributes)
    assert (found["http.route"], found["http.response.status_code"]) == ("/orders/{number}", 200)
    assert "hush" not in json.dumps(found)
    [point] = points(otlp, "http.server.request.duration")
    assert (point.count, attributes(point.attributes)["http.route"]) == (1, "/orders/{number}")


FAILING = """
import streamlit as st

def broken():
    raise ValueError("in callback")

st.button("Callback", on_click=broken)
if st.button("Script"):
    raise KeyError("in script")
if st.button("SQL"):
    st.connection("db", type="sql", url="sqlite://").query("select * from nowhere")
"""


@pytest.mark.parametrize("asked", [None, "true"])
async def test_an_error_is_one_line_and_one_record(
    serve: Start, script: Script, otlp: OtlpReceiver, asked: str | None
) -> None:
    """Although `rich` is installed every line is JSON with the run's ids; only who asks for `rich` gets it as well."""
    env = live(otlp) | ({} if asked is None else {"STREAMLIT_LOGGER_ENABLE_RICH": asked})
    server = serve(script(FAILING), env=env)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Script")
        await client.wait_finished(2)
    assert server.stop() == 0
    [line] = [each for each in server.lines if "exception.type" in each]
    [record] = [each for each in otlp.logs if "exception.type" in attributes(each.attributes)]
    [run] = [each for each in otlp.spans if each.status.message == "KeyError"]
    assert (line["trace_id"], line["span_id"]) == (run.trace_id.hex(), run.span_id.hex())
    assert (record.trace_id, record.span_id) == (run.trace_id, run.span_id)
    plain = [each for each in server.output.splitlines() if each and not each.startswith("{")]
    assert any("KeyError" in each for each in plain) is (asked is not None), plain


class StackClient(StreamlitClient):
    """Keeps the stacks of the errors that it is shown."""

    def _take_element(self, element: Any, fragment_id: str = "") -> None:
        super()._take_element(element, fragment_id)
        if element.WhichOneof("type") == "exception":
            self.page.texts += element.exception.stack_trace


@pytest.mark.parametrize("label", ["Script", "Callback", "SQL"])
async def test_users_see_no_frame_of_ours(serve: Start, script: Script, label: str) -> None:
    """The stack that the page shows of an error is the script's own, as under plain Streamlit."""
    server = serve(script(FAILING))
    async with StackClient(server.url) as client:
        await client.wait_finished(1)
        await client.click(label)
        page = await client.wait_finished(2)
    frames = [each for each in page.texts if each.startswith("File ")]
    assert any("app.py" in each for each in frames)
    assert [each for each in frames if "otel" in each] == []
    assert label == "SQL" or len(frames) == 1


QUIET = """
import streamlit as st
from streamlit_extension import create_app

def on_error(error):
    st.warning("We are sorry")
    return True

app = st.App("app.py", on_script_error=on_error)
app = create_app(app)
"""


async def test_an_error_that_the_application_shows_itself(serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """`on_script_error` may suppress Streamlit's box: then ours is not shown, and the run has failed all the same."""
    script(FAILING)
    server = serve(script(QUIET, "launcher.py"), env=live(otlp))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.click("Script")
        page = await client.wait_finished(2)
    assert page.exceptions == []
    assert "We are sorry" in page.texts
    assert not any("reference" in text for text in page.texts)
    assert server.stop() == 0
    [failed] = [each for each in runs(otlp) if each["streamlit.run.outcome"] == "error"]
    assert failed["error.type"] == "KeyError"
    assert len([each for each in otlp.logs if "exception.type" in attributes(each.attributes)]) == 1


@pytest.mark.browser
def test_the_reference_of_a_failed_callback(browser: Any, serve: Start, script: Script, otlp: OtlpReceiver) -> None:
    """Under `run` too, a user sees the first digits of the trace, and copies all of them."""
    server = serve(script(FAILING), env=live(otlp))
    page = browser.new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Callback").click()
    box = page.locator(".stx-error-reference")
    box.wait_for()
    box.get_by_role("button").click()
    box.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied[:8] in box.inner_text()
    assert otlp.wait_for(lambda: copied in [span.trace_id.hex() for span in otlp.spans if span.status.message])
