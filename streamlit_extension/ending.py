"""How the process ends: no thread, no executor and no blocked event loop may hold it up."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable

from streamlit_extension.utils.graceful_shutdown import GracefulShutdownHandler

_logger = logging.getLogger("streamlit_extension.ending")

#: After the budget of a stop, how long a blocked event loop may still take before the process is ended by force.
FORCE_AFTER_S = 1.0


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop without waiting for the executor's threads: one that hangs would hold up the end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def end_by_force(shutdown: GracefulShutdownHandler, ended: threading.Event) -> None:
    """Watch a stop from outside: an event loop that is blocked can't end the process itself."""
    shutdown.stopping.wait()
    if ended.wait(shutdown.budget_s + FORCE_AFTER_S):
        return
    _logger.error("the stop is over its budget, ending by force", extra={"event": "shutdown.forced"})
    _flush()
    os._exit(1)


def end_process(code: int) -> int:
    """Return `code`, or end the process here when threads that never end would hold up the interpreter."""
    _join_executors()
    others = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    if not others:
        gc.freeze()  # else the interpreter's end looks through every object twice, which takes longer than all the rest
        return code
    names = ", ".join(sorted(each.name for each in others))
    _logger.warning("threads were still running at the end: %s", names, extra={"event": "shutdown.threads_left"})
    _within(1.0, atexit._run_exitfuncs)
    _flush()
    os._exit(code)


def _join_executors() -> None:
    """Let the idle threads of executors end, as the interpreter would, but not for ever."""
    from concurrent.futures import thread

    end = getattr(thread, "_python_exit", None)
    if end is not None:
        _within(1.0, end)


def _within(seconds: float, function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function, name="stx-exit", daemon=True)
    thread.start()
    thread.join(seconds)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
