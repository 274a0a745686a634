"""What Factbook keeps in the cache: the index of the pages, and the questions of each split."""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ... import assets
from ..scoring import folded
from ..tools.search import PageIndex, write_pages
from .factbook_comparisons import Triple, sixes, triples
from .factbook_facts import FACTS, also_called
from .factbook_pages import entries
from .factbook_questions import Finder, Question, Steps, multi_hop, one_hop, split_of

SPLITS = ("train", "validation", "test")
_PAGES, _QUESTIONS = "pages.sqlite", "questions.json"
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


def pages_path() -> Path:
    """Return the index of the factbook's pages, built on the first call.

    Raises:
        AssetError: the factbook cannot be had.
    """
    return _built() / _PAGES


@cache
def asked(split: str) -> Asked:
    """Return what one of the splits asks.

    Raises:
        AssetError: the factbook cannot be had.
    """
    written: dict[str, Any] = json.loads((_built() / _QUESTIONS).read_text("utf-8"))
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


def build_factbook(folder: Path) -> None:
    """Write the pages with their index, and the questions that can be answered by search."""
    folder.mkdir()
    found = entries()
    write_pages(folder / _PAGES, (page for entry in found for page in entry.pages))
    finder = Finder(found, PageIndex(folder / _PAGES))
    drawn = {split: list(triples(finder, split)) for split in SPLITS}
    written = {
        "one-hop": list(one_hop(finder)),
        "multi-hop": list(multi_hop(finder)),
        "triples": drawn,
        "sixes": {split: sixes(some) for split, some in drawn.items()},
        "also": dict(_also(finder)),
    }
    (folder / _QUESTIONS).write_text(json.dumps(written), "utf-8")


def _built() -> Path:
    return assets.built("factbook-1", build_factbook, assets.FACTBOOK)


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
