"""Latency of `/health/live` while four dependencies hang, beside a constant answer: `python benchmarks/hung.py`.

Four external APIs accept the connection and never answer; each check is asked every half second and hangs until its
time-out. Requests are sent at a fixed rate (open loop, so that a stall is seen by all that were due meanwhile), in turn
to our server, to the same without anything that hangs, and to a constant raw ASGI answer on the same uvicorn. Printed
are median and p99 in milliseconds and the ratio of the p99 to that of the constant answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.probes import RAW, SCRIPT
from benchmarks.support import QUIET, free_port, running

CONNECTIONS = 8


def latencies(port: int, path: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds from the moment when each request was due until its answer was read."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(sock)
        found = []
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left if left > 0.0005 else 0)
            sock = sockets[number % CONNECTIONS]
            sock.sendall(request)
            _read_answer(sock, path)
            found.append((time.perf_counter() - due) * 1000)
    return found


def _read_answer(sock: socket.socket, path: str) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        raise SystemExit(f"{path} answered {head[:60]!r}")
    length = re.search(rb"content-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += sock.recv(65536)


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
        apis = {}
        for number in range(4):
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
            apis[f"hung{number}"] = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        hung = {f"STX_HEALTH__EXTERNAL_APIS__{key.upper()}": url for key, url in apis.items()}
        ports = {"constant raw ASGI": free_port(), "ours, nothing hangs": free_port(), "ours, four hang": free_port()}
        raw, well, ill = ports.values()
        program = RAW.replace("PORT", str(raw))
        stack.enter_context(running([sys.executable, "-c", program], f"http://127.0.0.1:{raw}/", folder))
        for port, environ in ((well, {}), (ill, hung)):
            command = [
                sys.executable,
                "-m",
                "streamlit_extension",
                "run",
                "script.py",
                "--server.port",
                str(port),
                *QUIET,
            ]
            own = {"STX_HEALTH__INTERVAL_S": "0.5", "STX_DATA_DIR": str(folder / str(port)), **environ}
            stack.enter_context(running(command, f"http://127.0.0.1:{port}/health/live", folder, own))
        time.sleep(5)  # each of the four has timed out and is asked again
        with urllib.request.urlopen(f"http://127.0.0.1:{ill}/health/detailed") as answer:
            components = json.load(answer)["components"]
        said = {name: component["last_error"] for name, component in components.items() if "hung" in name}
        if len(said) != len(apis):
            raise SystemExit(f"the four do not hang: {components}")
        figures: dict[str, list[tuple[float, float]]] = {label: [] for label in ports}
        for each in range(options.rounds):
            print(f"round {each + 1} of {options.rounds}", flush=True)
            for label, port in ports.items():
                path = "/" if port == raw else "/health/live"
                percentiles = statistics.quantiles(latencies(port, path, options.rate, options.seconds), n=100)
                figures[label].append((percentiles[49], percentiles[98]))
        print(f"\nhanging: {said}")
    base = figures["constant raw ASGI"]
    print(f"\n{'answer':24} {'median ms':>10} {'p99 ms':>8} {'p99 / raw':>10}")
    for label, values in figures.items():
        medians, p99s = zip(*values, strict=True)
        ratio = statistics.median(ours[1] / plain[1] for ours, plain in zip(values, base, strict=True))
        print(f"{label:24} {statistics.median(medians):10.2f} {statistics.median(p99s):8.2f} {ratio:10.2f}")


if __name__ == "__main__":
    main()
