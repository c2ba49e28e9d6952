"""Programs that tests start beside the stack: they are waited for while they start, and ended."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.stack.backends import until

#: How long a start may take: a JVM beside others on a busy machine takes the most.
START_S = 180.0
_STOP_S = 60.0
_TAIL = 3000


def until_healthy(
    process: subprocess.Popen[bytes], healthy: Callable[[], bool], log: Path, timeout_s: float = START_S
) -> None:
    """Wait until a program that was just started is healthy.

    Arguments:
        healthy: raises OSError where nobody answers yet.

    Raises:
        AssertionError: it has ended, or the time is over; with the end of its log.
    """

    def look() -> str:
        if process.poll() is not None:
            return f"ended with {process.returncode}"
        try:
            return "healthy" if healthy() else "not healthy"
        except OSError as error:
            return f"not healthy: {error}"

    state = until(look, lambda seen: not seen.startswith("not"), timeout_s)
    assert state == "healthy", f"{state}\n{log.read_text(errors='replace')[-_TAIL:]}"


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End it and wait; what takes longer than a minute is killed."""
    process.send_signal(how)  # nothing where it has ended
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
