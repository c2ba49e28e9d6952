"""Whether a database answers, on a connection of the check's own: an exhausted pool is no dead database."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import msgspec

from otel.guard import REDACTED, is_sensitive, redact_text
from streamlit_extension.health.checks.pools import Pools, look_at
from streamlit_extension.health.model import CheckResult, Outcome

ERROR_LENGTH = 300
#: What costs a database next to nothing and still asks it; the standard's own where nothing is named.
_STATEMENTS = {
    "oracle": "SELECT 1 FROM DUAL",
    "sqlite": "PRAGMA schema_version",
    "db2": "VALUES 1",
    "hana": "SELECT 1 FROM DUMMY",
}
_STATEMENT = "SELECT 1"
#: How long a SQLite file may be locked before that is said, in milliseconds: a usual transaction is over by then.
_LOCK_WAIT_MS = 500
#: How long the farewell to a connection that has failed may take, in seconds; it counts as part of the run.
_FAREWELL_S = 0.5


def error_line(error: BaseException) -> str:
    """An exception as one redacted line: its class and the first line of its text."""
    text = str(error).strip().partition("\n")[0]
    return redact_text(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:ERROR_LENGTH]


class _Answer(msgspec.Struct, frozen=True):
    """What asking found: `problem` is a failure, `note` says what was not asked and why."""

    problem: str | None = None
    note: str | None = None


class DatabaseCheck:
    """Checks one database.

    Arguments:
        engine: gives the SQLAlchemy engine, or None once there is none; asked at each run.
        pools: gives all engines of that database, oldest first, whose pools are judged; by default the one engine.
        slow_s: an answer slower than this many seconds is degraded.

    It asks by DBAPI directly, so no pool, no event and no span of the application's is concerned. One connection is
    kept between runs and replaced when it turns out dead, which alone is no failure.
    """

    def __init__(
        self,
        engine: Callable[[], Any | None],
        *,
        pools: Callable[[], Iterable[Any]] = tuple,
        slow_s: float = 1.0,
    ) -> None:
        self._engine = engine
        self._pools = pools
        self._slow_s = slow_s
        self._connection: Any = None
        self._connected_by: Callable[[], Any] = lambda: None
        self._file_seen = False
        self._lock = threading.Lock()
        self._closed = False
        self._interrupted = False
        self._asked: Any = None
        self._cancel: Callable[[], object] | None = None

    def prepare(self) -> None:
        """Import SQLAlchemy and the driver, which says nothing of the database and must not count as its time."""
        with contextlib.suppress(Exception):  # the run itself tells
            self._engine()

    def __call__(self) -> CheckResult:
        """Run once; never raises what a database or a driver raises."""
        began_s = time.perf_counter()
        self._interrupted = False
        try:
            engine = self._engine()
        except Exception as error:
            return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=error_line(error))
        if engine is None:
            self._drop()
            return CheckResult(Outcome.NOT_CONFIGURED)
        try:
            answer = self._ask(engine)
        except Exception as error:
            self._drop()
            took_s = time.perf_counter() - began_s
            if engine.dialect.name == "sqlite" and "is locked" in str(error):
                detail = {"response_time_s": took_s, **self._look(engine).detail, "reason": "locked"}
                return CheckResult(Outcome.DEGRADED, took_s, detail, "another connection has locked the database")
            error_text = _without_secrets(error_line(error), engine)
            return CheckResult(Outcome.FAILED, took_s, self._look(engine).detail, error_text)
        return self._judged(answer, time.perf_counter() - began_s, self._look(engine))

    def _look(self, engine: Any) -> Pools:
        others = [each for each in self._pools() if each is not engine]
        return look_at([*others, engine])

    def _judged(self, answer: _Answer, took_s: float, pools: Pools) -> CheckResult:
        detail = {"response_time_s": took_s, **pools.detail}
        if answer.note is not None:
            detail["note"] = answer.note
        if answer.problem is not None:
            return CheckResult(Outcome.FAILED, took_s, detail, answer.problem)
        if pools.exhausted is not None:
            return CheckResult(Outcome.DEGRADED, took_s, {**detail, "reason": "pool exhausted"}, pools.exhausted)
        if took_s > self._slow_s:
            slow = f"slow: answered after {took_s:.3f} s"
            return CheckResult(Outcome.DEGRADED, took_s, {**detail, "reason": "slow"}, slow)
        return CheckResult(Outcome.OK, took_s, detail)

    def use(self, engine: Any, pools: Callable[[], Iterable[Any]] = tuple) -> None:
        """Check this engine from now on, for as long as its owner holds it, and the pools of these."""
        self._engine, self._pools = weakref.ref(engine), pools

    def close(self) -> None:
        """Close the connection that is kept."""
        self._closed = True
        self._drop()

    def interrupt(self) -> None:
        """Wake a run that hangs: its socket is shut down, so that a lost network does not keep the thread for ever.

        A driver that hangs while it connects can't be woken; its own connection time-out ends it.
        """
        self._interrupted = True
        connection, cancel = self._asked, self._cancel
        with contextlib.suppress(Exception):
            if cancel is not None:
                cancel()
        with contextlib.suppress(Exception):
            descriptor = connection.fileno() if hasattr(connection, "fileno") else connection._sock.fileno()
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(self, engine: Any) -> _Answer:
        if engine.dialect.name == "sqlite" and (answer := self._about_file(engine)) is not None:
            return answer
        if engine.dialect.is_async:
            return self._ask_asynchronously(engine)
        kept, self._connection = self._connection, None
        if kept is not None and self._connected_by() is engine.pool:
            try:
                self._execute(engine, kept)
            except Exception:
                _close(kept)  # killed by the server, or by time: one new connection decides
                if self._interrupted:
                    raise
            else:
                self._keep(engine, kept)
                return _Answer()
        elif kept is not None:
            _close(kept)
        fresh = _connect_own(engine)
        if fresh is None:
            return _SHARED
        try:
            self._execute(engine, fresh)
        except BaseException:
            _close(fresh)
            raise
        self._keep(engine, fresh)
        return _Answer()

    def _execute(self, engine: Any, connection: Any) -> None:
        self._asked = connection
        try:
            _execute(engine, connection)
        finally:
            self._asked = None

    def _ask_asynchronously(self, engine: Any) -> _Answer:
        async def ask() -> _Answer:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            return await _ask_asynchronously(engine)

        try:
            return asyncio.run(ask())
        except asyncio.CancelledError:  # no `Exception`: it would end the worker's thread
            raise TimeoutError("interrupted") from None
        finally:
            self._cancel = None

    def _keep(self, engine: Any, connection: Any) -> None:
        with self._lock:
            if not self._closed and self._connection is None and engine.dialect.name != "sqlite":
                self._connection, self._connected_by = connection, weakref.ref(engine.pool)
                return
        _close(connection)

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def _about_file(self, engine: Any) -> _Answer | None:
        """None when the file is there to be asked, else the answer.

        Connecting would create a missing file, so a missing one is never connected to.
        """
        file = _sqlite_file(engine.url)
        if file is None:
            return _Answer(note="a database in memory is not asked")
        if file.exists():
            self._file_seen = True
            return None
        if self._file_seen:
            return _Answer(problem="the database file does not exist")
        return _Answer(note="the database file does not exist yet")


#: Asking on a connection that the application uses too would disturb its transaction.
_SHARED = _Answer(note="the application's one shared connection is not asked")


def _sqlite_file(url: Any) -> Path | None:
    """The file of a SQLite URL, or None for a database in memory."""
    name = str(url.database or "")
    if not name.startswith("file:"):
        return None if name in ("", ":memory:") else Path(name)
    parts = urlsplit(name)
    options = {**dict(parse_qsl(parts.query)), **{key: str(value) for key, value in url.query.items()}}
    path = unquote(parts.path)
    in_memory = path in ("", ":memory:") or options.get("mode") == "memory" or options.get("vfs") == "memdb"
    return None if in_memory else Path(path)


def _connect(engine: Any) -> Any:
    """A DBAPI connection as the pool would make one: with the URL, `connect_args` and `do_connect` listeners."""
    pool = engine.pool
    invoke = getattr(pool, "_invoke_creator", None)
    return invoke(None) if invoke is not None else pool._creator()


def _connect_own(engine: Any) -> Any | None:
    """A connection that nobody else has, or None where the user's own creator hands out the same one every time."""
    first = _connect(engine)
    if not _may_share(engine):
        return first
    second = _connect(engine)
    if getattr(first, "driver_connection", first) is getattr(second, "driver_connection", second):
        return None
    _close(second)
    return first


