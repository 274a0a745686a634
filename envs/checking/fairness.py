"""Checks that a task can be solved, not by luck, and not from the choices alone."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from .findings import Broken, Finding, NotApplicable, shortened
from .playing import Dialogue
from .subject import Subject, solvable

MAX_RANDOM = 0.2
"""Share of the tasks that random choices may solve."""
_LUCK = 2.33
"""Standard deviations that the share may lie above it: once in a hundred."""
_BY_LUCK = 1e-6
"""How seldom what is called telling comes about by luck: many places and rules are tried."""
_MARGIN = 0.05
"""What a rule of thumb may gain over chance."""

_Rule = Callable[[Sequence[str]], Sequence[float]]
"""Scores of choices; the rule picks one of the highest."""


def oracle(subject: Subject) -> Finding | None:
    """`solution()` solves every task, with messages that are among the choices."""
    solvable(subject)
    advice = "Let solution() return the next message of a dialogue that solves the task."
    for dialogue in subject.dialogues:
        if not dialogue.success or dialogue.failure is not None:
            ended = f"success {dialogue.success}, failure {dialogue.failure!r}"
            what = f"the solution does not solve {shortened(dialogue.question)!r}: {ended}"
            return Finding(what, advice, dialogue.seed)
        for move, choices in zip(dialogue.moves, dialogue.choices, strict=True):
            if move not in choices:
                what = f"the solution's message is not among the choices: {shortened(move)!r}"
                return Finding(what, advice, dialogue.seed)
    return None


def random_choices(subject: Subject) -> Finding | None:
    """Random choices solve few tasks, and each is understood."""
    solved, played = random_success(subject)
    bound = MAX_RANDOM * played + _LUCK * math.sqrt(played * MAX_RANDOM * (1 - MAX_RANDOM))
    if solved >= min(bound, played):
        what = f"random choices solve {solved} of {played} tasks"
        return Finding(what, "Offer more choices, or ask for more of them.", subject.seed)
    return None


def random_success(subject: Subject) -> tuple[int, int]:
    """Play random choices; return how many tasks they solved, and of how many.

    Raises:
        Broken: a choice is not understood, or breaks the machinery.
        NotApplicable: nothing says what success is.
    """
    solvable(subject)
    solved = played = 0
    for step in subject.steps(subject.words):
        failure = step.info.get("failure")
        if failure in ("format", "infra"):
            what = f"a choice is a failure of kind {failure!r}"
            raise Broken(Finding(what, "Offer admissible messages only.", step.seed))
        played += step.over
        solved += step.over and bool(step.info.get("success"))
    return solved, played


def choices_tell_nothing(subject: Subject) -> Finding | None:
    """Where the solution stands among the choices, and how it looks, does not tell it."""
    if not subject.speaks:
        raise NotApplicable("its choices are its actions, the same in every state")
    advice = "Draw distractors as the solution is drawn, and the order from the seed."
    if _public(subject.dialogues):
        raise NotApplicable("its choices are the same for every task with the same question")
    dialogues = [d for d in subject.dialogues if all(m in c for m, c in _decisions(d))]
    answers = [_decisions(dialogue)[-1] for dialogue in dialogues]
    # Without tools what comes first is a good guess, which may well stand at one place.
    calls = [d for dialogue in dialogues if dialogue.with_tools for d in _decisions(dialogue)[:-1]]
    what = _telling_position(answers) or _telling_position(calls) or _telling_look(answers)
    return Finding(what, advice, subject.seed) if what else None


def _public(dialogues: list[Dialogue]) -> bool:
    """Tell whether choices follow from the question, as do the letters of a word to be guessed.

    Then they cannot tell a solution, however often one of them is right.
    """
    first: dict[str, Dialogue] = {}
    again = 0
    for dialogue in dialogues:
        earlier = first.setdefault(dialogue.question, dialogue)
        if earlier.choices[:1] != dialogue.choices[:1]:
            return False
        again += earlier.moves != dialogue.moves
    return again >= len(dialogues) / 4


_Decision = tuple[str, tuple[str, ...]]
"""The solution, and the choices that it is among."""


def _decisions(dialogue: Dialogue) -> list[_Decision]:
    return list(zip(dialogue.moves, dialogue.choices, strict=True))


def _telling_position(decisions: list[_Decision]) -> str | None:
    """Compare how often the solution stands at each place with chance."""
    longest = max((len(choices) for _, choices in decisions), default=0)
    for place in range(-1, longest):
        there = [(m, c) for m, c in decisions if len(c) > max(1, place)]
        hits = sum(choices[place] == move for move, choices in there)
        expected, luck = _by_chance(hits, [c for _, c in there])
        if luck < _BY_LUCK:
            name = "last" if place < 0 else f"number {place + 1}"
            return (
                f"the solution is the {name} choice {hits} times of {len(there)}, "
                f"by chance {expected:.0f}"
            )
    return None


def _telling_look(decisions: list[_Decision]) -> str | None:
    """Compare rules of thumb with chance where the answer is given."""
    for name, rule in RULES.items():
        seen = [(m, c) for m, c in decisions if len(c) > 1]
        hits = sum(_share(move, choices, rule) for move, choices in seen)
        expected, luck = _by_chance(hits, [c for _, c in seen])
        if luck < _BY_LUCK and hits - expected > _MARGIN * len(seen):
            return (
                f"who takes {name} choice is right {hits:.0f} times of {len(seen)}, "
                f"by chance {expected:.0f}"
            )
    return None


def _by_chance(hits: float, choices: list[tuple[str, ...]]) -> tuple[float, float]:
    """Return the hits that a guess has on average, and a bound on the chance of as odd a number.

    Source: Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables" (1963),
    theorem 1, equation (2.1), for either side.
    """
    count = len(choices)
    mean = sum(1 / len(some) for some in choices) / max(count, 1)
    seen = hits / max(count, 1)
    parts = ((seen, mean), (1 - seen, 1 - mean))
    divergence = sum(q * math.log(q / p) for q, p in parts if q > 0 and p > 0)
    return count * mean, math.exp(-count * divergence)


def _share(move: str, choices: tuple[str, ...], rule: _Rule) -> float:
    """Return the chance that a rule, which draws among equals, picks the solution."""
    scores = rule(choices)
    best = [choice for choice, score in zip(choices, scores, strict=True) if score == max(scores)]
    return (move in best) / len(best)


def _lengths(choices: Sequence[str]) -> list[float]:
    return [float(len(choice)) for choice in choices]


def _ranks(choices: Sequence[str]) -> list[float]:
    order = sorted(choices)
    return [float(order.index(choice)) for choice in choices]


def _shared(choices: Sequence[str]) -> list[float]:
    """Return how many choices have the words of a choice, on average over its words."""
    words = [set(re.findall(r"\w+", choice)) for choice in choices]
    count = Counter(word for some in words for word in some)
    return [sum(count[word] for word in some) / max(len(some), 1) for some in words]


def _central(choices: Sequence[str]) -> list[float]:
    """Return how near the number in a choice is to the middle one; all the same without numbers."""
    found = [re.search(r"-?\d+(?:\.\d+)?", choice) for choice in choices]
    if not all(found):
        return [0.0] * len(choices)
    order = sorted(float(number[0]) for number in found if number)
    middle = order[len(order) // 2]
    return [-abs(float(number[0]) - middle) for number in found if number]


def _reverse(rule: _Rule) -> _Rule:
    return lambda choices: [-score for score in rule(choices)]


RULES: dict[str, _Rule] = {
    "the longest": _lengths,
    "the shortest": _reverse(_lengths),
    "the alphabetically first": _reverse(_ranks),
    "the alphabetically last": _ranks,
    "the most alike": _shared,
    "the least alike": _reverse(_shared),
    "the middle": _central,
}
"""Rules by which somebody might guess without reading the question."""
