"""What happens to telemetry at a fork, and at the end of a process of the `multiprocessing` module."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from otel.imports import IMPORTS

#: What the end of a child may take, in seconds: for its last records to reach the disk, and the receiver if it answers.
END_S: Final = 1.0
#: After all that the user has registered for a child's end.
_LAST: Final = -1000

_is_watched = False


def watch_forks(begin_in_child: Callable[[], None], end_in_child: Callable[[float], object]) -> None:
    """Call `begin_in_child` in forked children, `end_in_child` before one of `multiprocessing` ends; once for all.

    Such a child, forked or spawned, ends without the interpreter's own end. `end_in_child` gets its time in seconds.
    """
    global _is_watched  # noqa: PLW0603 - a process has one `register_at_fork`, which can't be taken back
    if _is_watched:
        return
    _is_watched = True
    from multiprocessing import parent_process, util

    def in_child() -> None:
        IMPORTS.after_fork_in_child()
        begin_in_child()

    def at_end() -> None:
        if parent_process() is not None:
            end_in_child(END_S)

    def at_start(_anchor: object = None) -> None:
        util.Finalize(None, at_end, exitpriority=_LAST)

    at_start()  # a spawned child does not know yet that it is one
    util.register_after_fork(at_start, at_start)  # a forked one has forgotten what its parent had registered
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=IMPORTS.before_fork, after_in_parent=IMPORTS.after_fork_in_parent, after_in_child=in_child
        )
