"""What 20 hasty sessions look like in traces, ours beside the stock instrumentation: `python benchmarks/traces.py`.

Both servers run the same script: callbacks, fragments, threads, `st.rerun` and errors, each with a span of the user's
own that names the run which it belongs to. The sessions press buttons without waiting, so that runs queue and pre-empt
one another. Counted is what arrives by OTLP: spans, spans of runs, traces, and the user's spans in a trace that is
another run's.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collector import Counting
from benchmarks.support import PEERS, PEERS_PYTHON, QUIET, free_port, has, running
from streamlit_extension.demo.client import StreamlitClient

SCRIPT = """
import threading, uuid
import streamlit as st
from opentelemetry import trace
from streamlit.runtime.scriptrunner import get_script_run_ctx

tracer = trace.get_tracer("user")

def work(what, run):
    with tracer.start_as_current_span(what, attributes={"run": run}):
        pass

def called():
    st.session_state.run = uuid.uuid4().hex
    work("callback", st.session_state.run)

run = st.session_state.pop("run", None) or uuid.uuid4().hex
work("script", run)
st.button("Call", on_click=called)
if st.button("Thread"):
    threads = [threading.Thread(target=work, args=("thread", run)) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
if st.button("Again"):
    st.rerun()

@st.fragment
def part():
    work("fragment", uuid.uuid4().hex if get_script_run_ctx().fragment_ids_this_run else run)
    st.button("Part")

part()
if st.button("Fail"):
    raise ValueError("broken")
for number in range(20):
    st.write(number)
"""
PRESSES = ("Call", "Thread", "Part", "Again", "Call", "Fail", "Thread", "Part")
#: The receiver has all of it once nothing has come for so long, in seconds.
QUIET_S = 8.0


async def user(url: str) -> None:
    """Presses buttons without waiting for the run before."""
    async with StreamlitClient(url) as client:
        known = dict((await client.wait_finished(1)).widgets)
        for label in PRESSES:
            client.page.widgets.update(known)
            await client.click(label)
            await asyncio.sleep(0)
        await client.rerun()
        await client.wait_finished(client.runs_finished + 1)
        await asyncio.sleep(1)  # what is queued still runs


async def crowd(url: str, sessions: int) -> None:
    """All of them at once."""
    await asyncio.gather(*(user(url) for _ in range(sessions)))


def settle(receiver: Counting) -> list[Any]:
    """Wait until nothing comes any more, and return the spans."""
    spans = receiver.decoded_spans()
    changed_s = time.monotonic()
    while time.monotonic() - changed_s < QUIET_S:
        time.sleep(0.5)
        found = receiver.decoded_spans()
        if len(found) != len(spans):
            spans, changed_s = found, time.monotonic()
    return [span for span in spans if not span.name.startswith("health.")]


def report(label: str, spans: list[Any]) -> None:
    """One line of figures."""
    of_trace: dict[bytes, Counter[str]] = defaultdict(Counter)
    for span in spans:
        run = next((pair.value.string_value for pair in span.attributes if pair.key == "run"), None)
        if run is not None:
            of_trace[span.trace_id][run] += 1
    users = sum(map(Counter.total, of_trace.values()))
    foreign = sum(found.total() - max(found.values()) for found in of_trace.values())
    runs = [span for span in spans if span.name.startswith("script_run")]
    frames = [span for span in spans if "websocket" in span.name.lower() or "_stcore" in span.name]
    seen = len({run for found in of_trace.values() for run in found})
    print(
        f"{label:<8} {len(spans):>6} spans, {len(runs):>4} of runs, {len(frames):>5} of frames and files; "
        f"{len({span.trace_id for span in spans}):>4} traces for {seen:>4} runs with spans of the user's; "
        f"{foreign:>4} of the user's {users} spans under another run",
        flush=True,
    )


def main() -> None:
    """Run the crowd against both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20)
    options = parser.parse_args()
    root = str(Path(__file__).parents[1])
    ways = [("ours", [sys.executable, "-m", "streamlit_extension", "run", "script.py"], "/health/startup")]
    stock = PEERS.parent / "opentelemetry-instrument"
    if stock.exists() and has(PEERS_PYTHON, "opentelemetry.instrumentation.asgi"):
        ways.append(("stock", [str(stock), str(PEERS.parent / "streamlit"), "run", "script.py"], "/_stcore/health"))
    for label, words, ready in ways:
        with tempfile.TemporaryDirectory() as name, Counting() as receiver:
            folder = Path(name)
            (folder / "script.py").write_text(SCRIPT)
            port = free_port()
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                **({"PYTHONPATH": root} if label == "ours" else {}),
            }
            command = [*words, "--server.port", str(port), "--server.address", "127.0.0.1", *QUIET]
            with running(command, f"http://127.0.0.1:{port}{ready}", folder, environ):
                asyncio.run(crowd(f"http://127.0.0.1:{port}", options.sessions))
                spans = settle(receiver)
            report(label, spans)


if __name__ == "__main__":
    main()
