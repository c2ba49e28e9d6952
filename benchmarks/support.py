"""What the benchmarks share: free ports, processes that are ended, and waiting until one answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Interpreter in which the peers are installed (`make bench` makes it); ours where there is none.
PEERS = Path(os.environ.get("PEERS_PYTHON", Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"))
PEERS_PYTHON = str(PEERS) if PEERS.exists() else sys.executable
#: Options under which Streamlit starts without a browser, a question or a welcome.
QUIET = (
    *("--server.headless", "true", "--browser.gatherUsageStats", "false"),
    *("--logger.hideWelcomeMessage", "true", "--server.fileWatcherType", "none"),
)
STEP_S = 0.005


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def has(python: str, package: str) -> bool:
    """Whether an interpreter can import a package."""
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode == 0


def wait_until_200(url: str, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    """Ask until the answer is 200; ends the benchmark when the process ends or never answers."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(STEP_S)
    raise SystemExit(f"{url} never answered 200 (exit code {process.poll()})")


@contextlib.contextmanager
def running(
    command: list[str], ready: str, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `ready`, ended afterwards; its output goes to a file in `folder`."""
    environment = {**os.environ, "STX_DATA_DIR": str(folder / "data"), **(environ or {})}
    with open(folder / "output.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        wait_until_200(ready, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
