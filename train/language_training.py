"""What is particular to the training of language models: the warm start, tokens, the policy."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gymnasium import spaces

from ..agents import Seat
from ..envs import views
from ..envs.vector import make_vec
from ..errors import UserError, memory_permitting
from ..policies.causal_lm import CausalLM
from ..policies.chat import Chat
from ..policies.crossing import Message
from ..policies.grammar import named
from ..policies.imitation import imitate
from ..policies.loading import running
from ..policies.quiet import quietly
from ..policies.tiny import make_tiny
from .demonstrations import Kind, demonstrations
from .evaluation import examples
from .recipe import ChoicesRecipe, LanguageRecipe, completed
from .token_vec_env import TokenVecEnv

_TOKENIZED = 2_000
"""Dialogues from which a tiny model's tokenizer learns its pieces."""
_GARBLED = 200
"""Dialogues from which it learns those of what is said of mistakes: no warm start shows them, and
letter by letter they would be what rollouts read most of."""


def dialogues(env_id: str, recipe: LanguageRecipe, model: str) -> TokenVecEnv:
    """Make the environments of a training, whose actions are tokens."""
    group_size = recipe.group_size if recipe.algorithm == "grpo" else 1
    vector = make_vec(
        env_id, recipe.n_envs, "auto", "dialogue",
        split=views.training_split(env_id), autoreset="SameStep", group_size=group_size,
    )  # fmt: skip
    return TokenVecEnv(vector, model, recipe.max_new_tokens, monitor=True)


def policy_options(env_id: str, recipe: LanguageRecipe, model: str) -> dict[str, Any]:
    """Return the arguments of `LanguagePolicy`, all of them plain data."""
    return {
        "model": model,
        "prefix": prefix(env_id, recipe.shots),
        "last_layers": recipe.last_layers,
        "lora_rank": recipe.lora_rank,
        "temperature": recipe.temperature,
        "sampling_dtype": recipe.sampling_dtype,
        "sampling_engine": recipe.sampling_engine,
        "continuous_batching": recipe.continuous_batching,
        "whole_dialogues": recipe.whole_dialogues,
        "critic_gradient": recipe.critic_gradient,
        "critic_scale": recipe.critic_scale,
        "relative_entropy": recipe.kl_coef > 0,
        "length_normalization": isinstance(recipe, ChoicesRecipe) and recipe.length_normalization,
        "grammar": _grammar(env_id, recipe, model),
        **(recipe.policy_kwargs or {}),
    }


def _grammar(env_id: str, recipe: LanguageRecipe, model: str) -> str | None:
    if not recipe.grammar:
        return None
    with closing(views.make(env_id, "text")) as env:
        tools = getattr(env.unwrapped, "tools", {})
    return named(recipe.grammar, [tool.schema for tool in tools.values()], Chat(model))


def prefix(env_id: str, shots: int) -> list[Message]:
    """Return solved training tasks as the beginning of every dialogue."""
    nowhere = spaces.Space[Any]()
    seat = Seat(env_id, nowhere, nowhere, lambda count: examples(env_id, count))
    return [{"role": m["role"], "content": m["content"]} for m in seat.prefix(shots)]


def warm_up(
    env_id: str,
    recipe: LanguageRecipe,
    seed: int,
    folder: Path,
    tell: Callable[[float], None] = lambda loss: None,
    device: str = "auto",
) -> str:
    """Return the model that a training begins with, made and warmed up if the recipe says so.

    Args:
        env_id: The environment.
        recipe: Says what to begin with and what to show it.
        seed: Of the weights, the dialogues and their order.
        folder: Where the model is written, whole or not at all; one that is there is taken.
        tell: Called with the loss of each step, in nats a token.
        device: A torch device, or `auto`.

    Raises:
        UserError: the folder holds something else.
    """
    if recipe.warmup == "none":
        return recipe.model
    card = _card(env_id, recipe, seed)
    if not folder.exists():
        draft = _draft(folder)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        kind: Kind = "oracle" if recipe.warmup == "oracle" else "blind"
        shown = list(
            demonstrations(env_id, kind, recipe.warmup_dialogues, seed, recipe.warmup_mistakes)
        )
        if recipe.model == "tiny":
            slips = demonstrations(env_id, "garbled", _GARBLED, seed)
            make_tiny(draft, [*shown[:_TOKENIZED], *slips], seed)
        lm = CausalLM(str(draft) if recipe.model == "tiny" else recipe.model, device)
        begun = {_HASH: lm.fingerprint}
        with running(lm.model), memory_permitting(_SMALLER):
            imitate(
                lm, shown, seed, recipe.warmup_epochs, recipe.warmup_batch_size,
                recipe.warmup_learning_rate, recipe.warmup_layers, recipe.warmup_symbols, tell,
            )  # fmt: skip
        with quietly():
            lm.model.save_pretrained(draft)
        lm.chat.tokenizer.save_pretrained(draft)
        (draft / _CARD).write_text(json.dumps(card | begun, indent=2), "utf-8")
        draft.rename(folder)
    elif completed(_found(folder / _CARD), recipe) != completed(card, recipe):
        raise UserError(
            f"{folder} holds another warm start than this one, or something else: give another "
            "--out, or delete it"
        )
    return str(folder)


def was_begun(folder: Path) -> bool:
    """Tell whether a warm start has become this folder, or was begun that should have."""
    return folder.exists() or _draft(folder).exists()


def _draft(folder: Path) -> Path:
    return folder.with_name(f".making-{folder.name}")


_CARD = "warmup.json"
_HASH = "model_hash"
"""Of the weights that a warm start began with; earlier cards do not have it."""
_SMALLER = "give a smaller warmup_batch_size, or teach fewer warmup_layers"
"""What to do where memory is used up."""


def _card(env_id: str, recipe: LanguageRecipe, seed: int) -> dict[str, Any]:
    """Return all that a warm start depends on."""
    shown = {k: v for k, v in asdict(recipe).items() if k.startswith("warmup")}
    return {"env": env_id, "seed": seed, "model": recipe.model} | shown


def _found(path: Path) -> dict[str, Any]:
    """Return a card as `_card` has it."""
    try:
        card = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    card.pop(_HASH, None)
    return card
