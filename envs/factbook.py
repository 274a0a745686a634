"""Factbook: questions about the countries of the world, and two tools to look them up."""

import re
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar

import numpy as np

from .plans import Plan, PlannedEnv
from .questions.factbook_comparisons import Triple, winners
from .questions.factbook_facts import MONTHS
from .questions.factbook_phrases import PHRASES, listed, spoken, superlative
from .questions.factbook_questions import Question, Steps
from .questions.factbook_store import SPLITS, asked, pages_path
from .scoring import folded, is_same
from .tools import Tool
from .tools.search import PageIndex

_MAX_TURNS = {"one-hop": 6, "multi-hop": 12, "comparison": 12}
_SHARED_KINDS = 4
"""Facts that two sibling countries are asked about."""
_UNIT = re.compile(
    r"(?<=\d) ?(?:sq(?:uare)?\.? ?k(?:m|ilomet(?:re|er)s)|k(?:m|ilomet(?:re|er)s)2?|years"
    r"|people|inhabitants)$"
)
_MONTH_FIRST = re.compile(rf"\b({MONTHS.lower()}) (\d{{1,2}}),? (\d{{4}})")
_SHORT = {"mt": "mount", "st": "saint"}


class Factbook(PlannedEnv):
    """Answer questions about countries by searching The World Factbook.

    ## Description
    "What is the capital of the country whose national anthem is called "Kassaman"?": search
    for pages, open the one that tells, follow what it says to the next, and report what stands
    there. The factbook has 256 entries on 13,196 pages of at most 120 words. There are three
    levels. In `one-hop` a page tells the answer: ten facts of a country, such as its capital,
    currency or highest point. In `multi-hop` it takes several pages: the one country that
    borders two others, the capital of the country that has a mountain, a fact of the country
    that has an anthem, the capital beyond the longest border, the neighbour with the largest
    population. In `comparison` six countries are named, and one of them is the answer: the one
    with the largest or second largest, smallest or second smallest number. (Of two, every
    other guess would be right.) The splits share no country in `one-hop` and `comparison`, and
    no question in `multi-hop`. `paraphrase` asks about those of `test` in phrasings that no
    other split uses.

    ## Action Space
    `Text`: a message with one call, `<search>France capital</search>` or
    `<open_page>france/government/1</open_page>` (or JSON in `<tool_call>`), or with the answer,
    `<answer>Paris</answer>`.

    ## Observation Space
    `Text`: the question, then what the tools say: the names, titles and excerpts of the five
    pages that fit a search best, or a page. `info["gold"]` has the names of the pages that are
    needed.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither a call nor an
    answer. Case, accents, articles, units and other names of a country do not matter.

    ## Episode End
    Terminated by an answer, or after 6 messages in `one-hop` and 12 in the other levels;
    truncated when the index fails, with `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`: random choices 0.12 in `one-hop` and `multi-hop` (one in eight), 0.17 in
    `comparison` (one in six); oracle 1 in each. On `one-hop` PPO through `AsChoices` and MiniLM
    0.26 (0.20 to 0.32; 6,144 steps, one training seed, 200 episodes), where random choices took
    0.16 (0.11 to 0.21) of the same tasks; SmolLM2-135M-Instruct, 2 shots, greedy 0.03 (0.01 to
    0.05; 200 episodes), with 4.3 messages an episode that hold no call and no answer; sampled at
    temperature 1 0.00 (none of 200), with 5.5 of them. After 96 dialogues of the oracle (all
    weights) and held to the form of calls, greedy 0.81 (0.75 to 0.86; four training seeds, 200 or
    400 episodes each); after 1,280 messages of PPO on top 0.84 (0.78 to 0.90), a gain of 0.028
    (-0.029 to 0.085) on the same tasks. These intervals are over training seeds.
    Choosing among eight messages, after 32 of those dialogues, sampled 0.96 (0.92 to 0.98; one
    training seed, 200 episodes).

    ## Version History
    v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = (*SPLITS, "paraphrase")
    levels: ClassVar[tuple[str, ...]] = ("one-hop", "multi-hop", "comparison")
    instructions = (
        "Answer the question from The World Factbook. Find pages with <search>words</search>, "
        "which names five, and read one with <open_page>name</open_page>. Then reply with "
        "<answer>result</answer>, a name, number, code or date as the page has it."
    )
    max_choices = 8

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self.max_turns = _MAX_TURNS[self.level or ""]
        self._index = PageIndex(pages_path())
        self._tools = {t.name: t for t in (Tool(self._index.search), Tool(self._index.open_page))}
        self._asked = asked("test" if split == "paraphrase" else split)

    @property
    def tools(self) -> dict[str, Tool]:
        """Search, and opening a page."""
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
