"""Monitoring: alerts on thresholds."""

from __future__ import annotations

from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.rules import THRESHOLDS

__all__ = ["THRESHOLDS", "AlertManager"]
