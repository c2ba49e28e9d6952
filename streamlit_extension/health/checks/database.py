"""Whether a database answers, on a connection of the check's own: an exhausted pool is no dead database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel.guard import redact_text
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


def error_line(error: BaseException) -> str:
    """An exception as one redacted line: its class and the first line of its text."""
    text = str(error).strip().partition("\n")[0]
    return redact_text(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:ERROR_LENGTH]


class DatabaseCheck:
    """Checks one database.

    Arguments:
        engine: gives the SQLAlchemy engine, or None once there is none; asked at each run.
        slow_s: an answer slower than this many seconds is degraded.

    It asks by DBAPI directly, so no pool, no event and no span of the application's is concerned. One connection is
    kept between runs and replaced when it turns out dead, which alone is no failure.
    """

    def __init__(self, engine: Callable[[], Any | None], *, slow_s: float = 1.0) -> None:
        self._engine = engine
        self._slow_s = slow_s
        self._connection: Any = None
        self._connected_to: int | None = None
        self._file_seen = False
        self._lock = threading.Lock()
        self._closed = False
        self._asked: Any = None

    def __call__(self) -> CheckResult:
        """Run once; never raises what a database or a driver raises."""
        began_s = time.perf_counter()
        try:
            engine = self._engine()
        except Exception as error:
            return CheckResult(Outcome.FAILED, time.perf_counter() - began_s, error=error_line(error))
        if engine is None:
            return CheckResult(Outcome.NOT_CONFIGURED)
        try:
            problem = self._ask(engine)
        except Exception as error:
            self._drop()
            took_s = time.perf_counter() - began_s
            return CheckResult(Outcome.FAILED, took_s, pool_detail(engine), error_line(error))
        took_s = time.perf_counter() - began_s
        detail = {"response_time_s": took_s, **pool_detail(engine)}
        if problem is not None:
            return CheckResult(Outcome.FAILED, took_s, detail, problem)
        if detail.get("pool") == "exhausted":
            return CheckResult(
                Outcome.DEGRADED, took_s, {**detail, "reason": "pool exhausted"}, "the pool is exhausted"
            )
        if took_s > self._slow_s:
            slow = f"slow: answered after {took_s:.3f} s"
            return CheckResult(Outcome.DEGRADED, took_s, {**detail, "reason": "slow"}, slow)
        return CheckResult(Outcome.OK, took_s, detail)

    def use(self, engine: Any) -> None:
        """Check this engine from now on."""
        self._engine = lambda: engine

    def close(self) -> None:
        """Close the connection that is kept."""
        self._closed = True
        self._drop()

    def interrupt(self) -> None:
        """Wake a run that hangs: its socket is shut down, so that a lost network does not keep the thread for ever."""
        connection = self._asked
        with contextlib.suppress(Exception):
            descriptor = connection.fileno() if hasattr(connection, "fileno") else connection._sock.fileno()
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(self, engine: Any) -> str | None:
        if engine.dialect.name == "sqlite" and (answer := self._ask_about_file(engine)) is not None:
            return answer or None
        if engine.dialect.is_async:
            asyncio.run(_ask_asynchronously(engine))
            return None
        shared = _shared_connection(engine)
        if shared is not None:
            return None  # one connection for everybody: asking on it could disturb a transaction
        kept, self._connection = self._connection, None
        if kept is not None and self._connected_to == id(engine.pool):
            try:
                self._execute(engine, kept)
            except Exception:
                _close(kept)  # killed by the server, or by time: one new connection decides
            else:
                self._keep(engine, kept)
                return None
        elif kept is not None:
            _close(kept)
        fresh = _connect(engine)
        try:
            self._execute(engine, fresh)
        except BaseException:
            _close(fresh)
            raise
        self._keep(engine, fresh)
        return None

    def _execute(self, engine: Any, connection: Any) -> None:
        self._asked = connection
        try:
            _execute(engine, connection)
        finally:
            self._asked = None

    def _keep(self, engine: Any, connection: Any) -> None:
        with self._lock:
            if not self._closed and self._connection is None and not _is_sqlite(engine):
                self._connection, self._connected_to = connection, id(engine.pool)
                return
        _close(connection)

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def _ask_about_file(self, engine: Any) -> str | None:
        """None when the file is there to be asked; "" when there is nothing to ask; else the problem.

        Connecting would create a missing file, so a missing one is never connected to.
        """
        database = engine.url.database
        if not database or database == ":memory:" or database.startswith("file:"):
            return "" if not database or database == ":memory:" or "mode=memory" in database else None
        if Path(database).exists():
            self._file_seen = True
            return None
        return "the database file does not exist" if self._file_seen else ""


def _is_sqlite(engine: Any) -> bool:
    return bool(engine.dialect.name == "sqlite")


def _connect(engine: Any) -> Any:
    """A DBAPI connection as the pool would make one: with the URL, `connect_args` and `do_connect` listeners."""
    pool = engine.pool
    invoke = getattr(pool, "_invoke_creator", None)
    return invoke(None) if invoke is not None else pool._creator()


def _execute(engine: Any, connection: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(_STATEMENTS.get(engine.dialect.name, _STATEMENT))
        cursor.fetchone()
    finally:
        cursor.close()
    with contextlib.suppress(AttributeError):
        connection.rollback()  # never left "idle in transaction"


def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        connection.close()


async def _ask_asynchronously(engine: Any) -> None:
    try:
        from sqlalchemy.util import greenlet_spawn
    except ImportError as error:
        raise RuntimeError("an asynchronous engine needs the package greenlet") from error

    def ask() -> None:
        connection = _connect(engine)
        try:
            _execute(engine, connection)
        finally:
            _close(connection)

    await greenlet_spawn(ask)


def _shared_connection(engine: Any) -> Any | None:
    """The pool's one connection where all share it (`StaticPool`); asking there could disturb a transaction."""
    return engine.pool if type(engine.pool).__name__ in ("StaticPool", "AssertionPool") else None


def pool_detail(engine: Any) -> dict[str, Any]:
    """What the real pool says of itself: `connections` with `active`, `idle`, `max` (None: no limit), where known."""
    pool = engine.pool
    try:
        active, idle = max(0, pool.checkedout()), max(0, pool.checkedin())
        size, overflow = pool.size(), getattr(pool, "_max_overflow", 0)
    except (AttributeError, TypeError):
        return {}
    limit = None if overflow < 0 or size == 0 else size + overflow
    detail: dict[str, Any] = {"connections": {"active": active, "idle": idle, "max": limit}}
    if limit is not None and active >= limit:
        detail["pool"] = "exhausted"
    return detail
