"""GuessNumber: find a number from answers of higher and lower."""

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar

from .text import Task, TextEnv

_SPANS = {"narrow": 31, "wide": 63, "vast": 127}
_TURNS = {"narrow": 5, "wide": 6, "vast": 7}
"""As many as halving the span takes: 2**5 - 1 numbers, five guesses."""
_LOWEST = range(1, 401)


@dataclass
class NumberTask(Task):
    """A number, and where it has to be looked for."""

    lowest: int = 0
    secret: int = 0
    first: int = 0
    """The smallest number that the answers so far leave."""
    last: int = 0
    """The largest."""
    guesses: tuple[str, ...] = ()
    """The messages that name one of the numbers."""


class GuessNumber(TextEnv):
    """Find a number: each guess is told whether the number is higher or lower.

    ## Description
    "I think of a whole number from 41 to 71.": guess it. Without tools; halving what is left
    always finds it in the last guess at the latest. The level `narrow` has 31 numbers and 5
    guesses, `wide` 63 and 6, `vast` 127 and 7. A task is the lowest number (1 to 400) and the
    secret one; which split a task belongs to is read off a hash of both, so the splits share
    no task: of ten tasks `test` has one, `validation` one, `train` eight.

    ## Action Space
    `Text`: a message with a guess, `<answer>56</answer>`.

    ## Observation Space
    `Text`: the question, then "higher" or "lower".

    ## Rewards
    1 for the number, 0 for any other guess, -0.1 for a message without a guess.

    ## Episode End
    Terminated by the number, or after 5, 6 or 7 messages, by level.

    ## Reference Scores
    Success on `test`, `narrow`: random choices 0.15 (5 of 31 at best, for a guess may be
    repeated), oracle 1. PPO through `AsChoices` and MiniLM 0.04 (0.02 to 0.07; 6,144 steps, one
    training seed, 200 episodes): it learns no bisection, and repeats itself.
    SmolLM2-135M-Instruct, 3 shots, 200 episodes each, greedy 0.03 (0.01 to 0.05), sampled at
    temperature 1 0.02 (0.01 to 0.04).

    ## Version History
    v0: first version.
    """

    levels: ClassVar[tuple[str, ...]] = tuple(_SPANS)
    instructions = (
        "Guess the number. Reply with <answer>number</answer>; "
        "you are told whether the number is higher or lower than your guess."
    )
    task: NumberTask

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self._span = self.max_choices = _SPANS[str(self.level)]
        self.max_turns = _TURNS[str(self.level)]
        self._tasks = _tasks(self._span)[self.split]

    def _new_task(self) -> NumberTask:
        lowest, secret, question, guesses = self._tasks[self._draw(len(self._tasks))]
        last = lowest + self._span - 1
        return NumberTask(question, "number", {}, lowest, secret, lowest, last, guesses)

    def _choices(self) -> tuple[str, ...]:
        return self.task.guesses

    def _judge(self, answer: str) -> bool | str:
        replies = _replies(answer)
        if replies is None:
            return "That is not a whole number."
        guess, higher, lower = replies
        task = self.task
        if guess == task.secret:
            return True
        if guess < task.secret:
            if guess >= task.first:
                task.first = guess + 1
            return higher
        if guess <= task.last:
            task.last = guess - 1
        return lower

    def solution(self) -> str:
        """Return the guess that halves what is left."""
        return f"<answer>{(self.task.first + self.task.last) // 2}</answer>"


@cache
def _tasks(span: int) -> dict[str, list[tuple[int, int, str, tuple[str, ...]]]]:
    """Return every task of each split: lowest number, secret, question, guesses."""
    tasks: dict[str, list[tuple[int, int, str, tuple[str, ...]]]]
    tasks = {split: [] for split in GuessNumber.splits}
    messages = tuple([f"<answer>{number}</answer>" for number in range(_LOWEST.stop + span)])
    for lowest in _LOWEST:
        question = f"I think of a whole number from {lowest} to {lowest + span - 1}. Which is it?"
        guesses = messages[lowest : lowest + span]
        digest = hashlib.shake_128(f"{span} {lowest}".encode()).digest(span)
        for offset, byte in enumerate(digest):
            split = {8: "validation", 9: "test"}.get(byte % 10, "train")
            tasks[split].append((lowest, lowest + offset, question, guesses))
    return tasks


@lru_cache(maxsize=4096)
def _replies(text: str) -> tuple[int, str, str] | None:
    """Read a whole number, and return what is said to it; one too long to be meant is none."""
    text = text.strip().rstrip(".")
    if len(text) > 18 or not text.removeprefix("-").isdecimal():
        return None
    guess = int(text)
    return guess, f"The number is higher than {guess}.", f"The number is lower than {guess}."
