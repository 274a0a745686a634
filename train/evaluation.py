"""Play episodes with an agent, each from its own seed, and tell what happened."""

import inspect
import itertools
import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ..agents import Agent, Seat, resolve
from ..agents.agent import Dialogue
from ..envs import views
from ..errors import UserError
from .records import Record, RecordFile, commit, existing, versions

INFRA_ATTEMPTS = 3
"""Times that an episode is played before a failure of the machinery is recorded as such."""


@dataclass
class Episode:
    """One episode, while it is played and after."""

    seed: int
    rng: np.random.Generator
    observation: Any
    info: dict[str, Any]
    episode_return: float = 0.0
    length: int = 0
    tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    over: bool = False
    terminated: bool = False

    @property
    def broken(self) -> bool:
        """Whether the machinery failed, not the agent."""
        return not self.info.get("reward_valid", True)

    def spend(self, tokens: int, cost: float | None) -> None:
        """Add what a message has taken; what nobody knows the price of adds nothing."""
        self.tokens += tokens
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    def cut(self, reason: str) -> None:
        """End it where the agent's machinery failed, as a world ends it whose own has failed."""
        self.observation, self.over = reason, True
        self.info = self.info | {"failure": "infra", "reward_valid": False}


def play(
    agent: Agent, make: Callable[[], gymnasium.Env[Any, Any]], seeds: Sequence[int], batch: int = 16
) -> Iterator[Episode]:
    """Yield each episode as it ends.

    Environments are stepped side by side so that the agent acts on a batch; since every
    episode has its own seed and generator, the batch decides the speed and, in a network, no
    more than the rounding. An
    episode in which the machinery fails is played again, `INFRA_ATTEMPTS` times in all.

    Args:
        agent: Who plays.
        make: Makes an environment in the agent's view.
        seeds: A seed an episode.
        batch: Most episodes at a time.
    """
    waiting = deque(seeds)
    attempts: Counter[int] = Counter()
    envs = [make() for _ in range(min(batch, len(waiting)))]
    try:
        seats: list[tuple[gymnasium.Env[Any, Any], Episode]] = []
        free = list(envs)
        while waiting or seats:
            while waiting and free:
                env = free.pop()
                seats.append((env, _begin(env, waiting.popleft())))
            _step_all(agent, seats)
            ended = [seat for seat in seats if seat[1].over]
            seats = [seat for seat in seats if not seat[1].over]
            free += [env for env, _ in ended]
            for _, episode in ended:
                attempts[episode.seed] += episode.broken
                if episode.broken and attempts[episode.seed] < INFRA_ATTEMPTS:
                    waiting.appendleft(episode.seed)
                    continue
                if attempts[episode.seed]:
                    episode.failures["infra"] = attempts[episode.seed]
                yield episode
    finally:
        for env in envs:
            env.close()


def _begin(env: gymnasium.Env[Any, Any], seed: int) -> Episode:
    observation, info = env.reset(seed=seed)
    return Episode(seed, generator(seed), observation, info)


def generator(seed: int) -> np.random.Generator:
    """Return the generator from which an agent draws in the episode of a seed."""
    return np.random.default_rng([seed, 1])


def _step_all(agent: Agent, seats: list[tuple[gymnasium.Env[Any, Any], Episode]]) -> None:
    start = time.perf_counter()
    episodes = [episode for _, episode in seats]
    acted = agent.act(
        [e.observation for e in episodes], [e.info for e in episodes], [e.rng for e in episodes]
    )
    for i, (env, e) in enumerate(seats):
        e.spend(acted.tokens[i] if acted.tokens else 0, acted.costs[i] if acted.costs else None)
        if acted.failed and (reason := acted.failed[i]) is not None:
            e.cut(reason)
            continue
        e.observation, reward, e.terminated, truncated, e.info = env.step(acted.actions[i])
        e.episode_return += float(reward)
        e.length += 1
        if failure := e.info.get("failure"):
            e.failures[failure] += 1
        e.over = e.terminated or truncated
    share = (time.perf_counter() - start) / len(seats)
    for e in episodes:
        e.seconds += share


