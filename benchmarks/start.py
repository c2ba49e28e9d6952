"""Start time and memory beside plain Streamlit, in one run: `python benchmarks/start.py [--rounds N]`.

The same script is started in turn by `streamlit run`, by our `run`, by our two-line launcher under `streamlit run`, and
by both again with every signal exported to a collector by HTTP (a server here that takes everything).
"Ready" is the first 200: of Streamlit's own health path, and of our `/health/startup`. Memory is the resident set of
the process after one real session has run the script. Printed are medians, the ratio of the start and the difference in
MiB.

All of them find their bytecode, in a folder of the benchmark's own, as they do where packages have been installed: with
`PYTHONDONTWRITEBYTECODE` in the environment a checkout would be compiled at each start, and Streamlit would not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import QUIET, free_port, running
from streamlit_extension.demo.client import StreamlitClient

SCRIPT = """
import streamlit as st
st.title("benchmark")
st.text_input("Name")
"""
LAUNCHER = """
import streamlit as st
from streamlit_extension import create_app
app = st.App("script.py")
app = create_app(app)
"""


async def visit(url: str) -> None:
    """One session that runs the script."""
    async with StreamlitClient(url) as client:
        await client.wait_finished(1)


class Taker(BaseHTTPRequestHandler):
    """Answers every export with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def once(words: list[str], path: str, folder: Path, collector: str | None) -> tuple[float, float]:
    """Seconds until ready, and MiB after a session."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environ |= {"PYTHONPATH": str(Path(__file__).parents[1])} if os.environ.get("PYTHONPATH") else {}
    if collector is not None:
        environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    command = [sys.executable, "-m", *words, "--server.port", str(port), "--server.address", "127.0.0.1", *QUIET]
    began = time.perf_counter()
    with running(command, url + path, folder, environ) as process:
        ready_s = time.perf_counter() - began
        asyncio.run(visit(url))
        time.sleep(0.5)
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
    return ready_s, memory


def main() -> None:
    """Start each in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_address[1]}"
    run = ["streamlit_extension", "run", "script.py"]
    launcher = ["streamlit", "run", "launcher.py"]
    ways: dict[str, tuple[list[str], str, str | None]] = {
        "streamlit run": (["streamlit", "run", "script.py"], "/_stcore/health", None),
        "ours: run": (run, "/health/startup", None),
        "ours: launcher under streamlit run": (launcher, "/health/startup", None),
        "ours: run, exporting": (run, "/health/startup", collector),
        "ours: launcher, exporting": (launcher, "/health/startup", collector),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "script.py").write_text(SCRIPT)
        (folder / "launcher.py").write_text(LAUNCHER)
        for each in range(options.rounds + 1):
            print("warming up" if each == 0 else f"round {each} of {options.rounds}", flush=True)
            for label, (words, path, where) in ways.items():
                found = once(words, path, folder, where)
                if each:
                    figures[label].append(found)
    base = figures["streamlit run"]
    print(f"\n{'':36} {'ready (s)':>10} {'ratio':>6} {'(min – max)':>13} {'MiB':>7} {'more':>7}")
    for label, values in figures.items():
        ratios = [ours[0] / plain[0] for ours, plain in zip(values, base, strict=True)]
        more = statistics.median(ours[1] - plain[1] for ours, plain in zip(values, base, strict=True))
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        seconds, memory = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{label:36} {seconds:10.2f} {statistics.median(ratios):6.2f} {spread:>13} {memory:7.1f} {more:+7.1f}")


if __name__ == "__main__":
    main()
