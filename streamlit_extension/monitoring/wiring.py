"""What the composition root starts and stops of this room."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel import installed
from streamlit_extension.monitoring.activity import activity, memory_growth
from streamlit_extension.monitoring.export import process_export
from streamlit_extension.monitoring.instruments import SystemInstruments
from streamlit_extension.monitoring.machine import this_machine
from streamlit_extension.monitoring.workers import worker_group

if TYPE_CHECKING:
    from streamlit_extension.monitoring.collector import MetricsCollector

__all__ = ["activity", "current_readings", "process_export", "start_monitoring"]


@cache
def _collector() -> MetricsCollector:
    from streamlit_extension.monitoring.collector import MetricsCollector

    return MetricsCollector()


def current_readings() -> Mapping[str, Any]:
    """What alert rules are held against, now: metric → `Reading`."""
    from streamlit_extension.monitoring.readings import readings

    return readings(_collector())


def start_monitoring(stack: contextlib.AsyncExitStack, data_dir: Path | None) -> None:
    """Measure from now on; telemetry is in place.

    Arguments:
        stack: gets what ends it.
        data_dir: the data folder: its disk is measured, and workers of one server meet there.
    """
    stack.callback(activity().listen())
    machine = this_machine()
    if data_dir is not None:
        machine.folder = data_dir
    telemetry = installed.current()
    if telemetry is not None:
        instruments = SystemInstruments(machine, memory_growth().read, telemetry.meter_provider)
        stack.callback(instruments.close)
    group = worker_group()
    if data_dir is not None and group is not None:
        stack.callback(process_export().share(data_dir, group))
