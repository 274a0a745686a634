"""Small programs, each with its source, its description in words and what it computes.

A program is a shape whose slots are filled with options. An option knows itself three times: in
words, as Python, and as a function of the host, so that nothing that was written as text is ever
run by the host. That the three agree is tested.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

Value = Any
"""An integer, a string, or a list of integers."""
Step = Callable[..., Value]
"""What an option does, as a function of the host."""


_LEAST_OUTPUTS = 6
"""Different outputs on the probes that are the least for a program worth to be asked for."""


class Option(NamedTuple):
    """What a slot may be filled with."""

    words: str
    code: str
    apply: Step


class Input(NamedTuple):
    """What a function is given."""

    words: str
    probes: tuple[Value, ...]
    """Inputs by whose outputs two programs are told apart, always the same."""
    draw: Callable[[Callable[[int], int]], Value]
    """Draws an input with a function that draws a number below its argument."""


@dataclass(frozen=True)
class Shape:
    """A family of programs that differ in what fills their slots."""

    kind: str
    input: Input
    words: str
    """The description, with a place for the words of each option."""
    code: str
    """The source, with a place for the code of each option."""
    pools: tuple[Sequence[Option], ...]
    """What may fill each slot."""
    compute: Step
    """Computes an output from an input and the functions of the options."""


@dataclass(frozen=True)
class Program:
    """A shape with its slots filled."""

    shape: Shape
    options: tuple[Option, ...]

    @property
    def words(self) -> str:
        """What it does, in words."""
        return self.shape.words.format(*(option.words for option in self.options))

    @property
    def source(self) -> str:
        """It in Python, as a function f of x."""
        return self.shape.code.format(*(option.code for option in self.options))

    def __call__(self, x: Value) -> Value:
        """Compute the output that belongs to an input."""
        return self.shape.compute(x, *(option.apply for option in self.options))

    @cached_property
    def outputs(self) -> list[Value]:
        """What it makes of the probes: two programs that make the same are the same program."""
        return [self(x) for x in self.shape.input.probes]

    @cached_property
    def behaviour(self) -> str:
        """Its outputs as a text."""
        return repr(self.outputs)

    @property
    def is_trivial(self) -> bool:
        """Whether it does nothing, or the same twice, or hardly minds its input."""
        repeats = len({option.code for option in self.options}) < len(self.options)
        does_nothing = self.outputs == list(self.shape.input.probes)
        return repeats or does_nothing or len(set(map(repr, self.outputs))) < _LEAST_OUTPUTS

    @property
    def split(self) -> str:
        """The split that it belongs to, by what it does and not by how it is written."""
        digest = hashlib.sha256(f"{self.shape.input.words}: {self.behaviour}".encode()).digest()
        return {0: "test", 1: "validation"}.get(digest[0] % 5, "train")


def each(words: str, code: str, apply: Step, ks: Iterable[Any]) -> list[Option]:
    """Return an option for each value of k."""
    return [Option(words.format(k=k), code.format(k=k), partial(apply, k=k)) for k in ks]


_WORDS = (
    *("apple", "river", "stone", "cloud", "green", "tiger", "music", "ocean", "paper", "light"),
    *("bread", "horse", "winter", "garden", "silver", "window", "yellow", "banana", "button"),
    *("cat", "sun", "tree", "old", "sea", "egg", "ice", "map", "red", "umbrella", "elephant"),
)


def _draw_list(draw: Callable[[int], int]) -> list[int]:
    return [draw(30) - 9 for _ in range(3 + draw(5))]


def _draw_text(draw: Callable[[int], int]) -> str:
    return " ".join(_WORDS[draw(len(_WORDS))] for _ in range(2 + draw(3)))


INTEGER = Input("an integer", tuple(range(-31, 62, 6)), lambda draw: draw(100) - 40)
POSITIVE = Input("a positive integer", tuple(range(1, 82, 5)), lambda draw: 1 + draw(80))
LIST = Input(
    "a list of integers",
    tuple([(7 * i * j + 3 * j * j + 5 * i) % 30 - 9 for j in range(3 + i % 5)] for i in range(16)),
    _draw_list,
)
TEXT = Input(
    "a string of words in small letters",
    tuple(
        " ".join(_WORDS[(5 * i + 11 * j) % len(_WORDS)] for j in range(2 + i % 3))
        for i in range(16)
    ),
    _draw_text,
)
