"""How long a rerun takes, plain, with ours and with the stock instrumentation: `python benchmarks/rerun.py`.

Four servers run the same script (no SQL): `streamlit run`; the same with our instrumentor alone and the SDK's own
exporter; our `run`, everything on; and `opentelemetry-instrument streamlit run` with the stock packages. All but the
first export by OTLP to a receiver of the benchmark's own. Sessions rerun without a pause, each as soon as its last run
has finished; the servers take turns in short rounds. Printed are the median time of a rerun as the browser sees it and
the processor time that the server spends on one, and the ratios of both to plain: the median over the rounds, range.

Streamlit collects all garbage after each run (`runner.postScriptGC`), and ours makes that cheaper than it was; so each
comparison is made with it and without it, and what the second one shows is what the instrumentation itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.support import PEERS, PEERS_PYTHON, QUIET, free_port, has, running

SCRIPT = """
import streamlit as st

st.title("Orders")
name = st.sidebar.text_input("Name", "Ada")
limit = st.sidebar.slider("Limit", 0, 100, 50)
kind = st.sidebar.selectbox("Kind", ["all", "open", "closed"])
for column, label in zip(st.columns(4), ("New", "Open", "Late", "Closed")):
    column.metric(label, limit, 3)
first, second = st.tabs(["Table", "Notes"])
first.dataframe({"number": list(range(50)), "client": [f"client {n}" for n in range(50)]})
for number in range(10):
    second.write(f"note {number} of {name}")
with st.expander("More"):
    st.checkbox("Only mine")
    st.button("Refresh")
"""
#: The same with what an application of some size has: callbacks, a form, fragments, many widgets and elements.
WIDE_SCRIPT = """
import streamlit as st

def changed():
    st.session_state.changes = st.session_state.get("changes", 0) + 1

@st.fragment
def part(number):
    st.subheader(f"Part {number}")
    st.number_input("Amount", 0, 100, 5, key=f"amount {number}", on_change=changed)
    st.toggle("Open", key=f"open {number}")
    st.write({"part": number})

st.title("Everything")
for number in range(20):
    part(number)
with st.form("order"):
    for number in range(20):
        st.text_input(f"Field {number}", key=f"field {number}")
    st.form_submit_button("Save")
for number in range(40):
    st.markdown(f"Line {number} of **many**")
"""
SCRIPTS = {"page": SCRIPT, "wide": WIDE_SCRIPT}
#: How each comparison is told apart, and Streamlit's option for it.
COLLECTING = {
    "garbage collected after each run, as Streamlit does by default": "true",
    "no such collection (runner.postScriptGC off): what the instrumentation itself costs": "false",
}
#: Our instrumentor with the SDK as it comes, in front of an unchanged `streamlit run`.
LAUNCHER = """
import sys
sys.path.insert(0, {root!r})
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otel.instrumentation.streamlit import StreamlitInstrumentor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
StreamlitInstrumentor().instrument()

from streamlit.web.cli import main
main(sys.argv[1:])
"""


class Browser:
    """One session that reruns; of what it is shown it looks for the end alone."""

    def __init__(self, port: int) -> None:
        self._address = f"ws://127.0.0.1:{port}/_stcore/stream"
        self._origin = f"http://127.0.0.1:{port}"
        self._connection: ClientConnection | None = None
        message = BackMsg()
        message.rerun_script.query_string = ""
        self._message = message.SerializeToString()

    async def open(self) -> None:
        """Connect and see the first run."""
        self._connection = await connect(
            self._address,
            subprotocols=[Subprotocol("streamlit")],
            origin=self._origin,  # type: ignore[arg-type]
            max_size=None,
            proxy=None,
            compression=None,
        )
        await self.rerun()

    async def rerun(self) -> float:
        """Milliseconds from asking until the run's end is told."""
        assert self._connection is not None
        began = time.perf_counter()
        await self._connection.send(self._message)
        while True:
            data = await self._connection.recv()
            if len(data) < 200:  # the end is told in a small message
                message = ForwardMsg()
                message.ParseFromString(data if isinstance(data, bytes) else data.encode())
                if message.WhichOneof("type") == "script_finished":
                    return (time.perf_counter() - began) * 1000

    async def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            await self._connection.close()


