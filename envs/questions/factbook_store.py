"""What is kept in the cache of the World Factbook: an index, and the questions of each split."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ... import assets
from ..scoring import folded
from ..tools.search import PageIndex, PassageIndex, TextIndex, write_pages
from .factbook_comparisons import Triple, sixes, triples
from .factbook_facts import FACTS, also_called
from .factbook_pages import Entry, Page, entries
from .factbook_questions import (
    Finder,
    PageFinder,
    PassageFinder,
    Question,
    Steps,
    multi_hop,
    one_hop,
    split_of,
)  # fmt: skip

SPLITS = ("train", "validation", "test")
_INDEX, _QUESTIONS = "pages.sqlite", "questions.json"
_FEWEST = 6
"""Different answers among siblings, so that a guess is right in less than a fifth of the tasks."""


class Asked(NamedTuple):
    """What a split asks."""

    countries: list[dict[str, Question]]
    """Questions of one hop by kind, for each country."""
    groups: list[list[Question]]
    """Questions of several hops that may be siblings."""
    triples: list[Triple]
    """Countries to compare."""
    sixes: list[tuple[int, int]]
    """Which two triples make a comparison."""
    also: dict[str, list[str]]
    """Other forms of an answer."""


@dataclass(frozen=True)
class Form:
    """A form in which the factbook can be searched."""

    key: str
    """Its name in the cache."""
    texts: Callable[[Entry], tuple[Page, ...]]
    """What of an entry a search finds."""
    index: type[TextIndex]
    """What searches."""
    finder: type[Finder]
    """What finds facts by search."""

    def index_path(self) -> Path:
        """Return the index, built on the first call.

        Raises:
            AssetError: the factbook cannot be had.
        """
        return self._built() / _INDEX

    def asked(self, split: str) -> Asked:
        """Return what one of the splits asks.

        Raises:
            AssetError: the factbook cannot be had.
        """
        return _asked(self, split)

    def build(self, folder: Path) -> None:
        """Write the texts with their index, and the questions that can be answered by search."""
        folder.mkdir()
        found = entries()
        write_pages(folder / _INDEX, (text for entry in found for text in self.texts(entry)))
        finder = self.finder(found, self.index(folder / _INDEX))
        drawn = {split: list(triples(finder, split)) for split in SPLITS}
        written = {
            "one-hop": list(one_hop(finder)),
            "multi-hop": list(multi_hop(finder)),
            "triples": drawn,
            "sixes": {split: sixes(some) for split, some in drawn.items()},
            "also": dict(_also(finder)),
        }
        (folder / _QUESTIONS).write_text(json.dumps(written), "utf-8")

    def questions_path(self) -> Path:
        """Return what all splits ask, built on the first call.

        Raises:
            AssetError: the factbook cannot be had.
        """
        return self._built() / _QUESTIONS

    def _built(self) -> Path:
        return assets.built(self.key, self.build, assets.FACTBOOK)


PAGES = Form("factbook-1", lambda entry: entry.pages, PageIndex, PageFinder)
"""Pages of at most 120 words: a search lists them, and they are opened by name."""
PASSAGES = Form("almanac-1", lambda entry: entry.passages, PassageIndex, PassageFinder)
"""Fields of the entries, which a search shows."""


@cache
def _asked(form: Form, split: str) -> Asked:
    written: dict[str, Any] = json.loads(form.questions_path().read_text("utf-8"))
    countries: dict[str, dict[str, Question]] = defaultdict(dict)
    for question in map(_question, written["one-hop"]):
        if split_of(question.names["name"]) == split:
            countries[question.names["name"]][question.kind] = question
    return Asked(
        list(countries.values()),
        list(_groups(map(_question, written["multi-hop"]), split)),
        [_triple(row) for row in written["triples"][split]],
        written["sixes"][split],
        written["also"],
    )


def _also(finder: Finder) -> Iterator[tuple[str, list[str]]]:
    for name, entry in finder.entries.items():
        yield name, also_called(entry)
        for kind in ("capital", "peak", "anthem"):
            answer = finder.value(kind, name)
            if answer and (forms := FACTS[kind].also(entry)):
                yield answer, forms


def _groups(questions: Iterator[Question], split: str) -> Iterator[list[Question]]:
    """Group the questions of a split by what they are about and how many calls they take."""
    groups: dict[tuple[str, int], list[Question]] = defaultdict(list)
    for question in questions:
        if split_of(f"{question.kind} {question.names}") == split:
            about = "neighbour" if question.kind.startswith("neighbour") else question.kind
            groups[about, len(question.steps.calls)].append(question)
    for group in groups.values():
        if len({folded(question.answer) for question in group}) >= _FEWEST:
            yield group


def _question(row: list[Any]) -> Question:
    kind, names, answer, steps = row
    return Question(kind, names, answer, _steps(steps))


def _triple(row: list[Any]) -> Triple:
    names, values, steps = row
    numbers = {fact: tuple(some) for fact, some in values.items()}
    return Triple(tuple(names), numbers, {fact: _steps(some) for fact, some in steps.items()})


def _steps(row: list[list[str]]) -> Steps:
    calls, gold = row
    return Steps(tuple(calls), tuple(gold))
