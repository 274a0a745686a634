"""Recipes: what agents are trained with, from YAML and from the command line."""

import difflib
import math
import sys
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml

from ..errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training run, by the names that SB3's PPO gives them.

    Raises:
        UserError: a value is of the wrong type or out of range; the message names it.
    """

    total_steps: int = 100_000
    """Steps of the environments, all together."""
    n_envs: int = 8
    """Environments that are stepped side by side."""
    n_steps: int = 128
    """Steps of each environment between two updates."""
    batch_size: int = 256
    """Transitions of a minibatch."""
    n_epochs: int = 10
    """Passes over the rollout in an update."""
    learning_rate: float = 3e-4
    """Step size of Adam, at the start if it has a schedule."""
    learning_rate_schedule: str = "constant"
    """`constant`, or `linear` for a fall to 0."""
    clip_range: float = 0.2
    """Clipping of the probability ratio, at the start if it has a schedule."""
    clip_range_schedule: str = "constant"
    """`constant`, or `linear` for a fall to 0."""
    gamma: float = 0.99
    """Discount of a step."""
    gae_lambda: float = 0.95
    """Bias against variance of the advantages; 1 is Monte Carlo."""
    ent_coef: float = 0.0
    """Weight of the entropy in the loss."""
    vf_coef: float = 0.5
    """Weight of the value error in the loss."""
    max_grad_norm: float = 0.5
    """Norm to which gradients are clipped."""
    normalize_advantage: bool = True
    """Whether advantages are standardised in each minibatch."""
    target_kl: float | None = None
    """KL divergence at which an update stops early."""
    policy_kwargs: dict[str, Any] | None = None
    """Keyword arguments of the policy, such as `{net_arch: [64, 64]}`."""
    evaluate_every: int = 10_000
    """Steps between evaluations on held-out seeds."""
    evaluate_episodes: int = 50
    """Episodes of such an evaluation."""
    checkpoint_every: int = 20_000
    """Steps between checkpoints; the last step is always one."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = getattr(field.type, "__name__", str(field.type))
            _require(field.name, value, fits(value, field.type), f"must be of type {kind}")
        for name in _AT_LEAST_1:
            _require(name, getattr(self, name), getattr(self, name) >= 1, "must be at least 1")
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "must lie between 0 and 1")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "must be above 0")
        for name in ("learning_rate_schedule", "clip_range_schedule"):
            value = getattr(self, name)
            _require(name, value, value in ("constant", "linear"), "must be constant or linear")
        rollout = self.n_envs * self.n_steps
        _require("n_steps", self.n_steps, rollout > 1, "and n_envs make a rollout of one step")


@dataclass(frozen=True)
class LanguageRecipe(Recipe):
    """Hyper-parameters of a training of a language model.

    Raises:
        UserError: as for `Recipe`.
    """

    model: str = "SmolLM2-135M-Instruct"
    """What is trained: as `LanguagePolicy` takes it, or `tiny` for a model from scratch."""
    algorithm: str = "ppo"
    """`ppo`, or `grpo`, which has no critic and compares dialogues of one task."""
    group_size: int = 8
    """Environments that play the same tasks, for `grpo`."""
    baseline: str = "group"
    """What `grpo` compares a dialogue with: `group` or `leave-one-out`."""
    shots: int = 0
    """Solved training tasks before every dialogue."""
    max_new_tokens: int = 48
    """Most tokens of a message."""
    last_layers: int | None = None
    """Layers that are trained, the last ones; all weights if None."""
    lora_rank: int | None = None
    """Rank of adapters that are trained instead of weights."""
    temperature: float = 1.0
    """What logits are divided by, those of tokens or the scores of choices, in rollouts and in
    updates."""
    sampling_dtype: str | None = None
    """Name of a torch dtype, such as `bfloat16`, in which messages are sampled; what was sampled
    is then read once more for its log-probability. For GPUs."""
    sampling_engine: str | None = None
    """`vllm` lets vLLM sample messages, which are then read once more. For GPUs."""
    continuous_batching: bool = False
    """Whether a dialogue goes on as soon as its message has ended, and waits for no longer one; for
    environments that answer at once."""
    whole_dialogues: bool = False
    """Whether minibatches are made of whole dialogues, whose earlier turns are then read with the
    last."""
    critic_gradient: float = 0.0
    """Share of the critic's gradient that reaches the model."""
    critic_scale: float = 10.0
    """What the critic's output is multiplied by."""
    grammar: str | None = None
    """What messages are held to: `calls` for calls of tools and answers that are well formed, where
    there are tools, or a grammar in llguidance's Lark."""
    kl_coef: float = 0.0
    """Weight in the loss of the KL divergence from the start, a sum over the tokens of a message;
    in place of `ent_coef`."""
    warmup: str = "none"
    """Supervised learning before the first rollout: from `blind` dialogues, which show the form
    and not the answer, from an `oracle`'s, or `none`."""
    warmup_dialogues: int = 16_000
    """Different dialogues to learn from."""
    warmup_mistakes: float = 0.0
    """Share of the messages in them that are drawn from what could be said there instead, for a
    start that errs."""
    warmup_layers: int | None = None
    """Layers that are taught, the last ones; all weights if None, which teaches more."""
    warmup_epochs: int = 1
    """How often each is seen."""
    warmup_batch_size: int = 32
    """Dialogues of a step."""
    warmup_learning_rate: float = 5e-3
    """Of the warm start, at its height."""
    warmup_symbols: float = 0.0
    """Share of dialogues whose digits are replaced by tokens that no dialogue holds, so that a
    model from scratch learns to copy numbers, and not by heart which there are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, names in _ONE_OF.items():
            value = getattr(self, name)
            _require(name, value, value in names, f"must be one of {', '.join(names)}")
        for name in ("max_new_tokens", "warmup_dialogues", "warmup_epochs", "warmup_batch_size"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "must be at least 1")
        _require("shots", self.shots, self.shots >= 0, "must be at least 0")
        for name in ("temperature", "critic_scale", "warmup_learning_rate"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "must be above 0")
        known = self.sampling_engine in (None, "vllm")
        _require("sampling_engine", self.sampling_engine, known, "must be vllm, or null for ours")
        for name in ("warmup_mistakes", "warmup_symbols"):
            share = getattr(self, name)
            _require(name, share, 0 <= share <= 1, "must be between 0 and 1")
        _require("kl_coef", self.kl_coef, self.kl_coef >= 0, "must be at least 0")
        both = self.kl_coef > 0 and self.ent_coef != 0
        _require("kl_coef", self.kl_coef, not both, "takes the place of ent_coef: leave one at 0")
        blank = self.model == "tiny" and self.warmup == "none"
        _require("warmup", self.warmup, not blank, "but a tiny model knows no words before one")

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm start."""
        return self.warmup_epochs * math.ceil(self.warmup_dialogues / self.warmup_batch_size)


