"""The spool: takes batches, keeps them on disk, has them sent, and accounts for each."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from otel.config import SPOOL_MAX_AGE_S, SPOOL_MAX_BYTES
from otel.export.notices import Notices
from otel.export.target import Sender
from otel.file_systems import network_file_system
from otel.ledger import Ledger
from otel.records import Batch, DropReason, Signal
from otel.spool import gate
from otel.spool.bell import Bell
from otel.spool.file import describe
from otel.spool.gate import GATE
from otel.spool.lane import Lane, LaneState, suppress_instrumentation
from otel.spool.rows import Waiting
from otel.spool.shelf import Shelf
from otel.spool.takeover import TakeOver

FOLDER: Final = "spool"
MEMORY_BYTES: Final = 16 * 1024 * 1024
PERIOD_S: Final = 5.0
#: A stop does not wait longer for a receiver that answers nothing or with failures: what waits is safe on disk.
STOP_PATIENCE_S: Final = 2.0
#: Share of a flush's time that a look for what dead processes left may take.
LOOK_SHARE: Final = 0.25


class SpoolState(msgspec.Struct, frozen=True):
    """How the spool does.

    `waiting` is by signal, in files and memory together. `size_bytes` counts against `max_bytes`. `problem` tells in
    one line why nothing is written to disk, "" when all is well.
    """

    waiting: Mapping[Signal, Waiting]
    lanes: Mapping[Signal, LaneState]
    size_bytes: int
    max_bytes: int
    problem: str = ""


class Spool:
    """A `Destination` that loses nothing while the receiver is away.

    Arguments:
        folder: `data_dir/spool`, made when it is not there; None keeps everything in memory.
        ledger: told of every record's fate.
        senders: one for each signal that is sent; what waits of other signals goes on waiting.
        max_bytes: of this process's files; above it the oldest records are given up (reason size).
        max_age_s: older records are given up (reason age).
        memory_bytes: what may wait in memory while the disk takes nothing (reason disk above it).
        period_s: how often it looks for what dead processes left, for old records, for a disk that works again.
        clock: wall time, seconds since the Unix epoch.

    `start` before the first `commit`, `close` at the end. A forked child that has one gets it empty: it begins with a
    file and threads of its own at its first `commit`, and what was in it stays the parent's.
    """

    def __init__(
        self,
        folder: Path | None,
        ledger: Ledger,
        senders: Mapping[Signal, Sender],
        *,
        max_bytes: int = SPOOL_MAX_BYTES,
        max_age_s: float = SPOOL_MAX_AGE_S,
        memory_bytes: int = MEMORY_BYTES,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._max_age_s = max_age_s
        self._period_s = period_s
        self._notices = Notices("otel.spool")
        self._shelf = Shelf(ledger, self._notices, max_bytes=max_bytes, memory_bytes=memory_bytes, clock=clock)
        lane_notices = Notices("otel.export")
        self._all_notices = (self._notices, lane_notices)
        self._lanes = {signal: Lane(signal, self._shelf, sender, lane_notices) for signal, sender in senders.items()}
        self._owns = True
        self._begin()
        _SPOOLS.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._starting = threading.Lock()
        self._looking = threading.Lock()
        self._started = False
        self._closed = False
        self._stopping = False
        self._wake = Bell()
        self._keeper: threading.Thread | None = None
        self._lookers: deque[threading.Event] = deque()
        self._problem = ""
        self._refused = ""

    def start(self, *, own: bool = True) -> None:
        """Make the file and start the threads; quick whatever the folder holds, and it never raises.

        Arguments:
            own: False only forwards what dead processes left.
        """
        with self._starting:
            if self._started or self._closed:
                return
            self._started = True
            self._owns = own
            with self._looking:
                self._open()
            # An interpreter that is ending starts no thread: what is committed then waits for whoever starts next.
            with contextlib.suppress(RuntimeError):
                for lane in self._lanes.values():
                    lane.start()
                keeper = threading.Thread(target=self._keep, name="otel.spool.keeper", daemon=True)
                keeper.start()
                self._keeper = keeper

    def commit(self, batches: Sequence[Batch]) -> None:
        """Return once the batches are on disk, or in memory when no disk takes them. Never raises."""
        if self._pid != os.getpid():  # forked by something that does not call Python's hooks
            self._begin_in_child()
        if not self._started:
            self.start()
        if self._closed:
            for batch in batches:
                self._ledger.dropped(batch.signal, batch.count, DropReason.SHUTDOWN, source="queued")
            return
        try:
            self._shelf.put(batches)
        except Exception as error:
            self._notices.say("spool.commit", f"the spool failed: {describe(error)}")

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent that waits for a sender; False when it is not within `timeout_s` seconds.

        What children and other processes have left until now is taken over first. A receiver that fails is given two
        seconds: what waits is safe on disk. Where it is not the whole time is used.
        """
        deadline = time.monotonic() + timeout_s
        self._have_looked(LOOK_SHARE * timeout_s)
        return self._wait_until_sent(deadline)

    def close(self, timeout_s: float) -> None:
        """Send what can be sent, leave the rest for the next start; returns within about `timeout_s` seconds.

        A receiver that fails is given two seconds.
        """
        with self._starting:
            if self._closed:
                return
            self._closed = True
        if not self._started:
            _SPOOLS.discard(self)
            return
        deadline = time.monotonic() + timeout_s
        reserve_s = min(0.5, timeout_s / 4)  # for ending the threads and the file
        self._wait_until_sent(deadline - reserve_s)
        self._stopping = True
        self._wake.ring()
        for lane in self._lanes.values():
            lane.stop()
        ended = [lane.join(max(0.05, deadline - time.monotonic())) for lane in self._lanes.values()]
        if self._keeper is not None:
            self._keeper.join(max(0.05, deadline - time.monotonic()))
            ended.append(not self._keeper.is_alive())
        if not all(ended):
            self._notices.say("spool.stop", "a thread of the spool hangs and is left behind")
        try:
            self._shelf.close(max(0.2, deadline - time.monotonic()))
        except gate.Busy:
            self._notices.say("spool.stop", "the disk hangs; the spool is left as it is for the next start")
        _SPOOLS.discard(self)

    def state(self) -> SpoolState:
        """How it does now."""
        waiting = self._shelf.waiting()
        with GATE():
            size_bytes = self._shelf.size_bytes()
        lanes = {signal: lane.state() for signal, lane in self._lanes.items()}
        return SpoolState(waiting, lanes, size_bytes, self._shelf.max_bytes, self._problem)

    def _wait_until_sent(self, deadline: float) -> bool:
        patient_until = time.monotonic() + STOP_PATIENCE_S
        for lane in self._lanes.values():
            lane.hurry()
        bell = self._shelf.bell
        while True:
            rings = bell.rings
            left_s = deadline - time.monotonic()
            try:
                waiting = self._shelf.waiting(max(left_s, 0.05))
            except gate.Busy:
                return False
            if not any(waiting[signal].rows for signal in self._lanes):
                return True
            if left_s <= 0 or (time.monotonic() >= patient_until and self._waits_for_nothing()):
                return False
            bell.wait(rings, min(left_s, 0.25))

    def _waits_for_nothing(self) -> bool:
        """Whether a receiver fails, and what waits for it is safe without it."""
        failing = any(lane.state().failing_for_s is not None for lane in self._lanes.values())
        return failing and self._folder is not None and not self._problem

    # -- looking after it ---------------------------------------------------------------------------------------

    def _keep(self) -> None:
        suppress_instrumentation()
        while not self._stopping:
            rings = self._wake.rings
            lookers = [self._lookers.popleft() for _ in range(len(self._lookers))]
            try:
                self.look_after()
            except Exception as error:
                self._notices.say("spool.keeper", f"looking after the spool failed: {describe(error)}")
            for looker in lookers:
                looker.set()
            self._wake.wait(rings, self._period_s)

    def _have_looked(self, timeout_s: float) -> None:
        """Let the keeper do a round that begins now; a disk that hangs is waited for no longer than `timeout_s`."""
        if self._keeper is None or self._folder is None or self._stopping:
            return
        looked = threading.Event()
        self._lookers.append(looked)
        self._wake.ring()
        looked.wait(timeout_s)

    def look_after(self) -> None:
        """One round: a file where there is none, orphans, damage, age and size, what the disk did not take before."""
        with self._looking:
            self._open()
            if self._folder is not None and not self._refused:
                take_over = TakeOver(self._folder, self._shelf, self._ledger, self._notices)
                take_over.look()
                take_over.mend()
            self._shelf.move_to_disk()
            while not self._stopping and self._shelf.give_up(self._max_age_s):
                pass
            self._shelf.tidy()

    def _open(self) -> None:
        """Make the own file where there is none; the reason why it can't be is logged once, and tried again later."""
        if not self._owns or self._folder is None:
            return
        problem = self._refused
        if not problem and (kind := network_file_system(self._folder)) is not None:
            problem = self._refused = f"{self._folder} is on a network file system ({kind}), where no spool is safe"
        if not problem:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._shelf.open(self._folder)
            except (OSError, sqlite3.Error) as error:
                problem = f"no spool can be made in {self._folder}: {describe(error)}"
        if problem and problem != self._problem:
            self._notices.say("spool.unusable", f"{problem}; telemetry waits in memory")
        self._problem = problem

    # -- fork ---------------------------------------------------------------------------------------------------

    def _begin_in_child(self) -> None:
        closed = self._closed
        for notices in self._all_notices:
            notices.begin_in_child()
        self._shelf.begin_in_child()
        for lane in self._lanes.values():
            lane.begin_in_child()
        self._begin()
        self._closed = closed


_SPOOLS: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()


def _begin_in_child() -> None:
    for spool in list(_SPOOLS):
        spool._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
