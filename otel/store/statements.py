"""Statements by time and count, and those that single runs repeat (N+1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from otel.store.ids import row_id, trace_halves, trace_hex
from otel.store.model import RepeatedRow, StatementRow
from otel.store.schema import STATEMENT_STEP_S
from otel.store.shards import Shard, Shards

_STEP_NS: Final = STATEMENT_STEP_S * 10**9
_LAST: Final = (1 << 63) - 1
_REPEATED: Final = (
    "SELECT statement, page, count(*), max(printf('%012d:%d:%d', repeats.count, trace_hi, trace_lo)), "
    "sum(repeats.count), sum(total), max(start)"
)
_BY_PAGE: Final = "GROUP BY statement, page"
_ORDERS: Final[dict[str, Any]] = {
    "total": lambda row: row.total_s,
    "count": lambda row: row.count,
    "mean": lambda row: row.mean_s,
    "max": lambda row: row.max_s,
    "errors": lambda row: row.errors,
}


def statements(shards: Shards, since_ns: int | None, until_ns: int | None, by: str, limit: int) -> list[StatementRow]:
    """Statements, those with most first."""
    first, last = _steps(since_ns, until_ns)
    sql = (
        "SELECT statement, sum(count), sum(errors), sum(total), max(max), sum(runs), "
        "max(printf('%019d:%d:%d', last, last_hi, last_lo)) FROM statement_steps "
        "WHERE step BETWEEN ? AND ? GROUP BY statement"
    )
    found: dict[int, list[Any]] = {}
    for _, rows in shards.ask(lambda shard: shard.rows(sql, (first, last))):
        for statement, *figures in rows:
            known = found.get(statement)
            if known is None:
                found[statement] = figures
                continue
            for place in (0, 1, 2, 4):
                known[place] += figures[place]
            known[3] = max(known[3], figures[3])
            known[5] = max(known[5], figures[5])
    order = _ORDERS.get(by, _ORDERS["total"])
    plain = [_statement(number, ("", "", "", ""), figures) for number, figures in found.items()]
    plain.sort(key=lambda row: (order(row), row.count), reverse=True)
    chosen = [int(row.id, 16) - (1 << 63) for row in plain[:limit]]
    texts = _texts(shards, chosen)
    return [_statement(number, texts.get(number, ("", "", "", "")), found[number]) for number in chosen]


def _statement(number: int, texts: Sequence[str], figures: Sequence[Any]) -> StatementRow:
    count, errors, total, longest, runs, newest = figures
    last, hi, lo = (int(each) for each in newest.split(":"))
    text, summary, system, namespace = texts
    head = statement_hex(number), text, summary, system, namespace
    return StatementRow(*head, count, errors, total / 1e9, longest / 1e9, runs, last, trace_hex(hi, lo))


def statement_hex(number: int) -> str:
    """The id of a statement, 16 digits."""
    return format(number + (1 << 63), "016x")


def _texts(shards: Shards, numbers: Sequence[int]) -> dict[int, tuple[str, str, str, str]]:
    found: dict[int, tuple[str, str, str, str]] = {}
    for start in range(0, len(numbers), 200):
        piece = list(numbers[start : start + 200])
        sql = (
            "SELECT id, text, summary, system, namespace FROM statements "  # noqa: S608
            f"WHERE id IN ({', '.join('?' * len(piece))})"
        )
        for _, rows in shards.ask(partial(_rows, sql, piece)):
            for number, text, summary, system, namespace in rows:
                found[number] = text, summary, system, namespace
    return found


def _rows(sql: str, parameters: Sequence[Any], shard: Shard) -> list[Any]:
    return shard.rows(sql, parameters)


def _steps(since_ns: int | None, until_ns: int | None) -> tuple[int, int]:
    return (since_ns or 0) // _STEP_NS, (_LAST if until_ns is None else max(0, until_ns - 1)) // _STEP_NS


def repeated(shards: Shards, since_ns: int | None, until_ns: int | None, limit: int) -> list[RepeatedRow]:
    """Statements that single runs repeat, by page; those that take most time first."""
    bounds = (
        0 if since_ns is None else row_id(since_ns),
        _LAST if until_ns is None else row_id(max(0, until_ns - 1), -1),
    )
    sql = f"{_REPEATED} FROM repeats JOIN runs ON runs.id = repeats.run WHERE run BETWEEN ? AND ? {_BY_PAGE}"
    return _repeated(shards, sql, bounds)[:limit]


def repeated_in(shards: Shards, trace_id: str) -> list[RepeatedRow]:
    """The same of one run."""
    halves = trace_halves(trace_id)
    if halves is None:
        return []
    source = "FROM runs INDEXED BY runs_trace JOIN repeats ON runs.id = repeats.run"
    sql = f"{_REPEATED} {source} WHERE trace_hi = ? AND trace_lo = ? {_BY_PAGE}"
    return _repeated(shards, sql, halves)


def _repeated(shards: Shards, sql: str, parameters: Sequence[Any]) -> list[RepeatedRow]:
    found: dict[tuple[int, str], list[Any]] = {}
    for _, rows in shards.ask(lambda shard: shard.rows(sql, parameters)):
        for statement, page, *figures in rows:
            known = found.setdefault((statement, page), figures)
            if known is not figures:
                for place in (0, 2, 3):
                    known[place] += figures[place]
                for place in (1, 4):
                    known[place] = max(known[place], figures[place])
    ordered = sorted(found.items(), key=lambda each: each[1][3], reverse=True)[:1000]
    texts = _texts(shards, list(dict.fromkeys(number for (number, _), _ in ordered)))
    result = []
    for (number, page), (runs, worst, count, total, last) in ordered:
        most, hi, lo = (int(each) for each in worst.split(":"))
        text = texts.get(number, ("",))[0]
        result.append(
            RepeatedRow(statement_hex(number), text, page, runs, most, count, total / 1e9, trace_hex(hi, lo), last)
        )
    return result
