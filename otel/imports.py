"""Late imports and forks: a child that is forked in the middle of a thread's import would wait for it for ever."""

from __future__ import annotations

import threading
from typing import Final

#: Longest time, in seconds, that a fork waits for an import to end; by rule it takes a tenth of a second.
LONGEST_S: Final = 30.0


class Imports:
    """Held by a thread of ours while it imports; a fork waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_for_fork = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Wait for the import that runs now."""
        self._held_for_fork = self._lock.acquire(timeout=LONGEST_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin with a new lock."""
        self._lock = threading.Lock()
        self._held_for_fork = False


IMPORTS: Final = Imports()
