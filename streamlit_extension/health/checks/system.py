"""Disk, memory and CPU, measured against what this process may really use: its container's limits, else the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

import msgspec
import psutil

from streamlit_extension.health.model import CheckResult, Outcome

#: Above these percentages a check is degraded (the specification's alert thresholds).
DISK_PERCENT = 85.0
MEMORY_PERCENT = 90.0
#: Shortest time over which CPU use is measured, in seconds: ten ticks of a 100 Hz kernel clock.
CPU_WINDOW_S = 0.1
#: A cgroup limit from here on means "no limit": v1 writes a page-aligned 2**63.
_NO_LIMIT_BYTES = 1 << 60


class Memory(msgspec.Struct, frozen=True):
    """Memory in bytes: what is used (a container's working set without inactive file pages) and what may be."""

    used_bytes: int
    limit_bytes: int

    @property
    def percent(self) -> float:
        """Share that is used, 0-100."""
        return min(100.0, 100.0 * self.used_bytes / self.limit_bytes) if self.limit_bytes else 0.0


def memory(root: Path = Path("/"), *, contained: bool = True) -> Memory:
    """The container's memory where it has a limit (cgroup v2, then v1), else the machine's.

    Arguments:
        contained: False where it is known that no control group limits anything, which saves the look.
    """
    found = (_cgroup_v2(root) or _cgroup_v1(root)) if contained else None
    if found is not None and found.limit_bytes < _machine_bytes():
        return found
    return _machine_memory()


def _machine_memory() -> Memory:
    """As `psutil.virtual_memory()`, at a fifth of its price on Linux: two lines of the file instead of all."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = _read("/proc/meminfo")
        total, available = (int(text[text.index(key) :].split(None, 2)[1]) for key in (b"MemTotal:", b"MemAvailable:"))
        return Memory(1024 * (total - available), 1024 * total)
    machine = psutil.virtual_memory()
    return Memory(machine.total - machine.available, machine.total)


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """What this process may use, in bytes."""
    return memory(root).limit_bytes


@lru_cache(maxsize=1)
def _machine_bytes() -> int:
    return int(psutil.virtual_memory().total)


def is_limited(root: Path = Path("/")) -> bool:
    """Whether a control group, of either version, limits memory or CPU now."""
    return bool(_cgroup_v2(root) or _cgroup_v1(root) or _cpu_quota(root))


def _cgroup_v2(root: Path) -> Memory | None:
    folder = f"{root}/sys/fs/cgroup"
    limit = _number(f"{folder}/memory.max")  # "max" is no number
    if not _is_limit(limit):
        return None
    used = _number(f"{folder}/memory.current")
    return _working_set(used, limit, _stat(f"{folder}/memory.stat", b"inactive_file"))


def _cgroup_v1(root: Path) -> Memory | None:
    folder = f"{root}/sys/fs/cgroup/memory"
    limit = _number(f"{folder}/memory.limit_in_bytes")
    if not _is_limit(limit):
        return None
    used = _number(f"{folder}/memory.usage_in_bytes")
    return _working_set(used, limit, _stat(f"{folder}/memory.stat", b"total_inactive_file"))


def _is_limit(limit: int | None) -> TypeGuard[int]:
    return limit is not None and 0 < limit < _NO_LIMIT_BYTES


def _working_set(used: int | None, limit: int, inactive_file: int | None) -> Memory | None:
    if used is None:
        return None
    return Memory(max(0, used - (inactive_file or 0)), limit)


def _read(file: str) -> bytes:
    """A small file of the kernel's, in one call: Python's files cost several times as much."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _number(file: str) -> int | None:
    """The one number of a file, or None where it is not told."""
    try:
        return int(_read(file))
    except (OSError, ValueError):
        return None


def _stat(file: str, key: bytes) -> int | None:
    """A number of a file of `name value` lines, or None where it is not told."""
    with contextlib.suppress(OSError, ValueError):
        text = b"\n" + _read(file)
        start = text.find(b"\n" + key + b" ")
        if start >= 0:
            start += len(key) + 2
            end = text.find(b"\n", start)
            return int(text[start:] if end < 0 else text[start:end])
    return None


def cpu_limit(root: Path = Path("/")) -> float:
    """How many CPUs this process may use: the container's quota, else its affinity."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cpu_quota(root)
    return min(cpus, quota) if quota else cpus


def _cpu_quota(root: Path) -> float | None:
    folder = f"{root}/sys/fs/cgroup"
    quota_us: int | None = None
    period_us: int | None = None
    try:
        quota, period = _read(f"{folder}/cpu.max").split()
        quota_us, period_us = (None if quota == b"max" else int(quota)), int(period)
    except (OSError, ValueError):
        quota_us = _number(f"{folder}/cpu/cpu.cfs_quota_us")
        period_us = _number(f"{folder}/cpu/cpu.cfs_period_us") if quota_us and quota_us > 0 else None
    return quota_us / period_us if quota_us and period_us and min(quota_us, period_us) > 0 else None


class CpuMeter(msgspec.Struct):
    """CPU use since the last question, as a share of what may be used: of the container, else of the machine."""

    root: Path = Path("/")
    #: False where it is known that no control group limits anything.
    contained: bool = True
    _last: tuple[float, float] | None = None
    _percent: float | None = None
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def percent(self) -> float | None:
        """0-100, or None at the first question, which has nothing to compare with. Never waits.

        Asked again within `CPU_WINDOW_S` it repeats itself: the kernel's clock is too coarse for a shorter time.
        """
        with self._lock:
            now_s = time.monotonic()
            if self._last is not None and now_s - self._last[0] < CPU_WINDOW_S:
                return self._percent
            used_s, cpus = self._used()
            last, self._last = self._last, (now_s, used_s)
            if last is not None:
                share = (used_s - last[1]) / ((now_s - last[0]) * cpus)
                self._percent = max(0.0, min(100.0, 100.0 * share))
            return self._percent

    def _used(self) -> tuple[float, float]:
        """CPU seconds so far, and how many CPUs they are a share of."""
        if self.contained and _cpu_quota(self.root):
            used_s = _cgroup_cpu_s(self.root)
            if used_s is not None:
                return used_s, cpu_limit(self.root)
        return _machine_cpu_s(), float(os.cpu_count() or 1)


def _machine_cpu_s() -> float:
    """CPU seconds that all CPUs together have worked, as `psutil.cpu_times()` has them; on Linux from one line."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        user, nice, kernel, _idle, _iowait, irq, softirq, steal = _read("/proc/stat").split(b"\n", 1)[0].split()[1:9]
        # A guest's time is within `user` and `nice` already.
        return sum(map(int, (user, nice, kernel, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")
    times = psutil.cpu_times()
    idle = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    return float(sum(times) - idle)


def _cgroup_cpu_s(root: Path) -> float | None:
    """CPU seconds that the container has used: cgroup v2, then v1."""
    folder = f"{root}/sys/fs/cgroup"
    used_us = _stat(f"{folder}/cpu.stat", b"usage_usec")
    if used_us is not None:
        return used_us / 1e6
    used_ns = _number(f"{folder}/cpuacct/cpuacct.usage")
    return None if used_ns is None else used_ns / 1e9


_CPU = CpuMeter()
_CPU.percent()  # the first check has something to compare with


def check_memory_usage(threshold_percent: float = MEMORY_PERCENT, root: Path = Path("/")) -> CheckResult:
    """Memory and CPU; degraded above `threshold_percent` (0-100) of the memory that may be used."""
    used = memory(root)
    detail = {"cpu_usage_percent": _CPU.percent() or 0.0, "memory_usage_percent": used.percent}
    if used.percent > threshold_percent:
        error = f"memory usage is {used.percent:.0f}%, above {threshold_percent:g}%"
        return CheckResult(Outcome.DEGRADED, detail={**detail, "reason": "memory"}, error=error)
    return CheckResult(Outcome.OK, detail=detail)


def check_disk_space(path: Path, threshold_percent: float = DISK_PERCENT) -> CheckResult:
    """The disk that holds `path` (or its nearest existing parent); degraded above `threshold_percent` (0-100)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    percent = 100.0 * usage.used / (usage.used + usage.free) if usage.used + usage.free else 0.0
    detail = {"disk_usage_percent": percent}
    if percent > threshold_percent:
        error = f"disk usage is {percent:.0f}%, above {threshold_percent:g}%"
        return CheckResult(Outcome.DEGRADED, detail={**detail, "reason": "disk"}, error=error)
    return CheckResult(Outcome.OK, detail=detail)
