"""How long a rerun takes while the store ingests, beside the same without it: `python benchmarks/store_rerun.py`.

Both servers are ours and run the same script, whose thread logs some hundred records a second; one has the store, the
other has nowhere to put them. A rerun is asked of both in turn, by the protocol of the browser.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import QUIET, free_port, running
from streamlit_extension.demo.client import StreamlitClient

SCRIPT = """
import logging, threading, time
import streamlit as st

@st.cache_resource
def chatter():
    log, rest = logging.getLogger("chatter"), threading.Event()
    def talk():
        number = 0
        while not rest.wait(0.1):
            for _ in range({burst}):
                number += 1
                log.info("order saved for a client", extra={{"number": number, "page": "clients", "status": "ok"}})
    threading.Thread(target=talk, daemon=True).start()

chatter()
for number in range(50):
    st.write(number)
"""


async def measure(urls: list[str], rounds: int) -> list[list[float]]:
    """Seconds of reruns, of each server in turn."""
    found: list[list[float]] = [[] for _ in urls]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(StreamlitClient(url)) for url in urls]
        for client in clients:
            await client.wait_finished(1)
        for turn in range(rounds + 20):
            for client, times in zip(clients, found, strict=True):
                begin = time.perf_counter()
                await client.rerun()
                await client.wait_finished(turn + 2)
                if turn >= 20:
                    times.append(time.perf_counter() - begin)
    return found


def main() -> None:
    """Start both and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--burst", type=int, default=50, help="log records in a tenth of a second")
    options = parser.parse_args()
    root = str(Path(__file__).parents[1])
    with ExitStack() as stack:
        urls = []
        for store in ("off", "on"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "script.py").write_text(SCRIPT.format(burst=options.burst))
            port = free_port()
            command = [sys.executable, "-m", "streamlit_extension", "run", "script.py", "--server.port", str(port)]
            url = f"http://127.0.0.1:{port}"
            environ = {"STX_STORE": store, "PYTHONPATH": root, "STX_LOG_LEVEL": "INFO"}
            stack.enter_context(running([*command, *QUIET], f"{url}/health/startup", folder, environ))
            urls.append(url)
        without, ingesting = asyncio.run(measure(urls, options.rounds))
    before, after = statistics.median(without), statistics.median(ingesting)
    print(
        f"rerun, median of {options.rounds}: {before * 1000:.2f} ms without the store, {after * 1000:.2f} ms while it "
        f"ingests {options.burst * 10} records/s: {after / before:.3f} x (p95 "
        f"{statistics.quantiles(ingesting, n=20)[-1] / statistics.quantiles(without, n=20)[-1]:.3f} x)",
        flush=True,
    )


if __name__ == "__main__":
    main()
