"""Questions about the World Factbook, each with steps to its answer that were tried.

The steps are searches, and openings of pages that the search listed. Where a search does not
find the text that is needed, other words are tried; where none do, the question is left out.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import combinations
from typing import ClassVar, NamedTuple

from ..scoring import folded
from ..tools.search import PageIndex, TextIndex
from .factbook_facts import BORDERS, COMPARED, FACTS, Fact, borders
from .factbook_pages import EUROPEAN_UNION, WORLD, Entry, Path

_ASKED = (
    "capital", "currency", "peak", "anthem", "independence", "domain", "area", "population",
    "coastline", "life",
)  # fmt: skip
_NEIGHBOURS = range(2, 6)
_MOST_CALLS = 9


class Steps(NamedTuple):
    """Messages that bring pages or passages before the agent."""

    calls: tuple[str, ...]
    """The messages, in order."""
    gold: tuple[str, ...]
    """Names of the pages, each of which is opened by a message, or the passages themselves."""

    def then(self, other: "Steps") -> "Steps":
        """Return these steps and after them others."""
        return Steps(self.calls + other.calls, self.gold + other.gold)


class Question(NamedTuple):
    """A question before it is put into words."""

    kind: str
    """What is asked for."""
    names: dict[str, str]
    """What is named in it, by the place-holders of the phrasings."""
    answer: str
    """Stands in a gold text."""
    steps: Steps
    """How it is found."""


def split_of(identity: str) -> str:
    """Return the split for a question, or for a country, that goes by `identity`."""
    tenth = int.from_bytes(sha256(identity.encode()).digest()[:4]) % 10
    return {0: "test", 1: "test", 2: "validation"}.get(tenth, "train")


class Finder(ABC):
    """Finds facts of countries and territories as an agent does, by search.

    Args:
        entries: The whole factbook.
        index: What of it is searched.
    """

    calls_of_three: ClassVar[int]
    """Calls that bring a fact of three countries."""

    def __init__(self, entries: list[Entry], index: TextIndex) -> None:
        self.entries = {e.name: e for e in entries if e.code not in (WORLD, EUROPEAN_UNION)}
        self._index = index
        self._seen: dict[str, frozenset[str]] = {}

    def value(self, fact: str, name: str) -> str | None:
        """Return a fact of a country, None where the factbook does not tell it plainly."""
        return FACTS[fact].of(self.entries[name])

    @abstractmethod
    def steps_to(self, fact: Fact, names: Sequence[str]) -> Steps | None:
        """Return steps to a fact of each country."""

    def steps_from(self, subject: str, fact: Fact, names: Sequence[str]) -> Steps | None:
        """Return one search for `subject`, worded so that it finds the fact of each country."""
        gold = tuple(g for name in names if (g := self._telling(fact, self.entries[name])))
        if len(gold) < len(names):
            return None
        for words in fact.queries:
            query = f"{subject} {words}"
            if query not in self._seen:
                hits = self._index.search(query).split("\n")
                self._seen[query] = frozenset(map(self._known_by, hits))
            if {*gold} <= self._seen[query]:
                return Steps((f"<search>{query}</search>", *self._opened(gold)), gold)
        return None

    @abstractmethod
    def says(self, steps: Steps, words: str) -> bool:
        """Tell whether every text that the steps bring has the words."""

    def _telling(self, fact: Fact, entry: Entry) -> str | None:
        """Return by what an agent knows the text that tells a fact."""
        words = fact.of(entry)
        return self._gold(entry, fact.path, words) if words else None

    @abstractmethod
    def _gold(self, entry: Entry, path: Path, words: str) -> str | None:
        """Return by what an agent knows the text in which the field at `path` says `words`."""

    def _known_by(self, hit: str) -> str:
        """Return by what an agent knows the text that a line of a search's result is about."""
        return hit

    def _opened(self, gold: tuple[str, ...]) -> Iterable[str]:
        """Return the messages that it takes after a search to read what it found."""
        return ()


class PageFinder(Finder):
    """Finds pages in a `PageIndex`, then opens them by name."""

    calls_of_three = 4
    _index: PageIndex

    def steps_to(self, fact: Fact, names: Sequence[str]) -> Steps | None:
        """Return steps to a fact of each country: one search if that finds all, else several."""
        steps = self.steps_from(" ".join(names), fact, names)
        if steps or len(names) == 1:
            return steps
        middle = (len(names) + 1) // 2
        first, second = self.steps_to(fact, names[:middle]), self.steps_to(fact, names[middle:])
        return first.then(second) if first and second else None

    def says(self, steps: Steps, words: str) -> bool:
        """Tell whether every page that the steps open has the words."""
        return all(words in self._index.open_page(page) for page in steps.gold)

    def _gold(self, entry: Entry, path: Path, words: str) -> str | None:
        page = entry.page_with(path, words)
        return page and page.name

    def _known_by(self, hit: str) -> str:
        return hit.partition(" | ")[0]

    def _opened(self, gold: tuple[str, ...]) -> Iterable[str]:
        return (f"<open_page>{page}</open_page>" for page in gold)


