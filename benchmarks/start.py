"""Start time and memory beside plain Streamlit, in one run: `python benchmarks/start.py [--rounds N]`.

The same script is started in turn by `streamlit run`, by our `run` and by our two-line launcher under `streamlit run`.
"Ready" is the first 200: of Streamlit's own health path, and of our `/health/startup`. Memory is the resident set of
the process after one real session has run the script. Printed are medians, the ratio of the start and the difference in
MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
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


def once(words: list[str], path: str, folder: Path) -> tuple[float, float]:
    """Seconds until ready, and MiB after a session."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {"PYTHONPATH": str(Path(__file__).parents[1])} if os.environ.get("PYTHONPATH") else {}
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
    ways = {
        "streamlit run": (["streamlit", "run", "script.py"], "/_stcore/health"),
        "ours: run": (["streamlit_extension", "run", "script.py"], "/health/startup"),
        "ours: launcher under streamlit run": (["streamlit", "run", "launcher.py"], "/health/startup"),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "script.py").write_text(SCRIPT)
        (folder / "launcher.py").write_text(LAUNCHER)
        for each in range(options.rounds + 1):
            print("warming up" if each == 0 else f"round {each} of {options.rounds}", flush=True)
            for label, (words, path) in ways.items():
                found = once(words, path, folder)
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
