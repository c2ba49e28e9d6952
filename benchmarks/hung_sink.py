"""Latency of `/health/live` while a sink of the alerts hangs: `python benchmarks/hung_sink.py`.

An alert fires from the first evaluation on and is repeated every second to a Slack webhook that takes connections and
never answers. Requests are sent at a fixed rate (open loop) in turn to that server, to the same with nothing to tell,
and to a constant raw ASGI answer on the same uvicorn. Printed are median and p99 in milliseconds, and the ratio of the
p99 to that of the server with nothing to tell.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.hung import latencies
from benchmarks.probes import RAW, SCRIPT
from benchmarks.support import QUIET, free_port, running

WAITING = 'alert_notification_waiting{alert_sink_name="slack"'


def waiting(port: int) -> float:
    """How many notifications wait for Slack."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(WAITING)), 0.0)


def main() -> None:
    """Ask in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "script.py").write_text(SCRIPT)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        alarm = {
            "STX_ALERTS__THRESHOLDS__MEMORY_USAGE": "0.1",
            "STX_ALERTS__FOR_S": "0",
            "STX_ALERTS__REPEAT_S": "1",
            "STX_NOTIFY__SLACK__WEBHOOK_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/",
        }
        ports = {
            "constant raw ASGI": free_port(),
            "ours, nothing to tell": free_port(),
            "ours, sink hangs": free_port(),
        }
        raw, well, ill = ports.values()
        program = RAW.replace("PORT", str(raw))
        stack.enter_context(running([sys.executable, "-c", program], f"http://127.0.0.1:{raw}/", folder))
        for port, environ in ((well, {"STX_ALERTS__THRESHOLDS__MEMORY_USAGE": "100"}), (ill, alarm)):
            words = ["-m", "streamlit_extension", "run", "script.py", "--server.port", str(port), *QUIET]
            own = {"STX_ALERTS__INTERVAL_S": "0.5", "STX_DATA_DIR": str(folder / str(port)), **environ}
            url = f"http://127.0.0.1:{port}/health/live"
            stack.enter_context(running([sys.executable, *words], url, folder, own))
        time.sleep(4)
        if not waiting(ill) or waiting(well):
            raise SystemExit("the sink does not hang, or the other server has something to tell")
        figures: dict[str, list[tuple[float, float]]] = {label: [] for label in ports}
        for each in range(options.rounds):
            print(f"round {each + 1} of {options.rounds}", flush=True)
            for label, port in ports.items():
                path = "/" if port == raw else "/health/live"
                percentiles = statistics.quantiles(latencies(port, path, options.rate, options.seconds), n=100)
                figures[label].append((percentiles[49], percentiles[98]))
        print(f"\nnotifications that wait: {waiting(ill):.0f}")
    base = figures["ours, nothing to tell"]
    print(f"\n{'answer':24} {'median ms':>10} {'p99 ms':>8} {'p99 ratio':>10}")
    for label, values in figures.items():
        medians, p99s = zip(*values, strict=True)
        ratio = statistics.median(ours[1] / plain[1] for ours, plain in zip(values, base, strict=True))
        print(f"{label:24} {statistics.median(medians):10.2f} {statistics.median(p99s):8.2f} {ratio:10.2f}")


if __name__ == "__main__":
    main()
