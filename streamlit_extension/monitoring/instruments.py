"""The OpenTelemetry instruments of machine, container and process; what they tell is read when somebody collects."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import psutil
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from otel.containment import contained
from otel.names import SCHEMA_URL, UNITS, Attribute, Metric
from streamlit_extension.monitoring.growth import GrowthVerdict
from streamlit_extension.monitoring.machine import Machine, descriptor_limit, process_cpu_times
from streamlit_extension.monitoring.ticks import Holder, Transfer

SCOPE: Final = "streamlit_extension.monitoring"
Observations = Iterable[Observation]

_MODE = Attribute.CPU_MODE.value
_MEMORY_STATE = Attribute.SYSTEM_MEMORY_STATE.value
_DISK_STATE, _MOUNT = Attribute.SYSTEM_FILESYSTEM_STATE.value, Attribute.SYSTEM_FILESYSTEM_MOUNTPOINT.value
_GENERATION = Attribute.CPYTHON_GC_GENERATION.value


class SystemInstruments:
    """Makes the instruments of a meter, once; `close` silences them, for a meter gives none back.

    Arguments:
        machine: reads the machine.
        growth: returns how each holder of memory grows; None where nobody judges.
        meter_provider: by default the API's global one.
    """

    def __init__(
        self,
        machine: Machine,
        growth: Callable[[], Mapping[Holder, GrowthVerdict]] | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._machine = machine
        self._growth = growth
        self._on = True
        self._began_s = _process_began_s()
        meter = get_meter(SCOPE, meter_provider=meter_provider, schema_url=SCHEMA_URL)
        for metric, (kind, read, description) in self._table().items():
            make = getattr(meter, f"create_observable_{kind}")
            make(metric.value, [self._callback(read)], unit=UNITS[metric], description=description)

    def close(self) -> None:
        """Tell nothing any more."""
        self._on = False

    def _callback(self, read: Callable[[], Observations]) -> Callable[[CallbackOptions], Observations]:
        def callback(_options: CallbackOptions) -> Observations:
            if self._on:
                with contained("figures of the machine could not be read"):
                    return list(read())
            return ()

        return callback

    def _table(self) -> Mapping[Metric, tuple[str, Callable[[], Observations], str]]:
        """Metric → kind, what it reads, description (of the semantic conventions, where they have it)."""
        machine = self._machine
        gauge, counter, sum_ = "gauge", "counter", "up_down_counter"
        return {
            Metric.SYSTEM_CPU_UTILIZATION: (gauge, self._cpu, "CPU in use, of the container's limit where it has one"),
            Metric.SYSTEM_CPU_TIME: (counter, self._cpu_time, "Seconds each mode of the machine's CPUs has taken"),
            Metric.SYSTEM_CPU_LOGICAL: (sum_, _cpus, "Logical (virtual) processor cores of the machine"),
            Metric.SYSTEM_MEMORY_LIMIT: (
                sum_, lambda: [Observation(machine.fast().memory_limit_bytes)],
                "Memory that may be used: the container's limit, else the machine's",
            ),
            Metric.SYSTEM_MEMORY_USAGE: (sum_, self._memory, "Memory of the container or the machine by state"),
            Metric.SYSTEM_MEMORY_UTILIZATION: (gauge, self._memory_share, "Share of the memory that may be used"),
            Metric.SYSTEM_FILESYSTEM_USAGE: (sum_, self._disk, "The file system of the data folder by state"),
            Metric.SYSTEM_FILESYSTEM_UTILIZATION: (gauge, self._disk_share, "Share of the data folder's file system"),
            Metric.SYSTEM_DISK_IO: (counter, self._disks(_bytes), "Bytes read and written"),
            Metric.SYSTEM_DISK_OPERATIONS: (counter, self._disks(_counts), "Reads and writes"),
            Metric.SYSTEM_NETWORK_IO: (counter, self._networks(_bytes), "Bytes received and sent"),
            Metric.SYSTEM_NETWORK_PACKETS: (counter, self._networks(_counts), "Packets received and sent"),
            Metric.SYSTEM_NETWORK_ERRORS: (counter, self._networks(_errors), "Errors of receiving and sending"),
            Metric.SYSTEM_NETWORK_DROPPED: (counter, self._networks(_dropped), "Packets dropped"),
            Metric.SYSTEM_PROCESSES: (sum_, lambda: _one(machine.slow().processes), "Processes on the machine"),
            Metric.PROCESS_CPU_TIME: (counter, _process_cpu, "CPU seconds of this process by mode"),
            Metric.PROCESS_MEMORY_USAGE: (
                sum_, lambda: _one(machine.fast().process_resident_bytes), "The amount of physical memory in use",
            ),
            Metric.PROCESS_MEMORY_VIRTUAL: (
                sum_, lambda: _one(machine.fast().process_virtual_bytes), "The amount of committed virtual memory",
            ),
            Metric.PROCESS_THREADS: (sum_, lambda: _one(machine.fast().threads), "Process threads count"),
            Metric.PROCESS_FILE_DESCRIPTORS: (
                sum_, lambda: _one(machine.fast().descriptors), "Number of unix file descriptors in use",
            ),
            Metric.PROCESS_FILE_DESCRIPTOR_LIMIT: (
                sum_, lambda: _one(descriptor_limit()), "File descriptors that this process may open",
            ),
            Metric.PROCESS_UPTIME: (gauge, self._uptime, "The time the process has been running"),
            Metric.CPYTHON_GC_COLLECTIONS: (counter, _gc("collections"), "Collections by generation"),
            Metric.CPYTHON_GC_COLLECTED: (counter, _gc("collected"), "Objects collected by generation"),
            Metric.CPYTHON_GC_UNCOLLECTABLE: (counter, _gc("uncollectable"), "Objects that could not be collected"),
            Metric.MEMORY_GROWTH: (gauge, self._growths, "Growth of what holds memory where it looks like a leak"),
        }  # fmt: skip

    # -- machine and container ------------------------------------------------------------------------------------

    def _cpu(self) -> Iterator[Observation]:
        percent = self._machine.fast().cpu_percent
        if percent is not None:
            yield Observation(percent / 100)

    def _cpu_time(self) -> Iterator[Observation]:
        for mode, seconds in self._machine.slow().cpu_times_s.items():
            yield Observation(seconds, {_MODE: mode})

    def _memory(self) -> Iterator[Observation]:
        tick = self._machine.fast()
        yield Observation(tick.memory_used_bytes, {_MEMORY_STATE: "used"})
        yield Observation(max(0, tick.memory_limit_bytes - tick.memory_used_bytes), {_MEMORY_STATE: "free"})

    def _memory_share(self) -> Iterator[Observation]:
        yield Observation(self._machine.fast().memory_percent / 100, {_MEMORY_STATE: "used"})

    def _disk(self) -> Iterator[Observation]:
        disk = self._machine.slow().disk
        sizes = {"used": disk.used_bytes, "free": disk.free_bytes, "reserved": disk.reserved_bytes}
        if disk.total_bytes:
            for state, size in sizes.items():
                yield Observation(size, {_DISK_STATE: state, _MOUNT: disk.mountpoint})

    def _disk_share(self) -> Iterator[Observation]:
        disk = self._machine.slow().disk
        if disk.total_bytes:
            yield Observation(disk.percent / 100, {_DISK_STATE: "used", _MOUNT: disk.mountpoint})

    def _disks(self, pick: Callable[[Transfer], tuple[int, int]]) -> Callable[[], Observations]:
        names = (Attribute.SYSTEM_DEVICE, Attribute.DISK_IO_DIRECTION)
        return lambda: _directions(self._machine.slow().disks, pick, names, ("read", "write"))

    def _networks(self, pick: Callable[[Transfer], tuple[int, int]]) -> Callable[[], Observations]:
        names = (Attribute.NETWORK_INTERFACE_NAME, Attribute.NETWORK_IO_DIRECTION)
        return lambda: _directions(self._machine.slow().networks, pick, names, ("receive", "transmit"))

    # -- this process ----------------------------------------------------------------------------------------------

    def _uptime(self) -> Iterator[Observation]:
        yield Observation(max(0.0, time.time() - self._began_s))

    def _growths(self) -> Iterator[Observation]:
        for holder, verdict in self._growth().items() if self._growth is not None else ():
            yield Observation(verdict.rate_bytes_per_s, {Attribute.MEMORY_HOLDER.value: holder.value})


def _bytes(each: Transfer) -> tuple[int, int]:
    return each.in_bytes, each.out_bytes


def _counts(each: Transfer) -> tuple[int, int]:
    return each.in_count, each.out_count


def _errors(each: Transfer) -> tuple[int, int]:
    return each.in_errors, each.out_errors


def _dropped(each: Transfer) -> tuple[int, int]:
    return each.in_dropped, each.out_dropped


def _directions(
    found: Mapping[str, Transfer],
    pick: Callable[[Transfer], tuple[int, int]],
    names: tuple[Attribute, Attribute],
    directions: tuple[str, str],
) -> Iterator[Observation]:
    for device, each in found.items():
        for direction, value in zip(directions, pick(each), strict=True):
            yield Observation(value, {names[0].value: device, names[1].value: direction})


def _one(value: float | None) -> Iterator[Observation]:
    if value is not None:
        yield Observation(value)


def _cpus() -> Iterator[Observation]:
    yield Observation(os.cpu_count() or 1)


def _process_cpu() -> Iterator[Observation]:
    for mode, seconds in process_cpu_times().items():
        yield Observation(seconds, {_MODE: mode})


def _gc(figure: str) -> Callable[[], Observations]:
    def read() -> Iterator[Observation]:
        for generation, each in enumerate(gc.get_stats()):
            yield Observation(each[figure], {_GENERATION: generation})

    return read


def _process_began_s() -> float:
    try:
        return float(psutil.Process().create_time())
    except (psutil.Error, OSError):
        return time.time()
