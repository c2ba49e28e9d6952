"""Standard `logging`, Streamlit's loggers and uvicorn's leave by one handler, once each; exactly reversible."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from streamlit_extension.logs.formats import LineFormatter, LogFormat

#: Loggers that get handlers of their own from their libraries.
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class LineHandler(logging.StreamHandler[Any]):
    """Writes lines; a stream that fails never reaches the caller."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: where standard output is gone there is nobody to tell."""


class LoggingConfiguration:
    """What `configure_logging` has put in place. `restore` is its exact inverse."""

    def __init__(self, handler: LineHandler, level: str) -> None:
        self.handler = handler
        self._configured = level
        self._undo: list[Callable[[], None]] = []

    def set_level(self, level: str | None) -> None:
        """Change the level of the root logger; None means the configured one."""
        logging.getLogger().setLevel(level or self._configured)

    def restore(self) -> None:
        """Put every logger back as it was found."""
        while self._undo:
            self._undo.pop()()
        _current.discard(self)

    def take(self) -> None:
        """Put our handler in the place of the others."""
        root = logging.getLogger()
        self._replace_handlers(root)
        for name in _UVICORN:
            self._replace_handlers(logging.getLogger(name), propagate=False)
        with suppress(ImportError, AttributeError):
            self._take_streamlit()
        previous = root.level
        root.setLevel(self._configured)
        self._undo.append(lambda: root.setLevel(previous))

    def _replace_handlers(self, logger: logging.Logger, propagate: bool | None = None) -> None:
        """Ours instead of those that write to the console; files and others of the user's stay."""
        removed = [each for each in logger.handlers if _is_console(each)]
        before = logger.propagate
        for each in removed:
            logger.removeHandler(each)
        logger.addHandler(self.handler)
        if propagate is not None:
            logger.propagate = propagate

        def undo() -> None:
            logger.removeHandler(self.handler)
            logger.propagate = before
            for each in removed:
                logger.addHandler(each)

        self._undo.append(undo)

    def _take_streamlit(self) -> None:
        """Streamlit gives each of its loggers a handler, again and again: let it give ours."""
        if "streamlit" not in sys.modules:
            return
        from streamlit import logger as streamlit_logger

        original = streamlit_logger.setup_formatter
        handler = self.handler

        def setup(logger: Any) -> None:
            own = getattr(logger, "streamlit_console_handler", None)
            if own is not None:
                logger.removeHandler(own)
            logger.streamlit_console_handler = handler
            logger.addHandler(handler)

        def undo() -> None:
            streamlit_logger.setup_formatter = original
            streamlit_logger.update_formatter()

        self._undo.append(undo)
        streamlit_logger.setup_formatter = setup
        streamlit_logger.update_formatter()


_current: set[LoggingConfiguration] = set()


def _is_console(handler: logging.Handler) -> bool:
    stream = getattr(handler, "stream", None)
    return isinstance(handler, logging.StreamHandler) and stream in (
        sys.stdout,
        sys.stderr,
        sys.__stdout__,
        sys.__stderr__,
    )


def configure_logging(
    *,
    log_format: LogFormat | str = LogFormat.JSON,
    log_level: str = "INFO",
    service: str = "streamlit-app",
    stream: Any = None,
) -> LoggingConfiguration:
    """Let every log line of the process leave the same way, once.

    Arguments:
        log_format: `json`, `gelf` or `plain_text`.
        log_level: of the root logger.
        service: the name in each line.
        stream: where lines go; by default standard output.

    Calling it again replaces what the call before put in place.
    """
    for previous in tuple(_current):
        previous.restore()
    target = stream or sys.stdout
    handler = LineHandler(target)
    handler.setFormatter(LineFormatter(log_format, service, target))
    configuration = LoggingConfiguration(handler, str(log_level))
    configuration.take()
    _current.add(configuration)
    return configuration
