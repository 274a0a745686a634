"""Reasoning: tasks of reasoning-gym's generators, with and without a Python tool."""

import copy
import hashlib
import importlib
import random
import re
from decimal import Context, localcontext
from functools import cache
from typing import Any, ClassVar

from ..errors import UserError
from .parsing import Answer, parse
from .plans import Plan, PlannedEnv
from .questions.reasoning_names import HARD, NAMES
from .scoring import exact, folded, is_same
from .speech import CHARSET, MAX_ACTION_LENGTH, MAX_OBSERVATION_LENGTH
from .tools import Tool
from .tools.python import python_tool, sandbox

Item = dict[str, Any]
"""A task as reasoning-gym has it: question, answer and metadata."""

# These two make things up when they are built, not when an item is asked for.
_REBUILT = frozenset({"gsm_symbolic", "survo"})

_COMPARED = {
    # Their scorers evaluate an answer as Python, which can earn it a part of the marks only.
    "binary_matrix": exact,
    "spiral_matrix": exact,
    "string_insertion": exact,
    # Adds up 1/n for every letter, to a bit more than 1 for a word with anything behind it.
    "spell_backward": is_same,
    # Reads the first number of an answer, without its sign.
    "gsm_symbolic": is_same,
}

# These scorers evaluate an answer, or fall for numbers that are none; they are shown only what
# has the form of an answer.
_FORMS = {
    # nan is at no distance from any number.
    "complex_arithmetic": r"[-+\d.ij() ]{1,60}",
    # SymPy evaluates: no names, no powers.
    "countdown": r"(?!.*(?:\* *\*|/ */))[-+*/() \d]{1,100}",
    # Python evaluates.
    "n_queens": r"[Q_ \n]{1,400}",
    # A list of nan is sorted both ways.
    "number_sorting": r"[-\d.,'\"\[\] ]{1,1000}",
}
_WITH_PYTHON = "Before that you may run Python: <python>code</python> shows what the code prints."
_MAX_DRAWS = 2000
"""Items that are drawn for one task before the generator counts as exhausted."""