@dataclass
class Evaluation:
    """An agent seated at an environment, ready to be measured.

    Args:
        agent: Who plays.
        env_id: Where.
        split: Of which tasks, None if the environment has no splits.
        purpose: What the records are for.
        command: What plays it again; the records quote it.
    """

    agent: Agent
    env_id: str
    split: str | None
    purpose: str = "evaluation"
    command: str = ""

    def run(
        self,
        seeds: Sequence[int],
        path: Path,
        batch: int = 16,
        tell: Callable[[Episode], None] = lambda episode: None,
    ) -> int:
        """Play the episodes that the file has no valid record of and append theirs.

        Returns:
            The number of episodes that were played.
        """
        known = existing(path)
        contest = self._record(Episode(0, generator(0), None, {})).contest
        missing = [seed for seed in seeds if (*contest, seed) not in known]
        if not missing:
            return 0
        with RecordFile(path) as file:
            for episode in play(self.agent, self.make, missing, batch):
                file.append(self._record(episode))
                tell(episode)
        return len(missing)

    def make(self) -> gymnasium.Env[Any, Any]:
        """Make the environment in the agent's view."""
        env = views.make(self.env_id, self.agent.view, split=self.split)
        return views.Revealed(env) if self.agent.reveals else env

    def _record(self, episode: Episode) -> Record:
        return Record(
            env=self.env_id,
            split=self.split,
            purpose=self.purpose,
            agent=self.agent.name,
            agent_hash=self._fingerprint,
            training_seed=self.agent.training_seed,
            training_steps=self.agent.training_steps,
            episode_seed=episode.seed,
            episode_return=round(episode.episode_return, 6),
            success=self._success(episode),
            length=episode.length,
            tokens=episode.tokens,
            seconds=round(episode.seconds, 6),
            recipe_hash=self.agent.recipe_hash,
            cost=None if episode.cost is None else round(episode.cost, 9),
            valid=not episode.broken,
            failures=dict(episode.failures),
            kind=episode.info.get("kind"),
            command=self.command,
            commit=commit(),
            versions=versions(),
        )

    @cached_property
    def _fingerprint(self) -> str:
        return self.agent.fingerprint()

    def _success(self, episode: Episode) -> bool | None:
        if "success" in episode.info:
            return bool(episode.info["success"])
        threshold = views.find_spec(self.env_id).reward_threshold
        return None if threshold is None else episode.episode_return >= threshold


def seat(
    env_id: str, split: str | None, text: str, options: dict[str, Any], device: str = "auto"
) -> Agent:
    """Seat whoever a text names at an environment.

    Args:
        env_id: The environment.
        split: The split that will be played.
        text: A registered name, a folder, a language model, or one behind an endpoint.
        options: The agent's own.
        device: A torch device, for agents that have a network.

    Raises:
        UserError: nobody goes by that name, cannot play there, or has no such option.
    """
    kind, found = resolve(text)
    if _check_options(kind, text, options):
        options = options | {"device": device}
    with views.make(env_id, kind.view, split=split) as env:
        place = Seat(env_id, env.observation_space, env.action_space, lambda n: examples(env_id, n))
    if "folder" in found:
        return kind.load(found["folder"], place, **options)
    return kind(place, **found, **options)


def evaluation_command(
    env_id: str, who: str, split: str | None, settings: Sequence[str], episodes: int, seed: int
) -> str:
    """Return the command that plays an evaluation again."""
    words = ["palaestra", "evaluate", "--env", env_id, "--agent", who]
    words += ["--split", split] if split else []
    for setting in settings:
        words += ["--set", setting]
    return shlex.join([*words, "--episodes", str(episodes), "--seed", str(seed)])


def _check_options(kind: type[Agent], text: str, options: dict[str, Any]) -> bool:
    """Compare options with the agent's parameters, and tell whether it takes a device."""
    given = {"self", "cls", "seat", "folder", "model", "url", "card"}
    types = {
        p.name: p.annotation
        for maker in (kind.__init__, kind.load)
        for p in inspect.signature(maker).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name not in given
    }
    takes_device = types.pop("device", None) is not None
    for key, value in options.items():
        if key not in types:
            known = ", ".join(types) or "none"
            raise UserError(f"{text} has no option {key!r}; its options are: {known}")
        wanted = types[key]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"option {key}={value!r} of {text} must be of type {wanted.__name__}")
    return takes_device


def examples(env_id: str, count: int) -> list[Dialogue]:
    """Return solved dialogues of training tasks, one of each kind before a second of any."""
    splits = views.splits_of(views.find_spec(env_id))
    split = "train" if splits else None
    by_kind: dict[str, list[Dialogue]] = {}
    with views.Revealed(views.make(env_id, "text", split=split)) as env:
        for i in range(10 * count):
            dialogue, kind = _solved(env, _EXAMPLE_SEED + i)
            by_kind.setdefault(kind, []).append(dialogue)
    rounds = itertools.zip_longest(*by_kind.values())
    return [d for one_of_each in rounds for d in one_of_each if d is not None][:count]


_EXAMPLE_SEED = 10_000_000
"""Far from the seeds that anybody is evaluated on."""


def _solved(env: gymnasium.Env[Any, Any], seed: int) -> tuple[Dialogue, str]:
    """Return the dialogue of an oracle's first moves, the last word its own."""
    _, info = env.reset(seed=seed)
    for _ in range(8):
        _, _, terminated, truncated, info = env.step(info["solution"])
        if terminated or truncated:
            break
    messages: Dialogue = info["messages"]
    while messages[-1]["role"] != "assistant":
        messages.pop()
    return messages, info["kind"]
