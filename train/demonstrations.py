"""Dialogues to learn from before there is a reward to learn from."""

from collections.abc import Iterator
from string import ascii_letters
from typing import Any, Literal

import gymnasium
import numpy as np

from ..agents.agent import Dialogue
from ..envs import views

Kind = Literal["blind", "oracle", "garbled"]
"""`oracle` shows how each task is solved. `blind` shows the form alone: what is asked of the tools
is drawn from the choices, and what they reply is reported, so that which of them a question
means can only come from reward. `garbled` are such messages with a slip in each, to hear what is
then said."""


def demonstrations(
    env_id: str, kind: Kind, count: int, seed: int, mistakes: float = 0.0
) -> Iterator[Dialogue]:
    """Yield so many dialogues of training tasks.

    Args:
        env_id: The environment.
        kind: Whose dialogues.
        count: How many.
        seed: The same seed yields the same dialogues.
        mistakes: Share of the messages that are drawn from the choices instead, so that who
            imitates them errs, and only reward can say where.
    """
    splits = views.splits_of(views.find_spec(env_id))
    sequence = np.random.SeedSequence([seed, 2])
    rng = np.random.default_rng(sequence)
    with views.Revealed(views.make(env_id, "text", split="train" if splits else None)) as env:
        _, info = env.reset(seed=int(sequence.generate_state(1)[0]))
        for _ in range(count):
            yield _dialogue(env, info, kind, rng, mistakes)
            _, info = env.reset()


def _dialogue(
    env: gymnasium.Env[Any, Any],
    info: dict[str, Any],
    kind: Kind,
    rng: np.random.Generator,
    mistakes: float,
) -> Dialogue:
    over = False
    while not over:
        # Where nobody errs nothing is drawn for it, and blind dialogues are those of their seed.
        if mistakes and rng.random() < mistakes:
            message = _any(info, rng)
        else:
            message = info["solution"] if kind == "oracle" else _blind(info, rng)
            message = _garbled(message, rng) if kind == "garbled" else message
        _, _, terminated, truncated, info = env.step(message)
        over = terminated or truncated
    messages: Dialogue = info["messages"]
    while messages[-1]["role"] != "assistant":
        messages.pop()
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _blind(info: dict[str, Any], rng: np.random.Generator) -> str:
    """Report what a tool has just said, if that can be an answer; else take any choice."""
    newest, choices = info["messages"][-1], info["choices"]
    report = f"<answer>{newest['content']}</answer>"
    if newest["role"] == "tool" and report in choices:
        return report
    return _any(info, rng)


def _garbled(message: str, rng: np.random.Generator) -> str:
    """Leave a character out, or put a letter where none belongs."""
    place = int(rng.integers(len(message)))
    if rng.random() < 0.5:
        return message[:place] + message[place + 1 :]
    return message[:place] + str(rng.choice(list(ascii_letters))) + message[place:]


def _any(info: dict[str, Any], rng: np.random.Generator) -> str:
    choices: tuple[str, ...] = info["choices"]
    return choices[rng.integers(len(choices))]
