"""One deadline for all that a sink sends and reads: time-outs of single steps don't end what comes byte by byte."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Deadline:
    """Cuts connections off `seconds` after it is entered; whoever reads from one then finds it closed.

    `is_over` says whether it has.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.name, self._timer.daemon = "stx-deadline", True

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection too, also once TLS has wrapped it."""
        with self._lock:
            if self.is_over:
                raise TimeoutError
            self._held.append(connection.dup())

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        with self._lock:
            while self._held:
                self._held.pop().close()

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            for each in self._held:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