def _may_share(engine: Any) -> bool:
    """Whether connections come from the user's code, which may give the same one twice, and not from SQLAlchemy's."""
    creator = getattr(engine.pool, "_creator", None)
    made_by = getattr(creator, "__module__", None) or ""
    return not made_by.startswith("sqlalchemy.engine.") or bool(getattr(engine.dialect.dispatch, "do_connect", ()))


def _execute(engine: Any, connection: Any) -> None:
    cursor = connection.cursor()
    try:
        if engine.dialect.name == "sqlite":
            cursor.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_MS}")
        cursor.execute(_STATEMENTS.get(engine.dialect.name, _STATEMENT))
        cursor.fetchone()
    finally:
        cursor.close()
    with contextlib.suppress(AttributeError):
        connection.rollback()  # never left "idle in transaction"


def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        connection.close()


def _without_secrets(text: str, engine: Any) -> str:
    """`text` without the secrets of the engine's URL, which a driver may repeat in a form of its own."""
    url = engine.url
    secrets = {
        str(url.password or ""),
        str(url.host or "").rpartition("@")[0],
    }  # a bare @ in a password ends up in host
    for name, value in url.query.items():
        if is_sensitive(name):
            secrets.update((value,) if isinstance(value, str) else value)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, REDACTED) if len(form) > 2 else text
    return text


async def _ask_asynchronously(engine: Any) -> _Answer:
    """Ask on a connection that lives as long as this event loop, as asynchronous drivers demand."""
    if importlib.util.find_spec("greenlet") is None:
        raise RuntimeError("an asynchronous engine needs the package greenlet, which is not installed")
    from sqlalchemy.util import greenlet_spawn

    opened: list[Any] = []

    def ask() -> _Answer:
        connection = _connect_own(engine)
        if connection is None:
            return _SHARED
        opened.append(connection)
        _execute(engine, connection)
        opened.remove(connection)
        _close(connection)
        return _Answer()

    politely = True
    try:
        return await greenlet_spawn(ask)
    except asyncio.CancelledError:  # interrupted: no farewell to a server that may not answer
        politely = False
        raise
    finally:
        for connection in opened:
            await _part(engine, connection, politely)


async def _part(engine: Any, connection: Any, politely: bool) -> None:
    """Close it properly where that is possible: a driver's own thread must have ended before its event loop does."""
    from sqlalchemy.util import greenlet_spawn

    if politely or not engine.dialect.has_terminate:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_FAREWELL_S):
                await greenlet_spawn(connection.close)
            return
    with contextlib.suppress(Exception):
        engine.dialect.do_terminate(connection)
