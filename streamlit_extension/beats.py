"""What is done again and again beside the application: on its event loop, and on a thread where it may have to wait."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable

import msgspec

_logger = logging.getLogger("streamlit_extension.beats")

#: How often the event loop shows that it is alive, and how often the thread does its round, in seconds.
BEAT_S = 0.5
#: A beat that fails again and again is told once in this many seconds.
TELL_AGAIN_S = 60.0
#: How long a start waits for the first round, and a stop for the last one, in seconds.
FIRST_ROUND_S, LAST_ROUND_S = 2.0, 0.5

Beat = Callable[[], object]


class Beats(msgspec.Struct):
    """Functions that are called in turn; what one of them raises is told once a minute and goes no further.

    Arguments:
        functions: what is called.
        clock: monotonic seconds.
    """

    functions: tuple[Beat, ...]
    clock: Callable[[], float] = time.monotonic
    _tell_from_s: dict[int, float] = msgspec.field(default_factory=dict)

    def round(self) -> None:
        """Call each of them once."""
        for number, function in enumerate(self.functions):
            try:
                function()
            except Exception as error:
                self._tell(number, function, error)

    def _tell(self, number: int, function: Beat, error: Exception) -> None:
        now_s = self.clock()
        if now_s < self._tell_from_s.get(number, -math.inf):
            return
        self._tell_from_s[number] = now_s + TELL_AGAIN_S
        name = getattr(function, "__qualname__", type(function).__name__)
        _logger.warning(
            "%s failed: %s", name, type(error).__name__, extra={"event": "telemetry.internal_error", "beat": name}
        )


class Heartbeat:
    """Calls functions on the event loop, which shows that it moves; none of them may wait for anything.

    Arguments:
        functions: called in turn every `BEAT_S` seconds.
    """

    def __init__(self, *functions: Beat) -> None:
        self._beats = Beats(functions)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="stx-heartbeat")

    async def _run(self) -> None:
        while True:
            self._beats.round()
            await asyncio.sleep(BEAT_S)

    def stop(self) -> None:
        """Beat no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


class Housekeeping:
    """Calls functions that read files or take locks, on a thread of its own: where one hangs, the event loop goes on.

    Arguments:
        functions: called in turn every `BEAT_S` seconds.
    """

    def __init__(self, *functions: Beat) -> None:
        self._beats = Beats(functions)
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, first_round_s: float = FIRST_ROUND_S) -> None:
        """Begin, and wait for the end of the first round: what operators have ordered holds from the start.

        Arguments:
            first_round_s: seconds that are waited at most, so that a hung disk does not stop the start.
        """
        self._thread = threading.Thread(target=self._run, name="stx-housekeeping", daemon=True)
        self._thread.start()
        self._first.wait(first_round_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beats.round()
            self._first.set()
            self._stop.wait(BEAT_S)

    def stop(self) -> None:
        """End the thread; one that hangs is left behind and holds nobody up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LAST_ROUND_S)
            self._thread = None