class Reasoning(PlannedEnv):
    """Solve tasks of one of reasoning-gym's generators.

    ## Description
    A family of environments, `palaestra/Reasoning-<name>-v0`, one for each generator of
    reasoning-gym that has a task with one checkable answer: sums, puzzles, strings, grids,
    graphs, codes. `palaestra/Reasoning-<name>-python-v0` adds a tool that runs Python. The
    splits share no question: a hash of its text puts half of them into `train` and a quarter
    each into `validation` and `test`. The tasks are those of the version of reasoning-gym that
    is installed, at its default difficulty. 41 generators have a further level,
    `palaestra/Reasoning-<name>-hard-v0`, and `palaestra/Reasoning-<name>-hard-python-v0`: their
    own curriculum, raised until its attributes (how many numbers, how long words, how big a grid)
    are nowhere easier than by default and somewhere clearly harder.

    Source: Stojanovski et al., "Reasoning Gym: Reasoning Environments for Reinforcement Learning
    with Verifiable Rewards" (2025).

    ## Action Space
    `Text`: a message with the answer, `<answer>42</answer>`; with Python also with a call.

    ## Observation Space
    `Text`: the question, then what Python prints.

    ## Rewards
    1 for an answer that reasoning-gym's own scorer gives full marks (five generators, whose
    scorers run or misread answers, are compared with the reference instead), 0 for any other,
    -0.1 for a message that holds none.

    ## Episode End
    Terminated by an answer, or after 4 messages; with Python after 8.

    ## Reference Scores
    Success on `test`, at either level: random choices 0.12 (one in eight), oracle 1.

    ## Version History
    v0: first version.

    Args:
        name: The generator: one of `reasoning_names.NAMES`.
        python: A tool that runs Python in this sandbox, `monty`, `bubblewrap` or `auto`, told as
            `info["python"]`; None for no such tool.
        split: Which tasks are drawn: one of `splits`, which share none.
        level: `standard`, or `hard` where the generator is in `reasoning_names.HARD`.
        render_mode: `ansi`, or None.

    Raises:
        UserError: there is no such generator, split, level or render mode, or no reasoning-gym.
    """

    instructions = (
        "Solve the task. Where it shows the form of an answer, keep to it exactly. Reply with "
        "<answer>result</answer>."
    )
    levels: ClassVar[tuple[str, ...]] = ("standard", "hard")
    max_choices = 8

    def __init__(
        self,
        name: str,
        python: str | None = None,
        split: str = "train",
        level: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(split, level, render_mode)
        if name not in NAMES:
            raise UserError(f"unknown generator {name!r}; there are: {', '.join(NAMES)}")
        if self.level == "hard" and name not in HARD:
            raise UserError(f"{name} has no hard tasks; these have: {', '.join(HARD)}")
        self.name = name
        self._items = copy.copy(_dataset(name, self.level))
        self._form = re.compile(_FORMS.get(name, ".*"), re.ASCII | re.DOTALL)
        self._tools: dict[str, Tool] = {}
        self._facts: dict[str, Any] = {}
        if python is not None:
            place = sandbox(python)
            tool = python_tool(place)
            self._tools, self._facts = {tool.name: tool}, {"python": place.name}
            self.instructions = f"{self.instructions} {_WITH_PYTHON}"
            self.max_turns = 8

    @property
    def tools(self) -> dict[str, Tool]:
        """Python, or nothing."""
        return self._tools

    @property
    def _made_as(self) -> tuple[str, str, str | None]:
        kind, split, level = super()._made_as
        return f"{kind}-{self.name}{'-python' if self._tools else ''}", split, level

    def _siblings(self) -> list[Plan]:
        """Draw items of the split until as many exclude each other's answers."""
        chosen: list[tuple[Plan, Item]] = []
        for _ in range(_MAX_DRAWS):
            seed = self._draw(2**53)
            item = self._item(seed)
            plan = self._plan(item, seed)
            if plan and not any(self._is_shared(plan, item, *other) for other in chosen):
                chosen.append((plan, item))
            if len(chosen) == self.max_choices:
                return [plan for plan, _ in chosen]
        raise UserError(
            f"reasoning-gym's {self.name} has fewer than {self.max_choices} different answers "
            f"among {_MAX_DRAWS} items of the split {self.split}"
        )

    def _plan(self, item: Item, seed: int) -> Plan | None:
        """Return the plan that solves an item, None if it is of no use here.

        That is one of another split, one that cannot be said or answered in a message, and one
        whose own answer the scorer refuses.
        """
        question = str(item["question"]).strip()
        answer = str(item["answer"]).strip()
        message = f"<answer>{answer}</answer>"
        usable = (
            answer
            and _split_of(question) == self.split
            and len(question) <= MAX_OBSERVATION_LENGTH
            and len(message) <= MAX_ACTION_LENGTH
            and CHARSET.issuperset(question + answer)
            and parse(message, {}) == Answer(answer)
            and self._solves(answer, item)
        )
        if not usable:
            return None
        return Plan(self.name, question, (), answer, {**self._facts, "item_seed": seed})

    def _is_shared(self, plan: Plan, item: Item, other: Plan, other_item: Item) -> bool:
        """Tell whether one answer serves two items, so that both would be right choices."""
        return (
            folded(plan.answer) == folded(other.answer)
            or self._solves(plan.answer, other_item)
            or self._solves(other.answer, item)
        )

    def _judge(self, answer: str) -> bool | str:
        return self._solves(answer, self._item(self.task.facts["item_seed"]))

    def _solves(self, answer: str, item: Item) -> bool:
        if compare := _COMPARED.get(self.name):
            return compare(answer, str(item["answer"]))
        if not self._form.fullmatch(answer):
            return False
        try:
            with localcontext(Context()):
                score = float(self._items.score_answer(answer, item))
        except Exception:  # the scorers expect answers, and some of them nothing else
            return False
        # One of them gives a wrong number more than 1 where the truth is negative.
        return abs(score - 1) < 1e-9

    def _item(self, seed: int) -> Item:
        # The generators draw from Random(seed + index): only with one index, and seeds far
        # apart, do no two seeds share items.
        if self.name in _REBUILT:
            self._items = _built(self.name, self.level, seed)
        self._items.seed = seed
        # One of them sets the precision of decimals for the whole thread.
        with localcontext(Context()):
            item: Item = self._items[0]
        return item


@cache
def _dataset(name: str, level: str | None) -> Any:
    """Return a generator with what it has read, to be copied: its seed is an attribute."""
    return _built(name, level, seed=0)


def _built(name: str, level: str | None, seed: int) -> Any:
    """Return a generator of one item, at its default difficulty or as hard as `HARD` says."""
    settings = {"seed": seed, "size": 1}
    if level == "hard":
        curriculum = _library().factory.create_curriculum(name)
        curriculum.set_global_level(HARD[name])
        # Else a range would begin where the easiest level does.
        kinds = _library().coaching.base_curriculum
        highest = kinds.DefaultCurriculumContext(kinds.RangeAttributeMode.UPPER_BOUND)
        settings = vars(curriculum.generate_configuration(settings, highest))
    return _library().create_dataset(name, **settings)


@cache
def _library() -> Any:
    state = random.getstate()
    try:
        return importlib.import_module("reasoning_gym")
    except ModuleNotFoundError as error:
        if error.name != "reasoning_gym":
            raise
        package = __package__.partition(".")[0]
        raise UserError(
            f"reasoning-gym is not installed: pip install '{package}[reasoning]'"
        ) from error
    finally:
        random.setstate(state)  # it draws from the global generator while it is imported


def _split_of(question: str) -> str:
    quarter = hashlib.sha256(question.encode()).digest()[0] % 4
    return {0: "test", 1: "validation"}.get(quarter, "train")
