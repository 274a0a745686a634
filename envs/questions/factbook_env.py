"""Questions about the countries of the world, whose answers The World Factbook has."""

import re
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar

import numpy as np

from ..plans import Plan, PlannedEnv
from ..scoring import folded, is_same
from ..tools import Tool
from .factbook_comparisons import Triple, winners
from .factbook_facts import MONTHS
from .factbook_phrases import PHRASES, listed, spoken, superlative
from .factbook_questions import Question, Steps
from .factbook_store import SPLITS, Form

_SHARED_KINDS = 4
"""Facts that two sibling countries are asked about."""
_UNIT = re.compile(
    r"(?<=\d) ?(?:sq(?:uare)?\.? ?k(?:m|ilomet(?:re|er)s)|k(?:m|ilomet(?:re|er)s)2?|years"
    r"|people|inhabitants)$"
)
_MONTH_FIRST = re.compile(rf"\b({MONTHS.lower()}) (\d{{1,2}}),? (\d{{4}})")
_SHORT = {"mt": "mount", "st": "saint"}


class FactbookEnv(PlannedEnv):
    """Base of the environments that ask what The World Factbook says.

    A subclass sets `form`, in which the factbook is searched, `turns` and `instructions`.

    Args:
        split: Which countries or questions are asked: one of `splits`; `paraphrase` asks those of
            `test` in other words.
        level: How many texts an answer takes: one of `levels`, the first by default.
        render_mode: `ansi`, or None.

    Raises:
        UserError: there is no such split, level or render mode.
    """

    form: ClassVar[Form]
    """In which the factbook can be searched."""
    turns: ClassVar[dict[str, int]]
    """Messages that the agent may send, by level."""
    splits: ClassVar[tuple[str, ...]] = (*SPLITS, "paraphrase")
    levels: ClassVar[tuple[str, ...]] = ("one-hop", "multi-hop", "comparison")
    max_choices = 8

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self.max_turns = self.turns[self.level or ""]
        index = self.form.index(self.form.index_path())
        self._tools = {tool.name: tool for tool in map(Tool, index.tools)}
        self._asked = self.form.asked("test" if split == "paraphrase" else split)

    @property
    def tools(self) -> dict[str, Tool]:
        """What searches the factbook."""
        return self._tools

    def _siblings(self) -> list[Plan]:
        if self.level == "one-hop":
            return self._same_facts_of_two()
        return self._same_kind() if self.level == "multi-hop" else self._same_six()

    def _same_facts_of_two(self) -> list[Plan]:
        """Draw two countries, and four of the facts that are asked of both."""
        while True:
            one, other = (self._asked.countries[i] for i in self._picked(self._asked.countries, 2))
            shared = [kind for kind in one if kind in other]
            if len(shared) >= _SHARED_KINDS:
                kinds = [shared[i] for i in self._picked(shared, _SHARED_KINDS)]
                plans = [self._worded(of[kind]) for of in (one, other) for kind in kinds]
                if len({folded(plan.answer) for plan in plans}) == len(plans):
                    return plans

    def _same_kind(self) -> list[Plan]:
        """Draw questions about the same, which take as many calls each."""
        groups = self._asked.groups
        ends = list(accumulate(len(group) for group in groups))
        group = groups[bisect(ends, self._draw(ends[-1]))]
        drawn: dict[str, Question] = {}
        for i in self._picked(group, len(group)):
            drawn.setdefault(folded(group[i].answer), group[i])
            if len(drawn) == self.max_choices:
                break
        return [self._worded(question) for question in drawn.values()]

    def _same_six(self) -> list[Plan]:
        """Draw six countries, and for each a question that it is the answer to."""
        i, j = self._asked.sixes[self._draw(len(self._asked.sixes))]
        one, other = self._asked.triples[i], self._asked.triples[j]
        return [
            self._compared(one, other, name, *won[self._draw(len(won))])
            for name, won in winners(one, other).items()
        ]

    def _compared(self, one: Triple, other: Triple, answer: str, fact: str, rank: str) -> Plan:
        names = one.names + other.names
        steps = one.steps[fact].then(other.steps[fact])
        words = {
            "names": listed([names[i] for i in self._picked(names, len(names))]),
            "most": superlative(fact, rank, self.split == "paraphrase"),
        }
        return self._plan(f"{rank.replace(' ', '-')}-{fact}", "comparison", words, answer, steps)

    def _worded(self, question: Question) -> Plan:
        words = {key: spoken(name) for key, name in question.names.items()}
        fact = question.kind.removeprefix("neighbour-")
        if fact != question.kind:
            words["most"] = superlative(fact, "largest", self.split == "paraphrase")
        return self._plan(question.kind, question.kind, words, question.answer, question.steps)

    def _plan(
        self, kind: str, phrases: str, words: dict[str, str], answer: str, steps: Steps
    ) -> Plan:
        wordings = PHRASES[phrases][self.split == "paraphrase"]
        asked = wordings[self._draw(len(wordings))].format(**words)
        return Plan(kind, asked, steps.calls, answer, {"gold": steps.gold})

    def _picked(self, among: Sequence[object], count: int) -> list[int]:
        """Draw places without replacement."""
        return [int(i) for i in np.argsort(self.np_random.random(len(among)))[:count]]

    def _judge(self, answer: str) -> bool | str:
        truth = self.task.plan.answer
        forms = (truth, *self._asked.also.get(truth, ()))
        return any(is_same(_bare(answer), _bare(form)) for form in forms)


def _bare(text: str) -> str:
    """Return an answer without article, quotes and unit, its date with the day first."""
    text = folded(text).strip("\"“”‘’' .").removeprefix("the ")
    text = _MONTH_FIRST.sub(r"\2 \1 \3", _UNIT.sub("", text))
    return re.sub(r"\b(mt|st)\b\.?", lambda short: _SHORT[short[1]], text)
