"""What happens to telemetry at a fork, and at the end of a child: of `os.fork` or of the `multiprocessing` module."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Final

from otel.imports import IMPORTS

#: What the end of a child may take, in seconds: for its last records to reach the disk, and the receiver if it answers.
END_S: Final = 1.0
#: After all that the user has registered for a child's end.
_LAST: Final = -1000

_is_watched = False


def watch_forks(
    begin_in_child: Callable[[], None],
    flush_in_child: Callable[[float], object],
    end_in_child: Callable[[float], object],
) -> None:
    """Call `begin_in_child` in forked children, `end_in_child` before a child ends; once for all.

    A child of `multiprocessing`, forked or spawned, ends without the interpreter's own end; one of `os.fork` goes
    through that unless it calls `os._exit`, and `flush_in_child` is called first, while modules can still be imported.
    Both get their time in seconds; a second call of `end_in_child` does nothing.
    """
    global _is_watched  # noqa: PLW0603 - a process has one `register_at_fork`, which can't be taken back
    if _is_watched:
        return
    _is_watched = True
    # The encoders need the first, which can't be imported any more once threads end; its own end comes after ours then.
    import concurrent.futures.thread  # noqa: F401
    from multiprocessing import parent_process, util

    forked = False

    def in_child() -> None:
        nonlocal forked
        forked = True
        IMPORTS.after_fork_in_child()
        begin_in_child()

    def at_end() -> None:
        if parent_process() is not None:
            end_in_child(END_S)

    # Only of a child: a program's own end has its stop, which relies on nothing of this.
    def at_exit(end: Callable[[float], object]) -> None:
        if forked:
            end(END_S)

    def at_start(_anchor: object = None) -> None:
        util.Finalize(None, at_end, exitpriority=_LAST)

    atexit.register(at_exit, end_in_child)
    before_threads_end = getattr(threading, "_register_atexit", None)
    if before_threads_end is not None:
        before_threads_end(at_exit, flush_in_child)
    at_start()  # a spawned child does not know yet that it is one
    util.register_after_fork(at_start, at_start)  # a forked one has forgotten what its parent had registered
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=IMPORTS.before_fork, after_in_parent=IMPORTS.after_fork_in_parent, after_in_child=in_child
        )
