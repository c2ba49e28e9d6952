"""Metrics: instruments, and their series in steps of time, over files and processes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from otel.store.ids import span_hex, trace_hex
from otel.store.model import Exemplar, Instrument, Point, Series
from otel.store.plain import from_json
from otel.store.schema import LEVELS_S
from otel.store.shards import Shard, Shards

#: Series that are read for one answer.
_MAX_SERIES: Final = 2000
_MAX_EXEMPLARS: Final = 200


def instruments(shards: Shards) -> list[Instrument]:
    """Every instrument, by name."""
    sql = "SELECT name, kind, unit, max(description), id, attributes FROM series GROUP BY name, kind, unit, attributes"
    newest = "SELECT max(time) FROM points WHERE series = ? AND level = 2"
    found: dict[str, tuple[list[Any], set[bytes], int]] = {}
    for shard, rows in shards.ask(lambda shard: shard.rows(sql)):
        for name, kind, unit, description, number, attributes in rows:
            last = shard.one(newest, (number,))[0] or 0
            head, attribute_sets, before = found.get(name, ([kind, unit, description], set(), 0))
            attribute_sets.add(attributes)
            found[name] = head, attribute_sets, max(before, last)
    return [
        Instrument(name, kind, unit, description, len(sets), last)
        for name, ((kind, unit, description), sets, last) in sorted(found.items())
    ]


@dataclass(slots=True)
class _Raw:
    """One process's series, out of one file or several."""

    kind: str
    unit: str
    description: str
    start_ns: int
    bounds: list[float]
    points: list[Any] = field(default_factory=list)


def series(
    shards: Shards,
    name: str,
    since_ns: int,
    until_ns: int,
    attributes: Mapping[str, str] | None,
    steps: int,
    limit: int,
) -> list[Series]:
    """The series of an instrument; of several processes' the sum, of gauges the mean."""
    step_ns, level = _step(since_ns, until_ns, steps)
    raw: dict[bytes, dict[int, _Raw]] = defaultdict(dict)
    exemplars: dict[bytes, list[Exemplar]] = defaultdict(list)
    wanted = {key: str(value) for key, value in (attributes or {}).items()}
    sql = "SELECT id, kind, unit, description, attributes, bounds, start FROM series WHERE name = ? ORDER BY id LIMIT ?"
    for shard, rows in shards.ask(lambda shard: shard.rows(sql, (name, _MAX_SERIES))):
        for number, kind, unit, description, key, bounds, start in rows:
            if wanted and not _has(from_json(key), wanted):
                continue
            one = raw[key].setdefault(number, _Raw(kind, unit, description, start, from_json(bounds) or []))
            one.points += _points(shard, number, level, since_ns - 2 * step_ns, until_ns)
            exemplars[key] += _exemplars(shard, number, since_ns, until_ns)
    found = []
    for key, each in raw.items():
        points = _merged(list(each.values()), since_ns, until_ns, step_ns)
        if points:
            first = next(iter(each.values()))
            instrument = Instrument(name, first.kind, first.unit, first.description, len(raw), points[-1].time_ns)
            shown = sorted(exemplars[key], key=lambda exemplar: exemplar.time_ns)[-_MAX_EXEMPLARS:]
            found.append(Series(instrument, from_json(key), step_ns / 1e9, tuple(points), tuple(shown)))
    found.sort(key=lambda one: sum(abs(point.value) for point in one.points), reverse=True)
    return found[:limit]


def _step(since_ns: int, until_ns: int, steps: int) -> tuple[int, int]:
    """The width of a step, and the coarsest level of points that it can be made of."""
    width = max(1, (until_ns - since_ns) // max(1, steps) // 10**9)
    for nice in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400):
        if nice >= width:
            width = nice
            break
    return width * 10**9, max(level for level, level_s in enumerate(LEVELS_S) if width >= level_s)


