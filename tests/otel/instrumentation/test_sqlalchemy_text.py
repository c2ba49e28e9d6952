"""Statements are told without their literals, by what they do to which tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel.instrumentation.sqlalchemy_text import MAX_STATEMENT, MAX_SUMMARY, Statement, describe

CASES = {
    "SELECT 1": Statement("SELECT ?", "SELECT", "SELECT", None),
    "SELECT a, b FROM songs WHERE x = 'it''s' AND y = 12.5e3 -- why\n LIMIT 10": Statement(
        "SELECT a, b FROM songs WHERE x = ? AND y = ? LIMIT ?", "SELECT songs", "SELECT", "songs"
    ),
    "SELECT * FROM songs s, artists AS a WHERE a.id = s.artist": Statement(
        "SELECT * FROM songs s, artists AS a WHERE a.id = s.artist", "SELECT songs artists", "SELECT", None
    ),
    "SELECT x FROM a LEFT JOIN b ON a.x = b.x WHERE a.id IN (%(i_1)s, %(i_2)s)": Statement(
        "SELECT x FROM a LEFT JOIN b ON a.x = b.x WHERE a.id IN (?)", "SELECT a b", "SELECT", None
    ),
    "INSERT INTO shop.items (a, b) VALUES (?, ?), (?, ?) RETURNING id": Statement(
        "INSERT INTO shop.items (a, b) VALUES (?, ?) RETURNING id", "INSERT shop.items", "INSERT", "shop.items"
    ),
    "INSERT INTO t (a) SELECT b FROM u WHERE c = $1::int": Statement(
        "INSERT INTO t (a) SELECT b FROM u WHERE c = $1::int", "INSERT t SELECT u", "INSERT", None
    ),
    "INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 2": Statement(
        "INSERT INTO t VALUES (?) ON CONFLICT (id) DO UPDATE SET a = ?", "INSERT t", "INSERT", "t"
    ),
    "WITH w AS (SELECT * FROM base) SELECT * FROM w": Statement(
        "WITH w AS (SELECT * FROM base) SELECT * FROM w", "SELECT base SELECT", "SELECT", "base"
    ),
    "CREATE TABLE IF NOT EXISTS t (n numeric(10, 2))": Statement(
        "CREATE TABLE IF NOT EXISTS t (n numeric(?, ?))", "CREATE TABLE t", "CREATE TABLE", "t"
    ),
    "CREATE UNIQUE INDEX ix ON t (a)": Statement(
        "CREATE UNIQUE INDEX ix ON t (a)", "CREATE INDEX ix", "CREATE INDEX", None
    ),
    "SELECT EXTRACT(YEAR FROM d) FROM t FOR UPDATE": Statement(
        "SELECT EXTRACT(YEAR FROM d) FROM t FOR UPDATE", "SELECT t", "SELECT", "t"
    ),
    "SELECT * FROM generate_series(1, 10) AS g": Statement(
        "SELECT * FROM generate_series(?, ?) AS g", "SELECT", "SELECT", None
    ),
    'SELECT * FROM "order" WHERE "order".id = 7': Statement(
        'SELECT * FROM "order" WHERE "order".id = ?', "SELECT order", "SELECT", "order"
    ),
    "UPDATE t SET a = $$secret$$, b = $x$ secret $x$, c = E'a\\'secret'": Statement(
        "UPDATE t SET a = ?, b = ?, c = ?", "UPDATE t", "UPDATE", "t"
    ),
    "/* traceparent='00-1' */ DELETE FROM t WHERE a = 'unfinished": Statement(
        "DELETE FROM t WHERE a = ?", "DELETE t", "DELETE", "t"
    ),
    "": Statement("", "", None, None),
    "-- nothing": Statement("", "", None, None),
}


@pytest.mark.parametrize("statement", CASES)
def test_a_statement_is_told_without_literals(statement: str) -> None:
    """Text, summary, operation and table are as the semantic conventions have them."""
    assert describe(statement, "postgresql") == CASES[statement]


def test_each_databases_own_quotes() -> None:
    """What is a string in one database is a name in another."""
    assert describe("SELECT \"a\\\"b\", 'x\\'y' FROM `t` # z", "mysql").text == "SELECT ?, ? FROM `t`"
    assert describe('SELECT a FROM "t" WHERE a = "secret"', "sqlite").text == 'SELECT a FROM "t" WHERE a = ?'
    assert describe("SELECT a FROM [my table]", "mssql").summary == "SELECT [my table]"


@given(
    st.text(max_size=60),
    st.sampled_from(["postgresql", "sqlite", "mssql", "oracle"]),
    st.sampled_from(["SELECT * FROM t WHERE a = {}", "INSERT INTO t VALUES (1, {}, 2)", "UPDATE t SET a={} WHERE b=1"]),
)
def test_no_literal_is_ever_told(value: str, dialect: str, template: str) -> None:
    """Whatever stands in a well-formed string is not in what is told, and changes nothing of it."""
    literal = "'" + value.replace("'", "''") + "'"
    assert describe(template.format(literal), dialect) == describe(template.format("'x'"), dialect)


@given(st.text(alphabet="SELECT FROM insert into '\"`$-/*()[],.;:%?\\x1a\n", max_size=400))
def test_nonsense_is_described_too(statement: str) -> None:
    """Nothing that is no SQL raises, and no summary is too long."""
    for dialect in ("postgresql", "mysql", "sqlite", "mssql"):
        assert len(describe(statement, dialect).summary) <= MAX_SUMMARY


def test_an_endless_statement_is_told_to_a_limit() -> None:
    """A statement of megabytes costs no more than its first part, and its cut end is no open secret."""
    told = describe("SELECT '" + "secret " * 1_000_000 + "'", "postgresql")
    assert told.text == "SELECT ?"
    joined = " JOIN ".join(f"table_{number}" for number in range(5000))
    long = describe(f"SELECT * FROM {joined}", "postgresql")
    assert len(long.text) <= MAX_STATEMENT
    assert len(long.summary) <= MAX_SUMMARY
