"""Quantiles of a stream within a bounded relative error and in bounded memory.

DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB
2019): values are counted in buckets whose bounds grow by a constant factor. The library of that name is a release of
2024 without a maintainer's answer since, and has no way to take counts out again, which a sliding window needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

#: Half of the 1 % that is promised: the other half is for whoever rounds.
RELATIVE_ERROR: Final = 0.005
#: Values are told apart between these bounds, in seconds; those outside count as the nearer bound.
LEAST, GREATEST = 1e-6, 1e6

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)
#: What a bucket's upper bound is multiplied by to have its middle in relative terms.
_MIDDLE: Final = 2 / (1 + _GAMMA)
#: The number of buckets that there can be at most.
MAX_BUCKETS: Final = math.ceil(math.log(GREATEST / LEAST) / _LOG_GAMMA) + 2


def bucket_of(value: float) -> int:
    """Return the index of the bucket that holds `value`; what is no number or negative counts as nothing."""
    if not value > LEAST:
        return math.ceil(math.log(LEAST) / _LOG_GAMMA)
    return math.ceil(math.log(min(value, GREATEST)) / _LOG_GAMMA)


def value_of(bucket: int) -> float:
    """Return the value that stands for a bucket: at most `RELATIVE_ERROR` away from any of it."""
    return math.exp(bucket * _LOG_GAMMA) * _MIDDLE


def quantiles(counts: Mapping[int, int], shares: Iterable[float]) -> list[float | None]:
    """Return for each share (0-1) the value below or at which that share of all lies; None where there is none.

    It is the nearest-rank quantile: the smallest value of which at least that share is not greater.
    """
    total = sum(counts.values())
    wanted = list(shares)
    if not total:
        return [None for _ in wanted]
    ranks = [max(1, math.ceil(share * total)) for share in wanted]
    found: list[float | None] = [None for _ in wanted]
    left = sorted(range(len(ranks)), key=ranks.__getitem__)
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        while left and seen >= ranks[left[0]]:
            found[left.pop(0)] = value_of(bucket)
        if not left:
            break
    return found
