"""What Streamlit does, as facts: script runs, sessions and caches. The only file of `otel/` that knows Streamlit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Streamlit's own caches (`st.cache_data`, `st.cache_resource`), summed.

    `hits` and `misses` are None where this Streamlit does not count them. `used_bytes` and `budget_bytes` are None
    where unknown or unlimited. `functions` is the number of cached functions seen.
    """

    hits: int | None
    misses: int | None
    evictions: int | None
    used_bytes: int | None
    budget_bytes: int | None
    functions: int


def cache_statistics() -> CacheStatistics | None:
    """Streamlit's cache counters, or None where nothing is cached yet or the seam is missing."""
    return None
