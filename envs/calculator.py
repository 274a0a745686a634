"""Calculator: sums set in words, one strict calculator."""

import functools
import itertools
import re
from fractions import Fraction
from typing import ClassVar

from .plans import Plan, PlannedEnv, PlannedTask
from .tools import Tool, ToolError

_PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Operation: (phrasings of the other splits, phrasings of `paraphrase` alone).
    "+": (
        ("{x} plus {y}", "{x} increased by {y}"),
        ("the sum of {x} and {y}", "the total of {x} and {y}", "{x} together with {y}"),
    ),
    "-": (
        ("{x} minus {y}", "{x} reduced by {y}"),
        ("{x} take away {y}", "{x} less {y}", "{x} lowered by {y}"),
    ),
    "*": (
        ("{x} times {y}", "{x} multiplied by {y}"),
        ("the product of {x} and {y}", "{x} lots of {y}", "{x} groups of {y}"),
    ),
    "/": (
        ("{x} divided by {y}", "{x} over {y}"),
        ("the quotient of {x} and {y}", "the ratio of {x} to {y}", "{x} shared by {y}"),
    ),
}
_KINDS = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}
_STEPS = (("+", False), ("-", False), ("*", False), ("/", False), ("-", True), ("/", True))
"""Operation, and whether the operands stand the other way round; for + and * that is the same."""
_Way = tuple[tuple[str, bool], ...]
"""The steps of a sum."""
_BLOCK = 32
"""Numbers that are drawn at once: more than a task with one step takes."""


def _split_of(operand: int) -> str:
    return {2: "test", 5: "validation"}.get(operand % 7, "train")


_OPERANDS = {
    name: [n for n in range(2, 100) if _split_of(n) == name]
    for name in ("train", "validation", "test")
}


class Calculator(PlannedEnv):
    """Answer sums that are set in words, with a calculator.

    ## Description
    "What is 79 reduced by 86?": understand which operation a phrase means, send it to the
    calculator, report the result. Addition, subtraction, multiplication and division of
    different whole numbers from 2 to 99. The level `one-step` asks for one operation,
    `two-step` and `three-step` go on with the result: "What is 79 reduced by 86, then 12 over
    that?". The splits share no operand: `test` has the 14 that leave 2 when divided by 7,
    `validation` the 14 that leave 5, `train` the other 70. `paraphrase` has the operands of
    `test` in phrasings that no other split uses.

    ## Action Space
    `Text`: a message with one call, `<calculator>79 - 86</calculator>` (or JSON in
    `<tool_call>`), or with the answer, `<answer>-7</answer>`.

    ## Observation Space
    `Text`: the question, then what the calculator says.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither.

    ## Episode End
    Terminated by an answer, or after 4, 5 or 6 messages, by level.

    ## Reference Scores
    Success on `test`, `one-step`, 200 episodes each: random choices 0.17 (one in six), oracle 1.
    PPO through `AsChoices` and MiniLM 0.71 (0.65 to 0.77; 6,144 steps, one training seed): it
    learns what a phrase means, but hardly which operand comes first, without which 0.67 is the
    most. SmolLM2-135M-Instruct, 9 shots, greedy 0.86 (0.81 to 0.91),
    sampled at temperature 1 0.54 (0.47 to 0.60); after 1,536 messages of PPO by the recipe
    `language-ppo` 0.99 greedy (0.98 to 1.00) and 0.93 sampled (0.90 to 0.95; three training
    seeds). A tiny model, from scratch by the recipe `tiny`, 0.99 greedy (0.98 to 1.00; five
    training seeds of 500 episodes). The other levels: random choices 0.12 (one in eight),
    oracle 1.

    ## Version History
    v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "paraphrase")
    levels: ClassVar[tuple[str, ...]] = ("one-step", "two-step", "three-step")
    instructions = (
        "Answer the question with the calculator. Call it with "
        "<calculator>expression</calculator>, where the expression uses whole numbers, "
        "+ - * / and brackets. Then reply with <answer>result</answer>."
    )

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self._length = 1 + self.levels.index(str(self.level))
        self._ways = [_turns(way) for way in itertools.product(_STEPS, repeat=self._length)]
        self._block: list[float] = []
        self._operands = _OPERANDS["test" if split == "paraphrase" else split]
        self.max_turns = 3 + self._length
        self.max_choices = min(len(self._ways), 8)

    @property
    def tools(self) -> dict[str, Tool]:
        """The calculator."""
        return _TOOLS

    def _new_task(self) -> PlannedTask:
        self._block = []
        operands, ways, siblings = self._sums()
        drawn = self._draw(len(ways))
        kind, _, calls, answer, _ = siblings[drawn]
        # Only this one is ever asked for, and to word a question takes longer than to plan it.
        return self._set(Plan(kind, self._worded(operands, ways[drawn]), calls, answer), siblings)

    def _siblings(self) -> list[Plan]:
        operands, ways, plans = self._sums()
        questions = [self._worded(operands, way) for way in ways]
        return [p._replace(question=q) for p, q in zip(plans, questions, strict=True)]

    def _sums(self) -> tuple[tuple[int, ...], list[_Way], list[Plan]]:
        """Draw numbers and what could be done with them, and plan it."""
        while True:
            operands = tuple(self._sample(self._operands, self._length + 1))
            ways = [self._turned(way) for way in self._sample(self._ways, self.max_choices)]
            try:
                plans = [_plan(operands, way) for way in ways]
            except ToolError:  # a division by a result that is zero
                continue
            if len({plan.answer for plan in plans}) == len(plans):
                return operands, ways, plans

    def _turned(self, way: tuple[_Way, ...]) -> _Way:
        return way[self._draw(len(way))] if len(way) > 1 else way[0]

    def _worded(self, operands: tuple[int, ...], way: _Way) -> str:
        said, phrases = str(operands[0]), []
        for (operation, swapped), operand in zip(way, operands[1:], strict=True):
            variants = _PHRASES[operation][self.split == "paraphrase"]
            phrase = variants[self._draw(len(variants))]
            x, y = (operand, said) if swapped else (said, operand)
            phrases.append(phrase.format(x=x, y=y))
            said = "that"
        return f"What is {', then '.join(phrases)}?"

    def _draw(self, count: int) -> int:
        if not self._block:
            self._block = super()._uniforms(_BLOCK)
        return int(self._block.pop() * count)

    def _uniforms(self, count: int) -> list[float]:
        """Take numbers of a block, as one takes as long to draw; none is left for other tasks."""
        if len(self._block) < count:
            self._block = super()._uniforms(_BLOCK)
        drawn, self._block = self._block[:count], self._block[count:]
        return drawn


def _turns(way: _Way) -> tuple[_Way, ...]:
    """Return the ways that do the same: a + b is b + a, and which it is tells nothing."""
    either = [((o, False), (o, True)) if o in "+*" else ((o, swapped),) for o, swapped in way]
    return tuple(itertools.product(*either))


@functools.lru_cache(maxsize=65_536)
def _plan(operands: tuple[int, ...], way: _Way) -> Plan:
    """Return the plan of a sum, without its question."""
    result, calls = str(operands[0]), []
    for (operation, swapped), operand in zip(way, operands[1:], strict=True):
        x, y = (operand, result) if swapped else (result, operand)
        expression = f"{x} {operation} {y}"
        calls.append(f"<calculator>{expression}</calculator>")
        result = calculator(expression)
    return Plan(_KINDS[way[0][0]], "", tuple(calls), result)


@functools.lru_cache(maxsize=4096)
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression exactly.

    Args:
        expression: Numbers, + - * / // % and brackets, such as "(79 - 86) * 2".
    """
    if len(expression) > 200:
        raise ToolError("the expression is longer than 200 characters")
    tokens = _TOKEN.findall(expression)
    value, rest = _sum(tokens, depth=0)
    if rest:
        raise ToolError(f"{rest[0]!r} was not expected; use numbers, + - * / // % and brackets")
    return _written(value)


