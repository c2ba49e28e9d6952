"""`SystemMonitor`: the snapshot, how it stands to the thresholds, alerts, and the export."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamlit_extension.monitoring.collector import MetricsCollector
from streamlit_extension.monitoring.export import MetricsExport, process_export
from streamlit_extension.monitoring.growth import Growth
from streamlit_extension.monitoring.model import Holder, MetricsSnapshot
from streamlit_extension.monitoring.readings import readings
from streamlit_extension.settings import Thresholds

#: Share of a pool's maximum that stands for `database_connections = "auto"`, and the number where no maximum is known.
POOL_SHARE: Final = 0.9
POOL_DEFAULT: Final = 18.0
#: A rate or a quantile of fewer samples says nothing.
MIN_SAMPLES: Final = 20
_FROM_SAMPLES: Final = ("error_rate", "response_time")
#: What is watched: the settings' `[alerts.thresholds]`.
WATCHED: Final = Thresholds.__struct_fields__


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric beside its threshold; `value` is None while there is no data. Per cent, or `response_time` in ms."""

    metric: str
    value: float | None
    threshold: float
    breached: bool
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """How the application performs: every watched metric, and what holds memory that grows as a leak does."""

    findings: tuple[Finding, ...]
    leaks: tuple[Holder, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is breached and nothing leaks."""
        return not self.leaks and not any(each.breached for each in self.findings)

    @property
    def breached(self) -> tuple[str, ...]:
        """The metrics at or above their thresholds."""
        return tuple(each.metric for each in self.findings if each.breached)


@dataclass(frozen=True, slots=True)
class _Value:
    """A reading."""

    value: float | None
    samples: int = 1
    age_s: float = 0.0
    limit: float | None = None
    trace_id: str | None = None


class SystemMonitor:
    """Watches one process.

    Arguments:
        collector: reads the figures.
        alerts: evaluates readings (`check_alerts(snapshot)`); by default an `AlertManager` with the default rules.
        thresholds: metric → value that counts as a breach, over those of the settings' defaults.
        export: writes metrics as text.
    """

    def __init__(
        self,
        *,
        collector: MetricsCollector | None = None,
        alerts: Any = None,
        thresholds: Mapping[str, float] | None = None,
        export: MetricsExport | None = None,
    ) -> None:
        self.collector = collector or MetricsCollector()
        self._alerts = alerts
        self._thresholds = dict(thresholds or {})
        self._export = export or process_export()

    def collect_metrics(self) -> MetricsSnapshot:
        """Everything that is measured, now."""
        return self.collector.snapshot()

    def check_performance(self) -> PerformanceReport:
        """Every watched metric beside its threshold; pure but for the reading."""
        found = readings(self.collector, _Value)
        held = self.collector.held_memory()
        return PerformanceReport(
            tuple(_finding(metric, found.get(metric), self._threshold(metric)) for metric in WATCHED),
            tuple(holder for holder in Holder if held[holder].growth is Growth.LEAK),
        )

    def generate_alerts(self) -> tuple[Any, ...]:
        """Evaluate every rule once and return what is to be told of; `AlertManager.send_notifications` tells it."""
        if self._alerts is None:
            self._alerts = importlib.import_module("streamlit_extension.alerts.manager").AlertManager()
        return tuple(self._alerts.check_alerts(readings(self.collector, _Value)))

    def export_metrics(self, *, openmetrics: bool = False) -> str:
        """Everything that is measured as Prometheus reads it: what `/metrics` answers.

        Arguments:
            openmetrics: in the OpenMetrics format, which has exemplars, instead of Prometheus's text format.
        """
        return self._export.text(openmetrics=openmetrics)

    def _threshold(self, metric: str) -> float | None:
        default = getattr(Thresholds(), metric)
        return self._thresholds.get(metric, None if isinstance(default, str) else float(default))


def _finding(metric: str, reading: _Value | None, threshold: float | None) -> Finding:
    limit = reading.limit if reading is not None else None
    if threshold is None:
        threshold = POOL_SHARE * limit if limit else POOL_DEFAULT
    value = reading.value if reading is not None else None
    enough = reading is not None and (metric not in _FROM_SAMPLES or reading.samples >= MIN_SAMPLES)
    breached = enough and value is not None and value >= threshold
    return Finding(metric, value, threshold, breached, reading.trace_id if reading is not None else None)