def _has(attributes: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(name in attributes and str(attributes[name]) == value for name, value in wanted.items())


def _points(shard: Shard, number: int, level: int, since_ns: int, until_ns: int) -> list[Any]:
    """Points as fine as they are kept: where those of a level are gone, those of the next stand in."""
    sql = (
        "SELECT time, n, value, low, high, data FROM points WHERE series = ? AND level = ? AND time >= ? AND time < ? "
        "ORDER BY time"
    )
    found = shard.rows(sql, (number, level, since_ns, until_ns))
    for coarser in range(level + 1, len(LEVELS_S)):
        # A step of a coarser level that reaches into what is there is told by the finer one alone.
        end = found[0][0] - LEVELS_S[coarser] * 10**9 + 1 if found else until_ns
        before = shard.rows(sql, (number, coarser, since_ns, end))
        found = before + found
    return found


def _exemplars(shard: Shard, number: int, since_ns: int, until_ns: int) -> list[Exemplar]:
    sql = (
        "SELECT time, value, trace_hi, trace_lo, span FROM exemplars WHERE series = ? AND time >= ? AND time < ? "
        "ORDER BY time DESC LIMIT ?"
    )
    rows = shard.rows(sql, (number, since_ns, until_ns, _MAX_EXEMPLARS))
    return [Exemplar(time, value, trace_hex(hi, lo), span_hex(span)) for time, value, hi, lo, span in rows]


# -- steps ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Step:
    """What processes told of one step of time."""

    total: float = 0.0
    n: int = 0
    low: float | None = None
    high: float | None = None
    measured: int = 0
    counts: dict[float, int] = field(default_factory=dict)


def _merged(raws: Sequence[_Raw], since_ns: int, until_ns: int, step_ns: int) -> list[Point]:
    kind = raws[0].kind
    steps: dict[int, _Step] = defaultdict(_Step)
    for raw in raws:
        raw.points.sort(key=lambda each: each[0])
        if kind in ("counter", "histogram"):
            _add_differences(raw, steps, step_ns)
        else:
            _add_values(raw, steps, step_ns, additive=kind == "updown")
    bounds = next((raw.bounds for raw in raws if raw.bounds), [])
    first = since_ns // step_ns * step_ns
    return [
        _point(kind, time_ns, steps[time_ns], step_ns, bounds)
        for time_ns in sorted(steps)
        if first <= time_ns < until_ns
    ]


def _add_differences(raw: _Raw, steps: dict[int, _Step], step_ns: int) -> None:
    """What a cumulative series grew by; one that began anew began at nothing."""
    before: Any = None
    if raw.points and raw.start_ns and raw.points[0][0] - raw.start_ns <= 3 * step_ns:
        before = (raw.start_ns, 0, 0.0, {})
    for time_ns, n, value, _, _, data in raw.points:
        counts = {math.inf if bound is None else bound: count for bound, count in from_json(data) or ()}
        if before is not None:
            again = value < before[2] if raw.kind == "counter" else n < before[1]
            base = (0, 0, 0.0, {}) if again else before
            step = steps[time_ns // step_ns * step_ns]
            step.measured += n - base[1]
            step.total += value - base[2]
            step.n += 1
            for bound, count in counts.items():
                grown = count - base[3].get(bound, 0)
                if grown > 0:
                    step.counts[bound] = step.counts.get(bound, 0) + grown
        before = (time_ns, n, value, counts)


def _add_values(raw: _Raw, steps: dict[int, _Step], step_ns: int, *, additive: bool) -> None:
    own: dict[int, list[float]] = defaultdict(list)
    for time_ns, n, value, low, high, _ in raw.points:
        if n:
            at = time_ns // step_ns * step_ns
            own[at].append(value / n)
            step = steps[at]
            step.low = low if step.low is None else min(step.low, low)
            step.high = high if step.high is None else max(step.high, high)
    for at, values in own.items():
        steps[at].total += sum(values) / len(values)
        steps[at].n = 1 if additive else steps[at].n + 1


def _point(kind: str, time_ns: int, step: _Step, step_ns: int, bounds: Sequence[float]) -> Point:
    seconds = step_ns / 1e9
    if kind == "counter":
        return Point(time_ns, step.total / seconds)
    if kind == "histogram":
        mean = step.total / step.measured if step.measured else None
        percentiles = (percentile(step.counts, bounds, share) for share in (0.5, 0.95, 0.99))
        return Point(time_ns, step.measured / seconds, None, None, mean, *percentiles)
    return Point(time_ns, step.total / max(1, step.n), step.low, step.high)


def percentile(counts: Mapping[float, int], bounds: Sequence[float], share: float) -> float | None:
    """The value below which a share (0 to 1) lies, by counts under upper bounds; None where there are none."""
    total = sum(counts.values())
    if not total:
        return None
    lower_of = dict(zip(bounds, [0.0, *bounds], strict=False))
    wanted, below, last = share * total, 0, 0.0
    for bound in sorted(counts):
        lower = lower_of.get(bound, bound / 2 ** (1 / 8) if bound > 0 else bound)
        if math.isinf(bound):
            return bounds[-1] if bounds else last
        if below + counts[bound] >= wanted:
            return float(lower + (bound - lower) * max(0.0, wanted - below) / counts[bound])
        below, last = below + counts[bound], bound
    return last