@dataclass(frozen=True)
class ChoicesRecipe(LanguageRecipe):
    """Hyper-parameters of a training of a language model that chooses among messages.

    Raises:
        UserError: as for `LanguageRecipe`, and where a value means something to who writes only.
    """

    length_normalization: bool = False
    """Whether a choice is scored by the mean of its tokens' log-probabilities, not their sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(LanguageRecipe):
            if field.name in _OF_WRITERS:
                value = getattr(self, field.name)
                _require(
                    field.name, value, value == field.default,
                    "is for who writes messages, and here they are chosen: leave it out",
                )  # fmt: skip


_OF_WRITERS = (
    "algorithm", "group_size", "baseline", "sampling_dtype", "sampling_engine",
    "continuous_batching", "whole_dialogues", "grammar",
)  # fmt: skip
_ONE_OF = {
    "algorithm": ("ppo", "grpo"),
    "baseline": ("group", "leave-one-out"),
    "warmup": ("none", "blind", "oracle"),
}
RECIPES: dict[str, type[Recipe]] = {
    "ppo": Recipe, "language-ppo": LanguageRecipe, "language-choices": ChoicesRecipe
}  # fmt: skip
"""By the agent that is trained."""


# PyYAML lets through what its constructors raise, of `2001-13-45`, `!!bool x` or `[[[[...`.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

_AT_LEAST_1 = (
    "total_steps", "n_envs", "n_steps", "batch_size", "n_epochs", "evaluate_every",
    "evaluate_episodes", "checkpoint_every",
)  # fmt: skip


def load_recipe(
    env_id: str,
    path: Path | None = None,
    changes: dict[str, Any] | None = None,
    agent: str = "ppo",
) -> Recipe:
    """Return the recipe of an environment.

    Args:
        env_id: The environment.
        path: A YAML file with environments as keys, or the name of one that comes with
            Palaestra; None for the one that has the agent's name.
        changes: Values that go over those of the file.
        agent: What is trained, one of `RECIPES`.

    Raises:
        UserError: the file cannot be read, or a key or value is not one of a recipe.
    """
    kind, packaged = RECIPES[agent], files(__package__) / "recipes" / f"{path or agent}.yaml"
    source = path if path and (path.is_file() or not packaged.is_file()) else packaged
    try:
        book = yaml.safe_load(source.read_text("utf-8"))
    except FileNotFoundError:
        books = (files(__package__) / "recipes").iterdir()
        named = ", ".join(sorted(book.name.removesuffix(".yaml") for book in books))
        raise UserError(
            f"cannot read the recipe {path}: there is no such file; the named recipes are: {named}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(book, dict) or not all(isinstance(v, dict) for v in book.values()):
        raise UserError(f"{path} needs environments as keys, and under each its hyper-parameters")
    if path and env_id not in book and "default" not in book:
        raise UserError(f"{path} has no recipe for {env_id}, and no `default`")
    written = book.get("default", {}) | book.get(env_id, {})
    values = {key: _number_or(value) for key, value in written.items()} | (changes or {})
    for key in values:
        _check_key(key, kind)
    return kind(**values)


def completed(saved: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return what was saved of a recipe, completed by the values that have come since.

    A new value's default is what was done before there was that value.

    Args:
        saved: Of an earlier version, perhaps; other entries stay.
        recipe: What it is to be compared with.
    """
    return {field.name: field.default for field in fields(recipe)} | saved


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Read `key=value` texts, each value as YAML.

    Raises:
        UserError: a text has no `=`, or its value is no YAML.
    """
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set {setting!r} is not of the form key=value")
        try:
            parsed[key.strip()] = _number_or(yaml.safe_load(value))
        except _UNREADABLE:
            raise UserError(f"--set {setting!r}: the value cannot be read") from None
    return parsed


def _number_or(value: Any) -> Any:
    """YAML 1.1 reads 3e-4 as a word; nobody means one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_key(key: str, kind: type[Recipe]) -> None:
    known = [field.name for field in fields(kind)]
    if key not in known:
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown recipe key {key!r}; {hint}the keys are: {', '.join(known)}")


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of an annotated type; an int is a float, a bool is neither."""
    if isinstance(hint, UnionType):
        return any(fits(value, option) for option in get_args(hint))
    kind = get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _require(name: str, value: Any, holds: bool, rule: str) -> None:
    if not holds:
        raise UserError(f"recipe: {name}={value!r} {rule}")
