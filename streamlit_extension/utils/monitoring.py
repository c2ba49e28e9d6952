"""Monitoring: metrics of process, machine, application and business, and alerts on their thresholds."""

from __future__ import annotations

from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.rules import THRESHOLDS
from streamlit_extension.monitoring.collector import MetricsCollector
from streamlit_extension.monitoring.model import MetricsSnapshot
from streamlit_extension.monitoring.monitor import PerformanceReport, SystemMonitor

__all__ = ["THRESHOLDS", "AlertManager", "MetricsCollector", "MetricsSnapshot", "PerformanceReport", "SystemMonitor"]
