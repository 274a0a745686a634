"""Recipes: what PPO is trained with, from YAML and from the command line."""

import difflib
import sys
from dataclasses import dataclass, fields, replace
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


# PyYAML lets through what its constructors raise, of `2001-13-45`, `!!bool x` or `[[[[...`.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

_AT_LEAST_1 = (
    "total_steps", "n_envs", "n_steps", "batch_size", "n_epochs", "evaluate_every",
    "evaluate_episodes", "checkpoint_every",
)  # fmt: skip


def load_recipe(
    env_id: str, path: Path | None = None, changes: dict[str, Any] | None = None
) -> Recipe:
    """Return the recipe of an environment.

    Args:
        env_id: The environment.
        path: A YAML file with environments as keys; None for those that come with Palaestra.
        changes: Values that go over those of the file.

    Raises:
        UserError: the file cannot be read, or a key or value is not one of a recipe.
    """
    source = path or files(__package__) / "recipes" / "ppo.yaml"
    try:
        book = yaml.safe_load(source.read_text("utf-8"))
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
        _check_key(key)
    return replace(Recipe(), **values)


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


def _check_key(key: str) -> None:
    known = [field.name for field in fields(Recipe)]
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