class PassageFinder(Finder):
    """Finds passages in a `PassageIndex`, which are read at once."""

    calls_of_three = 3

    def steps_to(self, fact: Fact, names: Sequence[str]) -> Steps | None:
        """Return a search for each country: the passages of several hardly come together."""
        steps = Steps((), ())
        for name in names:
            more = self.steps_from(name, fact, [name])
            if not more:
                return None
            steps = steps.then(more)
        return steps

    def says(self, steps: Steps, words: str) -> bool:
        """Tell whether every passage has the words."""
        return all(words in passage for passage in steps.gold)

    def _gold(self, entry: Entry, path: Path, words: str) -> str | None:
        passage = entry.passage_with(path, words)
        return passage and f"{passage.title}: {passage.text}"


def one_hop(finder: Finder) -> Iterator[Question]:
    """Ask for one fact of a country."""
    for name in finder.entries:
        for kind in _ASKED:
            answer, steps = finder.value(kind, name), finder.steps_to(FACTS[kind], [name])
            # The name of Singapore tells its capital.
            if answer and steps and folded(answer) not in folded(name):
                yield Question(kind, {"name": name}, answer, steps)


def multi_hop(finder: Finder) -> Iterator[Question]:
    """Ask for what is told only by two pages or more, the second found from the first."""
    around = {name: borders(entry) for name, entry in finder.entries.items()}
    yield from _borders_both(finder, around)
    yield from _of_the_country_with("peak", "capital", finder)
    for kind in ("capital", "peak", "currency"):
        yield from _of_the_country_with("anthem", kind, finder)
    yield from _longest_border(finder, around)
    yield from _neighbour_with_most(finder, around)


def _borders_both(finder: Finder, around: dict[str, dict[str, float]]) -> Iterator[Question]:
    for one, other in combinations(sorted(around), 2):
        common = around[one].keys() & around[other].keys()
        if len(common) == 1:
            answer = common.pop()
            there, then = (finder.steps_to(BORDERS, [name]) for name in (one, other))
            steps = there and then and there.then(then)
            mutual = around.get(answer, {}).keys() >= {one, other}
            if steps and mutual and finder.says(steps, answer):
                yield Question("borders-both", {"one": one, "other": other}, answer, steps)


def _of_the_country_with(clue: str, kind: str, finder: Finder) -> Iterator[Question]:
    """Name what one country alone has, and ask for another fact of that country."""
    for name in _clear(clue, finder):
        words, answer = finder.value(clue, name), finder.value(kind, name)
        if words and answer:
            there = finder.steps_from(words, FACTS[clue], [name])
            then = finder.steps_to(FACTS[kind], [name])
            if there and then and there.gold != then.gold:
                yield Question(f"{clue}-{kind}", {"clue": words}, answer, there.then(then))


def _clear(clue: str, finder: Finder) -> Iterator[str]:
    """Yield the countries that are meant by a clue, and no other is.

    Two neighbours may share a mountain and spell it in two ways: its height gives them away.
    """
    told = [folded(e.fields.get(FACTS[clue].path, "")) for e in finder.entries.values()]
    heights = Counter(finder.value("height", name) for name in finder.entries)
    for name in finder.entries:
        words, height = finder.value(clue, name), finder.value("height", name)
        mentioned = sum(folded(words) in text for text in told) if words else 0
        if mentioned == 1 and (clue != "peak" or heights[height] == 1):
            yield name


def _longest_border(finder: Finder, around: dict[str, dict[str, float]]) -> Iterator[Question]:
    for name, lengths in around.items():
        neighbour = _first(lengths)
        if neighbour in finder.entries and len(lengths) > 1:
            answer = finder.value("capital", neighbour)
            there = finder.steps_to(BORDERS, [name])
            then = finder.steps_to(FACTS["capital"], [neighbour])
            if answer and there and then:
                yield Question("longest-border", {"name": name}, answer, there.then(then))


def _neighbour_with_most(finder: Finder, around: dict[str, dict[str, float]]) -> Iterator[Question]:
    for name, lengths in around.items():
        if len(lengths) not in _NEIGHBOURS or not lengths.keys() <= finder.entries.keys():
            continue
        for fact in COMPARED:
            numbers = {n: FACTS[fact].number_of(finder.entries[n]) for n in lengths}
            answer = _first({n: v for n, v in numbers.items() if v is not None})
            there = finder.steps_to(BORDERS, [name])
            then = finder.steps_to(FACTS[fact], list(lengths))
            if answer and there and then and len(there.calls + then.calls) <= _MOST_CALLS:
                yield Question(f"neighbour-{fact}", {"name": name}, answer, there.then(then))


def _first(numbers: dict[str, float]) -> str | None:
    """Return the name with the largest number, if only one has it."""
    most = [name for name, value in numbers.items() if value == max(numbers.values())]
    return most[0] if len(most) == 1 else None
