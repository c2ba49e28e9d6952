"""What a stop consists of and what it leaves behind: phases, deadlines, reports."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum

import msgspec


class ShutdownPhase(StrEnum):
    """The phases of a stop, in their order."""

    STOP_ACCEPTING_REQUESTS = "stop_accepting_requests"
    DRAIN_CONNECTIONS = "drain_connections"
    CLEANUP_RESOURCES = "cleanup_resources"
    FINAL_SHUTDOWN = "final_shutdown"


class Deadline(msgspec.Struct, frozen=True):
    """A moment on the monotonic clock by which a step has to be done."""

    at_s: float
    clock: Callable[[], float] = time.monotonic

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at_s - self.clock())


#: A step of a phase: gets its deadline, returns (or awaits to) the names of what it had to cut off, or None. An
#: asynchronous step runs on the loop that was given to `bind_loop`.
Step = Callable[[Deadline], Iterable[str] | Awaitable[Iterable[str] | None] | None]
#: What it returns is awaited where that is possible, and means nothing.
Cleanup = Callable[[], object]


class PhaseReport(msgspec.Struct, frozen=True):
    """What one phase did: its duration in seconds, and what was cancelled because it was over the budget."""

    phase: ShutdownPhase
    duration_s: float
    cancelled: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class ShutdownReport(msgspec.Struct, frozen=True):
    """What a whole stop did. `clean` is whether nothing was cancelled and nothing failed."""

    reason: str
    duration_s: float
    phases: tuple[PhaseReport, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was cancelled and nothing failed."""
        return not any(phase.cancelled or phase.failures for phase in self.phases)
