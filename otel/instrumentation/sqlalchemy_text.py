"""What of a statement may be told: its text without literals, and what it does to which tables.

One pass of a tokenizer, in linear time, over at most `MAX_STATEMENT` characters; nothing is parsed beyond what a
summary needs (https://opentelemetry.io/docs/specs/semconv/db/database-spans/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Characters of a statement that are looked at; what lies behind them is not told.
MAX_STATEMENT = 8192
#: Longest `db.query.summary` in characters (semantic conventions).
MAX_SUMMARY = 255
#: Statements whose normal form is remembered.
_REMEMBERED = 512

_STANDARD_STRING = r"(?:[nNbBxX]|[uU]&)?'(?:[^']|'')*(?:'|\Z)"
_ESCAPED_BODY = r"(?:[^'\\]|\\.|'')*(?:'|\Z|\\\Z)"
_TOKENS = r"""
  (?P<space>\s+)
| (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z){hash_comment})
| (?P<literal>
      \$\$.*?(?:\$\$|\Z) | \$(?P<tag>[A-Za-z_]\w{{0,62}})\$.*?(?:\$(?P=tag)\$|\Z)
    | {strings}
    | 0[xX][0-9A-Fa-f]+ | (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z_])
    | \d\w*
  )
| (?P<bind>%\(\w+\)s|%s|(?<!:):\w+|\$\d+|\?\d*|@\w+)
| (?P<quoted>"(?:[^"]|"")*(?:"|\Z)|`(?:[^`]|``)*(?:`|\Z){brackets})
| (?P<word>[^\W\d][\w$\#]*)
| (?P<mark>::|.)
"""
_E_STRING = r"[eE]'" + _ESCAPED_BODY


def _scanner(strings: str, *, hash_comment: str = "", brackets: str = "") -> re.Pattern[str]:
    text = _TOKENS.format(strings=strings, hash_comment=hash_comment, brackets=brackets)
    return re.compile(text, re.VERBOSE | re.DOTALL)


_BRACKETS = r"|\[[^\]]*(?:\]|\Z)"
_STANDARD = _scanner(f"{_E_STRING}|{_STANDARD_STRING}")
_MYSQL = _scanner(rf"[nNbBxX]?'{_ESCAPED_BODY}" + r"""|"(?:[^"\\]|\\.|"")*(?:"|\Z|\\\Z)""", hash_comment=r"|\#[^\n]*")
#: Where a database takes double quotes or brackets in its own way; the standard's way for all others.
_SCANNERS = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "mssql": _scanner(_STANDARD_STRING, brackets=_BRACKETS),
    "sqlite": _scanner(_STANDARD_STRING, brackets=_BRACKETS),
}
#: SQLite takes `"…"` for a string where there is no such column: what is compared with one may be a value.
_COMPARES = frozenset(("=", "<", ">", "|", "LIKE", "GLOB", "THEN", "ELSE", "BETWEEN"))

_PLACEHOLDER = r"(?:%\(\w+\)s|%s|:\w+|\$\d+|\?\d*|@\w+)(?:::[\w ]{1,64})?"
_LIST = re.compile(rf"\b(IN) ?\( ?{_PLACEHOLDER}(?: ?, ?{_PLACEHOLDER})* ?\)", re.IGNORECASE)
_ROWS = re.compile(r"\b(VALUES) ?(\([^()]*\))(?: ?, ?\([^()]*\))+", re.IGNORECASE)
_CTE = re.compile(
    r"(?:\bWITH(?: RECURSIVE)?|,) ?(\w{1,128}|\"[^\"]{1,128}\") ?(?:\([^()]{0,500}\) ?)?"
    r"AS (?:(?:NOT )?MATERIALIZED ?)?\(",
    re.IGNORECASE,
)

_DDL = frozenset(("CREATE", "ALTER", "DROP"))
_OBJECTS = frozenset(
    ("TABLE", "INDEX", "VIEW", "SEQUENCE", "SCHEMA", "DATABASE", "TYPE", "FUNCTION", "PROCEDURE", "TRIGGER", "USER")
    + ("ROLE", "EXTENSION", "DOMAIN")
)
#: Words that begin a statement wherever they stand, unless one of `_NO_VERB_AFTER` stands before them.
_VERBS = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"))
_NO_VERB_AFTER = frozenset(("FOR", "DO", "ON", "KEY", "THEN", "BEFORE", "AFTER", "OF", "OR", "."))
_TARGET_FOLLOWS = frozenset(("FROM", "JOIN", "INTO", "UPDATE", "TRUNCATE", "CALL", "EXEC", "EXECUTE", "REPLACE"))
_BETWEEN = frozenset(("ONLY", "LATERAL", "IF", "NOT", "EXISTS", "TABLE", "CONCURRENTLY", "INTO", "OR", "IGNORE"))


@dataclass(frozen=True, slots=True)
class Statement:
    """What may be told of a statement.

    `text` has `?` for every literal; `operation` is its first word (two for `CREATE TABLE` and the like), `collection`
    its table where there is only one, `summary` its operations with their tables.
    """

    text: str
    summary: str
    operation: str | None
    collection: str | None


def describe(statement: str, dialect: str) -> Statement:
    """What may be told of `statement`, which is written for the SQLAlchemy dialect of that name."""
    if len(statement) > MAX_STATEMENT:
        return _describe(statement[:MAX_STATEMENT], dialect)
    return _remembered(statement, dialect)


