"""One scrape for all workers of a server: each leaves its families in the data folder, and any answers for all.

Only where a server has several (`uvicorn --workers`, gunicorn, hypercorn): there a scrape reaches any one of them.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from otel.families import Family
from otel.quiet import OncePerMinute

_logger = logging.getLogger("streamlit_extension.monitoring.workers")
_logger.addFilter(OncePerMinute())

FOLDER: Final = "metrics"
#: How often a worker leaves what it has measured, and after how long it counts as gone, in seconds.
INTERVAL_S: Final = 10.0
STALE_S: Final = 35.0
#: A file that nobody has renewed for so long is taken away.
FORGOTTEN_S: Final = 3600.0
THREAD_NAME: Final = "stx-metrics-share"
#: On Linux, the space that process numbers are of (pid_namespaces(7)).
_SPACE: Final = Path("/proc/self/ns/pid")


class _Left(msgspec.Struct, frozen=True):
    """What one worker has left."""

    pid: int
    families: list[Family]


def worker_group() -> str | None:
    """Return what the workers of one server have in common and others have not; None where this is no worker.

    It is their parent process, told by its number, its start and the machine: containers that share a data folder have
    the same numbers.
    """
    is_worker = multiprocessing.parent_process() is not None or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")
    if not is_worker:
        return None
    parent = os.getppid()
    try:
        began_s = psutil.Process(parent).create_time()
        space = str(_SPACE.readlink()) if _SPACE.is_symlink() else ""
    except (psutil.Error, OSError):
        return None
    told = f"{socket.gethostname()}/{space}/{parent}/{began_s:.2f}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class WorkerShare:
    """The families of the other workers, and a thread that leaves our own.

    Arguments:
        data_dir: the data folder.
        group: what the workers have in common.
        read: returns this worker's families.
        clock: seconds since the Unix epoch, as files have them.
    """

    def __init__(
        self,
        data_dir: Path,
        group: str,
        read: Callable[[], Sequence[Family]],
        *,
        pid: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = data_dir / FOLDER / group
        self.pid = os.getpid() if pid is None else pid
        self._file = self._folder / f"{self.pid}.msgpack"
        self._read = read
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Leave families from now on."""
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End, and take away what was left: whoever ends is no part of the next scrape."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with suppress(OSError):
            self._file.unlink()
            self._folder.rmdir()

    def _run(self) -> None:
        from opentelemetry import context as context_api

        from otel.trace_context import suppressed_context

        context_api.attach(suppressed_context())
        while True:
            try:
                self.leave(self._read())
            except Exception as error:
                fields = {"event": "telemetry.internal_error"}
                _logger.warning("metrics could not be shared: %s", type(error).__name__, extra=fields)
            if self._stop.wait(INTERVAL_S):
                return

    def leave(self, families: Sequence[Family]) -> None:
        """Write this worker's families, whole or not at all.

        Raises:
            OSError: the folder can't be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = msgspec.msgpack.encode(_Left(self.pid, list(families)))
        descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(written)
            Path(draft).replace(self._file)
        except OSError:
            with suppress(OSError):
                Path(draft).unlink()
            raise

    def others(self) -> Mapping[str, Sequence[Family]]:
        """Return what the other workers have left, by their numbers; what is stale or damaged is passed over."""
        found: dict[str, Sequence[Family]] = {}
        now_s = self._clock()
        for path in sorted(self._folder.glob("*.msgpack")):
            if path == self._file:
                continue
            with suppress(OSError, msgspec.MsgspecError):
                age_s = now_s - path.stat().st_mtime
                if age_s > FORGOTTEN_S:
                    path.unlink()
                elif age_s <= STALE_S:
                    left = msgspec.msgpack.decode(path.read_bytes(), type=_Left)
                    found[str(left.pid)] = left.families
        return found
