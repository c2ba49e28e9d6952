"""The SDK's metric data as families of samples in the names of Prometheus.

Names follow the specification "Prometheus and OpenMetrics Compatibility", as Prometheus's own OTLP endpoint does: dots
become underscores, the unit and `_total` stand at the end. Nothing here needs the SDK or `prometheus_client`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from otel.quiet import OncePerMinute

_logger = logging.getLogger("otel.export.scrape")
_logger.addFilter(OncePerMinute())

#: Word of a unit (UCUM) at the end of a name; a unit in braces is a note for people and has none.
_UNIT_WORDS: Final = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
    "By": "bytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "bit": "bits",
    "Hz": "hertz",
    "%": "percent",
    "Cel": "celsius",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
}
_PER: Final = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day"}
#: Powers of two between which floats lie; what is above the last bound is told without one.
_LEAST_POWER, _GREATEST_POWER = -1073, 1024
#: A label that tells two scopes apart which have made the same series.
SCOPE_LABEL: Final = "otel_scope_name"


class Exemplar(msgspec.Struct, frozen=True):
    """An example of what a sample counts: its trace, its value, and its time in seconds since the Unix epoch."""

    labels: dict[str, str]
    value: float
    at_s: float


class Sample(msgspec.Struct, frozen=True):
    """One line: what follows the family's name (`_total`, `_bucket`), labels, value."""

    suffix: str
    labels: dict[str, str]
    value: float
    exemplar: Exemplar | None = None


class Family(msgspec.Struct, frozen=True):
    """All samples of one name.

    `kind` is counter, gauge, histogram or info; `additive` whether the sum over processes means something.
    """

    name: str
    kind: str
    unit: str
    documentation: str
    samples: tuple[Sample, ...]
    additive: bool = False


def unit_word(unit: str, kind: str) -> str:
    """Return how a unit is written at the end of a name; empty where it is not."""
    unit = re.sub(r"\{[^}]*\}", "", unit or "").strip()
    if unit == "1":
        return "ratio" if kind == "gauge" else ""
    over, slash, under = unit.partition("/")
    if slash:
        over = _UNIT_WORDS.get(over, _clean(over))
        under = _PER.get(under, _clean(under))
        return (f"{over}_per_{under}" if over else f"per_{under}") if under else over
    return _UNIT_WORDS.get(unit, _clean(unit))


def family_name(name: str, unit: str, kind: str) -> tuple[str, str]:
    """Return the family's name, which ends with the unit's word, and that word; `_total` is for the sample."""
    written = _clean(name) or "_"
    if written[0].isdigit():
        written = f"_{written}"
    word = unit_word(unit, kind)
    if kind == "counter":
        written = written.removesuffix("_total")
    if word and not written.endswith(f"_{word}"):
        written = f"{written}_{word}"
    return written, word


def _clean(text: str) -> str:
    return re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_:]", "_", text)).strip("_")


def label_name(name: str) -> str:
    """Return an attribute's name as a label's."""
    written = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_]", "_", name))
    return f"key_{written}" if written[:1].isdigit() or written.startswith("__") else written or "_"


