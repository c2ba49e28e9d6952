"""One worker of a server speaks of the machine: all of them see the same, and one alert is enough."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from streamlit_extension.alerts.model import Metric

try:
    import fcntl
except ImportError:  # Windows: every worker speaks
    fcntl = None  # type: ignore[assignment]

#: What is the machine's or the container's, not the process's own.
OF_THE_MACHINE: Final = frozenset({Metric.CPU_USAGE.value, Metric.MEMORY_USAGE.value, Metric.DISK_USAGE.value})


class Turn:
    """Held by one worker of a group, through a lock on a file; when that one ends, another takes it at its next look.

    Arguments:
        data_dir: where workers meet.
        group: what they have in common.
    """

    def __init__(self, data_dir: Path, group: str) -> None:
        self._path = data_dir / f"machine-{group}.lock"
        self._lock = threading.Lock()
        self._file: Any = None

    def is_ours(self) -> bool:
        """Whether this process speaks; where nobody can tell, it does."""
        with self._lock:
            if self._file is not None or fcntl is None:
                return True
            try:
                opened = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
            except OSError:
                return True
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                opened.close()
                return False
            except OSError:  # a file system without locks: better told twice than not at all
                opened.close()
                return True
            self._file = opened
            return True

    def without_others(self, readings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Leave out what another worker speaks of."""
        if self.is_ours():
            return readings
        return {name: each for name, each in readings.items() if name not in OF_THE_MACHINE}

    def close(self) -> None:
        """Let another worker have it."""
        with self._lock:
            if self._file is not None:
                with suppress(OSError):
                    self._path.unlink()
                self._file.close()
                self._file = None
