"""The readings that alert rules are held against: metric → value, number of samples, age, limit, an example's trace.

`memory_growth` is the growth of what looks like a leak, in per cent of the memory limit an hour; 0 for none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from streamlit_extension.alerts.model import Metric, Reading
from streamlit_extension.monitoring.collector import MetricsCollector
from streamlit_extension.monitoring.growth import Growth
from streamlit_extension.monitoring.model import HeldMemory, MetricsSnapshot, PoolStatistics
from streamlit_extension.monitoring.ticks import Holder
from streamlit_extension.monitoring.window import WindowStatistics

#: What a pool without a maximum is measured by when the fullest is looked for.
_PRESUMED_MAX = 20


def readings(collector: MetricsCollector) -> dict[str, Reading]:
    """Return what is known now, for `AlertManager.check_alerts`; a metric without data is absent."""
    found: dict[str, Reading] = {}
    now_s = time.monotonic()
    fast, slow = collector.machine.fast(), collector.machine.slow()
    if fast.cpu_percent is not None:
        found[Metric.CPU_USAGE.value] = Reading(value=fast.cpu_percent, age_s=max(0.0, now_s - fast.at_s))
    found[Metric.MEMORY_USAGE.value] = Reading(value=fast.memory_percent, age_s=max(0.0, now_s - fast.at_s))
    if slow.disk.total_bytes:
        found[Metric.DISK_USAGE.value] = Reading(value=slow.disk.percent, age_s=max(0.0, now_s - slow.at_s))
    runs, requests = collector.activity.runs.statistics(), collector.activity.requests.statistics()
    if runs.count + requests.count:
        found[Metric.ERROR_RATE.value] = _error_rate(runs, requests)
    if runs.p95_s is not None:
        found[Metric.RESPONSE_TIME.value] = Reading(
            value=1000.0 * runs.p95_s,
            samples=runs.count,
            age_s=runs.newest_s or 0.0,
            trace_id=runs.slowest.trace_id,
        )
    pool = fullest(collector.connection_pool_stats())
    if pool is not None:
        found[Metric.DATABASE_CONNECTIONS.value] = Reading(value=float(pool.active), limit=pool.max)
    found[Metric.MEMORY_GROWTH.value] = Reading(value=_leak_percent(collector.held_memory(), fast.memory_limit_bytes))
    return found


def readings_in(snapshot: MetricsSnapshot) -> dict[str, Reading]:
    """Return the readings that a snapshot holds, as old as it is."""
    age_s = max(0.0, (datetime.now(UTC) - snapshot.taken_at).total_seconds())
    system, application = snapshot.system, snapshot.application
    runs, requests = application.runs, application.requests
    found = {
        Metric.CPU_USAGE.value: Reading(system.cpu_percent, age_s=age_s),
        Metric.MEMORY_USAGE.value: Reading(system.memory_percent, age_s=age_s),
        Metric.ERROR_RATE.value: Reading(
            application.error_percent,
            samples=runs.count + requests.count,
            age_s=age_s,
            trace_id=runs.failed_trace_id or requests.failed_trace_id,
        ),
        Metric.RESPONSE_TIME.value: Reading(
            runs.p95_ms, samples=runs.count, age_s=age_s, trace_id=runs.slowest_trace_id
        ),
    }
    if system.disk_total_bytes:
        found[Metric.DISK_USAGE.value] = Reading(system.disk_percent, age_s=age_s)
    pool = fullest(application.pools)
    if pool is not None:
        found[Metric.DATABASE_CONNECTIONS.value] = Reading(float(pool.active), limit=pool.max, age_s=age_s)
    leak = _leak_percent(application.memory, system.memory_limit_bytes)
    return {**found, Metric.MEMORY_GROWTH.value: Reading(leak, age_s=age_s)}


def _error_rate(runs: WindowStatistics, requests: WindowStatistics) -> Reading:
    samples = runs.count + requests.count
    ages = [each.newest_s for each in (runs, requests) if each.newest_s is not None]
    return Reading(
        value=100.0 * (runs.failures + requests.failures) / samples,
        samples=samples,
        age_s=min(ages, default=0.0),
        trace_id=runs.failed.trace_id or requests.failed.trace_id,
    )


def fullest(pools: tuple[PoolStatistics, ...]) -> PoolStatistics | None:
    """Return the pool that is nearest to its maximum; None where there is none."""
    return max(pools, key=lambda pool: pool.active / (pool.max or _PRESUMED_MAX), default=None)


def _leak_percent(held: Mapping[Holder, HeldMemory], limit_bytes: int) -> float:
    """Growth of what looks like a leak, in per cent of the limit an hour."""
    leaking = [held[holder].growth_bytes_per_s for holder in Holder if held[holder].growth is Growth.LEAK]
    return 100.0 * 3600.0 * sum(leaking) / limit_bytes if limit_bytes else 0.0
