"""The metric of business events, with a bounded number of names."""

from __future__ import annotations

import threading
from typing import Final

from opentelemetry import metrics

from otel.names import Attribute, Metric

#: Names that are told apart; further ones are counted together as `other`.
MAX_NAMES: Final = 100
OTHER: Final = "other"


class BusinessEvents:
    """Counts `business.events` by name.

    Arguments:
        meter: makes the counter; by default the API's, which follows whichever provider is installed, also later.
        max_names: names that are told apart.
    """

    def __init__(self, *, meter: metrics.Meter | None = None, max_names: int = MAX_NAMES) -> None:
        self._counter = (meter or metrics.get_meter("streamlit_extension")).create_counter(
            Metric.BUSINESS_EVENTS, unit="{event}", description="Business events by name"
        )
        self._max_names = max_names
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def count(self, name: str) -> bool:
        """Count one event; False when it is the first that is counted as `other`, which is worth a warning."""
        with self._lock:
            known = name in self._names
            first_other = False
            if not known and len(self._names) < self._max_names:
                self._names.add(name)
                known = True
            elif not known and OTHER not in self._names:
                self._names.add(OTHER)
                first_other = True
        self._counter.add(1, {Attribute.BUSINESS_EVENT_NAME.value: name if known else OTHER})
        return not first_other
