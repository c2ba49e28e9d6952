"""The internals of SQLAlchemy that are relied on, and what is lost without each."""

from __future__ import annotations

from collections.abc import Mapping

_STATEMENTS = ("_exec_single_context", "_exec_insertmany_context", "_cursor_execute")


def seams() -> Mapping[str, str | None]:
    """None for each that is there, else what is lost without it; nothing where there is no SQLAlchemy."""
    try:
        from sqlalchemy.engine import Connection, Engine
        from sqlalchemy.pool.base import _ConnectionRecord
    except ImportError:
        return {}

    def lost(owner: type, names: tuple[str, ...], loss: str) -> str | None:
        return None if all(name in vars(owner) for name in names) else loss

    return {
        "SQL statements": lost(Connection, _STATEMENTS, "statements have no spans and no durations"),
        "SQL connections": lost(Engine, ("raw_connection",), "the wait for a connection is unknown"),
        "SQL connects": lost(_ConnectionRecord, ("_ConnectionRecord__connect",), "the time of connecting is unknown"),
    }
