"""The forwarder of one signal: takes the oldest row, sends it, accounts for the answer, waits when it must."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
from opentelemetry import context

from otel.export import payload
from otel.export.notices import Notices
from otel.export.outcome import Kind, Outcome
from otel.export.target import Sender
from otel.records import DropReason, Signal
from otel.spool.bell import Bell
from otel.spool.rows import Held
from otel.spool.shelf import Shelf
from otel.trace_context import suppressed_context

#: Back-off with full jitter: the n-th wait is random between 0 and the smaller of `LONGEST_WAIT_S` and
#: `FIRST_WAIT_S` * 2**n. The longest is short, so that a receiver that is back gets everything within seconds.
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0
#: A receiver that fails on a request this often is not asked to take it again.
MOST_FAILURES: Final = 5
_TROUBLE_WAIT_S: Final = 1.0


def wait_s(attempt: int, retry_after_s: float | None, chance: float) -> float:
    """How long to wait after the `attempt`-th failure in a row (from 0), `chance` being random between 0 and 1.

    What the receiver asked for is the least; the jitter comes on top, so that a fleet does not come back at once.
    """
    jitter_s = chance * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt, 16))
    return jitter_s if retry_after_s is None else retry_after_s + jitter_s


class LaneState(msgspec.Struct, frozen=True):
    """How the forwarding of one signal goes.

    `failing_for_s` is how long no request was taken although one was sent, None while it goes well. `reason` is the
    last failure's. `sent` is the number of requests that were taken.
    """

    failing_for_s: float | None = None
    reason: str = ""
    sent: int = 0


class Lane:
    """One signal's way out, with a thread and a sender of its own: a receiver that hangs holds up no other signal."""

    def __init__(self, signal: Signal, shelf: Shelf, sender: Sender, notices: Notices) -> None:
        self.signal = signal
        self._shelf = shelf
        self._sender = sender
        self._notices = notices
        self._random: Callable[[], float] = random.random
        self._begin()

    def _begin(self) -> None:
        self._stop = False
        self._hurried = False
        self._wake = Bell()
        self._attempts = 0  # in a row that failed, for the back-off
        self._failures = 0  # of the receiver, on the row that is first now
        self._most: int | None = None  # records of it to send at once, after it was too large
        self._failing_since: float | None = None
        self._reason = ""
        self._sent = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; raises RuntimeError when the interpreter is ending."""
        thread = threading.Thread(target=self._run, name=f"otel.spool.{self.signal}", daemon=True)
        thread.start()
        self._thread = thread

    def state(self) -> LaneState:
        """How it goes."""
        since = self._failing_since
        return LaneState(None if since is None else time.monotonic() - since, self._reason, self._sent)

    def hurry(self) -> None:
        """Try at once instead of waiting on, once; but not before a time that the receiver asked for."""
        self._attempts = 0
        self._hurried = True
        self._wake.ring()

    def stop(self) -> None:
        """Tell the thread to end, whatever it waits for."""
        self._stop = True
        self._wake.ring()
        self._sender.abort()
        self._shelf.bell.ring()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False when it hangs where nobody can reach it (it is a daemon)."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        self._sender.close()
        return True

    def begin_in_child(self) -> None:
        """In a forked child: no thread, and a connection of its own later."""
        self._sender.begin_in_child()
        self._begin()

    def _run(self) -> None:
        suppress_instrumentation()
        while not self._stop:
            try:
                self._step()
            except Exception as error:
                self._notices.say("spool.forwarder", f"forwarding {self.signal} failed: {type(error).__name__}")
                self._pause(_TROUBLE_WAIT_S)

    def _step(self) -> None:
        bell = self._shelf.bell
        rings = bell.rings
        held = self._shelf.take(self.signal)
        if held is None:
            bell.wait(rings, 60.0)  # a file that could not be read is asked again
            return
        try:
            part, count, left = self._part(held)
            outcome = self._sender.send(part, count)
        except BaseException:
            self._shelf.put_back(held)
            raise
        self._follow(held, outcome, count, left)

    def _part(self, held: Held) -> tuple[bytes, int, bytes | None]:
        """What is sent of a row, how many records, and what is left of it afterwards."""
        row = held.row
        if self._most is None or self._most >= row.count:
            return row.payload, row.count, None
        (first, count), (rest, left) = payload.carve(self.signal, row.payload, self._most)
        return first, count, rest if left else None

    def _follow(self, held: Held, outcome: Outcome, count: int, left: bytes | None) -> None:
        """Do what the outcome calls for."""
        if outcome.kind is Kind.TAKEN:
            self._well()
            if outcome.rejected:
                self._say("partial", f"the receiver left out some of the {self.signal}", outcome)
            dropped = {DropReason.PARTIAL: outcome.rejected} if outcome.rejected else None
            self._settle(held, count, left, delivered=count - outcome.rejected, dropped=dropped)
        elif outcome.kind is Kind.TOO_LARGE and count > 1:
            self._most = count // 2
            self._shelf.put_back(held)
        elif outcome.kind in (Kind.REFUSED, Kind.TOO_LARGE):
            self._refuse(held, outcome, count, left)
        else:
            self._failures += outcome.kind is Kind.FAILED
            if self._failures >= MOST_FAILURES:
                self._refuse(held, outcome, count, left)
                return
            self._shelf.put_back(held)
            self._ill(outcome)

    def _refuse(self, held: Held, outcome: Outcome, count: int, left: bytes | None) -> None:
        self._attempts = 0
        self._say("refused", f"the receiver refused {self.signal}", outcome)
        self._settle(held, count, left, dropped={DropReason.REFUSED: count})

    def _settle(
        self,
        held: Held,
        count: int,
        left: bytes | None,
        *,
        delivered: int = 0,
        dropped: dict[DropReason, int] | None = None,
    ) -> None:
        self._failures = 0
        remaining = held.row.count - count
        if left is not None:
            self._shelf.settle(held, delivered=delivered, dropped=dropped, left=held.row.without(left, remaining))
            return
        self._most = None
        if remaining:  # the payload holds fewer records than its row says
            dropped = {**(dropped or {}), DropReason.ENCODING: remaining}
        self._shelf.settle(held, delivered=delivered, dropped=dropped)

    def _well(self) -> None:
        self._attempts = 0
        self._sent += 1
        if self._failing_since is not None:
            self._failing_since = None
            self._notices.say("export.recovered", f"{self.signal} are taken again", logging.INFO)

    def _ill(self, outcome: Outcome) -> None:
        self._reason = outcome.reason
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        if self._stop:
            return
        self._say("later", f"{self.signal} can't be sent now and wait in the spool", outcome)
        wait = wait_s(self._attempts, outcome.retry_after_s, self._random())
        self._attempts += 1
        if outcome.retry_after_s is not None:
            self._pause(outcome.retry_after_s, may_hurry=False)
            wait -= outcome.retry_after_s
        self._pause(wait)

    def _pause(self, seconds: float, *, may_hurry: bool = True) -> None:
        """Wait; ends at once when stopped, and also when hurried unless the receiver asked to be left alone."""
        deadline = time.monotonic() + seconds
        while True:
            rings = self._wake.rings
            if self._stop:
                return
            if may_hurry and self._hurried:
                self._hurried = False
                return
            if not self._wake.wait(rings, deadline - time.monotonic()):
                return

    def _say(self, kind: str, message: str, outcome: Outcome) -> None:
        self._notices.say(f"export.{kind}.{self.signal}", f"{message}: {outcome.reason}")


def suppress_instrumentation() -> None:
    """For the rest of this thread: its statements and requests make no telemetry of their own."""
    context.attach(suppressed_context())
