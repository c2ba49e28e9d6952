"""`MetricsCollector`: each figure by a method, and the snapshot of them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from otel.instrumentation.sqlalchemy import ENGINES
from otel.instrumentation.streamlit import WATCHER, RunWatcher, cache_statistics
from otel.instrumentation.streamlit.reading import connected_sessions
from streamlit_extension.health.checks.pools import look_at
from streamlit_extension.logs.business import EventPace, business_events
from streamlit_extension.monitoring.activity import Activity, MemoryGrowth, activity, memory_growth
from streamlit_extension.monitoring.machine import Machine, descriptor_limit, this_machine
from streamlit_extension.monitoring.model import (
    ApplicationMetrics,
    BusinessMetrics,
    CacheUse,
    EventRate,
    HeldMemory,
    MetricsSnapshot,
    PoolStatistics,
    ResponseTimes,
    SystemMetrics,
)
from streamlit_extension.monitoring.ticks import Holder
from streamlit_extension.monitoring.window import WindowStatistics

#: What a business metric is made of, unless it is told otherwise: its name → the events that are it.
EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "client_creation": ("client.created",),
    "project_completion": ("project.completed",),
    "task_throughput": ("task.completed",),
}
#: Sessions that the snapshot names, those which hold most.
LARGEST: Final = 5


class MetricsCollector:
    """Reads what process, machine, application and business are doing now.

    Arguments:
        machine: reads the machine, the container and the process.
        activity: knows the runs and requests of the last minutes.
        growth: judges Streamlit's own memory.
        watcher: knows sessions and runs under way.
        engines: databases whose pools are looked at, by default those that were found.
        pace: knows the business events of the last hour.
        events: which events are client creations, project completions and tasks done.
    """

    def __init__(
        self,
        *,
        machine: Machine | None = None,
        activity: Activity | None = None,
        growth: MemoryGrowth | None = None,
        watcher: RunWatcher = WATCHER,
        engines: Any = ENGINES,
        pace: EventPace | None = None,
        events: Mapping[str, Iterable[str]] = EVENTS,
    ) -> None:
        self.machine = machine or this_machine()
        self.activity = activity or _listening()
        self._growth = growth or memory_growth()
        self._watcher = watcher
        self._engines = engines
        self._pace = pace or business_events().pace
        self._events = {name: tuple(members) for name, members in events.items()}

    # -- system ----------------------------------------------------------------------------------------------------

    def cpu_usage(self) -> float:
        """CPU in use, 0-100, of the container's limit or the machine; 0 before there is a reading."""
        return self.machine.fast().cpu_percent or 0.0

    def memory_usage(self) -> float:
        """Memory in use, 0-100: the container's working set of its limit, else of the machine's memory."""
        return self.machine.fast().memory_percent

    def disk_usage(self) -> float:
        """The data folder's file system in use, 0-100."""
        return self.machine.slow().disk.percent

    def system(self) -> SystemMetrics:
        """Machine, container and process."""
        fast, slow = self.machine.fast(), self.machine.slow()
        return SystemMetrics(
            cpu_percent=fast.cpu_percent or 0.0,
            memory_percent=fast.memory_percent,
            memory_used_bytes=fast.memory_used_bytes,
            memory_limit_bytes=fast.memory_limit_bytes,
            disk_percent=slow.disk.percent,
            disk_used_bytes=slow.disk.used_bytes,
            disk_total_bytes=slow.disk.total_bytes,
            disk_read_bytes=sum(each.in_bytes for each in slow.disks.values()),
            disk_written_bytes=sum(each.out_bytes for each in slow.disks.values()),
            network_received_bytes=sum(each.in_bytes for each in slow.networks.values()),
            network_sent_bytes=sum(each.out_bytes for each in slow.networks.values()),
            process_count=slow.processes,
            open_descriptors=fast.descriptors,
            descriptor_limit=descriptor_limit(),
            threads=fast.threads,
            process_resident_bytes=fast.process_resident_bytes,
        )

    # -- application -----------------------------------------------------------------------------------------------

    def connection_pool_stats(self) -> tuple[PoolStatistics, ...]:
        """The real connection pools of every database that is known; those without figures are left out."""
        found = []
        for entry in self._engines.entries:
            figures = look_at(entry.all_living()).connections
            if figures:
                found.append(PoolStatistics(entry.name, figures["active"] or 0, figures["idle"] or 0, figures["max"]))
        return tuple(found)

    def response_time_metrics(self) -> ResponseTimes:
        """Script runs of the last five minutes: what users wait for."""
        return _response_times(self.activity.runs.statistics())

    def application(self) -> ApplicationMetrics:
        """Runs, requests, pools, caches, sessions, memory."""
        runs, requests = self.activity.runs.statistics(), self.activity.requests.statistics()
        count = runs.count + requests.count
        cached = cache_statistics()
        sessions = connected_sessions()
        return ApplicationMetrics(
            runs=_response_times(runs),
            requests=_response_times(requests),
            error_percent=100.0 * (runs.failures + requests.failures) / count if count else None,
            pools=self.connection_pool_stats(),
            cache=CacheUse() if cached is None else CacheUse(cached.hits, cached.misses, cached.evictions),
            active_sessions=None if sessions is None else max(0, sessions - self._watcher.hidden_sessions),
            running_scripts=len(self._watcher.active_sessions),
            memory=self.held_memory(),
            largest_sessions=tuple((each.session_id, each.bytes) for each in self._growth.sample.largest(LARGEST)),
        )

    def held_memory(self) -> Mapping[Holder, HeldMemory]:
        """What holds Streamlit's own memory, and how it grows."""
        verdicts, sample = self._growth.read(), self._growth.sample
        return {
            holder: HeldMemory(getattr(sample, holder.value), each.growth, each.rate_bytes_per_s)
            for holder, each in verdicts.items()
        }

    # -- business --------------------------------------------------------------------------------------------------

    def business(self) -> BusinessMetrics:
        """Rates of the events that mean business, and what users did."""
        paces = {name: EventRate(total, per_hour) for name, (total, per_hour) in self._pace.read().items()}

        def rate(metric: str) -> EventRate:
            found = [paces[name] for name in self._events.get(metric, ()) if name in paces]
            return EventRate(sum(each.total for each in found), sum(each.per_hour for each in found))

        return BusinessMetrics(
            rate("client_creation"),
            rate("project_completion"),
            rate("task_throughput"),
            self.activity.visits.read(),
            paces,
        )

    def snapshot(self) -> MetricsSnapshot:
        """Everything, now."""
        return MetricsSnapshot(datetime.now(UTC), self.system(), self.application(), self.business())


def _listening() -> Activity:
    found = activity()
    found.listen()
    return found


def _response_times(found: WindowStatistics) -> ResponseTimes:
    return ResponseTimes(
        count=found.count,
        failures=found.failures,
        error_percent=found.error_percent,
        per_s=found.rate_per_s,
        mean_ms=_ms(found.mean_s),
        p50_ms=_ms(found.p50_s),
        p95_ms=_ms(found.p95_s),
        p99_ms=_ms(found.p99_s),
        max_ms=_ms(found.max_s),
        slowest_trace_id=found.slowest.trace_id,
        failed_trace_id=found.failed.trace_id,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds
