"""What one reading of the machine says, and what is watched for leaks: the values that a start needs.

The snapshot's own classes are in `model.py`, which is imported once somebody asks for a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Holder(StrEnum):
    """What holds memory in a Streamlit application (`streamlit.memory.holder`)."""

    SESSION_STATE = "session_state"
    CACHE = "cache"
    UPLOADS = "uploads"
    MEDIA = "media"


class FastTick(msgspec.Struct, frozen=True):
    """What is cheap to read: of the container or the machine, and of this process.

    `cpu_percent` is None until there are two readings. `descriptors` and `threads` are None where the platform does not
    tell. `at_s` is monotonic.
    """

    at_s: float
    cpu_percent: float | None
    memory_used_bytes: int
    memory_limit_bytes: int
    descriptors: int | None
    threads: int | None
    process_cpu_s: float | None
    process_resident_bytes: int | None
    process_virtual_bytes: int | None

    @property
    def memory_percent(self) -> float:
        """Share of the memory that may be used, 0-100."""
        return min(100.0, 100.0 * self.memory_used_bytes / self.memory_limit_bytes) if self.memory_limit_bytes else 0.0


class Transfer(msgspec.Struct, frozen=True):
    """Bytes and operations (packets) in each direction since the machine's start; a network's errors and drops."""

    in_bytes: int = 0
    out_bytes: int = 0
    in_count: int = 0
    out_count: int = 0
    in_errors: int = 0
    out_errors: int = 0
    in_dropped: int = 0
    out_dropped: int = 0


class DiskUsage(msgspec.Struct, frozen=True):
    """The file system that holds the data folder, in bytes; `reserved` is what only the superuser may fill."""

    used_bytes: int = 0
    free_bytes: int = 0
    total_bytes: int = 0
    mountpoint: str = ""

    @property
    def percent(self) -> float:
        """Share of what may be used, 0-100."""
        usable = self.used_bytes + self.free_bytes
        return 100.0 * self.used_bytes / usable if usable else 0.0

    @property
    def reserved_bytes(self) -> int:
        """What only the superuser may fill."""
        return max(0, self.total_bytes - self.used_bytes - self.free_bytes)


class SlowTick(msgspec.Struct, frozen=True):
    """What is read once a minute at most. `processes` is None where the platform does not tell. `at_s` is monotonic."""

    at_s: float
    disk: DiskUsage = DiskUsage()
    processes: int | None = None
    disks: Mapping[str, Transfer] = msgspec.field(default_factory=dict)
    networks: Mapping[str, Transfer] = msgspec.field(default_factory=dict)
    cpu_times_s: Mapping[str, float] = msgspec.field(default_factory=dict)
