"""`SystemMonitor`: the snapshot, how it stands to the thresholds, alerts, and the export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamlit_extension.alerts.evaluation import breaches, threshold_for, usable
from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.model import AlertRule, Notice, Reading
from streamlit_extension.alerts.rules import POOL_SHARE, THRESHOLDS, default_rules
from streamlit_extension.monitoring.collector import MetricsCollector
from streamlit_extension.monitoring.export import MetricsExport, process_export
from streamlit_extension.monitoring.growth import Growth
from streamlit_extension.monitoring.model import MetricsSnapshot
from streamlit_extension.monitoring.readings import readings
from streamlit_extension.monitoring.ticks import Holder


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


class SystemMonitor:
    """Watches one process.

    Arguments:
        collector: reads the figures.
        alerts: evaluates readings; by default one with the rules that `thresholds` make, which tells nobody.
        thresholds: metric → value that counts as a breach, over those of THRESHOLDS; a number for
            `database_connections` takes the place of the share of the pool's own maximum.
        export: writes metrics as text.
    """

    def __init__(
        self,
        *,
        collector: MetricsCollector | None = None,
        alerts: AlertManager | None = None,
        thresholds: Mapping[str, float] | None = None,
        export: MetricsExport | None = None,
    ) -> None:
        self.collector = collector or MetricsCollector()
        self._rules = _rules(thresholds or {})
        self._alerts = alerts or AlertManager(rules=self._rules)
        self._export = export or process_export()

    def collect_metrics(self) -> MetricsSnapshot:
        """Everything that is measured, now."""
        return self.collector.snapshot()

    def check_performance(self) -> PerformanceReport:
        """Every watched metric beside its threshold, now; alerts also ask for how long."""
        found, held = readings(self.collector), self.collector.held_memory()
        return PerformanceReport(
            tuple(_finding(rule, found.get(rule.metric)) for rule in self._rules),
            tuple(holder for holder in Holder if held[holder].growth is Growth.LEAK),
        )

    def generate_alerts(self) -> tuple[Notice, ...]:
        """Evaluate every rule once and return what is to be told; `AlertManager.send_notifications` tells it."""
        return self._alerts.check_alerts(readings(self.collector))

    def export_metrics(self, *, openmetrics: bool = False) -> str:
        """Everything that is measured as Prometheus reads it: what `/metrics` answers.

        Arguments:
            openmetrics: in the OpenMetrics format, which has exemplars, instead of Prometheus's text format.
        """
        return self._export.text(openmetrics=openmetrics)


def _rules(thresholds: Mapping[str, float]) -> tuple[AlertRule, ...]:
    share = None if "database_connections" in thresholds else POOL_SHARE
    return default_rules({**THRESHOLDS, **thresholds}, share_of_pool=share)


def _finding(rule: AlertRule, reading: Reading | None) -> Finding:
    value, threshold = usable(rule, reading), threshold_for(rule, reading)
    breached = value is not None and breaches(rule, value, threshold)
    told = reading.value if reading is not None else None
    return Finding(rule.metric, told, threshold, breached, reading.trace_id if reading is not None else None)
