"""What a stop consists of and what it leaves behind: phases, deadlines, reports."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Final

import msgspec

#: Share of the budget, and its upper bound in seconds, kept back for clean-up and the last flush.
RESERVE_SHARE: Final = 0.2
RESERVE_MAX_S: Final = 4.0
#: Share of that, and its upper bound in seconds, in which the process itself ends after the last phase.
ENDING_SHARE: Final = 0.4
ENDING_MAX_S: Final = 0.75
#: Share of the time left that one callback may take alone while others wait behind it: a hanging one leaves some.
ALONE_SHARE: Final = 0.5


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


def kept_back_s(phase: ShutdownPhase, budget_s: float) -> float:
    """How many seconds of the budget a phase leaves to what comes after it."""
    reserve_s = min(RESERVE_MAX_S, RESERVE_SHARE * budget_s)
    if phase is ShutdownPhase.CLEANUP_RESOURCES:
        return reserve_s / 2
    if phase is ShutdownPhase.FINAL_SHUTDOWN:
        return min(ENDING_MAX_S, ENDING_SHARE * reserve_s)
    return reserve_s


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
