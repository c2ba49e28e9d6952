"""What is given to be evaluated, in the forms that people have it: readings, plain numbers, a snapshot, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from streamlit_extension.alerts.model import Reading, Snapshot

if TYPE_CHECKING:
    from streamlit_extension.monitoring.model import MetricsSnapshot

#: Metric → reading or number (None: no data), or the snapshot of everything that is measured.
Given: TypeAlias = "Mapping[str, Reading] | Mapping[str, float | None] | MetricsSnapshot"


class ReadHere:
    """Reads this process and its machine; what does it is made by the first call."""

    def __init__(self) -> None:
        self._collector: Any = None

    def __call__(self) -> Snapshot:
        """Read now."""
        from streamlit_extension.monitoring.collector import MetricsCollector
        from streamlit_extension.monitoring.readings import readings

        if self._collector is None:
            self._collector = MetricsCollector()
        return readings(self._collector)


def readings_of(given: Given) -> Snapshot:
    """Return readings, whatever form they came in. Raises TypeError with the name of what is no number."""
    if isinstance(given, Mapping):
        return {str(metric): _reading(metric, value) for metric, value in given.items()}
    from streamlit_extension.monitoring.model import MetricsSnapshot
    from streamlit_extension.monitoring.readings import readings_in

    if not isinstance(given, MetricsSnapshot):
        raise TypeError(f"check_alerts() takes metric → reading or number, or a snapshot, not {type(given).__name__}")
    return readings_in(given)


def _reading(metric: object, value: object) -> Reading:
    if isinstance(value, Reading):
        return value
    if value is None:
        return Reading(None)
    try:
        number = float(value) if not isinstance(value, str | bytes) else None  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise TypeError(f"check_alerts(): {metric} is no number and no Reading but {type(value).__name__}")
    return Reading(number)
