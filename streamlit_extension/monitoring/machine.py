"""Machine, container and process: a fast tick for every few seconds, and a slow one for once a minute."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil

from streamlit_extension.health.checks import system
from streamlit_extension.monitoring.ticks import DiskUsage, FastTick, SlowTick, Transfer

#: The fast tick repeats itself when it is asked again within this many seconds, the slow one within this many.
FAST_S: Final = 1.0
SLOW_S: Final = 60.0
#: Interfaces and disks that are told apart; a host of containers has hundreds.
MAX_DEVICES: Final = 32
_LOOPBACK: Final = ("lo", "lo0", "Loopback Pseudo-Interface 1")
#: psutil's names of CPU times → the semantic conventions' `cpu.mode`.
_MODES: Final = {
    "user": "user",
    "system": "system",
    "nice": "nice",
    "idle": "idle",
    "iowait": "iowait",
    "irq": "interrupt",
    "softirq": "interrupt",
    "interrupt": "interrupt",
    "dpc": "interrupt",
    "steal": "steal",
}
_LINUX: Final = sys.platform.startswith("linux")


class Machine:
    """Reads what the machine, the container and this process use; safe to call from any thread.

    Arguments:
        folder: whose disk is measured; by default the working directory.
        root: where the control groups are looked for, for tests.
        clock: monotonic seconds.
    """

    def __init__(
        self, folder: Path | None = None, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder or Path.cwd()
        self._root = root
        self._clock = clock
        self._cpu = system.CpuMeter(root, system.is_limited(root))
        self._looked_s = clock()
        self._cpu.percent()  # the first tick has something to compare with
        self._lock = threading.Lock()
        self._fast: FastTick | None = None
        self._slow: SlowTick | None = None

    def fast(self) -> FastTick:
        """CPU, memory, descriptors and threads; at most 150 µs."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._looked_s >= SLOW_S:  # limits may change while a pod runs
                self._looked_s, self._cpu.contained = now_s, system.is_limited(self._root)
            if self._fast is None or now_s - self._fast.at_s >= FAST_S or self._fast.cpu_percent is None:
                self._fast = self.read_fast(now_s)
            return self._fast

    def slow(self) -> SlowTick:
        """Disk, network and processes; read once a minute at most."""
        with self._lock:
            now_s = self._clock()
            if self._slow is None or now_s - self._slow.at_s >= SLOW_S:
                self._slow = self.read_slow(now_s)
            return self._slow

    def read_fast(self, now_s: float) -> FastTick:
        """Read now."""
        memory = system.memory(self._root, contained=self._cpu.contained)
        threads, cpu_s, resident, virtual = _process_figures()
        return FastTick(
            now_s, self._cpu.percent(), memory.used_bytes, memory.limit_bytes, count_descriptors(), threads, cpu_s,
            resident, virtual,
        )  # fmt: skip

    def read_slow(self, now_s: float) -> SlowTick:
        """Read now; what the platform does not tell is left out."""
        return SlowTick(
            now_s,
            _or(DiskUsage(), lambda: disk_usage(self.folder)),
            _or(None, count_processes),
            _or({}, _disks),
            _or({}, _networks),
            _or({}, _cpu_times),
        )


@cache
def this_machine() -> Machine:
    """The process's reader of the machine; its folder is the data folder once an application has started."""
    return Machine()


def _or(otherwise: Any, read: Callable[[], Any]) -> Any:
    """What is read, or something else where the platform, or a sandbox, does not tell."""
    try:
        return read()
    except (OSError, RuntimeError, AttributeError, NotImplementedError, psutil.Error):
        return otherwise


# -- this process ----------------------------------------------------------------------------------------------------


def _process_figures() -> tuple[int | None, float | None, int | None, int | None]:
    """Threads, CPU seconds, resident and virtual bytes; on Linux by reading one file (proc(5))."""
    if _LINUX:
        with suppress(OSError, ValueError, IndexError):
            with open("/proc/self/stat", "rb", buffering=0) as file:
                fields = file.read().rpartition(b")")[2].split()
            # Counted from field 3, the state: 14 utime, 15 stime, 20 num_threads, 23 vsize, 24 rss.
            cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
            return int(fields[17]), cpu_s, int(fields[21]) * _PAGE, int(fields[20])
    return _or((None, None, None, None), _portable_figures)  # type: ignore[no-any-return]


def _portable_figures() -> tuple[int | None, float | None, int | None, int | None]:
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        return process.num_threads(), times.user + times.system, memory.rss, memory.vms


_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def count_descriptors() -> int | None:
    """Open file descriptors of this process; None where the platform does not tell."""
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - a Path for each costs four times as much
    found = _or(None, getattr(psutil.Process(), "num_fds", lambda: None))
    return None if found is None else int(found)


def descriptor_limit() -> int | None:
    """How many descriptors this process may open; None where there is no limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else int(soft)


def process_cpu_times() -> dict[str, float]:
    """CPU seconds of this process by mode."""
    times = os.times()
    return {"user": times.user, "system": times.system}


# -- machine ---------------------------------------------------------------------------------------------------------


def disk_usage(folder: Path) -> DiskUsage:
    """The file system that holds a folder, or its nearest parent that is there."""
    path = folder.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = psutil.disk_usage(str(path))
    while not os.path.ismount(path) and path != path.parent:
        path = path.parent
    return DiskUsage(usage.used, usage.free, usage.total, str(path))


def count_processes() -> int:
    """Processes that this one can see."""
    return len(psutil.pids())


def _cpu_times() -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in psutil.cpu_times()._asdict().items():
        mode = _MODES.get(name)
        if mode is not None:
            found[mode] = found.get(mode, 0.0) + value
    return found


def _disks() -> dict[str, Transfer]:
    """Disks, without what is no disk of its own: loop devices, and the partitions of a disk that is there."""
    counters: Mapping[str, Any] = psutil.disk_io_counters(perdisk=True) or {}
    whole = {
        name: each
        for name, each in counters.items()
        if not name.startswith(("loop", "ram"))
        and not any(name != other and name.startswith(other) and other in counters for other in _stems(name))
    }
    return {
        name: Transfer(each.read_bytes, each.write_bytes, each.read_count, each.write_count)
        for name, each in list(whole.items())[:MAX_DEVICES]
    }


def _stems(partition: str) -> tuple[str, ...]:
    """The disks that a partition of this name would be of: `sda1` of `sda`, `nvme0n1p2` of `nvme0n1`."""
    stem = partition.rstrip("0123456789")
    return (stem, stem.removesuffix("p")) if stem != partition else ()


def _networks() -> dict[str, Transfer]:
    counters: Mapping[str, Any] = psutil.net_io_counters(pernic=True) or {}
    real = [(name, each) for name, each in counters.items() if name not in _LOOPBACK]
    busiest = sorted(real, key=lambda pair: pair[1].bytes_recv + pair[1].bytes_sent, reverse=True)[:MAX_DEVICES]
    return {name: _traffic(each) for name, each in busiest}


def _traffic(each: Any) -> Transfer:
    received = {"in_bytes": each.bytes_recv, "in_count": each.packets_recv, "in_errors": each.errin}
    sent = {"out_bytes": each.bytes_sent, "out_count": each.packets_sent, "out_errors": each.errout}
    return Transfer(**received, **sent, in_dropped=each.dropin, out_dropped=each.dropout)
