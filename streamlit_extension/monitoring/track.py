"""Business events from SQLAlchemy models, declared once: counted when the outermost transaction has been committed.

    track(Client, created="client.created")
    track(Task, "status", to="done", event="task.completed")

Counted is what leaves this process as an INSERT or UPDATE of the model's table, by the unit of work, by bulk
statements of the ORM and by Core, in synchronous and asynchronous sessions and on bare connections. A rollback, to a
savepoint too, takes back what came after it. Not counted: SQL given as text, a value that the database computes
(`values(status=func.…)`), what triggers and other processes write, a DELETE (which takes nothing back, either), and an
`UPDATE … RETURNING` whose driver does not tell how many rows it met. An UPDATE counts the rows that it matched, also
those that have the value already: a bulk one leaves them out by its WHERE, the unit of work where the attribute had
been loaded before it was set.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from otel.containment import contained
from otel.instrumentation.patching import patch_method
from otel.trace_context import is_suppressed
from streamlit_extension.logs.business import business_events

_UNSET: Final = object()
#: The longest name of an event: it becomes a value of a metric's attribute.
_MOST_LETTERS: Final = 100


@dataclass(frozen=True, slots=True)
class _Rule:
    """What is counted of one table: rows that are created, or whose `column` is given the value `to`."""

    event: str
    column: str | None = None
    to: Any = None
    #: What a new row has where nobody says otherwise: the column's fixed default in Python.
    default: Any = _UNSET
    #: Where several models share the table: the column that tells them apart, and this model's values of it.
    kind_column: str | None = None
    kinds: frozenset[Any] = frozenset()

    def matches(self, values: Mapping[str, Any], *, is_insert: bool) -> bool:
        """Whether a row that is written with these values counts."""
        if is_insert and self.kind_column is not None and values.get(self.kind_column) not in self.kinds:
            return False
        if self.column is None:
            return is_insert
        return _same(values.get(self.column, self.default if is_insert else _UNSET), self.to)


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, Enum) and not isinstance(wanted, Enum):
        return wanted in (value.value, value.name)
    if isinstance(wanted, Enum) and not isinstance(value, Enum):
        return value in (wanted.value, wanted.name)
    return value is not _UNSET and bool(value == wanted)


@dataclass(slots=True)
class _Pending:
    """What an open transaction has done: events with their numbers, and how many there were at each savepoint."""

    events: list[tuple[str, int]] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)


class Tracking:
    """The declarations of this process, and the transactions under way.

    Arguments:
        count: takes an event's name and number; by default the metric `business.events`.
    """

    def __init__(self, count: Callable[[str, int], object] | None = None) -> None:
        self._count = count or (lambda name, times: business_events().count(name, times))
        self._lock = threading.Lock()
        self._rules: dict[str, tuple[_Rule, ...]] = {}
        self._pending: weakref.WeakKeyDictionary[Any, _Pending] = weakref.WeakKeyDictionary()
        self._undo: list[Callable[[], None]] = []

    @property
    def rules(self) -> int:
        """How many declarations there are."""
        return sum(len(rules) for rules in self._rules.values())

    def track(
        self, model: type[Any], column: Any = None, *, to: Any = _UNSET, created: str = "", event: str = ""
    ) -> None:
        """As the module's `track`."""
        mapper = _mapper_of(model)
        call = f"track({model.__name__})" if column is None else f"track({model.__name__}, {_spelled(column)!r})"
        for name, text in (("created", created), ("event", event)):
            if not isinstance(text, str) or text.strip() != text or not text.isprintable() or len(text) > _MOST_LETTERS:
                raise ValueError(
                    f"{call}: {name}= is no event's name: printable text of at most {_MOST_LETTERS} letters"
                )
        if column is None and (event or to is not _UNSET):
            raise ValueError(f"{call}: to= and event= need the name of a column")
        if column is None and not created:
            raise ValueError(f"{call}: created= or a column with to= and event= is needed")
        if column is not None and (to is _UNSET or not event):
            raise ValueError(f"{call}: to= and event= are needed")
        wanted = None if column is None else mapper.columns.get(_spelled(column))
        if column is not None and wanted is None:
            raise ValueError(f"{call}: there is no such column; there are {', '.join(mapper.columns.keys())}")
        if created:
            self._declare(mapper.local_table, _Rule(created, **_kind_of(mapper)))
        if wanted is not None:
            rule = _Rule(event, wanted.key, to, _default_of(wanted), **_kind_of(mapper))
            self._declare(mapper.local_table, rule)

    def _declare(self, table: Any, rule: _Rule) -> None:
        """Declared again, by a script that runs again, it is the same."""
        with self._lock:
            there = self._rules.get(table.fullname, ())
            if rule not in there:
                self._rules[table.fullname] = (*there, rule)
            if not self._undo:
                self._listen()

    def _listen(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Connection, Engine

        for name in ("after_execute", "rollback", "rollback_twophase", "rollback_savepoint"):
            listener = getattr(self, f"_{name}")
            event.listen(Engine, name, listener)
            self._undo.append(lambda name=name, listener=listener: event.remove(Engine, name, listener))  # type: ignore[misc]
        for name in ("_commit_impl", "_commit_twophase_impl"):
            self._undo.append(patch_method(Connection, name, self._counting))
        self._undo.append(patch_method(Connection, "_savepoint_impl", self._marking))  # its event tells no name

    def close(self) -> None:
        """Forget everything and listen no more."""
        with self._lock:
            while self._undo:
                self._undo.pop()()
            self._rules.clear()
            self._pending.clear()

    # -- what SQLAlchemy tells -------------------------------------------------------------------------------------

    def _after_execute(
        self, connection: Any, statement: Any, multiparams: Any, params: Any, _options: Any, result: Any
    ) -> None:
        name = getattr(statement, "__visit_name__", "")
        if name not in ("insert", "update"):
            return
        rules = self._rules.get(getattr(statement.table, "fullname", ""))
        if not rules or is_suppressed():
            return
        with contained("business events of a statement could not be counted"):
            found = list(_events(rules, statement, name == "insert", multiparams or [params or {}], result))
            if not found:
                return
            if _commits_each_statement(connection):
                self._tell(found)
            else:
                self._pending.setdefault(connection, _Pending()).events.extend(found)

    def _counting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def commit(connection: Any, *args: Any, **kwargs: Any) -> Any:
            answer = original(connection, *args, **kwargs)
            pending = self._pending.pop(connection, None) if self._pending else None
            if pending is not None:
                with contained("business events of a transaction could not be counted"):
                    self._tell(pending.events)
            return answer

        return commit

    def _tell(self, events: Sequence[tuple[str, int]]) -> None:
        totals: dict[str, int] = {}
        for name, times in events:
            totals[name] = totals.get(name, 0) + times
        for name, times in totals.items():
            self._count(name, times)

    def _rollback(self, connection: Any) -> None:
        self._pending.pop(connection, None)

    def _rollback_twophase(self, connection: Any, _xid: Any, _is_prepared: bool) -> None:
        self._pending.pop(connection, None)

    def _marking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def savepoint(connection: Any, *args: Any, **kwargs: Any) -> Any:
            name = original(connection, *args, **kwargs)
            pending = self._pending.get(connection) if self._pending else None
            if pending is not None:  # where nothing is pending yet, all of it comes after this savepoint
                pending.savepoints[name] = len(pending.events)
            return name

        return savepoint

    def _rollback_savepoint(self, connection: Any, name: str, _context: Any) -> None:
        pending = self._pending.get(connection)
        if pending is not None:
            del pending.events[pending.savepoints.get(name, 0) :]


def _mapper_of(model: Any) -> Any:
    from sqlalchemy import inspect
    from sqlalchemy.orm import Mapper

    mapper = inspect(model, raiseerr=False) if isinstance(model, type) else None
    if not isinstance(mapper, Mapper):
        name = getattr(model, "__name__", type(model).__name__)
        raise ValueError(f"track({name}): this is no mapped class")  # noqa: TRY004 - one kind for every refused declaration
    return mapper


def _spelled(column: Any) -> str:
    """The name of a column that is given by its name, or as the model's attribute (`Task.status`)."""
    return str(column if isinstance(column, str) else getattr(column, "key", type(column).__name__))


def _default_of(column: Any) -> Any:
    default = column.default
    return default.arg if default is not None and default.is_scalar else _UNSET


def _kind_of(mapper: Any) -> dict[str, Any]:
    """Of a model that shares its table with its parent: what tells its rows apart."""
    if not mapper.single or mapper.polymorphic_on is None:
        return {}
    kinds = frozenset(each.polymorphic_identity for each in mapper.self_and_descendants)
    return {"kind_column": mapper.polymorphic_on.key, "kinds": kinds}


def _commits_each_statement(connection: Any) -> bool:
    options = connection.get_execution_options()
    level = options.get("isolation_level") or getattr(connection.dialect, "_on_connect_isolation_level", None)
    return str(level or "").upper() == "AUTOCOMMIT"


def _events(
    rules: Sequence[_Rule], statement: Any, is_insert: bool, rows: Sequence[Mapping[str, Any]], result: Any
) -> Iterator[tuple[str, int]]:
    """Events of a statement with their numbers."""
    told = max(0, result.rowcount)
    uncertain = any(getattr(statement, each, None) is not None for each in ("_post_values_clause", "select"))
    fixed = _fixed_values(statement)
    for rule in rules:
        matching = sum(rule.matches(_bound(each, row), is_insert=is_insert) for row in rows for each in fixed)
        if not matching:
            continue
        if is_insert and not uncertain:
            yield rule.event, matching
        elif matching == len(rows) * len(fixed):  # all that it met; a batch with different values is told by its rows
            if told:
                yield rule.event, told
        else:
            yield rule.event, matching


def _fixed_values(statement: Any) -> list[dict[str, Any]]:
    """The values that a statement itself holds, one mapping for each row of `values([…])`."""
    many = getattr(statement, "_multi_values", None) or ()
    rows = [row for group in many for row in group]
    if not rows:
        ordered = getattr(statement, "_ordered_values", None)
        selected = dict.fromkeys(getattr(statement, "_select_names", None) or (), _UNSET)
        rows = [{**selected, **(dict(ordered) if ordered else (getattr(statement, "_values", None) or {}))}]
    return [{_key(column): _plain(value) for column, value in dict(row).items()} for row in rows]


def _bound(fixed: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's values: what the statement holds, with the parameters that it names filled in, and the row's own."""
    held = {
        name: row.get(value.key, _UNSET) if getattr(value, "__visit_name__", "") == "bindparam" else value
        for name, value in fixed.items()
    }
    return {**held, **row}


def _key(column: Any) -> str:
    return str(getattr(column, "key", column))


def _plain(value: Any) -> Any:
    """A bound value, or the parameter that each row brings; what the database computes is none."""
    if getattr(value, "__visit_name__", "") == "bindparam":
        return value if value.value is None and value.required else value.value
    return _UNSET if hasattr(value, "__visit_name__") else value


TRACKING: Final = Tracking()


def track(model: type[Any], column: Any = None, *, to: Any = _UNSET, created: str = "", event: str = "") -> None:
    """Count business events of a SQLAlchemy model, once its outermost transaction has been committed.

    Arguments:
        model: a mapped class.
        column: the attribute whose change counts, by its name or as it is (`Task.status`); with `to`, the value that it
            changes to, and `event`, the name of the event. A row that is created with that value counts too.
        created: the name of the event of a row that is created.

    Declaring the same again changes nothing.

    Raises:
        ValueError: this is no mapped class, there is no such column, a name is none, or a part of the declaration is
            missing.
    """
    TRACKING.track(model, column, to=to, created=created, event=event)
