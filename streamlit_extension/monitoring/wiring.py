"""What the composition root starts and stops of this room."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
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

__all__ = ["activity", "process_export", "start_monitoring"]


@cache
def _collector() -> MetricsCollector:
    from streamlit_extension.monitoring.collector import MetricsCollector

    return MetricsCollector()


class CurrentReadings:
    """What alert rules are held against, now: metric → `Reading`.

    Arguments:
        data_dir: where workers of one server meet, so that one of them speaks of the machine.
        group: what they have in common; None where this is no worker.
    """

    def __init__(self, data_dir: Path | None, group: str | None) -> None:
        self._place = (data_dir, group)
        self._turn: Any = None

    def __call__(self) -> Mapping[str, Any]:
        """Read."""
        from streamlit_extension.monitoring.readings import readings

        found = readings(_collector())
        data_dir, group = self._place
        if data_dir is None or group is None:
            return found
        if self._turn is None:
            from streamlit_extension.monitoring.turn import Turn

            self._turn = Turn(data_dir, group)
        spoken: Mapping[str, Any] = self._turn.without_others(found)
        return spoken

    def close(self) -> None:
        """Let another worker speak."""
        if self._turn is not None:
            self._turn.close()


def start_monitoring(stack: contextlib.AsyncExitStack, data_dir: Path | None) -> Callable[[], Mapping[str, Any]]:
    """Measure from now on; telemetry is in place.

    Arguments:
        stack: gets what ends it.
        data_dir: the data folder: its disk is measured, and workers of one server meet there.

    Returns:
        What reads the values that alert rules are held against.
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
    read = CurrentReadings(data_dir, group)
    stack.callback(read.close)
    return read