def processor_s(process: psutil.Process) -> float:
    """Processor time of a process: from its own clock where there is one, which psutil's figures are rounded from."""
    if sys.platform == "linux":
        return time.clock_gettime((~process.pid << 3) | 2)  # clock_getcpuclockid(3), which Python does not offer
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass
class Way:
    """One way of running the script, and what was measured of it: (milliseconds, processor milliseconds) a round."""

    label: str
    words: list[str]
    ready: str = "/_stcore/health"
    environ: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: psutil.Process | None = None
    browsers: list[Browser] = field(default_factory=list)
    rounds: list[tuple[float, float]] = field(default_factory=list)

    async def measure(self, reruns: int) -> tuple[float, float]:
        """Let every session rerun; the median time and the server's processor time for one rerun."""
        assert self.process is not None
        before_s = processor_s(self.process)

        async def one(browser: Browser) -> list[float]:
            return [await browser.rerun() for _ in range(reruns)]

        found = await asyncio.gather(*(one(each) for each in self.browsers))
        spent_s = processor_s(self.process) - before_s
        times = [each for times in found for each in times]
        return statistics.median(times), spent_s * 1000 / len(times)


@contextlib.contextmanager
def receiver() -> Iterator[str]:
    """An OTLP receiver that takes everything; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def ways(folder: Path, endpoint: str) -> list[Way]:
    """The four of them, or three where the peers are not installed."""
    export = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    root = str(Path(__file__).parents[1])
    (folder / "launch.py").write_text(LAUNCHER.format(root=root))
    found = [
        Way("plain", [sys.executable, "-m", "streamlit", "run", "script.py"]),
        Way("our instrumentor", [sys.executable, "launch.py", "run", "script.py"], environ=export),
        Way(
            "ours: run",
            [sys.executable, "-m", "streamlit_extension", "run", "script.py"],
            "/health/startup",
            {**export, "PYTHONPATH": root},
        ),
    ]
    stock = PEERS.parent / "opentelemetry-instrument"
    if has(PEERS_PYTHON, "opentelemetry.instrumentation.asgi") and stock.exists():
        words = [str(stock), str(PEERS.parent / "streamlit"), "run", "script.py"]
        logs = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}
        found.append(Way("stock", words, environ={**export, **logs}))
    return found


async def compare(all_ways: list[Way], sessions: int, rounds: int, reruns: int) -> None:
    """Rounds in turn, after one that is not counted."""
    for way in all_ways:
        way.rounds.clear()
        way.browsers = [Browser(way.port) for _ in range(sessions)]
        for browser in way.browsers:
            await browser.open()
    for number in range(rounds + 1):
        order = all_ways if number % 2 else all_ways[::-1]
        for way in order:
            found = await way.measure(reruns)
            if number:
                way.rounds.append(found)
    for way in all_ways:
        for browser in way.browsers:
            await browser.close()


def report(all_ways: list[Way], sessions: int) -> None:
    """One line for each way."""
    base = all_ways[0].rounds
    for way in all_ways:
        columns = list(zip(*way.rounds, strict=True))
        line = f"{sessions:>8} {way.label:<18}"
        for each, unit in ((0, "ms"), (1, "ms CPU")):
            ratios = [ours[each] / plain[each] for ours, plain in zip(way.rounds, base, strict=True)]
            line += f" {statistics.median(columns[each]):8.2f} {unit:<6} {statistics.median(ratios):5.3f}"
            line += f" ({min(ratios):.2f} – {max(ratios):.2f})"
        print(line, flush=True)


def compare_all(collects: str, script: str, options: argparse.Namespace) -> None:
    """Start all ways with one script and one way of collecting garbage, and compare at each number of sessions."""
    with tempfile.TemporaryDirectory() as name, receiver() as endpoint, contextlib.ExitStack() as stack:
        all_ways = ways(Path(name), endpoint)
        for way in all_ways:
            folder = Path(name) / way.label.replace(" ", "-").replace(":", "")
            folder.mkdir()
            (folder / "script.py").write_text(script)
            (folder / "launch.py").write_text((Path(name) / "launch.py").read_text())
            way.port = free_port()
            words = [*way.words, "--server.port", str(way.port), "--server.address", "127.0.0.1", *QUIET]
            words += ["--runner.postScriptGC", collects]
            process = stack.enter_context(
                running(words, f"http://127.0.0.1:{way.port}{way.ready}", folder, way.environ)
            )
            way.process = psutil.Process(process.pid)
        print(f"{'sessions':>8} {'':<18} {'time of a rerun, ratio to plain':>36} {'processor time':>36}")
        few = script is WIDE_SCRIPT  # its reruns take several times as long
        for sessions in options.sessions[:1] if few else options.sessions:
            reruns = options.reruns // sessions // (4 if few else 1)
            asyncio.run(compare(all_ways, sessions, options.rounds, max(3, reruns)))
            report(all_ways, sessions)


def main() -> None:
    """Make every comparison that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50], help="the wide script: the first only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--reruns", type=int, default=400, help="in a round, over all sessions; the wide script: / 4")
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="which scripts are run")
    options = parser.parse_args()
    for script in options.scripts:
        for title, collects in COLLECTING.items():
            print(f"--- script {script}: {title}", flush=True)
            compare_all(collects, SCRIPTS[script], options)


if __name__ == "__main__":
    main()
