"""The snapshot of everything that is measured: frozen values. Percentages are 0-100, durations milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from streamlit_extension.monitoring.growth import Growth
from streamlit_extension.monitoring.ticks import Holder


class SystemMetrics(msgspec.Struct, frozen=True):
    """Of the container where it has limits, else of the machine; and of this process.

    `network_*` and `disk_*` bytes are totals since the machine's start.
    """

    cpu_percent: float
    memory_percent: float
    memory_used_bytes: int
    memory_limit_bytes: int
    disk_percent: float
    disk_used_bytes: int
    disk_total_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    network_received_bytes: int
    network_sent_bytes: int
    process_count: int | None
    open_descriptors: int | None
    descriptor_limit: int | None
    threads: int | None
    process_resident_bytes: int | None

    @property
    def descriptor_percent(self) -> float | None:
        """Share of the descriptors that this process may open, 0-100; None where there is no limit."""
        if self.open_descriptors is None or not self.descriptor_limit:
            return None
        return 100.0 * self.open_descriptors / self.descriptor_limit


class ResponseTimes(msgspec.Struct, frozen=True):
    """Runs or requests of the last five minutes; times are None while there were none.

    Quantiles are within 1 % of the exact ones. `slowest_trace_id` and `failed_trace_id` are examples.
    """

    count: int = 0
    failures: int = 0
    error_percent: float | None = None
    per_s: float = 0.0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    slowest_trace_id: str | None = None
    failed_trace_id: str | None = None


class PoolStatistics(msgspec.Struct, frozen=True):
    """The connection pools of one database together; `max` is None where there is no limit."""

    name: str
    active: int
    idle: int
    max: int | None

    @property
    def percent(self) -> float | None:
        """Share of the maximum that is in use, 0-100."""
        return 100.0 * self.active / self.max if self.max else None


class CacheUse(msgspec.Struct, frozen=True):
    """Streamlit's caches since the start; None where nothing is cached yet or this Streamlit does not tell."""

    hits: int | None = None
    misses: int | None = None
    evictions: int | None = None

    @property
    def hit_percent(self) -> float | None:
        """Share of look-ups that found something, 0-100; None before the first one."""
        looked_up = (self.hits or 0) + (self.misses or 0)
        return 100.0 * (self.hits or 0) / looked_up if looked_up else None


class HeldMemory(msgspec.Struct, frozen=True):
    """What one holder holds, in bytes (None: not known yet), and how it grows."""

    bytes: int | None = None
    growth: Growth = Growth.UNKNOWN
    growth_bytes_per_s: float = 0.0


class ApplicationMetrics(msgspec.Struct, frozen=True):
    """Of the application: script runs are what its users wait for, requests those to its own HTTP routes.

    `largest_sessions` holds session ids with their bytes, the largest first.
    """

    runs: ResponseTimes
    requests: ResponseTimes
    error_percent: float | None
    pools: tuple[PoolStatistics, ...]
    cache: CacheUse
    active_sessions: int | None
    running_scripts: int
    memory: Mapping[Holder, HeldMemory]
    largest_sessions: tuple[tuple[str, int], ...] = ()


class EventRate(msgspec.Struct, frozen=True):
    """How often one business event happened: since the start, and an hour at the pace of the last hour."""

    total: int = 0
    per_hour: float = 0.0


class Engagement(msgspec.Struct, frozen=True):
    """What users did in the last hour.

    `active_users` is how many sessions ran something; `reruns_per_session` and `session_length_s` are means of those;
    `pages` counts runs by the page's name, the most visited first.
    """

    active_users: int = 0
    reruns_per_session: float = 0.0
    session_length_s: float = 0.0
    pages: Mapping[str, int] = msgspec.field(default_factory=dict)


class BusinessMetrics(msgspec.Struct, frozen=True):
    """Of the business: rates of the events that mean it, and every event by name."""

    client_creation: EventRate
    project_completion: EventRate
    task_throughput: EventRate
    engagement: Engagement
    events: Mapping[str, EventRate]


class MetricsSnapshot(msgspec.Struct, frozen=True):
    """Everything that is measured, at one time."""

    taken_at: datetime
    system: SystemMetrics
    application: ApplicationMetrics
    business: BusinessMetrics
