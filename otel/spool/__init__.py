"""Durable export: batches are appended to a file, forwarded, and accounted for until they arrive.

Flow: `Spool.commit` → `Shelf` (own file, or memory while no disk takes it) → a `Lane` for each signal → its sender;
a keeper takes over what dead processes left, gives up what is too old or too much, and mends what is damaged.
"""

from otel.spool.spool import FOLDER, Spool, SpoolState

__all__ = ["FOLDER", "Spool", "SpoolState"]
