"""Questions that one query answers: templates, their subjects, and the tasks they make."""

import hashlib
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import ClassVar

from ..plans import Plan, PlannedEnv
from ..scoring import all_differ
from ..speech import CHARSET, harmless
from ..tools import Tool
from ..tools.sql import MAX_CELL, ReadOnlyDatabase, quoted

Subject = dict[str, str | int | float]
"""What a question is about: the values of its parameters by name."""


@dataclass(frozen=True)
class Template:
    """Questions of one kind, which differ in their subject alone."""

    kind: str
    """What is asked for."""
    sql: str
    """A query for one value; `{name}` stands for the literal of that parameter."""
    phrases: tuple[str, ...]
    """Wordings of the question, with the same parameters."""
    paraphrases: tuple[str, ...]
    """Wordings that the split `paraphrase` has to itself."""


@dataclass(frozen=True)
class Topic:
    """Templates that can all be asked about the same subjects."""

    templates: tuple[Template, ...]
    subjects: Sequence[Subject]
    identity: str = "{name}"
    """What no two splits share of a subject: its parameters, as `str.format` writes them."""

    def of_split(self, split: str) -> "Topic":
        """Return the topic with the subjects of one split, as far as they can be said."""
        own = [s for s in self.subjects if split_of(self.identity.format(**s)) == split]
        said = [s for s in own if all(_is_sayable(str(value)) for value in s.values())]
        return replace(self, subjects=said)


class DatabaseEnv(PlannedEnv):
    """Base of the environments that ask for facts in a database, with one read-only SQL tool.

    A subclass names its `instructions` and `levels`, the file and the topics of each level. The
    siblings of a task are four questions about each of two subjects of one topic. A question
    is asked only if its query returns one row, which says all of its value: so nothing is tied,
    missing or cut off.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "paraphrase")
    levels: ClassVar[tuple[str, ...]] = ("lookup", "join", "aggregate")
    max_choices = 8

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self._database = ReadOnlyDatabase(self.database_path())
        self._tools = {"sql": Tool(self.sql)}
        own = "test" if split == "paraphrase" else split
        self._topics = _topics_of(type(self).topics, str(self.level), own)

    @staticmethod
    @abstractmethod
    def database_path() -> Path:
        """Return the sqlite file, built from its pinned sources on the first call.

        Raises:
            AssetError: a source cannot be had.
        """

    @staticmethod
    @abstractmethod
    def topics(level: str) -> tuple[Topic, ...]:
        """Return what a level asks about, with the subjects of all splits."""

    @property
    def tools(self) -> dict[str, Tool]:
        """The database."""
        return self._tools

    def sql(self, query: str) -> str:
        """Run one SELECT statement on the database and return its rows.

        Args:
            query: An sqlite SELECT statement.
        """
        return self._database.query(query)

    def _siblings(self) -> list[Plan]:
        """Draw two subjects of one topic, and four of its templates for both."""
        topic = self._topics[self._draw(len(self._topics))]
        while True:
            subjects = self._sample(topic.subjects, 2)
            siblings: list[Plan] = []
            for template, subject in product(self._sample(topic.templates, 4), subjects):
                plan = self._plan(template, subject)
                if plan is None:
                    break
                siblings.append(plan)
            if len(siblings) == self.max_choices and all_differ([s.answer for s in siblings]):
                return siblings

    def _plan(self, template: Template, subject: Subject) -> Plan | None:
        """Return the task of asking a template about a subject, if it has one right answer."""
        query = template.sql.format(**{key: _literal(value) for key, value in subject.items()})
        said = self._database.query(query)
        if said in ("", "NULL", "no rows") or "\n" in said or len(said) >= MAX_CELL:
            return None
        if not _is_sayable(said):
            return None
        phrases = template.paraphrases if self.split == "paraphrase" else template.phrases
        question = phrases[self._draw(len(phrases))].format(**subject)
        return Plan(template.kind, question, (f"<sql>{query}</sql>",), said)


def template(kind: str, sql: str, *wordings: str) -> Template:
    """Return a template whose last two wordings are for `paraphrase` alone."""
    return Template(kind, sql, wordings[:-2], wordings[-2:])


def fact(table: str, column: str, *wordings: str) -> Template:
    """Return the template that asks for one column of the row with the subject's name."""
    sql = f"SELECT {column} FROM {table} WHERE name = {{name}}"
    return template(f"{table}.{column}", sql, *wordings)


def extreme(column: str, which: str, of: str, rows: str) -> str:
    """Write a query for a column of the row that has the `min` or `max` of another one.

    It returns every such row, so that a tie shows.

    Args:
        column: What is asked for.
        which: `min` or `max`.
        of: What is least or most.
        rows: What stands after FROM, with a WHERE clause.
    """
    return f"SELECT {column} FROM {rows} AND {of} = (SELECT {which}({of}) FROM {rows})"


def rows_of(path: Path, sql: str) -> list[Subject]:
    """Return the rows that a trusted query finds, each by the names of its columns."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def split_of(identity: str) -> str:
    """Return the split that asks about this: two tenths test, one validation, by a hash."""
    tenth = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) % 10
    return {0: "test", 1: "test", 2: "validation"}.get(tenth, "train")


@cache
def _topics_of(
    topics: Callable[[str], tuple[Topic, ...]], level: str, split: str
) -> tuple[Topic, ...]:
    return tuple(topic.of_split(split) for topic in topics(level))


def _literal(value: str | int | float) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


def _is_sayable(text: str) -> bool:
    return CHARSET.issuperset(text) and harmless(text) == text
