"""Sinks of the tests' own, and waiting for what they see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from streamlit_extension.alerts.delivery import SinkError
from streamlit_extension.alerts.model import Notice


class ListSink:
    """Takes notices into a list; `fails` gives the error of each attempt, None for success."""

    is_remote = False

    def __init__(self, name: str = "list", fails: Callable[[int], Exception | None] = lambda _: None) -> None:
        self.name = name
        self.taken: list[Notice] = []
        self.attempts = 0
        self._fails = fails

    def send(self, notice: Notice, /) -> None:
        """Take one, or fail."""
        self.attempts += 1
        error = self._fails(self.attempts)
        if error is not None:
            raise error
        self.taken.append(notice)


class HangingSink:
    """Hangs in `send` until it is let go."""

    is_remote = False

    def __init__(self, name: str = "hanging") -> None:
        self.name = name
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def send(self, _: Notice, /) -> None:
        """Hang."""
        self.entered.set()
        self.go_on.wait(60)


def threads(prefix: str) -> list[str]:
    """Names of living threads that begin so."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.005)


__all__ = ["HangingSink", "ListSink", "SinkError", "eventually", "threads"]
