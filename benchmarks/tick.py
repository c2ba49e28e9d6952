"""What a tick of the machine's figures costs, beside psutil's calls for the same, in CPU time of this thread."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

BUDGET_US = 150.0
CALLS, TURNS = 400, 7

CGROUP = {
    "memory.max": "536870912\n",
    "memory.current": "268435456\n",
    "memory.stat": "".join(f"name_{each} {each}\n" for each in range(40)) + "inactive_file 4096\nactive_file 1\n",
    "cpu.max": "100000 100000\n",
    "cpu.stat": "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\n",
}


def microseconds(call: Callable[[], object]) -> float:
    """The lowest of several turns, so that a busy machine changes little."""
    turns = []
    for _ in range(TURNS):
        began_s = time.thread_time()
        for _ in range(CALLS):
            call()
        turns.append((time.thread_time() - began_s) / CALLS * 1e6)
    return min(turns)


def main() -> None:
    """Print one line for each way."""
    import psutil

    from streamlit_extension.health.checks import system
    from streamlit_extension.monitoring.machine import Machine

    process = psutil.Process()

    def by_psutil() -> None:
        psutil.cpu_percent()
        psutil.virtual_memory()
        process.num_fds()
        process.num_threads()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "sys/fs/cgroup")
        folder.mkdir(parents=True)
        for file, text in CGROUP.items():
            (folder / file).write_text(text)
        contained, machine = Machine(root=Path(name)), Machine()
        system.CPU_WINDOW_S = -1.0  # every call reads
        found = {
            "fast tick, this machine": microseconds(lambda: machine.read_fast(0.0)),
            "fast tick, a container (cgroup v2)": microseconds(lambda: contained.read_fast(0.0)),
            "psutil, CPU, memory, descriptors, threads": microseconds(by_psutil),
            "slow tick (once a minute)": microseconds(lambda: machine.read_slow(0.0)),
        }
    for what, took_us in found.items():
        print(f"{what:45} {took_us:8.1f} µs")
    worst = max(found["fast tick, this machine"], found["fast tick, a container (cgroup v2)"])
    print(f"budget {BUDGET_US:g} µs: {'held' if worst <= BUDGET_US else 'MISSED'}")


if __name__ == "__main__":
    main()
