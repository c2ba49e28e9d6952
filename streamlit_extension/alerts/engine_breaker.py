"""A circuit breaker on a SQLAlchemy engine: a database that is away is not waited for by every session.

Health checks connect on their own way, past the engine's, so an open circuit never hides a database that is back.
"""

from __future__ import annotations

from typing import Any, Final

from streamlit_extension.alerts.breaker import Circuit, CircuitState

_MARK: Final = "_stx_circuit"


def protect_engine(engine: Any, circuit: Circuit) -> Any:
    """Guard an engine, synchronous or asynchronous, with a circuit; again changes nothing. Returns the engine.

    What counts as a failure: a connection that can't be made, one that breaks, and an operational error of the driver
    (not SQLite's, whose wrong SQL is one too). An exhausted pool is no failure of the database. While the circuit is
    open, a new connection is refused at once; what is under way goes on.
    """
    target = getattr(engine, "sync_engine", engine)
    if not hasattr(target, "raw_connection") or not isinstance(circuit, Circuit):
        kinds = f"{type(engine).__name__}, {type(circuit).__name__}"
        raise TypeError(f"protect_engine() takes a SQLAlchemy engine and a circuit, not {kinds}")
    if getattr(target, _MARK, None) is not None:
        return engine
    guard = _Guard(target, circuit)
    setattr(target, _MARK, guard)
    guard.install()
    return engine


def release_engine(engine: Any) -> None:
    """Take the guard away: the exact inverse of `protect_engine`."""
    target = getattr(engine, "sync_engine", engine)
    guard = getattr(target, _MARK, None)
    if guard is not None:
        guard.uninstall()
        delattr(target, _MARK)


class _Guard:
    """One engine's guard; the circuit alone holds the state."""

    def __init__(self, engine: Any, circuit: Circuit) -> None:
        self._engine = engine
        self._circuit = circuit
        self._raw_connection = engine.raw_connection

    def install(self) -> None:
        """Stand between the engine and its pool, and listen to how statements end."""
        from sqlalchemy import event

        event.listen(self._engine, "after_cursor_execute", self._executed)
        event.listen(self._engine, "handle_error", self._failed)
        self._engine.raw_connection = self._guarded

    def uninstall(self) -> None:
        """Leave the engine as it was found."""
        from sqlalchemy import event

        event.remove(self._engine, "after_cursor_execute", self._executed)
        event.remove(self._engine, "handle_error", self._failed)
        if self._engine.__dict__.get("raw_connection") == self._guarded:
            del self._engine.raw_connection

    def _guarded(self, *args: Any, **kwargs: Any) -> Any:
        circuit = self._circuit
        if circuit.state is CircuitState.CLOSED:
            try:
                return self._raw_connection(*args, **kwargs)
            except Exception as error:
                if not self._is_ours(error):
                    circuit.failed(error)
                raise
        # Open, or trying again: a pooled connection proves nothing, so this one is asked before it is handed out.
        return circuit.call(self._proven, *args, **kwargs)

    def _proven(self, *args: Any, **kwargs: Any) -> Any:
        connection = self._raw_connection(*args, **kwargs)
        try:
            alive = self._engine.dialect.do_ping(connection.dbapi_connection)
        except Exception:
            connection.invalidate()
            raise
        if alive is False:
            connection.invalidate()
            raise ConnectionError("the database did not answer")
        return connection

    def _is_ours(self, error: Exception) -> bool:
        """Whether an error says that our pool is exhausted, which says nothing about the database."""
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        return isinstance(error, PoolTimeout)

    def _executed(self, *_: Any) -> None:
        self._circuit.succeeded()

    def _failed(self, context: Any) -> None:
        if context.connection is None:  # could not connect: counted where it was asked for
            return
        error = context.original_exception
        operational = getattr(getattr(context.dialect, "dbapi", None), "OperationalError", ())
        broken = context.is_disconnect or (isinstance(error, operational) and context.dialect.name != "sqlite")
        if broken and isinstance(error, Exception):
            self._circuit.failed(error)
