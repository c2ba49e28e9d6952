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

import msgspec
import wrapt

from otel.guard import is_sensitive, redact_url, remember_secrets

_logger = logging.getLogger("otel.instrumentation.sqlalchemy")

_told_errors: set[str] = set()

#: Engines that are told apart; an application that makes more of them (one a tenant, one a rerun) is told once.
MAX_ENGINES = 50


@dataclass(slots=True, eq=False)
class EngineEntry:
    """One database of the application: its name, its redacted URL, and its living engines, held weakly."""

    name: str
    url: str
    engines: list[weakref.ref[Any]] = field(default_factory=list)
    on_dead: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def engine(self) -> Any | None:
        """The newest engine that is still alive, or None, and then the registry forgets this database."""
        found = self.living()
        if found is None:
            self.on_dead()
        return found

    def living(self) -> Any | None:
        """The newest engine that is still alive, or None."""
        return next((engine for each in reversed(self.engines) if (engine := each()) is not None), None)

    def all_living(self) -> tuple[Any, ...]:
        """Every engine that is still alive, oldest first; each has a pool of its own."""
        return tuple(engine for each in tuple(self.engines) if (engine := each()) is not None)


class Subscriber(msgspec.Struct, frozen=True):
    """Who is told of databases that come and go, for as long as it is `alive`."""

    added: Callable[[EngineEntry], None]
    removed: Callable[[EngineEntry], None]
    alive: Callable[[], bool] = lambda: True


class EngineRegistry:
    """The databases that the application talks to, by redacted URL; safe to call from any thread.

    The first is called `database`, the others `database:NAME`. An engine made again for the same URL (a script that
    makes one on every rerun) joins the entry that is there. A database whose engines have all died is forgotten when
    somebody next asks for its engine or makes another one. Subscribers are told under the registry's lock, so that
    what comes and what goes is told in the order in which it happened.
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
            self._subscribers = [*filter(_is_alive, self._subscribers), subscriber]
            for entry in self._entries.values():
                _contained(partial(subscriber.added, entry))

        def end() -> None:
            with self._lock:
                if subscriber in self._subscribers:
                    self._subscribers.remove(subscriber)

        return end

    def add(self, engine: Any) -> None:
        """Take note of an engine."""
        _contained(lambda: remember_secrets(*_secrets_of(engine)))
        if getattr(self._ignoring, "now", False):
            return
        url = redact_url(engine.url.render_as_string(hide_password=True))
        with self._lock:
            entry = self._entries.get(url)
            new = entry is None
            if entry is None:
                self.sweep()
                if len(self._entries) >= MAX_ENGINES:
                    self._tell_full()
                    return
                entry = self._entries[url] = EngineEntry(self._name(engine), url, on_dead=self.sweep)
            entry.engines = [each for each in entry.engines if (known := each()) is not None and known is not engine]
            entry.engines.append(weakref.ref(engine))
            if new:
                self._tell(lambda subscriber: subscriber.added(entry))

    def sweep(self) -> None:
        """Forget databases whose engines have all died; never called by the garbage collector, which may hold locks."""
        with self._lock:
            for entry in [each for each in self._entries.values() if each.living() is None]:
                del self._entries[entry.url]
                self._tell(partial(_tell_removed, entry=entry))

    def _tell(self, tell: Callable[[Subscriber], None]) -> None:
        for subscriber in tuple(self._subscribers):
            _contained(partial(tell, subscriber))

    def _name(self, engine: Any) -> str:
        taken = {entry.name for entry in self._entries.values()}
        if "database" not in taken:
            return "database"
        text = str(engine.url.database or engine.url.host or engine.dialect.name)
        last = text.replace("\\", "/").rsplit("/", 1)[-1]
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"\.(db3?|sqlite3?)$", "", last)).strip("-.")[:40] or "other"
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


#: Passwords of examples that are words of every log.
_EVERYBODYS = frozenset(("password", "passwd", "secret", "postgres", "example"))


def _secrets_of(engine: Any) -> list[str]:
    """The passwords in an engine's URL, but not one that is a word of its address anyway (`postgres:postgres@…`)."""
    url = engine.url
    named = {str(each).lower() for each in (url.username, url.database, url.host, engine.dialect.name) if each}
    named |= _EVERYBODYS
    given = [value for key, value in url.query.items() if isinstance(value, str) and is_sensitive(key)]
    found = [str(url.password or ""), *given]
    return [each for each in found if each.lower() not in named]


def _is_alive(subscriber: Subscriber) -> bool:
    return subscriber.alive()


def _tell_removed(subscriber: Subscriber, entry: EngineEntry) -> None:
    subscriber.removed(entry)


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


def discovering() -> bool:
    """Whether engines are noted now."""
    return _discovery.installed


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
    watching = threading.Event()
    watching.set()

    def init(engine: Any, *args: Any, **kwargs: Any) -> None:
        original(engine, *args, **kwargs)
        if watching.is_set():
            _contained(lambda: ENGINES.add(engine))

    init.__wrapped__ = original  # type: ignore[attr-defined]
    engine_class.__init__ = init

    def undo() -> None:
        if engine_class.__init__ is init:
            engine_class.__init__ = original
        else:  # somebody wrapped ours: taking theirs away is not ours to do, so ours falls silent
            watching.clear()

    _discovery.undo = undo


def _find_existing() -> None:
    """Engines that were made before we came: one look at everything that the garbage collector knows."""
    base = sys.modules["sqlalchemy.engine.base"]
    option_engine = getattr(base, "OptionEngine", ())
    for found in gc.get_objects():
        kind = type(found)  # `isinstance` would ask lazy proxies for their class, which may run anybody's code
        if issubclass(kind, base.Engine) and not issubclass(kind, option_engine):
            _contained(partial(ENGINES.add, found))


def _contained(function: Callable[[], object]) -> None:
    """Telemetry never breaks its host."""
    try:
        function()
    except Exception as error:
        kind = type(error).__name__
        if kind in _told_errors:  # a script that fails the same way on every rerun says so once
            return
        _told_errors.add(kind)
        _logger.warning("an engine could not be noted: %s", kind, extra={"event": "telemetry.internal_error"})