# A result can be written as 2.1e-05, so that is read as well.
_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d\d?(?!\d))?|//|[-+*/%()]|\S", re.ASCII)
_TOOLS = {"calculator": Tool(calculator)}

# A recursive-descent parser; each rule returns its value and the tokens that are left.
_Step = tuple[Fraction | int, list[str]]


def _sum(tokens: list[str], depth: int) -> _Step:
    value, rest = _product(tokens, depth)
    while rest and rest[0] in "+-":
        other, after = _product(rest[1:], depth)
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _product(tokens: list[str], depth: int) -> _Step:
    value, rest = _signed(tokens, depth)
    while rest and rest[0] in ("*", "/", "//", "%"):
        operation = rest[0]
        other, rest = _signed(rest[1:], depth)
        if operation != "*" and other == 0:
            raise ToolError("division by zero")
        match operation:
            case "*":
                value *= other
            case "/":
                value = Fraction(value) / other
            case "//":
                value //= other
            case "%":
                value %= other
    return value, rest


def _signed(tokens: list[str], depth: int) -> _Step:
    if depth > 20:
        raise ToolError("the expression is nested deeper than 20 levels")
    if not tokens:
        raise ToolError("the expression ends too early")
    first, rest = tokens[0], tokens[1:]
    if first in "+-":
        value, rest = _signed(rest, depth + 1)
        return (-value if first == "-" else value), rest
    if first == "(":
        value, rest = _sum(rest, depth + 1)
        if rest[:1] != [")"]:
            raise ToolError("a bracket is not closed")
        return value, rest[1:]
    if first[0] not in "0123456789":
        raise ToolError(f"{first!r} was not expected; use numbers, + - * / // % and brackets")
    # Whole numbers are counted with many times faster than fractions.
    return int(first) if first.isdecimal() else Fraction(first), rest


def _written(value: Fraction | int) -> str:
    """Write a whole number in full, anything else to ten significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    try:
        return f"{float(value):.10g}"
    except OverflowError:
        raise ToolError("the result is too large") from None
