"""What a scrape tells: the families of this process, and of the other workers where there are any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from otel import installed
from otel.config import TelemetryConfig
from otel.families import Exemplar, Family, families_of, merge
from otel.scrape import Format, Scraper
from streamlit_extension.monitoring.activity import memory_growth
from streamlit_extension.monitoring.instruments import SystemInstruments
from streamlit_extension.monitoring.machine import this_machine
from streamlit_extension.monitoring.workers import WorkerShare

#: Limit of one collection, in seconds; Prometheus's own default for a whole scrape is 10.
COLLECT_S: Final = 8.0


class ExemplarMemory:
    """Keeps the newest exemplar of each series: the SDK forgets its own at every collection, whoever made it.

    So two Prometheus servers that scrape one process both see them, and a look by hand takes none away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, frozenset[tuple[str, str]]], Exemplar] = {}

    def fill(self, families: Sequence[Family]) -> list[Family]:
        """Return the families with every exemplar that is known; series that are gone are forgotten."""
        known: dict[tuple[str, str, frozenset[tuple[str, str]]], Exemplar] = {}
        filled = []
        with self._lock:
            for family in families:
                if family.kind in ("counter", "histogram"):
                    samples = []
                    for sample in family.samples:
                        key = (family.name, sample.suffix, frozenset(sample.labels.items()))
                        exemplar = sample.exemplar or self._known.get(key)
                        if exemplar is not None:
                            known[key] = exemplar
                        samples.append(msgspec.structs.replace(sample, exemplar=exemplar))
                    family = msgspec.structs.replace(family, samples=tuple(samples))  # noqa: PLW2901
                filled.append(family)
            self._known = known
        return filled


class MetricsExport:
    """Writes metrics as text.

    Arguments:
        read: collects within so many seconds: the SDK's `MetricsData`, or None.
    """

    def __init__(self, read: Callable[[float], Any] | None = None) -> None:
        self._read = read or read_installed
        self._share: WorkerShare | None = None
        self._exemplars = ExemplarMemory()
        this_machine()  # begins to measure the CPU: the first scrape has something to tell
        self.scraper = Scraper(self.families)

    def share(self, data_dir: Path, group: str) -> Callable[[], None]:
        """Answer for all workers of a group from now on; returns what ends it."""
        share = self._share = WorkerShare(data_dir, group, self._own)
        share.start()

        def stop() -> None:
            self._share = None
            share.stop()

        return stop

    def _own(self) -> Sequence[Family]:
        return self._exemplars.fill(families_of(self._read(COLLECT_S)))

    def families(self) -> Sequence[Family]:
        """What there is to tell now."""
        own, share = self._own(), self._share
        return own if share is None else merge(own, share.others(), str(share.pid))

    def text(self, *, openmetrics: bool = False, timeout_s: float = 10.0) -> str:
        """Write it.

        Raises:
            TimeoutError: it took longer than `timeout_s` seconds.
        """
        return self.scraper.scrape(Format.OPENMETRICS if openmetrics else Format.TEXT, timeout_s).decode()


def read_installed(timeout_s: float) -> Any:
    """Collect from the telemetry that is in place; where there is none, from instruments of the machine alone."""
    telemetry = installed.current()
    return _alone()(timeout_s) if telemetry is None else telemetry.read_metrics(timeout_s)


@cache
def _alone() -> Callable[[float], Any]:
    from otel.providers import make_scraped_meters

    meters, read = make_scraped_meters(TelemetryConfig(service_name="streamlit-app", store=False))
    SystemInstruments(this_machine(), memory_growth().read, meters)
    return read


@cache
def process_export() -> MetricsExport:
    """The process's: what `/metrics` answers and `SystemMonitor` exports."""
    return MetricsExport()
