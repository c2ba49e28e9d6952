"""What is told of a database with each of its statements and connections, worked out once for each engine."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from otel.guard import redact_url
from otel.instrumentation.sqlalchemy_text import describe
from otel.names import Attribute

_logger = logging.getLogger("otel.instrumentation.sqlalchemy")
_told_failures: set[str] = set()

#: Names of SQLAlchemy's dialects where the semantic conventions have another one.
_SYSTEMS = {
    "mssql": "microsoft.sql_server",
    "oracle": "oracle.db",
    "db2": "ibm.db2",
    "ibm_db_sa": "ibm.db2",
    "hana": "sap.hana",
    "redshift": "aws.redshift",
    "spanner+spanner": "gcp.spanner",
    "firebird": "firebirdsql",
}
#: Statements of one database that are remembered with their attributes.
_REMEMBERED = 512
#: Different summaries of one database that become an attribute of a metric; an application that makes up names of
#: tables would make a time series of each.
MAX_SUMMARIES = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of one statement: the span's name and attributes, and those of the metric."""

    span_name: str
    span: dict[str, Any]
    metric: dict[str, Any]


class Database:
    """One engine's database: its attributes, its connections, and who waits for one.

    `waiting` holds one object for each caller that asked the pool and has no connection yet.
    """

    def __init__(self, engine: Any) -> None:
        url, self._dialect = engine.url, engine.dialect.name
        query = {key: value for key, value in url.query.items() if isinstance(value, str)}
        host = url.host or query.get("host")
        namespace = redact_url(str(url.database or query.get("dbname") or "")) or None
        common: dict[str, Any] = {Attribute.DB_SYSTEM_NAME.value: _SYSTEMS.get(self._dialect, self._dialect)}
        if namespace:
            common[Attribute.DB_NAMESPACE.value] = namespace
        if host:
            common[Attribute.SERVER_ADDRESS.value] = host
            if url.port:
                common[Attribute.SERVER_PORT.value] = url.port
        self._common = common
        self.pool_name = _pool_name(engine, host, url.port, namespace)
        self.pool_attributes = {Attribute.DB_POOL_NAME.value: self.pool_name}
        self.waiting: set[object] = set()
        self._told: dict[tuple[str, bool], Told] = {}
        self._summaries: set[str] = set()
        self._records: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def told(self, statement: str, *, batch: bool) -> Told:
        """What is told of `statement`; `batch`: it is executed for several sets of parameters in one call."""
        key = (statement, batch)
        found = self._told.get(key)
        if found is None:
            found = self._tell(statement, batch)
            if len(self._told) >= _REMEMBERED:
                self._told.clear()
            if len(statement) < 16_384:
                self._told[key] = found
        return found

    def _tell(self, statement: str, batch: bool) -> Told:
        known = describe(statement, self._dialect)
        prefix = "BATCH " if batch else ""
        metric = dict(self._common)
        if known.operation:
            metric[Attribute.DB_OPERATION_NAME.value] = prefix + known.operation
        if len(self._summaries) < MAX_SUMMARIES:
            self._summaries.add(known.summary)
        in_full = dict(metric)
        if known.summary:
            in_full[Attribute.DB_QUERY_SUMMARY.value] = prefix + known.summary
        if known.collection:
            in_full[Attribute.DB_COLLECTION_NAME.value] = known.collection
        span = {**in_full, Attribute.DB_QUERY_TEXT.value: known.text}
        name = prefix + known.summary if known.summary else str(metric[Attribute.DB_SYSTEM_NAME.value])
        return Told(name, span, in_full if known.summary in self._summaries else metric)

    def add_record(self, record: Any) -> None:
        """Know of a connection of the pool for as long as the pool holds it."""
        with self._lock:
            self._records.add(record)

    def count(self) -> tuple[int, int]:
        """Open connections now: idle ones, used ones."""
        with self._lock:
            records = list(self._records)
        opened = [record for record in records if record.dbapi_connection is not None]
        used = sum(1 for record in opened if record.in_use)
        return len(opened) - used, used


class Databases:
    """A `Database` for each engine, found by its dialect, which an engine and its pools (also a disposed one) share."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Database]] = {}

    def of(self, engine: Any) -> Database:
        """That of an engine, made at its first use."""
        dialect = engine.dialect
        found = self._known.get(id(dialect))
        if found is not None and found[0]() is dialect:
            return found[1]
        key, known = id(dialect), self._known

        def forget(dead: weakref.ref[Any]) -> None:
            if (entry := known.get(key)) is not None and entry[0] is dead:
                known.pop(key, None)

        if found is not None:  # its owner is dead, and the same place in memory is another's
            known.pop(key, None)
        return known.setdefault(key, (weakref.ref(dialect, forget), Database(engine)))[1]

    def of_dialect(self, dialect: Any) -> Database | None:
        """That of a pool's dialect, or None where its engine has not been seen yet."""
        found = self._known.get(id(dialect))
        return found[1] if found is not None and found[0]() is dialect else None

    def __iter__(self) -> Iterator[Database]:
        return iter([database for _, database in self._known.copy().values()])


def _pool_name(engine: Any, host: str | None, port: int | None, namespace: str | None) -> str:
    """As the semantic conventions have it: the pool's own name, else `server.address:server.port/db.namespace`."""
    own = getattr(engine.pool, "logging_name", None)
    if own:
        return str(own)
    where = f"{host}:{port}" if host and port else host or engine.dialect.name
    return f"{where}/{namespace}" if namespace else str(where)


def note_failure(error: Exception) -> None:
    """Telemetry never breaks its host: what failed is logged once for each kind, without its text."""
    kind = type(error).__name__
    if kind not in _told_failures:
        _told_failures.add(kind)
        _logger.warning("a statement could not be measured: %s", kind, extra={"event": "telemetry.internal_error"})
