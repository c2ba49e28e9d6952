"""What the application's own connection pools say of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class Pools(msgspec.Struct, frozen=True):
    """The pools of one database together.

    `connections` holds `active`, `idle` and `max` (None: no limit), summed; empty where no pool has figures.
    `exhausted` is one line that names those with every connection taken, or None.
    """

    connections: dict[str, int | None]
    exhausted: str | None = None

    @property
    def detail(self) -> dict[str, Any]:
        """As it belongs into a check's result."""
        told: dict[str, Any] = {"connections": self.connections} if self.connections else {}
        return told | ({"pool": "exhausted"} if self.exhausted else {})


def look_at(engines: Iterable[Any]) -> Pools:
    """The pools of these engines, which are given in the order of their creation; one that engines share counts once.

    Each pool has connections and a limit of its own, so that one may be exhausted while another is idle.
    """
    pools = {id(engine.pool): engine.pool for engine in engines}
    found = [(pool, figures) for pool in pools.values() if (figures := _figures(pool)) is not None]
    if not found:
        return Pools({})
    limits = [limit for _, (_, _, limit) in found if limit is not None]
    connections = {
        "active": sum(active for _, (active, _, _) in found),
        "idle": sum(idle for _, (_, idle, _) in found),
        "max": sum(limits) if len(limits) == len(found) else None,
    }
    taken = [
        f"{_name(pool, number, len(found))} is exhausted" + (f": {active} of {limit} in use" if len(found) > 1 else "")
        for number, (pool, (active, _, limit)) in enumerate(found, 1)
        if limit is not None and active >= limit
    ]
    return Pools(connections, "; ".join(taken[:3]) or None)


def _figures(pool: Any) -> tuple[int, int, int | None] | None:
    """Active and idle connections and their limit (None: there is none); None for a pool that does not tell."""
    try:
        active, idle = max(0, pool.checkedout()), max(0, pool.checkedin())
        size, overflow = pool.size(), getattr(pool, "_max_overflow", 0)
    except (AttributeError, TypeError):
        return None
    return active, idle, None if overflow < 0 or size == 0 else size + overflow


def _name(pool: Any, number: int, count: int) -> str:
    """The name that the application gave (`pool_logging_name`), else its place among the others."""
    given = getattr(pool, "logging_name", None)
    if given:
        return f"the pool {given}"
    return "the pool" if count == 1 else f"the pool of engine {number} of {count}"