class _Summary:
    """Collects operations and tables, token by token."""

    def __init__(self, hidden: frozenset[str]) -> None:
        self.words: list[str] = []
        self.operation: str | None = None
        self.collections: list[str] = []
        self._hidden = hidden
        self._previous = ""
        self._wants = False  # the next name is a table
        self._in_list = False  # a comma leads to the next table
        self._is_path = False  # the last word is a name that a dot may continue
        self._from = False
        self._levels = [False]  # whether a statement has begun inside these parentheses
        self._ddl = False
        self._is_table = True
        self._list_level = 0

    def word(self, text: str, *, quoted: bool) -> None:
        upper = "" if quoted else text.upper()
        name = text[1:-1] if quoted and " " not in text else text
        if self._is_path and self._previous == ".":
            self._continue(name)
        elif self._previous == ".":
            pass
        elif self._ddl:
            self._object(text, upper)
        elif not quoted and self._is_verb(upper):
            self._begin(text, upper)
        elif self._wants and upper not in _BETWEEN:
            self._take(name, upper)
        elif upper in _TARGET_FOLLOWS and self._levels[-1] and self._previous != "DISTINCT":
            self._wants, self._in_list, self._from = upper in ("FROM", "JOIN", "INTO"), False, upper in ("FROM", "JOIN")
        elif upper and upper != "AS" and self._in_list and self._previous not in (",", "AS"):
            self._in_list = upper not in _CLAUSES
            self._is_path = False
        else:
            self._is_path = False
        self._previous = upper or name

    def mark(self, text: str) -> None:
        if text == "(":
            if self._is_path and self._from and self.collections:  # a function that makes rows is no table
                self._forget()
            self._levels.append(False)
            self._wants = self._is_path = False
        elif text == ")":
            if len(self._levels) > 1:
                self._levels.pop()
            self._is_path = False
        elif text == ",":
            self._wants, self._is_path = self._in_list and len(self._levels) == self._list_level, False
        elif text == ";":
            self._levels, self._wants, self._in_list, self._is_path, self._ddl = [False], False, False, False, False
        elif text != ".":
            self._is_path = False
        self._previous = text

    def _is_verb(self, upper: str) -> bool:
        if upper in _VERBS and self._previous not in _NO_VERB_AFTER:
            return (
                not self._levels[-1] or self._previous in ("ALL", "UNION", "EXCEPT", "INTERSECT") or upper == "SELECT"
            )
        return len(self._levels) == 1 and not self._levels[0] and upper not in ("WITH", "RECURSIVE")

    def _begin(self, text: str, upper: str) -> None:
        if upper not in _VERBS and self._previous not in ("", ";", "EXPLAIN", "ANALYZE"):
            return
        if self.operation is None:
            self.operation = text
        self.words.append(text)
        self._levels[-1] = True
        self._ddl = upper in _DDL
        self._wants, self._is_table = upper in _TARGET_FOLLOWS, upper not in ("CALL", "EXEC", "EXECUTE")
        self._in_list = self._from = self._is_path = False

    def _object(self, text: str, upper: str) -> None:
        if upper in _OBJECTS:
            if self.operation == self.words[-1]:
                self.operation = f"{self.operation} {text}"
            self.words.append(text)
            self._ddl, self._wants, self._is_table = False, True, upper in ("TABLE", "VIEW")

    def _take(self, name: str, upper: str) -> None:
        self._wants = False
        if upper in ("SELECT", "VALUES", "SET", "WITH"):
            return
        self._in_list, self._list_level, self._is_path = self._from, len(self._levels), True
        self.words.append(name)
        if self._is_table:
            self.collections.append(name)

    def _continue(self, name: str) -> None:
        self.words[-1] = f"{self.words[-1]}.{name}"
        if self._is_table:
            self.collections[-1] = self.words[-1]

    def _forget(self) -> None:
        self.collections.pop()
        self.words.pop()

    def result(self) -> tuple[str, str | None]:
        """The summary, and the only table where there is one."""
        words = [word for word in self.words if word not in self._hidden]
        collections = {each for each in self.collections if each not in self._hidden}
        summary, length = [], -1
        for index, word in enumerate(words):
            if index and word == words[index - 1]:
                continue
            length += len(word) + 1
            if length > MAX_SUMMARY:
                break
            summary.append(word)
        return " ".join(summary), collections.pop() if len(collections) == 1 else None


_CLAUSES = frozenset(
    ("WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "FETCH", "UNION", "EXCEPT", "INTERSECT", "ON", "USING")
    + ("SET", "VALUES", "RETURNING", "WINDOW", "FOR")
)


def _describe(statement: str, dialect: str) -> Statement:
    parts: list[str] = []
    tokens: list[tuple[str, str]] = []
    previous = ""
    for match in _SCANNERS.get(dialect, _STANDARD).finditer(statement):
        kind, text = match.lastgroup or "mark", match.group()
        if kind == "tag":
            kind = "literal"
        if kind in ("space", "comment"):
            if parts and parts[-1] != " ":
                parts.append(" ")
            continue
        if kind == "quoted" and dialect == "sqlite" and previous in _COMPARES and text[0] == '"':
            kind = "literal" if statement[match.end() : match.end() + 1] != "." else kind
        if kind == "literal":
            text = "?"
        parts.append(text)
        tokens.append((kind, text))
        previous = text.upper()
    text = "".join(parts).strip()
    text = _ROWS.sub(r"\1 \2", _LIST.sub(r"\1 (?)", text))
    hidden = frozenset(each.strip('"') for each in _CTE.findall(text)) if text[:5].upper() == "WITH " else frozenset()
    found = _Summary(hidden)
    for kind, token in tokens:
        if kind in ("word", "quoted"):
            found.word(token, quoted=kind == "quoted")
        else:
            found.mark(token)
    summary, collection = found.result()
    return Statement(text, summary, found.operation, collection)


_remembered = lru_cache(maxsize=_REMEMBERED)(_describe)
