"""Standard `logging`, Streamlit's loggers and uvicorn's leave by one handler, once each; exactly reversible."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from streamlit_extension.logs.formats import LogFormat
from streamlit_extension.logs.gelf import GelfOutlet
from streamlit_extension.logs.handler import LineHandler, Outlet, StreamOutlet
from streamlit_extension.logs.keeping import is_console, keep_in_place
from streamlit_extension.streamlit_options import log_errors_as_records

#: Loggers that get handlers of their own from their libraries.
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
#: How long a stop waits for lines that are on their way to a GELF server.
_STOP_S = 2.0


class LoggingConfiguration:
    """What `configure_logging` has put in place. `restore` is its exact inverse."""

    def __init__(self, handler: LineHandler, level: str) -> None:
        self.handler = handler
        self._configured = level
        self._undo: list[Callable[[], None]] = []
        #: Levels of libraries' loggers before `set_level` changed them.
        self._levels: dict[logging.Logger, int] = {}

    def set_level(self, level: str | None) -> None:
        """Change the level of the root logger, Streamlit's and uvicorn's; None means the configured ones."""
        logging.getLogger().setLevel(level or self._configured)
        for logger in _library_loggers():
            if level is None:
                if logger in self._levels:
                    logger.setLevel(self._levels.pop(logger))
            else:
                self._levels.setdefault(logger, logger.level)
                logger.setLevel(level)

    def restore(self) -> None:
        """Put every logger back as it was found."""
        while self._undo:
            self._undo.pop()()
        _forget(self)

    def take(self) -> None:
        """Put our handler in the place of the others."""
        root = logging.getLogger()
        if isinstance(self.handler.outlet, GelfOutlet):
            outlet = self.handler.outlet
            self._undo.append(lambda: outlet.stop(_STOP_S))
        self._replace_handlers(root)
        for name in _UVICORN:
            self._replace_handlers(logging.getLogger(name), propagate=False)
        if "streamlit" in sys.modules:
            with suppress(ImportError, AttributeError):
                self._take_streamlit()
            self._undo.append(log_errors_as_records())
        previous = root.level
        self._undo.append(lambda: root.setLevel(previous))
        root.setLevel(self._configured)
        self._raise_levels()
        self._undo.append(self._restore_levels)
        self._undo.append(keep_in_place(self.handler))

    def _raise_levels(self) -> None:
        """`log_level` is the lowest level that is written: libraries that keep one of their own below it follow."""
        wanted = logging.getLevelNamesMapping()[self._configured]
        for logger in _library_loggers():
            if logging.NOTSET < logger.level < wanted:
                before = logger.level
                logger.setLevel(wanted)
                self._undo.append(lambda logger=logger, before=before: logger.setLevel(before))  # type: ignore[misc]

    def _restore_levels(self) -> None:
        while self._levels:
            logger, level = self._levels.popitem()
            logger.setLevel(level)

    def _replace_handlers(self, logger: logging.Logger, propagate: bool | None = None) -> None:
        """Ours instead of those that write to the console; files and others of the user's stay."""
        removed = [(place, each) for place, each in enumerate(logger.handlers) if is_console(each)]
        before = logger.propagate
        for _, each in removed:
            logger.removeHandler(each)
        logger.addHandler(self.handler)
        if propagate is not None:
            logger.propagate = propagate

        def undo() -> None:
            logger.removeHandler(self.handler)
            logger.propagate = before
            for place, each in removed:
                logger.handlers.insert(place, each)

        self._undo.append(undo)

    def _take_streamlit(self) -> None:
        """Streamlit gives each of its loggers a handler, again and again: let it give ours."""
        from streamlit import logger as streamlit_logger

        original = streamlit_logger.setup_formatter
        handler = self.handler
        before = {}
        for logger in _streamlit_loggers():
            own = getattr(logger, "streamlit_console_handler", None)
            # uvicorn's loggers are Streamlit's too: theirs has been taken out above, and is put back there.
            before[logger] = own, logger.handlers.index(own) if own in logger.handlers else None

        def setup(logger: Any) -> None:
            own = getattr(logger, "streamlit_console_handler", None)
            if own is not None:
                logger.removeHandler(own)
            logger.streamlit_console_handler = handler
            logger.addHandler(handler)

        def undo() -> None:
            streamlit_logger.setup_formatter = original
            for logger in _streamlit_loggers():
                if logger not in before:  # made meanwhile
                    original(logger)
                    continue
                own, place = before[logger]
                logger.removeHandler(handler)
                if place is not None and own is not None:
                    logger.handlers.insert(place, own)
                logger.streamlit_console_handler = own  # type: ignore[attr-defined]

        self._undo.append(undo)
        streamlit_logger.setup_formatter = setup
        streamlit_logger.update_formatter()


#: The configuration that holds now, and its handler, by which every line of the process leaves.
_current: LoggingConfiguration | None = None
active_handler: LineHandler | None = None
_default: list[LineHandler] = []
_default_lock = threading.Lock()


def _library_loggers() -> Iterator[logging.Logger]:
    """Loggers whose libraries give them a level of their own."""
    yield from dict.fromkeys([*_streamlit_loggers(), *(logging.getLogger(name) for name in _UVICORN)])


def _streamlit_loggers() -> list[logging.Logger]:
    known = getattr(sys.modules.get("streamlit.logger"), "_loggers", None)
    return list(known.values()) if isinstance(known, dict) else []


def _remember(configuration: LoggingConfiguration | None) -> None:
    global _current, active_handler  # noqa: PLW0603 - the one configuration of the process
    _current = configuration
    active_handler = configuration.handler if configuration is not None else None


def _forget(configuration: LoggingConfiguration) -> None:
    if _current is configuration:
        _remember(None)


def default_handler() -> LineHandler:
    """The handler of a logger that is used without any configuration: JSON on standard output."""
    if not _default:
        with _default_lock:
            if not _default:
                _default.append(LineHandler())
    return _default[0]


def configure_logging(
    *,
    log_format: LogFormat | str = LogFormat.JSON,
    log_level: str = "INFO",
    service: str = "streamlit-app",
    stream: Any = None,
    gelf_url: str | None = None,
) -> LoggingConfiguration:
    """Let every log line of the process leave the same way, once.

    Arguments:
        log_format: `json`, `gelf` or `plain_text`.
        log_level: of the root logger, and the least of Streamlit's and uvicorn's.
        service: the name in each line.
        stream: where lines go; by default standard output.
        gelf_url: where GELF lines go instead: `udp://host:port` or `tcp://host:port`.

    Calling it again replaces what the call before put in place.
    """
    if _current is not None:
        _current.restore()
    outlet: Outlet = GelfOutlet(gelf_url) if gelf_url else StreamOutlet(stream or sys.stdout)
    configuration = LoggingConfiguration(LineHandler(log_format, service, outlet), str(log_level).upper())
    configuration.take()
    _remember(configuration)
    return configuration
