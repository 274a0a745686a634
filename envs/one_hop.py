"""Tasks that one tool call solves: ask the tool the right thing, then say what it found."""

import math
import unicodedata
from abc import abstractmethod
from dataclasses import dataclass

from .text import TextEnv


@dataclass(frozen=True)
class Candidate:
    """One of the tasks that could have been set, with its solution."""

    kind: str
    """What is asked for."""
    question: str
    """The question in words."""
    call: str
    """The message that asks the tool."""
    answer: str
    """What the tool then says, which is the answer."""


class OneHopEnv(TextEnv):
    """A question, one call, an answer; the choices are the solutions of sibling tasks.

    A task is one candidate, drawn uniformly from a set of siblings that share their subject
    matter. The choices are first the calls and, after a result, the answers of the whole set,
    each in an order drawn from the seed. So each choice is somebody's right answer, and who
    sees the choices without the dialogue does no better than chance.
    """

    @abstractmethod
    def _siblings(self) -> list[Candidate]:
        """Draw a set of `max_choices` candidates with distinct calls and distinct answers.

        Any of them may become the task; nothing in the set may depend on which.
        """

    def _new_task(self) -> str:
        siblings = self._siblings()
        self._task = siblings[self.np_random.integers(len(siblings))]
        self._calls = [siblings[i].call for i in self.np_random.permutation(len(siblings))]
        answers = [siblings[i].answer for i in self.np_random.permutation(len(siblings))]
        self._answers = [f"<answer>{answer}</answer>" for answer in answers]
        return self._task.question

    @property
    def _kind(self) -> str:
        return self._task.kind

    def _choices(self) -> list[str]:
        return list(self._answers if self._results else self._calls)

    def _is_right(self, answer: str) -> bool:
        return is_same(answer, self._task.answer)

    def solution(self) -> str:
        """Return the call that the question asks for, then the answer."""
        return f"<answer>{self._task.answer}</answer>" if self._results else self._task.call


def is_same(answer: str, truth: str) -> bool:
    """Compare two answers: as numbers if the truth is one, else as words.

    A fraction may be rounded to six digits, a whole number may not. Words are compared without
    regard to case, accents, spaces and a full stop at the end.
    """
    expected, given = _number(truth), _number(answer)
    if expected is not None:
        tolerance = 0.0 if expected.is_integer() else 5e-6
        return given is not None and math.isclose(given, expected, rel_tol=tolerance)
    return folded(answer) == folded(truth)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip(".").replace("−", "-").replace(",", ""))
    except ValueError:
        return None


def folded(text: str) -> str:
    """Return the words of a text without case, accents, extra spaces and a last full stop."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split()).rstrip(".")
