"""An agent that stable-baselines3's PPO has trained."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.save_util import load_from_zip_file

from ..errors import MORE_MEMORY, UserError, memory_permitting
from .agent import Actions, Agent, Seat, View, read_card, write_card


class PPOAgent(Agent):
    """Play what PPO has learned.

    Args:
        seat: Where it plays.
        model: What was trained.
        card: What is known of the training; see `save_model`.
        sample: Whether to sample actions instead of taking the likeliest.

    Raises:
        UserError: it was trained on another environment.
    """

    view: ClassVar[View] = "array"

    def __init__(self, seat: Seat, model: PPO, card: dict[str, Any], sample: bool = False) -> None:
        super().__init__(seat, sample=sample)
        self.model, self.card = model, card
        self.training_seed, self.training_steps = card["training_seed"], card["steps"]
        self.recipe_hash = card.get("recipe_hash")
        if not self._fits(seat):
            raise UserError(
                f"this agent was trained on an older version of {seat.env_id}: train it anew"
            )

    @property
    def name(self) -> str:
        """`ppo`, and `(sampled)` if it samples."""
        return "ppo (sampled)" if self.options["sample"] else "ppo"

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Take the likeliest action of each, or one drawn with the episode's generator."""
        batch = _stacked(observations)
        if not self.options["sample"]:
            actions, _ = self.model.predict(batch, deterministic=True)
            return Actions(list(actions))
        tensor, _ = self.model.policy.obs_to_tensor(batch)
        with torch.no_grad():
            distribution: Any = self.model.policy.get_distribution(tensor).distribution
        if isinstance(distribution, torch.distributions.Normal):
            means, deviations = (
                part.double().cpu().numpy() for part in (distribution.mean, distribution.stddev)
            )
            space: Any = self.model.action_space
            return Actions(
                [
                    rng.normal(mean, deviation).clip(space.low, space.high).astype(space.dtype)
                    for mean, deviation, rng in zip(means, deviations, rngs, strict=True)
                ]
            )
        rows = distribution.probs.double().cpu().numpy()
        return Actions(
            [rng.choice(len(p), p=p / p.sum()) for p, rng in zip(rows, rngs, strict=True)]
        )

    def _fits(self, seat: Seat) -> bool:
        """Tell whether what was trained can play there."""
        trained = self.model.observation_space, self.model.action_space
        return trained == (seat.observation_space, seat.action_space)

    def fingerprint(self) -> str:
        """Return the hash of the policy's weights."""
        suffix = "-sampled" if self.options["sample"] else ""
        return policy_hash(self.model) + suffix

    def save(self, folder: Path) -> None:
        """Write the model and its card."""
        save_model(self.model, folder, self.card | {"agent": self.registered_name()})

    @classmethod
    def load(  # type: ignore[override]
        cls, folder: Path, seat: Seat, sample: bool = False, device: str = "auto"
    ) -> "PPOAgent":
        """Load a checkpoint.

        Raises:
            UserError: it is damaged, or belongs to another environment.
        """
        card = _checked_card(folder)
        if card["env"] != seat.env_id:
            raise UserError(
                f"{folder} was trained on {card['env']}, not on {seat.env_id}: give a "
                f"checkpoint of {seat.env_id}, or --env {card['env']}"
            )
        try:
            with memory_permitting(MORE_MEMORY):
                model = PPO.load(folder / _MODEL, device=device, custom_objects=moved(folder))
        except UserError:
            raise
        except Exception as error:  # SB3 unpickles, which can fail in any way there is
            raise UserError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}): another version "
                "wrote it; train anew, or use another checkpoint"
            ) from error
        return cls(seat, model, card, sample)


def save_model(model: PPO, folder: Path, card: dict[str, Any]) -> None:
    """Write a model and its card into an empty folder.

    Args:
        model: What was trained.
        folder: Where; it exists and is empty.
        card: At least `env`, `training_seed` and `steps`; `agent`, where that is not `ppo`.
    """
    model.save(folder / _MODEL)
    written = {"model_sha256": _hash(folder / _MODEL), "options": {}}
    write_card(folder, {"agent": "ppo"} | card | written)


def moved(folder: Path) -> dict[str, Any]:
    """Return what has to be changed in a saved model, whose run may have been moved since.

    A language model that was warmed up lies in the run's folder, and is named in its policy.
    """
    base = folder.resolve().parent.parent / "base"
    if not base.is_dir():
        return {}
    data, _, _ = load_from_zip_file(folder / _MODEL, load_data=True)
    assert data is not None
    return {"policy_kwargs": data["policy_kwargs"] | {"model": str(base)}}


def policy_hash(model: PPO) -> str:
    """Return a hash of the weights, which the file's hash is not: zip files carry the time."""
    hashed = hashlib.sha256()
    for name, tensor in model.policy.state_dict().items():
        # As bytes, for NumPy has not all of torch's types.
        raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
        hashed.update(name.encode() + raw.numpy().tobytes())
    return hashed.hexdigest()


_MODEL = "model.zip"


def _checked_card(folder: Path) -> dict[str, Any]:
    damaged = f"the checkpoint {folder} is damaged: delete it and use an older one"
    try:
        card = read_card(folder)
        intact = card["model_sha256"] == _hash(folder / _MODEL)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise UserError(damaged) from None
    if not intact or not {"env", "training_seed", "steps"} <= card.keys():
        raise UserError(damaged)
    return card


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stacked(observations: Sequence[Any]) -> Any:
    """Stack B observations, key by key where they are dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return np.stack(observations)
