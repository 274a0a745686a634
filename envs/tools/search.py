"""Full-text search over a file of pages, which no query can change, hang or leave."""

import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from . import ToolError, ToolTimeout
from .remembering import Remembered, identity

_HITS, _PASSAGES = 5, 3
_MAX_WORDS = 32
"""Different words of a query: the time it takes grows with them."""
_WORD = re.compile(r"[^\W_]{1,60}")
"""Cut, because FTS5 may see a phrase of many words where Python sees a long one."""
_COMMON = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "by", "do", "does", "for", "from", "has", "have",
     "how", "in", "is", "it", "its", "many", "much", "of", "on", "or", "s", "that", "the", "their",
     "to", "was", "were", "what", "when", "where", "which", "who", "whose", "with")
)  # fmt: skip
"""Words that are looked for only where there is nothing else: they stand on every page."""
_HIT_LENGTH, _PASSAGE_LENGTH = 400, 680
"""Characters of a hit, and of a passage, so that all of them fit into a message."""
_STEPS_PER_CALL, _SECONDS = 1_000, 1.0
"""A query ends after this time; the 32 commonest words take less than a tenth of it."""
_MOST_REMEMBERED = 16_384
"""Results that are kept, about 2 KB each: who trains asks the same again and again."""
_SCHEMA = """
CREATE TABLE pages (id INTEGER PRIMARY KEY, name TEXT UNIQUE, title TEXT, text TEXT);
CREATE VIRTUAL TABLE found USING fts5(
    title, text, content = 'pages', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2');
"""
_INSERT = "INSERT INTO pages (name, title, text) VALUES (?, ?, ?)"
# A word in a title counts ten times: titles name the subject of a page and what it tells.
_FINISH = """
INSERT INTO found (found) VALUES ('rebuild');
INSERT INTO found (found, rank) VALUES ('rank', 'bm25(10.0, 1.0)');
INSERT INTO found (found) VALUES ('optimize');
"""
_FOUND = "FROM found JOIN pages ON pages.id = found.rowid WHERE found MATCH ? ORDER BY rank"
_LIST = f"""
SELECT name, pages.title, snippet(found, 1, '', '', '...', 24) {_FOUND} LIMIT {_HITS}
"""
_SHOW = f"SELECT pages.title, pages.text {_FOUND} LIMIT {_PASSAGES}"
_OPEN = "SELECT title, text FROM pages WHERE name = ?"
_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
_FUNCTIONS = {"match", "bm25", "snippet"}
_Row = tuple[str, ...]
_remembered = Remembered[list[_Row]](_MOST_REMEMBERED)


class TextIndex(ABC):
    """Find texts in a file, within limits.

    An agent's words never become SQL, nor the language of full-text queries: each is quoted and
    bound. Behind that the file is opened read-only and immutable, and an authorizer lets only
    the statements pass that are needed here.

    Args:
        path: A file that `write_pages` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = identity(path)
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only = ON")
        # FTS5 opens its own tables at the first match, by statements that are not let pass.
        self._connection.execute(_LIST, ('"palaestra"',)).fetchall()
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.set_authorizer(_authorize)

    @property
    @abstractmethod
    def tools(self) -> tuple[Callable[..., str], ...]:
        """What an agent may call."""

    @abstractmethod
    def search(self, query: str) -> str:
        """Search all texts for words, and tell of those that fit best, a line each."""

    def _found(self, statement: str, query: str) -> list[_Row]:
        """Return what a statement selects of the texts that fit a query best."""
        words = list(dict.fromkeys(_WORD.findall(query.lower())))
        words = [word for word in words if word not in _COMMON] or words
        if not words:
            raise ToolError("there are no words in the query; search for a few words")
        if len(words) > _MAX_WORDS:
            raise ToolError(f"the query has {len(words)} words; search for at most {_MAX_WORDS}")
        return self._rows(statement, " OR ".join(f'"{word}"' for word in words))

    def _rows(self, sql: str, words: str) -> list[_Row]:
        """Return what a statement selects, from memory if that was asked before."""
        key = (self._file, sql, words)
        rows = _remembered.get(key)
        if rows is None:
            rows = self._selected(sql, words)
            if rows:  # a page that there is not may have a name of any length
                _remembered.keep(key, rows)
        return rows

    def _selected(self, sql: str, words: str) -> list[_Row]:
        deadline = time.monotonic() + _SECONDS
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_PER_CALL)
        try:
            return self._connection.execute(sql, (words,)).fetchall()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                raise ToolTimeout("the search took too long and was ended") from None
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        # A connection cannot be copied or sent to another process; its path can.
        return type(self), (self.path,)


class PageIndex(TextIndex):
    """Pages: a search lists them, and one is then opened."""

    @property
    def tools(self) -> tuple[Callable[..., str], ...]:
        """The search, and opening a page."""
        return self.search, self.open_page

    def search(self, query: str) -> str:
        """Search all pages for words, and list the five that fit best.

        Args:
            query: A few words, such as "capital of France".

        Raises:
            ToolError: there are no words in it, or too many.
            ToolTimeout: the search took too long and was ended.
            sqlite3.DatabaseError: the file cannot be read, which no query can bring about.
        """
        hits = self._found(_LIST, query)
        lines = (f"{name} | {title}: {' '.join(said.split())}" for name, title, said in hits)
        return "\n".join(line[:_HIT_LENGTH] for line in lines) or "no page has these words"

    def open_page(self, page: str) -> str:
        """Show one page in full.

        Args:
            page: The name of a page, as search lists it, such as "france/government/2".

        Raises:
            ToolError: there is no such page.
            sqlite3.DatabaseError: the file cannot be read, which no name can bring about.
        """
        name = "".join(c for c in page.strip().lower() if c.isprintable())
        rows = self._rows(_OPEN, name)
        if not rows:
            raise ToolError(f"there is no page {name[:60]!r}; open one that a search has listed")
        (title, text), *_ = rows
        return f"{title}\n{text}"


class PassageIndex(TextIndex):
    """Passages: a search shows them."""

    @property
    def tools(self) -> tuple[Callable[..., str], ...]:
        """The search."""
        return (self.search,)

    def search(self, query: str) -> str:
        """Search all passages for words, and show the three that fit best.

        Args:
            query: A few words, such as "capital of France".

        Raises:
            ToolError: there are no words in it, or too many.
            ToolTimeout: the search took too long and was ended.
            sqlite3.DatabaseError: the file cannot be read, which no query can bring about.
        """
        lines = (f"{title}: {text}" for title, text in self._found(_SHOW, query))
        return "\n".join(line[:_PASSAGE_LENGTH] for line in lines) or "no passage has these words"


def write_pages(path: Path, pages: Iterable[tuple[str, str, str]]) -> None:
    """Write pages or passages (name, title, text) and their index into a new file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SCHEMA)
        connection.executemany(_INSERT, pages)
        connection.executescript(_FINISH)
        connection.commit()
        connection.execute("VACUUM")


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = second in _FUNCTIONS
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = (first, second) == ("data_version", None)  # how FTS5 sees that others wrote
    else:
        allowed = action in _ACTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
