"""Calculator: sums set in words, one strict calculator."""

import re
from fractions import Fraction
from typing import ClassVar

from .one_hop import Candidate, OneHopEnv
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
_SIBLINGS = ("+", "-", "*", "/", "-", "/")
"""The last two with their operands the other way round, which for + and * is the same task."""


def _split_of(operand: int) -> str:
    return {2: "test", 5: "validation"}.get(operand % 7, "train")


_OPERANDS = {
    name: [n for n in range(2, 100) if _split_of(n) == name]
    for name in ("train", "validation", "test")
}


class Calculator(OneHopEnv):
    """Answer sums that are set in words, with a calculator.

    ## Description
    "What is 79 reduced by 86?": understand which operation a phrase means, send it to the
    calculator, report the result. Addition, subtraction, multiplication and division of two
    different whole numbers from 2 to 99. The splits share no operand: `test` has the 14 that
    leave 2 when divided by 7, `validation` the 14 that leave 5, `train` the other 70.
    `paraphrase` has the operands of `test` in phrasings that no other split uses.

    ## Action Space
    `Text`: a message with one call, `<calculator>79 - 86</calculator>` (or JSON in
    `<tool_call>`), or with the answer, `<answer>-7</answer>`.

    ## Observation Space
    `Text`: the question, then what the calculator says.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither.

    ## Episode End
    Terminated by an answer, or after 4 messages.

    ## Reference Scores
    Success on `test`: random choices 0.17 (one in six), oracle 1. PPO through `AsChoices` and
    MiniLM 0.66 (0.60 to 0.73; 6,144 steps, one training seed, 200 episodes): it learns what a
    phrase means, but hardly which operand comes first, without which 0.67 is the most.
    SmolLM2-135M-Instruct, 9 shots, greedy 0.85 (0.73 to 0.95; 40 episodes).

    ## Version History
    v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "paraphrase")
    instructions = (
        "Answer the question with the calculator. Call it with "
        "<calculator>expression</calculator>, where the expression uses whole numbers, "
        "+ - * / and brackets. Then reply with <answer>result</answer>."
    )
    max_choices = len(_SIBLINGS)

    @property
    def tools(self) -> dict[str, Tool]:
        """The calculator."""
        return {_CALCULATOR.name: _CALCULATOR}

    def _siblings(self) -> list[Candidate]:
        operands = _OPERANDS["test" if self.split == "paraphrase" else self.split]
        while True:
            a, b = (int(n) for n in self.np_random.choice(operands, size=2, replace=False))
            siblings = [self._candidate(op, a, b) for op in _SIBLINGS[:4]]
            siblings += [self._candidate(op, b, a) for op in _SIBLINGS[4:]]
            if len({s.answer for s in siblings}) == len(siblings):
                return siblings

    def _candidate(self, operation: str, x: int, y: int) -> Candidate:
        # a + b is b + a: which comes first must not tell how the other tasks are turned.
        if operation in "+*" and self.np_random.random() < 0.5:
            x, y = y, x
        phrases = _PHRASES[operation][self.split == "paraphrase"]
        phrase = phrases[self.np_random.integers(len(phrases))]
        expression = f"{x} {operation} {y}"
        return Candidate(
            kind=_KINDS[operation],
            question=f"What is {phrase.format(x=x, y=y)}?",
            call=f"<calculator>{expression}</calculator>",
            answer=calculator(expression),
        )


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression exactly.

    Args:
        expression: Numbers, + - * / // % and brackets, such as "(79 - 86) * 2".
    """
    if len(expression) > 200:
        raise ToolError("the expression is longer than 200 characters")
    tokens = re.findall(r"\d+(?:\.\d+)?|//|[-+*/%()]|\S", expression, re.ASCII)
    value, rest = _sum(tokens, depth=0)
    if rest:
        raise ToolError(f"{rest[0]!r} was not expected; use numbers, + - * / // % and brackets")
    return _written(value)


_CALCULATOR = Tool(calculator)

# A recursive-descent parser; each rule returns its value and the tokens that are left.
_Step = tuple[Fraction, list[str]]


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
                value /= other
            case "//":
                value = Fraction(value // other)
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
    return Fraction(first), rest


def _written(value: Fraction) -> str:
    """Write a whole number in full, anything else to ten significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    try:
        return f"{float(value):.10g}"
    except OverflowError:
        raise ToolError("the result is too large") from None
