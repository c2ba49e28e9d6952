"""From one collection of metrics to rows: every series cumulative, histograms as counts by upper bound."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from otel.store.ids import half
from otel.store.plain import text, to_json
from otel.store.rows import MAX_NAME, nanoseconds
from otel.store.schema import LEVELS_S

#: Most series of a file: what comes above is left out, and counted.
MAX_SERIES: Final = 10_000
#: Exponential histograms are kept at this scale: bounds grow by an eighth of a doubling.
SCALE: Final = 3
_DELTA: Final = 1
_encode: Final = msgspec.json.Encoder().encode


class PointRows(msgspec.Struct):
    """What one commit adds.

    `sums` and `lasts` are points by how they are rolled up: gauges are added up, counters' last value stands.
    """

    series: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    sums: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    lasts: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    exemplars: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    left_out: int = 0


class Points:
    """Turns metric data into rows; holds the running sums of series that come as differences. Used by one thread."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[float, float, dict[float, int]]] = {}
        self.forget_file()

    def forget_file(self) -> None:
        """A new file was begun, which explains no series yet."""
        self._written: set[int] = set()

    def written(self, rows: PointRows) -> None:
        """`rows` are committed."""
        self._written.update(each[0] for each in rows.series)

    def add(self, collections: Iterable[Any], resource_of: Callable[[Any], int]) -> PointRows:
        """Take some collections (`MetricsData`), oldest first."""
        rows = PointRows()
        new: set[int] = set()
        for data in collections:
            for of_resource in data.resource_metrics:
                resource = resource_of(of_resource.resource)
                for of_scope in of_resource.scope_metrics:
                    for metric in of_scope.metrics:
                        self._metric(metric, resource, rows, new)
        return rows

    def _metric(self, metric: Any, resource: int, rows: PointRows, new: set[int]) -> None:
        data = metric.data
        kind = kind_of(data)
        name, unit = text(str(metric.name), MAX_NAME), text(str(metric.unit or ""), 64)
        delta = getattr(getattr(data, "aggregation_temporality", None), "value", 0) == _DELTA
        for point in data.data_points:
            attributes = to_json(dict(sorted((point.attributes or {}).items()))) or b"{}"
            series = _hash(name, kind, unit, resource, attributes)
            if series not in self._written and series not in new:
                if len(self._written) + len(new) >= MAX_SERIES:
                    rows.left_out += 1
                    continue
                new.add(series)
                bounds = getattr(point, "explicit_bounds", None)
                start = nanoseconds(getattr(point, "start_time_unix_nano", 0))
                head = (series, name, kind, unit, text(str(metric.description or ""), 1024), resource, attributes)
                rows.series.append((*head, _encode(list(bounds)) if bounds else None, start))
            self._point(kind, series, point, delta, rows)

    def _point(self, kind: str, series: int, point: Any, delta: bool, rows: PointRows) -> None:
        time_ns = nanoseconds(point.time_unix_nano)
        if kind == "histogram":
            count, total, counts = int(point.count), _finite(point.sum), counts_of(point)
            if delta:
                count, total, counts = self._added(series, count, total, counts)
            data = _encode([[None if math.isinf(bound) else bound, n] for bound, n in sorted(counts.items())])
            rows.lasts += _levels(series, time_ns, (count, total, None, None, data))
        elif kind == "counter":
            value = _finite(point.value)
            if delta:
                _, value, _ = self._added(series, 0, value, {})
            rows.lasts += _levels(series, time_ns, (1, value, None, None, None))
        else:
            value = _finite(point.value)
            if delta:
                _, value, _ = self._added(series, 0, value, {})
            rows.sums += _levels(series, time_ns, (1, value, value, value, None))
        for each in point.exemplars or ():
            if each.trace_id:
                ids = half(each.trace_id >> 64), half(each.trace_id), half(each.span_id or 0)
                rows.exemplars.append((series, nanoseconds(each.time_unix_nano), _finite(each.value), *ids))

    def _added(
        self, series: int, count: int, total: float, counts: Mapping[float, int]
    ) -> tuple[int, float, dict[float, int]]:
        before, sum_before, known = self._running.get(series, (0, 0.0, {}))
        merged = dict(known)
        for bound, n in counts.items():
            merged[bound] = merged.get(bound, 0) + n
        self._running[series] = found = (int(before + count), sum_before + total, merged)
        return found[0], found[1], found[2]


def kind_of(data: Any) -> str:
    """One of counter, updown, gauge and histogram."""
    if hasattr(data, "is_monotonic"):
        return "counter" if data.is_monotonic else "updown"
    return "histogram" if hasattr(data, "aggregation_temporality") else "gauge"


def counts_of(point: Any) -> dict[float, int]:
    """A histogram's counts by upper bound, without those that are 0."""
    if hasattr(point, "explicit_bounds"):
        bounds = [*point.explicit_bounds, math.inf]
        return {float(bound): int(n) for bound, n in zip(bounds, point.bucket_counts, strict=False) if n}
    found = {0.0: int(point.zero_count)} if point.zero_count else {}
    shift = max(0, point.scale - SCALE)
    scale = point.scale - shift
    for sign, buckets in ((1.0, point.positive), (-1.0, point.negative)):
        for place, n in enumerate(buckets.bucket_counts):
            if n:
                index = (buckets.offset + place) >> shift
                bound = sign * _power((index + 1) if sign > 0 else index, scale)
                found[bound] = found.get(bound, 0) + int(n)
    return found


def _power(index: int, scale: int) -> float:
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return math.inf


def _levels(series: int, time_ns: int, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The same point as it is, and in each coarser step."""
    found = []
    for level, step_s in enumerate(LEVELS_S):
        step_ns = step_s * 10**9
        found.append((series, level, time_ns // step_ns * step_ns if step_ns else time_ns, *values))
    return found


def _finite(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _hash(name: str, kind: str, unit: str, resource: int, attributes: bytes) -> int:
    words = f"{name}\0{kind}\0{unit}\0{resource}\0".encode("utf-8", "replace") + attributes
    return half(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()))
