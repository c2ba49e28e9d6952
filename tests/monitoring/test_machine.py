"""Machine, container and process: what is read, against what it is a share, and what is never asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from otel.testing import capture_telemetry
from streamlit_extension.health.checks import system
from streamlit_extension.monitoring import machine as machine_module
from streamlit_extension.monitoring.instruments import SystemInstruments
from streamlit_extension.monitoring.machine import Machine

MIB = 1024 * 1024


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V2 = {
    "memory.max": str(512 * MIB),
    "memory.current": str(300 * MIB),
    "memory.stat": f"anon 1\nactive_file 7\ninactive_file {44 * MIB}\n",
    "cpu.max": "50000 100000",
    "cpu.stat": "usage_usec 1000000\nuser_usec 1\n",
}
V1 = {
    "memory/memory.limit_in_bytes": str(512 * MIB),
    "memory/memory.usage_in_bytes": str(300 * MIB),
    "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {44 * MIB}\n",
    "cpu/cpu.cfs_quota_us": "50000",
    "cpu/cpu.cfs_period_us": "100000",
    "cpuacct/cpuacct.usage": "1000000000",
}


@pytest.mark.parametrize("files", [V2, V1], ids=["v2", "v1"])
def test_a_containers_limits_are_a_hundred_per_cent(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory without inactive file pages, of the limit; CPU of the quota."""
    now = 100.0
    monkeypatch.setattr("streamlit_extension.health.checks.system.time.monotonic", lambda: now)
    root = write(tmp_path, files)
    machine = Machine(root=root)
    now += 1.0
    name = "cpu.stat" if "cpu.stat" in files else "cpuacct/cpuacct.usage"
    write(root, {name: files[name].replace("1000000", "1250000", 1)})
    tick = machine.fast()
    assert tick.memory_percent == pytest.approx(50.0)
    assert tick.cpu_percent == pytest.approx(50.0)  # a quarter of a second's CPU in a second, of half a CPU


def test_a_limit_that_is_set_while_we_run_counts_within_a_minute(tmp_path: Path) -> None:
    """As when a pod is resized in place; one that is lifted, too."""
    now = 0.0
    root = write(tmp_path, {**V2, "memory.max": "max", "cpu.max": "max 100000"})
    machine = Machine(root=root, clock=lambda: now)
    total = psutil.virtual_memory().total
    assert machine.fast().memory_limit_bytes == total
    write(root, {"memory.max": V2["memory.max"]})
    now = 61.0
    assert machine.fast().memory_limit_bytes == 512 * MIB
    write(root, {"memory.max": "max"})
    now = 63.0
    assert machine.fast().memory_limit_bytes == total


def test_the_figures_are_those_of_psutil() -> None:
    """Where there is no container: memory, CPU seconds, threads and descriptors as another reader has them."""
    machine, process = Machine(), psutil.Process()
    with Path(os.devnull).open() as _:
        tick = machine.read_fast(0.0)
        assert abs((tick.descriptors or 0) - process.num_fds()) <= 2
    assert abs((tick.threads or 0) - process.num_threads()) <= 1
    assert tick.process_resident_bytes == pytest.approx(process.memory_info().rss, rel=0.2)
    assert system._machine_memory().limit_bytes == psutil.virtual_memory().total
    assert system._machine_cpu_s() == pytest.approx(
        sum(psutil.cpu_times()) - psutil.cpu_times().idle - psutil.cpu_times().iowait, rel=0.02
    )
    slow = machine.read_slow(0.0)
    assert abs((slow.processes or 0) - len(psutil.pids())) < 50
    assert slow.disk.total_bytes == psutil.disk_usage(str(machine.folder)).total
    assert os.path.ismount(slow.disk.mountpoint)


def test_ticks_repeat_themselves_and_the_slow_one_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody asks, disks and processes are read once a minute, the rest once a second."""
    now = 1000.0
    monkeypatch.setattr(system, "CPU_WINDOW_S", -1.0)  # a figure at once
    machine = Machine(clock=lambda: now)
    read: list[str] = []

    def noting(name: str, original: Callable[[float], Any]) -> Callable[[float], Any]:
        def reading(now_s: float) -> Any:
            read.append(name)
            return original(now_s)

        return reading

    for name in ("read_fast", "read_slow"):
        monkeypatch.setattr(machine, name, noting(name, getattr(machine, name)))
    for step in range(600):
        now = 1000.0 + step / 10
        machine.fast()
        machine.slow()
    assert read.count("read_slow") == 1
    assert read.count("read_fast") == 60
    now += 1.0
    machine.slow()
    assert read.count("read_slow") == 2


def test_connections_are_never_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs ten milliseconds and holds the interpreter."""

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("net_connections was called")

    monkeypatch.setattr(psutil, "net_connections", fail)
    monkeypatch.setattr(psutil.Process, "net_connections", fail)
    machine = Machine()
    with capture_telemetry() as telemetry:
        instruments = SystemInstruments(machine, meter_provider=telemetry.meter_provider)
        telemetry.meter_provider.get_meter("still").create_counter("there").add(1)
        assert "system.network.io" in telemetry.metrics
        instruments.close()
        assert "system.network.io" not in telemetry.metrics


def test_what_a_platform_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that forbids /proc/diskstats breaks no tick, and no other figure."""

    def forbid(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError

    for name in ("disk_io_counters", "net_io_counters", "pids", "disk_usage", "cpu_times"):
        monkeypatch.setattr(psutil, name, forbid)
    slow = Machine().read_slow(0.0)
    assert (slow.disks, slow.networks, slow.processes, slow.disk.percent) == ({}, {}, None, 0.0)


def test_partitions_of_a_disk_are_not_counted_twice() -> None:
    """Names of the kernel: partitions of disks that are there, loop devices, and disks that end in a digit."""
    assert machine_module._stems("sda1") == ("sda", "sda")
    assert "nvme0n1" in machine_module._stems("nvme0n1p2")
    assert machine_module._stems("vda") == ()


def test_threads_may_ask_at_the_same_time() -> None:
    """A scrape, an export and an evaluation."""
    machine, found = Machine(), []
    threads = [threading.Thread(target=lambda: found.append((machine.fast(), machine.slow()))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
