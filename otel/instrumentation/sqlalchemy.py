"""SQLAlchemy's engines, found as they are created; nothing is imported that the application does not import itself."""

from __future__ import annotations

import gc
import logging
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import wrapt

from otel.guard import redact_url

_logger = logging.getLogger("otel.instrumentation.sqlalchemy")

#: Engines that are told apart; an application that makes more of them (one a tenant, one a rerun) is told once.
MAX_ENGINES = 50


@dataclass(slots=True, eq=False)
class EngineEntry:
    """One database of the application: its name, its redacted URL, and its living engines, held weakly."""

    name: str
    url: str
    engines: list[weakref.ref[Any]] = field(default_factory=list)

    @property
    def engine(self) -> Any | None:
        """The newest engine that is still alive, or None."""
        for reference in reversed(self.engines):
            engine = reference()
            if engine is not None:
                return engine
        return None


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who is told of databases that come and go."""

    added: Callable[[EngineEntry], None]
    removed: Callable[[EngineEntry], None]


class EngineRegistry:
    """The databases that the application talks to, by redacted URL; safe to call from any thread.

    The first is called `database`, the others `database:NAME`. An engine made again for the same URL (a script that
    makes one on every rerun) joins the entry that is there.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: dict[str, EngineEntry] = {}
        self._subscribers: list[Subscriber] = []
        self._told_full = False
        self._ignoring = threading.local()

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Take no note of engines that this thread makes meanwhile."""
        self._ignoring.now = True
        try:
            yield
        finally:
            self._ignoring.now = False

    @property
    def entries(self) -> tuple[EngineEntry, ...]:
        """The databases known now, oldest first."""
        with self._lock:
            return tuple(self._entries.values())

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Tell `subscriber` of every database, those already known included; returns what ends it."""
        with self._lock:
            self._subscribers.append(subscriber)
            known = self.entries
        for entry in known:
            _contained(partial(subscriber.added, entry))

        def end() -> None:
            with self._lock:
                if subscriber in self._subscribers:
                    self._subscribers.remove(subscriber)

        return end

    def add(self, engine: Any) -> None:
        """Take note of an engine."""
        if getattr(self._ignoring, "now", False):
            return
        url = redact_url(engine.url.render_as_string(hide_password=True))
        with self._lock:
            entry = self._entries.get(url)
            new = entry is None
            if entry is None:
                if len(self._entries) >= MAX_ENGINES:
                    self._tell_full()
                    return
                entry = self._entries[url] = EngineEntry(self._name(engine), url)
            entry.engines = [each for each in entry.engines if each() not in (None, engine)]
            entry.engines.append(weakref.ref(engine))
            subscribers = tuple(self._subscribers)
        if new:
            for subscriber in subscribers:
                _contained(partial(subscriber.added, entry))

    def sweep(self) -> None:
        """Drop databases whose engines have all died; called now and then, never from the garbage collector."""
        with self._lock:
            dead = [entry for entry in self._entries.values() if entry.engine is None]
            for entry in dead:
                del self._entries[entry.url]
            subscribers = tuple(self._subscribers)
        for entry in dead:
            for subscriber in subscribers:
                _contained(partial(subscriber.removed, entry))

    def _name(self, engine: Any) -> str:
        taken = {entry.name for entry in self._entries.values()}
        if "database" not in taken:
            return "database"
        text = str(engine.url.database or engine.url.host or engine.dialect.name)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", text.replace("\\", "/").rsplit("/", 1)[-1]).strip("-.")[:40] or "other"
        name, number = f"database:{stem}", 1
        while name in taken:
            number += 1
            name = f"database:{stem}-{number}"
        return name

    def _tell_full(self) -> None:
        if not self._told_full:
            self._told_full = True
            _logger.warning(
                "more than %d databases: the further ones are not watched",
                MAX_ENGINES,
                extra={"event": "engines.too_many"},
            )


ENGINES = EngineRegistry()


class _Discovery:
    """The seam: `Engine.__init__`, through which every way of making an engine leads."""

    def __init__(self) -> None:
        self.installed = False
        self.hooked = False
        self.undo: Callable[[], None] | None = None


_discovery = _Discovery()


def install_engine_discovery() -> None:
    """Note every engine from now on, and those that are there already; again changes nothing."""
    if _discovery.installed:
        return
    _discovery.installed = True
    if "sqlalchemy.engine.base" in sys.modules:
        _contained(_patch)
        _contained(_find_existing)
    elif not _discovery.hooked:
        _discovery.hooked = True
        wrapt.register_post_import_hook(lambda _module: _contained(_patch), "sqlalchemy.engine.base")


def uninstall_engine_discovery() -> None:
    """Put SQLAlchemy back as it was found."""
    _discovery.installed = False
    if _discovery.undo is not None:
        _discovery.undo()
        _discovery.undo = None


def _patch() -> None:
    if not _discovery.installed or _discovery.undo is not None:
        return
    engine_class = sys.modules["sqlalchemy.engine.base"].Engine
    original = engine_class.__init__

    def init(engine: Any, *args: Any, **kwargs: Any) -> None:
        original(engine, *args, **kwargs)
        _contained(lambda: ENGINES.add(engine))

    init.__wrapped__ = original  # type: ignore[attr-defined]
    engine_class.__init__ = init

    def undo() -> None:
        engine_class.__init__ = original

    _discovery.undo = undo


def _find_existing() -> None:
    """Engines that were made before we came: one look at everything that the garbage collector knows."""
    base = sys.modules["sqlalchemy.engine.base"]
    option_engine = getattr(base, "OptionEngine", ())
    for found in gc.get_objects():
        if isinstance(found, base.Engine) and not isinstance(found, option_engine):
            ENGINES.add(found)


def _contained(function: Callable[[], object]) -> None:
    """Telemetry never breaks its host."""
    try:
        function()
    except Exception as error:
        _logger.warning(
            "an engine could not be noted: %s", type(error).__name__, extra={"event": "telemetry.internal_error"}
        )
