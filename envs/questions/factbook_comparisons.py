"""Comparisons of six countries, put together from threes that are found in as many calls."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .factbook_facts import COMPARED, FACTS
from .factbook_questions import Finder, Steps, split_of

RANKS = ("largest", "second largest", "second smallest", "smallest")
"""What is asked for: the country that comes first by a number, and so on."""
_TRIED = {"train": 120, "validation": 40, "test": 60}
"""Threes of each split: any two with different countries may make six."""
_LEAST_FACTS = 5


class Triple(NamedTuple):
    """Three countries, and by what they can be compared."""

    names: tuple[str, ...]
    """How they are called."""
    values: dict[str, tuple[float, ...]]
    """Their numbers, by fact."""
    steps: dict[str, Steps]
    """How these are found, by fact, in as many calls each."""


Criterion = tuple[str, str]
"""A fact and a rank."""


def triples(finder: Finder, split: str) -> Iterator[Triple]:
    """Draw threes of countries of a split."""
    known = {
        name: {f: v for f in COMPARED if (v := FACTS[f].number_of(entry)) is not None}
        for name, entry in finder.entries.items()
        if split_of(name) == split
    }
    names = [name for name, values in known.items() if len(values) >= _LEAST_FACTS]
    every = list(combinations(names, 3))
    for i in np.random.default_rng(0).permutation(len(every))[: _TRIED[split]]:
        shared = [f for f in COMPARED if all(f in known[name] for name in every[i])]
        found = {f: finder.steps_to(FACTS[f], every[i]) for f in shared}
        steps = {f: to for f, to in found.items() if to and len(to.calls) == finder.calls_of_three}
        if len(steps) >= _LEAST_FACTS:
            values = {f: tuple(known[name][f] for name in every[i]) for f in steps}
            yield Triple(every[i], values, steps)


def sixes(drawn: list[Triple]) -> list[tuple[int, int]]:
    """Return the pairs of threes in which each of the six countries comes out by something."""
    return [
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(drawn), 2)
        if not {*one.names} & {*other.names} and len(winners(one, other)) == 6
    ]


def winners(one: Triple, other: Triple) -> dict[str, list[Criterion]]:
    """Return by what each of six countries comes out, ties left aside."""
    won = defaultdict(list)
    for fact in COMPARED:
        if fact in one.values and fact in other.values:
            values = one.values[fact] + other.values[fact]
            ordered = sorted(zip(values, one.names + other.names, strict=True), reverse=True)
            for rank, place in zip(RANKS, (0, 1, -2, -1), strict=True):
                value, name = ordered[place]
                if values.count(value) == 1:
                    won[name].append((fact, rank))
    return dict(won)
