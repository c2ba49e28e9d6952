"""The rules that hold by default, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from streamlit_extension.alerts.model import AlertRule, Metric, Severity

if TYPE_CHECKING:
    from streamlit_extension.settings import Alerts

#: The critical thresholds: per cent, `response_time` in milliseconds, `database_connections` as a number (90 % of 20).
THRESHOLDS: Final[Mapping[str, float]] = MappingProxyType(
    {
        Metric.CPU_USAGE.value: 85,
        Metric.MEMORY_USAGE.value: 90,
        Metric.DISK_USAGE.value: 85,
        Metric.ERROR_RATE.value: 5,
        Metric.RESPONSE_TIME.value: 5000,
        Metric.DATABASE_CONNECTIONS.value: 18,
    }
)
#: What is watched beside them: growth of Streamlit's own memory that looks like a leak, in per cent of the memory limit
#: an hour. At 1 an empty container is full in four days, so it is a warning.
MEMORY_GROWTH_PERCENT: Final = 1.0
#: Share of the real pool's maximum at which `database_connections = "auto"` fires.
POOL_SHARE: Final = 0.9
#: Fewer samples than this in the window say nothing about a rate or a percentile.
MIN_SAMPLES: Final = 20


class _About(msgspec.Struct, frozen=True):
    title: str
    unit: str
    runbook: str
    min_samples: int = 1
    severity: Severity = Severity.CRITICAL


_ABOUT: Final[Mapping[str, _About]] = {
    Metric.CPU_USAGE: _About(
        "CPU usage",
        "%",
        "Look for the page whose runs take longest; cache what it computes, or add replicas.",
    ),
    Metric.MEMORY_USAGE: _About(
        "Memory usage",
        "%",
        "Compare session state, caches and uploads: a cache that is full stays level, a leak grows with every session. "
        "Bound caches by max_entries or ttl; raise the memory limit or restart before the kernel does.",
    ),
    Metric.DISK_USAGE: _About(
        "Disk usage of the data folder",
        "%",
        "See what grew in the data folder; a spool that grows means that the collector is away.",
    ),
    Metric.ERROR_RATE: _About(
        "Share of failed runs and requests",
        "%",
        "Open the example trace: the run's error and its log lines are there. Roll back what was deployed last.",
        MIN_SAMPLES,
    ),
    Metric.RESPONSE_TIME: _About(
        "95th percentile of rerun time",
        "ms",
        "Open the example trace and look for the widest span: a slow statement, a slow API, or the script itself.",
        MIN_SAMPLES,
    ),
    Metric.DATABASE_CONNECTIONS: _About(
        "Database connections in use",
        "",
        "Find the runs that hold a connection longest; close sessions before long computations, or raise the pool's "
        "size together with the server's limit.",
    ),
    Metric.MEMORY_GROWTH: _About(
        "Memory that grows like a leak",
        "% an hour",
        "The metric streamlit.memory.growth names what grows. Session state: look at the largest sessions. Caches: "
        "bound them by max_entries or ttl. Uploads and media: see what is kept longer than its run.",
        severity=Severity.WARNING,
    ),
}


def default_rules(
    thresholds: Mapping[str, float] = THRESHOLDS, *, for_s: float = 30.0, share_of_pool: float | None = POOL_SHARE
) -> tuple[AlertRule, ...]:
    """Return one rule for each threshold, critical but for `memory_growth`.

    Arguments:
        thresholds: metric → value in the units of `THRESHOLDS`; a metric that is not among them has a rule without
            title, unit and runbook.
        for_s: how long a breach lasts before its alert fires.
        share_of_pool: the share of a pool's known maximum that stands for `database_connections`; None: the number.
    """
    return tuple(_rule(metric, value, for_s, share_of_pool) for metric, value in thresholds.items())


def _rule(metric: str, threshold: float, for_s: float, share_of_pool: float | None) -> AlertRule:
    about = _ABOUT.get(metric, _About(metric, "", ""))
    try:
        threshold = float(threshold)
    except (TypeError, ValueError):
        raise ValueError(f"{metric}: the threshold is no number") from None
    return AlertRule(
        name=str(metric),
        metric=str(metric),
        threshold=threshold,
        for_s=for_s,
        severity=about.severity,
        share_of_limit=share_of_pool if metric == Metric.DATABASE_CONNECTIONS else None,
        min_samples=about.min_samples,
        unit=about.unit,
        title=about.title,
        runbook=about.runbook,
    )


def rules_from(settings: Alerts) -> tuple[AlertRule, ...]:
    """Return the rules that `[alerts]` asks for."""
    chosen = settings.thresholds
    connections = chosen.database_connections
    automatic = connections == "auto"
    thresholds = {metric.value: getattr(chosen, metric.value) for metric in Metric}
    if isinstance(connections, str):
        thresholds[Metric.DATABASE_CONNECTIONS.value] = THRESHOLDS[Metric.DATABASE_CONNECTIONS.value]
    return default_rules(thresholds, for_s=settings.for_s, share_of_pool=POOL_SHARE if automatic else None)
