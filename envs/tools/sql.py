"""A read-only sqlite database that a hostile query can neither change, hang nor leave."""

import re
import sqlite3
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import ToolError, ToolTimeout
from .killable import Killable, Late
from .remembering import Remembered, identity

_STEPS_PER_CALL, _CALLS = 1_000, 2_000
"""A query ends after two million steps of sqlite's machine: counted, so that a replay is exact."""
_SECONDS = 1.0
"""It also ends after this time, for a step may compare long texts; two million steps of a query
that means well take a tenth of it."""
_SECONDS_ELSEWHERE = 0.9
"""What a query may take that is compiled in another process, whose start is not counted."""
_MAX_PLAIN_LENGTH = 500
"""Characters of a query with two SELECTs that is compiled in this process."""
_MAX_ROWS = 10
MAX_CELL = 200
"""Characters of a value that are shown."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 2_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
# printf and format can run for seconds inside one step; random and date change on a replay.
_FUNCTIONS = frozenset(
    ("abs", "avg", "coalesce", "count", "glob", "group_concat", "ifnull", "iif", "instr", "length",
     "like", "lower", "ltrim", "max", "min", "nullif", "replace", "round", "rtrim", "substr",
     "substring", "sum", "total", "trim", "typeof", "unicode", "upper")
)  # fmt: skip
_OUT_OF_ORDER = frozenset(
    (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_FULL,
    )
)
_LATE = "the query took too long and was ended"
_MOST_REMEMBERED, _MOST_LETTERS = 16_384, 500
"""Answers that are kept, and the most letters of one and its query: tables may be large."""
_remembered = Remembered[str](_MOST_REMEMBERED)


class ReadOnlyDatabase:
    """Answer SELECT queries over a file, within limits.

    The file is opened read-only and immutable; an authorizer lets only reads and harmless
    functions pass; lengths, depths and the work of a query are bounded. Reads include those of
    `sqlite_master`, in which an agent finds the tables and their columns.

    What is counted is the work of a compiled query. To compile one can take for ever too, for
    sqlite copies a subquery or an expression wherever its name stands, and twenty that each
    use the last one twice make a million copies. So a query that could do that is compiled and
    run in another process, which is killed when late. All databases share it.

    Short answers to short queries are remembered, by all databases of the process over the same
    file: who trains asks the same again and again. So the file must not be changed in place.

    Args:
        path: An sqlite file.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._file = identity(self.path)
        self._connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._connection.execute("PRAGMA query_only = ON")
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(_authorize)

    def query(self, sql: str) -> str:
        """Run one SELECT and return its rows as text: a row a line, values separated by commas.

        Raises:
            ToolError: sqlite refused the query; the message says why.
            ToolTimeout: the query used up its steps and was ended.
            sqlite3.DatabaseError: the file cannot be read, which no query can bring about.
        """
        if not _is_quickly_compiled(sql):
            return self._ask_elsewhere(sql)
        table = _remembered.get((self._file, sql))
        if table is None:
            table = self.query_here(sql)
            if len(sql) + len(table) <= _MOST_LETTERS:
                _remembered.keep((self._file, sql), table)
        return table

    def _ask_elsewhere(self, sql: str) -> str:
        try:
            return str(_ELSEWHERE(path=self.path, sql=sql))
        except Late:
            raise ToolTimeout(_LATE) from None

    def query_here(self, sql: str) -> str:
        """Do what `query` does in this process and anew, whatever it takes to compile the query."""
        calls, deadline = 0, time.monotonic() + _SECONDS

        def tired() -> bool:
            nonlocal calls
            calls += 1
            return calls > _CALLS or time.monotonic() > deadline

        self._connection.set_progress_handler(tired, _STEPS_PER_CALL)
        try:
            rows = self._connection.execute(sql).fetchmany(_MAX_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _OUT_OF_ORDER:
                raise
            if code == sqlite3.SQLITE_INTERRUPT:
                raise ToolTimeout(_LATE) from None
            raise ToolError(str(error)[:200]) from None
        return _table(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        # A connection cannot be copied or sent to another process; its path can.
        return ReadOnlyDatabase, (self.path,)


def quoted(text: str) -> str:
    """Write a string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _is_quickly_compiled(sql: str) -> bool:
    """Tell whether too few and too short SELECTs are there for copies of copies of copies."""
    sources = len(re.findall("select|values", sql, re.IGNORECASE))
    return sources < 2 or (sources == 2 and len(sql) <= _MAX_PLAIN_LENGTH)


def _query_here(path: Path, sql: str) -> str:
    return _opened(*identity(path)).query_here(sql)


_ELSEWHERE = Killable(_query_here, _SECONDS_ELSEWHERE)


@lru_cache(maxsize=16)
def _opened(path: Path, *_: int) -> ReadOnlyDatabase:
    """Return the same connection until another file takes the place of this one."""
    return ReadOnlyDatabase(path)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() in _FUNCTIONS
    else:
        allowed = action in _ACTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _table(rows: list[tuple[object, ...]]) -> str:
    lines = [", ".join("NULL" if v is None else str(v)[:MAX_CELL] for v in row) for row in rows]
    if len(lines) > _MAX_ROWS:
        lines[_MAX_ROWS:] = ["(more rows; only the first 10 are shown)"]
    return "\n".join(lines) if rows else "no rows"
