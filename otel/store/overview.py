"""What happened in a span of time, from figures that were added up as they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel.store.ids import row_id, trace_hex
from otel.store.model import FAILED, ErrorRow, Overview, PageRow, RunStep
from otel.store.shards import Shards
from otel.store.traces import BUCKETS_PER_DOUBLING, bound_s

_MINUTE_NS: Final = 60 * 10**9
#: Minutes of the finest sums, and those of a step above which they are used.
_TEN: Final = 10
_FINE: Final = 3
#: The newest failed runs that errors are told of.
_ERRORS: Final = 2000
_MAX_PAGES: Final = 200
_LEVELS: Final = {1: "trace", 5: "debug", 9: "info", 13: "warning", 17: "error", 21: "critical"}


class _Figures:
    """Runs with their durations by bucket."""

    __slots__ = ("buckets", "failed", "runs", "total_ns")

    def __init__(self) -> None:
        self.runs = self.failed = self.total_ns = 0
        self.buckets: dict[int, int] = defaultdict(int)

    def add(self, outcome: str, bucket: int, count: int, total_ns: int) -> None:
        self.runs += count
        self.failed += count if outcome in FAILED else 0
        self.total_ns += total_ns
        self.buckets[bucket] += count

    def percentile(self, share: float) -> float | None:
        return percentile(self.buckets, share)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """The duration in seconds below which a share (0 to 1) of runs lies, within a bucket's width; None without runs."""
    total = sum(buckets.values())
    if not total:
        return None
    wanted, below = share * total, 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if count and below + count >= wanted:
            return bound_s(bucket - 1 + max(0.0, wanted - below) / count)
        below += count
    return bound_s(max(buckets))


def overview(shards: Shards, since_ns: int, until_ns: int, steps: int) -> Overview:
    """What happened from one moment to another, in whole minutes."""
    first, last = since_ns // _MINUTE_NS, max(since_ns, until_ns - 1) // _MINUTE_NS
    width = max(1, -(-(last - first + 1) // max(1, steps)))
    origin, sums = first, ("run_steps", "minute", 1)
    if width > _FINE:  # steps of whole tens, which are added up already
        width = -(-width // _TEN) * _TEN
        origin, sums = first // _TEN * _TEN, ("run_tens", "ten", _TEN)
    whole = _Figures()
    by_step: dict[int, _Figures] = defaultdict(_Figures)
    by_page: dict[str, _Figures] = defaultdict(_Figures)
    for step, *figures in _sums(shards, sums, f"({{}} - {origin}) / {width}", first, last):
        whole.add(*figures)
        by_step[step].add(*figures)
    for page, *figures in _sums(shards, ("run_hours", "hour", 60), "page", first, last):
        by_page[page].add(*figures)
    count = -(-(last - origin + 1) // width)
    seconds = max(1.0, (until_ns - since_ns) / 1e9)
    return Overview(
        since_ns,
        until_ns,
        60.0 * width,
        whole.runs,
        whole.failed,
        whole.runs / seconds,
        whole.percentile(0.5),
        whole.percentile(0.95),
        whole.percentile(0.99),
        _sessions(shards, since_ns, until_ns),
        tuple(
            _step((origin + i * width) * _MINUTE_NS, by_step.get(i) or _Figures()) for i in range(min(count, 10_000))
        ),
        _pages(by_page),
        _errors(shards, since_ns, until_ns),
        _log_levels(shards, first, last),
    )


def _sums(shards: Shards, sums: tuple[str, str, int], key: str, first: int, last: int) -> Iterator[Any]:
    """`(key, outcome, bucket, count, total)` from the first to the last minute.

    Arguments:
        sums: table, column and minutes of sums, which tell all but the ends of the time.
        key: an expression, with `{}` where the minute stands; one for all minutes of a sum.
    """
    table, column, minutes = sums
    sql = (
        "SELECT {} AS key, outcome, bucket, sum(count), sum(total) FROM {} WHERE {} BETWEEN ? AND ? "
        "GROUP BY key, outcome, bucket"
    )
    low, high = -(-first // minutes), (last + 1) // minutes  # whole sums from `low` to before `high`
    fine = sql.format(key.format("minute"), "run_steps", "minute")
    coarse = sql.format(key.format(f"({column} * {minutes})"), table, column)
    asked = [(fine, first, last)]
    if low < high:
        asked = [(fine, first, low * minutes - 1), (coarse, low, high - 1), (fine, high * minutes, last)]
    for question, begin, end in asked:
        if begin <= end:
            for _, rows in shards.ask(lambda shard, q=question, at=(begin, end): shard.rows(q, at)):  # type: ignore[misc]
                yield from rows


def _step(time_ns: int, figures: _Figures) -> RunStep:
    percentiles = figures.percentile(0.5), figures.percentile(0.95), figures.percentile(0.99)
    return RunStep(time_ns, figures.runs, figures.failed, *percentiles)


def _pages(by_page: Mapping[str, _Figures]) -> tuple[PageRow, ...]:
    ordered = sorted(by_page.items(), key=lambda each: (-each[1].total_ns, each[0]))[:_MAX_PAGES]
    return tuple(
        PageRow(page, each.runs, each.failed, each.percentile(0.5), each.percentile(0.95), each.total_ns / 1e9)
        for page, each in ordered
    )


def _sessions(shards: Shards, since_ns: int, until_ns: int) -> int:
    """How many sessions ran; those of several files count once."""
    sql = "SELECT session FROM sessions WHERE last >= ? AND first < ?"
    found: set[str] = set()
    for _, rows in shards.ask(lambda shard: shard.rows(sql, (since_ns, until_ns))):
        found.update(row[0] for row in rows)
    return len(found)


def _errors(shards: Shards, since_ns: int, until_ns: int) -> tuple[ErrorRow, ...]:
    sql = (
        "SELECT error_type, error_message, page, start, trace_hi, trace_lo FROM runs WHERE outcome = ? "
        "AND type IN ('full', 'fragment') AND id >= ? AND start >= ? AND start < ? ORDER BY id DESC LIMIT ?"
    )
    low = row_id(max(0, since_ns - 1_000_000))
    found: dict[tuple[str, str], list[Any]] = {}
    for outcome in FAILED:
        for _, rows in shards.ask(
            lambda shard, outcome=outcome: shard.rows(sql, (outcome, low, since_ns, until_ns, _ERRORS))  # type: ignore[misc]
        ):
            for error, message, page, start, hi, lo in rows:
                each = found.setdefault((error, page), [0, -1, "", ""])
                each[0] += 1
                if start > each[1]:
                    each[1:] = start, message, trace_hex(hi, lo)
    ordered = sorted(found.items(), key=lambda each: (-each[1][0], -each[1][1]))
    return tuple(
        ErrorRow(error, message, page, count, last, trace_id)
        for (error, page), (count, last, message, trace_id) in ordered[:50]
    )


def _log_levels(shards: Shards, first: int, last: int) -> dict[str, int]:
    sql = "SELECT severity, sum(count) FROM log_steps WHERE minute BETWEEN ? AND ? GROUP BY severity"
    found = dict.fromkeys(_LEVELS.values(), 0)
    for _, rows in shards.ask(lambda shard: shard.rows(sql, (first, last))):
        for severity, count in rows:
            found[_LEVELS.get(severity, "info")] += count
    return found


#: Widest relative error of a percentile, for whoever tells it.
WIDTH: Final = 2 ** (1 / BUCKETS_PER_DOUBLING) - 1
