"""What a check looks at: an environment in one of its splits."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import gymnasium

from ...errors import UserError
from ..views import View, find_spec, is_text, make
from .findings import NotApplicable, shown_by
from .playing import Dialogue, Step, episode, play, solved


@dataclass(frozen=True)
class Subject:
    """An environment in one of its splits, and how hard it is looked at."""

    env_id: str
    """A Gymnasium id, or `module:id`."""
    split: str | None = None
    seed: int = 0
    """The first seed that is tried; the others count upwards from it."""
    episodes: int = 200
    moves: int = 24
    """Random moves after which two plays are compared."""
    hostile: int = 300
    """Hostile messages."""
    most_steps: int = 3_000
    """Steps after which a check begins no other episode: where they are long, fewer do."""

    def make(self, view: View = "native", **kwargs: Any) -> gymnasium.Env[Any, Any]:
        """Make the environment."""
        return make(self.env_id, view, split=self.split, **kwargs)

    @property
    def seeds(self) -> range:
        """The seeds of the episodes."""
        return range(self.seed, self.seed + self.episodes)

    @cached_property
    def speaks(self) -> bool:
        """Whether the environment itself is played in words."""
        with closing(self.make()) as env:
            return is_text(env)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """The views that differ from each other: what an environment cannot be is left out."""
        if self.speaks:
            return ("native", "array")
        try:
            self.make("text").close()
        except UserError:
            return ("native",)
        return ("native", "text")

    @property
    def words(self) -> View:
        """The view in words.

        Raises:
            NotApplicable: the environment has none.
        """
        if not self.speaks and "text" not in self.views:
            raise NotApplicable("it is not played in words, and does not say itself in words")
        return "native" if self.speaks else "text"

    @cached_property
    def _plays(self) -> dict[tuple[View, int], list[bytes]]:
        return {}

    def alone(self, view: View, seed: int) -> list[bytes]:
        """Return what is seen in an instance that nothing else has used."""
        if (view, seed) not in self._plays:
            with closing(self.make(view)) as env:
                self._plays[view, seed] = list(play(env, seed, self.moves))
        return self._plays[view, seed]

    @property
    def dialogues(self) -> list[Dialogue]:
        """How the oracle plays an episode a seed.

        Raises:
            NotApplicable: there is no oracle.
        """
        return _dialogues(self)

    def steps(self, view: View, nonsense: float = 0.0) -> Iterator[Step]:
        """Play random episodes, one a seed.

        Args:
            view: The view that is played.
            nonsense: Share of messages that are neither a call nor an answer.
        """
        count = 0
        with closing(self.make(view)) as env:
            for seed in self.seeds:
                with shown_by(seed):
                    for step in episode(env, seed, nonsense):
                        yield step
                        count += 1
                if count > self.most_steps:
                    return


@lru_cache(maxsize=128)
def _dialogues(subject: Subject) -> list[Dialogue]:
    """Let the oracle play; several checks look at the same dialogues, and at all splits."""
    found: list[Dialogue] = []
    with closing(subject.make(subject.words)) as env:
        if not hasattr(env.unwrapped, "solution"):
            raise NotApplicable("it has no solution(): nobody says what would solve a task")
        for seed in subject.seeds:
            with shown_by(seed):
                found.append(solved(env, seed))
            if sum(len(dialogue.moves) for dialogue in found) > subject.most_steps:
                break
    return found


def solvable(subject: Subject) -> None:
    """Require that success can be told.

    Raises:
        NotApplicable: nothing says what success is.
    """
    threshold = find_spec(subject.env_id).reward_threshold
    if not subject.speaks and (threshold is None or not math.isfinite(threshold)):
        raise NotApplicable("its specification has no reward_threshold that says what success is")
