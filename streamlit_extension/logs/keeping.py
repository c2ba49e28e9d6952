"""Keeps the one way out while scripts configure logging themselves, as they do with every rerun.

`logging.basicConfig(force=True)`, `dictConfig` and a `StreamHandler` of a script's own would take its lines, or all of
the process's, out of the format and out of OTLP, or write each a second time. So a handler for the console becomes ours
where it is added, and ours comes back; files and all other handlers are the application's.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable

from otel.instrumentation.patching import replace_attribute

#: Loggers that a configuration of the application's, which disables all that it does not name, must not silence.
_OUR_LOGGERS = ("streamlit_extension", "otel")


def is_console(handler: logging.Handler) -> bool:
    """Whether a handler writes to standard output or standard error."""
    stream = getattr(handler, "stream", None)
    return isinstance(handler, logging.StreamHandler) and stream in (
        sys.stdout,
        sys.stderr,
        sys.__stdout__,
        sys.__stderr__,
    )


def keep_in_place(ours: logging.Handler) -> Callable[[], None]:
    """Put `ours` in the place of handlers for the console, and back on the root logger when it was taken away.

    Returns what ends that. (`basicConfig(force=True)` does all that it is asked only where it finds no handler left: so
    ours comes back with the next one that is added.)
    """
    root = logging.getLogger()
    replaced: list[tuple[logging.Logger, logging.Handler]] = []
    add = logging.Logger.addHandler
    active = [True]

    @functools.wraps(add)
    def add_handler(logger: logging.Logger, handler: logging.Handler) -> None:
        if active:
            if logger is root and ours not in root.handlers:
                _enable_our_loggers()
                add(root, ours)
            if is_console(handler):
                if ours not in logger.handlers:
                    replaced.append((logger, handler))
                handler = ours
        add(logger, handler)

    undo = replace_attribute(logging.Logger, "addHandler", add_handler)

    def end() -> None:
        active.clear()
        undo()
        for logger, theirs in replaced:
            if ours in logger.handlers:
                logger.handlers[logger.handlers.index(ours)] = theirs

    return end


def _enable_our_loggers() -> None:
    for name, logger in tuple(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _OUR_LOGGERS:
            logger.disabled = False
