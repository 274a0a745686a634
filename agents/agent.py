"""What every agent is: a batch of observations in, a batch of actions out."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import Space

Dialogue = list[dict[str, Any]]
View = Literal["native", "array", "text", "dialogue", "choices"]
"""As `envs.views.make` takes it; no agent needs to know the environments."""


@dataclass(frozen=True)
class Seat:
    """Where an agent is going to play."""

    env_id: str
    """Id of the environment."""
    observation_space: Space[Any]
    """Of the view that the agent asked for."""
    action_space: Space[Any]
    """Of the view that the agent asked for."""
    examples: Callable[[int], list[Dialogue]] = field(default=lambda count: [])
    """Return that many solved dialogues of training tasks, the system's message first."""

    def prefix(self, shots: int) -> Dialogue:
        """Return so many examples as the beginning of every dialogue, empty if there are none."""
        examples = self.examples(shots) if shots else []
        system = [examples[0][0]] if examples else []
        return system + [message for example in examples for message in example[1:]]


@dataclass(frozen=True)
class Actions:
    """What a batch of B agents does."""

    actions: list[Any]
    """An action an observation."""
    tokens: list[int] = field(default_factory=list)
    """Tokens that were generated for each, empty if none ever are."""
    costs: list[float | None] = field(default_factory=list)
    """Dollars that each cost, None where nobody knows, empty if none ever does."""
    failed: list[str | None] = field(default_factory=list)
    """Why the agent's machinery has no action for an observation, None where it has one; empty
    if it always has. Such an action is not taken: nothing was learned about the agent."""


class Agent(ABC):
    """Base of all agents.

    A subclass says which view it needs, takes its `Seat` and then its options, all of them
    plain data, and acts. An agent keeps no memory between calls: what it needs to know of an
    episode is in the observation and the info, and its randomness comes from the episode's
    own generator. So episodes may be played in any order and in batches of any size.
    """

    view: ClassVar[View]
    """The view it plays."""
    reveals: ClassVar[bool] = False
    """Whether it must be told the solution (`info["solution"]`)."""
    training_seed: int | None = None
    """Seed of its training, None if it was not trained here."""
    recipe_hash: str | None = None
    """Hash of what it was trained with, None if it was not trained here."""
    training_steps: int | None = None
    """Steps of its training, None if it was not trained here."""

    def __init__(self, seat: Seat, **options: Any) -> None:
        self.seat = seat
        self.options = options

    @property
    @abstractmethod
    def name(self) -> str:
        """What boards call it."""

    @abstractmethod
    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Choose an action for each of B episodes.

        Args:
            observations: B observations of the view.
            infos: What the environments said beside them.
            rngs: The generator of each episode.
        """

    def fingerprint(self) -> str:
        """Return a hash of everything that decides how it plays."""
        return digest({"name": self.name, **self.options})

    def save(self, folder: Path) -> None:
        """Write the agent into an empty folder, from which `load` makes it again."""
        write_card(folder, {"agent": self.registered_name(), "options": self.options})

    @classmethod
    def load(cls, folder: Path, seat: Seat, **options: Any) -> "Agent":
        """Make an agent again that was saved; `options` go over those that were saved."""
        return cls(seat, **(read_card(folder)["options"] | options))

    @classmethod
    def registered_name(cls) -> str:
        """Return the name by which the registry knows the class."""
        from . import AGENTS

        return next(n for n, place in AGENTS.items() if place.endswith(f":{cls.__name__}"))


def digest(parts: dict[str, Any]) -> str:
    """Return a hash of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write what a saved agent says about itself."""
    (folder / "agent.json").write_text(json.dumps(card, indent=2, sort_keys=True), "utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """Return what a saved agent says about itself."""
    card: dict[str, Any] = json.loads((folder / "agent.json").read_text("utf-8"))
    return card
