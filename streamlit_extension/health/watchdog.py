"""Notices an event loop that no longer moves and says which frame blocks it, even while C code holds the GIL."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

_logger = logging.getLogger("streamlit_extension.watchdog")

#: A loop that has not moved for this many seconds is stalled.
STALL_AFTER_S = 1.0
#: Frames that a log line names, innermost first.
FRAMES = 8


class Watchdog:
    """Watches the event loop from a thread of its own.

    Arguments:
        stall_after_s: seconds without a beat that count as a stall; beats come more often than that.

    A stall is logged once, with the frames of the loop's thread, and once more when it is over. Python code lets the
    watchdog's thread run and is named in a log line. C code that keeps the GIL does not: for that case
    `faulthandler`, which needs no GIL, writes the frames to standard error a second later.
    """

    def __init__(self, *, stall_after_s: float = STALL_AFTER_S) -> None:
        self._stall_after_s = stall_after_s
        self._loop_thread = threading.get_ident()
        self._beaten_s = time.monotonic()
        self._told_s: float | None = None
        self._gaps: deque[tuple[float, float]] = deque(maxlen=16)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stream = _stream_with_descriptor()

    def start(self) -> None:
        """Begin to watch the thread that calls this."""
        self._loop_thread = threading.get_ident()
        self._beaten_s = time.monotonic()
        self.beat()
        self._thread = threading.Thread(target=self._watch, name="stx-watchdog", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Show that the loop moves; called on it."""
        now_s = time.monotonic()
        if now_s - self._beaten_s >= self._stall_after_s:
            self._gaps.append((self._beaten_s, now_s))
        self._beaten_s = now_s
        if self._stream is not None:
            try:
                faulthandler.dump_traceback_later(self._stall_after_s + 1.0, file=self._stream)
            except (AttributeError, OSError, ValueError, RuntimeError):  # closed meanwhile: the log line alone tells
                self._stream = None
                faulthandler.cancel_dump_traceback_later()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._stream is not None:
            faulthandler.cancel_dump_traceback_later()
        if self._thread is not None:
            self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._stop.wait(self._stall_after_s / 4):
            while self._gaps:
                began_s, ended_s = self._gaps.popleft()
                if began_s != self._told_s:  # over before this thread could look
                    self._tell_unseen(ended_s - began_s)
                _logger.warning(
                    "the event loop moves again after %.1f s",
                    ended_s - began_s,
                    extra={"event": "event_loop.recovered", "duration_s": round(ended_s - began_s, 3)},
                )
            beaten_s = self._beaten_s
            silent_s = time.monotonic() - beaten_s
            if silent_s >= self._stall_after_s and beaten_s != self._told_s:
                self._told_s = beaten_s
                self._tell_stall(silent_s)

    def _tell_unseen(self, lasted_s: float) -> None:
        _logger.warning(
            "the event loop did not move for %.1f s, nor did any other thread: C code held the interpreter's lock, "
            "the process was stopped, or the machine was overloaded; after %.1f s its frames are written to standard "
            "error",
            lasted_s,
            self._stall_after_s + 1.0,
            extra={"event": "event_loop.stalled", "stall_s": round(lasted_s, 3), "frames": []},
        )

    def _tell_stall(self, silent_s: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        if self._stream is not None:
            faulthandler.cancel_dump_traceback_later()
        stack = _describe(frame)
        _logger.warning(
            "the event loop has not moved for %.1f s, it is in %s",
            silent_s,
            stack[0] if stack else "an unknown place (the machine may be overloaded)",
            extra={"event": "event_loop.stalled", "stall_s": round(silent_s, 3), "frames": stack},
        )


def _describe(frame: Any) -> list[str]:
    """`file:line function` of each frame, innermost first; no values."""
    if frame is None:
        return []
    found = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=FRAMES, lookup_lines=False)
    return [f"{each.filename}:{each.lineno} {each.name}" for each in found]


def _stream_with_descriptor() -> Any | None:
    """Standard error, where it is a real file; the traceback is written to its descriptor."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return sys.stderr