def _labels(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in sorted((attributes or {}).items()):
        key, text = label_name(str(name)), _text(value)
        found[key] = f"{found[key]};{text}" if key in found else text
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return msgspec.json.encode(value).decode()
    return str(value)


# -- from the SDK's data ---------------------------------------------------------------------------------------------


def families_of(data: Any) -> list[Family]:
    """Return the families of one collection (`MetricsData`, or None where there was nothing), in the order of names.

    A metric that can't be written is left out and told in the log; the rest is there.
    """
    found: dict[str, Family] = {}
    for resource in data.resource_metrics if data is not None else ():
        info = Sample("_info", _labels(resource.resource.attributes), 1.0)
        _add(found, Family("target", "info", "", "What has been measured", (info,)), "")
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                try:
                    family = _family(metric)
                except Exception as error:
                    _leave_out(metric.name, type(error).__name__)
                    continue
                if family is not None:
                    _add(found, family, scope.scope.name if scope.scope else "")
    return [found[name] for name in sorted(found)]


def _leave_out(name: str, why: str) -> None:
    fields = {"event": "telemetry.metric_left_out", "metric": str(name)[:200]}
    _logger.warning("a metric is not in the scrape: %s", why, extra=fields)


def _add(found: dict[str, Family], family: Family, scope: str) -> None:
    before = found.get(family.name)
    if before is None:
        found[family.name] = family
    elif before.kind != family.kind:
        _leave_out(family.name, "two kinds of instrument have one name")
    else:
        there = {_identity(sample) for sample in before.samples}
        twice = any(_identity(sample) in there for sample in family.samples)
        added = tuple(_with_label(sample, SCOPE_LABEL, scope) for sample in family.samples) if twice else family.samples
        if not any(_identity(sample) in there for sample in added):
            found[family.name] = msgspec.structs.replace(before, samples=before.samples + added)


def _identity(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.suffix, frozenset(sample.labels.items())


def _with_label(sample: Sample, name: str, value: str) -> Sample:
    return msgspec.structs.replace(sample, labels={**sample.labels, name: value})


def _family(metric: Any) -> Family | None:
    """Return a metric's family; what kind of data it is shows in what it has."""
    data = metric.data
    points = list(data.data_points)
    if not points:
        return None
    if hasattr(points[0], "explicit_bounds"):
        kind, make = "histogram", _explicit
    elif hasattr(points[0], "scale"):
        kind, make = "histogram", _exponential
    elif getattr(data, "is_monotonic", False):
        kind, make = "counter", _counter
    else:
        kind, make = "gauge", _gauge
    name, word = family_name(metric.name, metric.unit or "", kind)
    samples = tuple(sample for point in points for sample in make(point))
    additive = hasattr(data, "is_monotonic") and not data.is_monotonic
    return Family(name, kind, word, " ".join((metric.description or metric.name).split()), samples, additive)


def _counter(point: Any) -> Iterator[Sample]:
    examples = _exemplars(point)
    newest = max(examples, key=lambda each: each.at_s, default=None)
    yield Sample("_total", _labels(point.attributes), float(point.value), newest)


def _gauge(point: Any) -> Iterator[Sample]:
    yield Sample("", _labels(point.attributes), float(point.value))


def _explicit(point: Any) -> Iterator[Sample]:
    return _histogram(point, [float(bound) for bound in point.explicit_bounds], list(point.bucket_counts))


def _exponential(point: Any) -> Iterator[Sample]:
    """Bounds of an exponential histogram change as it grows; powers of two are among them at any scale."""
    bounds, counts = power_of_two_buckets(
        point.scale,
        point.zero_count + sum(point.negative.bucket_counts),
        point.positive.offset,
        point.positive.bucket_counts,
    )
    return _histogram(point, bounds, counts)


def power_of_two_buckets(
    scale: int, not_positive: int, offset: int, counts: Sequence[int]
) -> tuple[list[float], list[int]]:
    """Return bounds at zero and at powers of two, and the counts between them, with one more above the last bound.

    Arguments:
        scale: of the exponential histogram: its bounds are 2 ** (index / 2 ** scale).
        not_positive: how many values are zero or less.
        offset, counts: the positive buckets; the first lies above the bound of index `offset`.
    """
    found: dict[int, int] = {}
    for index, count in enumerate(counts, offset + 1):
        if count:
            power = math.ceil(index / 2**scale) if scale >= 0 else index * 2**-scale
            power = max(_LEAST_POWER, min(_GREATEST_POWER, power))
            found[power] = found.get(power, 0) + count
    if not found:
        return [0.0], [not_positive, 0]
    usable = range(max(_LEAST_POWER, min(found) - 1), min(_GREATEST_POWER - 1, max(found)) + 1)
    within = [sum(count for power, count in found.items() if low < power <= high) for low, high in _pairs(usable)]
    above = found.get(_GREATEST_POWER, 0)
    return [0.0, *(2.0**power for power in usable)], [not_positive, *within, above]


def _pairs(powers: Sequence[int]) -> Iterator[tuple[float, int]]:
    before = -math.inf
    for power in powers:
        yield before, power
        before = power


def _histogram(point: Any, bounds: Sequence[float], counts: Sequence[int]) -> Iterator[Sample]:
    labels = _labels(point.attributes)
    examples = _by_bucket(bounds, _exemplars(point))
    so_far = 0
    for index, bound in enumerate([*bounds, math.inf]):
        so_far += counts[index] if index < len(counts) else 0
        yield Sample("_bucket", {**labels, "le": _bound(bound)}, float(so_far), examples.get(index))
    yield Sample("_count", labels, float(so_far))
    yield Sample("_sum", labels, float(point.sum or 0.0))


def _bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(float(bound))


def _by_bucket(bounds: Sequence[float], exemplars: Iterable[Exemplar]) -> dict[int, Exemplar]:
    """For each bucket the newest exemplar that lies in it."""
    found: dict[int, Exemplar] = {}
    for each in sorted(exemplars, key=lambda exemplar: exemplar.at_s):
        index = next((place for place, bound in enumerate(bounds) if each.value <= bound), len(bounds))
        found[index] = each
    return found


def _exemplars(point: Any) -> list[Exemplar]:
    return [
        Exemplar(
            {"trace_id": format(each.trace_id, "032x"), "span_id": format(each.span_id or 0, "016x")},
            float(each.value),
            each.time_unix_nano / 1e9,
        )
        for each in getattr(point, "exemplars", None) or ()
        if each.trace_id
    ]


# -- several processes -----------------------------------------------------------------------------------------------

#: The label that tells the processes of one server apart.
PROCESS_LABEL: Final = "process_pid"


def merge(own: Sequence[Family], others: Mapping[str, Sequence[Family]], pid: str) -> list[Family]:
    """Return what several processes of one server have measured, as one scrape.

    What is of the machine (`system_…`) and of the target is told once, by the process that answers. What can be added
    up is (up-down counters: sessions of a pool, records that wait). All else keeps its process as a label, so that one
    that ends takes its own series with it and no counter goes back.

    Arguments:
        own: of the process that answers.
        others: of each other process, by its number.
        pid: the number of the process that answers.
    """
    merged: dict[str, Family] = {}
    for number, families in ((pid, own), *others.items()):
        for family in families:
            if family.kind == "info" or family.name.startswith("system_"):
                if number == pid:
                    merged[family.name] = family
                continue
            labelled = family
            if not family.additive:
                samples = tuple(_with_label(sample, PROCESS_LABEL, number) for sample in family.samples)
                labelled = msgspec.structs.replace(family, samples=samples)
            before = merged.get(family.name)
            if before is None:
                merged[family.name] = labelled
            elif before.kind == family.kind and before.additive == family.additive:
                merged[family.name] = _joined(before, labelled)
    return [merged[name] for name in sorted(merged)]


def _joined(first: Family, second: Family) -> Family:
    if not first.additive:
        return msgspec.structs.replace(first, samples=first.samples + second.samples)
    found = {_identity(sample): sample for sample in first.samples}
    for sample in second.samples:
        there = found.get(_identity(sample))
        found[_identity(sample)] = (
            sample if there is None else msgspec.structs.replace(there, value=there.value + sample.value)
        )
    return msgspec.structs.replace(first, samples=tuple(found.values()))
