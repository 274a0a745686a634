"""Generators of reasoning-gym: items of a seed, and whether an answer solves one."""

import copy
import hashlib
import importlib
import random
import re
from decimal import Context, localcontext
from functools import cache
from typing import Any

from ...errors import UserError
from ..scoring import exact, is_same
from .reasoning_names import HARD, NAMES

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


class Generator:
    """A generator of reasoning-gym: the items of seeds, and its own opinion of answers.

    Args:
        name: One of `reasoning_names.NAMES`.
        level: `standard`, or `hard` where it is in `reasoning_names.HARD`.

    Raises:
        UserError: there is no such generator or level, or no reasoning-gym.
    """

    def __init__(self, name: str, level: str | None = None) -> None:
        if name not in NAMES:
            raise UserError(f"unknown generator {name!r}; there are: {', '.join(NAMES)}")
        if level == "hard" and name not in HARD:
            raise UserError(f"{name} has no hard tasks; these have: {', '.join(HARD)}")
        self.name = name
        self.level = level
        self._items = copy.copy(_dataset(name, level))
        self._form = re.compile(_FORMS.get(name, ".*"), re.ASCII | re.DOTALL)

    @property
    def config(self) -> Any:
        """What reasoning-gym was told of the tasks."""
        return self._items.config

    def item(self, seed: int) -> Item:
        """Return the item of a seed; no two seeds share one."""
        # The generators draw from Random(seed + index): only with one index, and seeds far
        # apart, do no two seeds share items.
        if self.name in _REBUILT:
            self._items = _built(self.name, self.level, seed)
        self._items.seed = seed
        # One of them sets the precision of decimals for the whole thread.
        with localcontext(Context()):
            item: Item = self._items[0]
        return item

    def solves(self, answer: str, item: Item) -> bool:
        """Tell whether an answer, which may be anything, gets full marks."""
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


def split_of(question: str) -> str:
    """Return the split to which a question belongs."""
    quarter = hashlib.sha256(question.encode()).digest()[0] % 4
    return {0: "test", 1: "validation"}.get(quarter, "train")


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
