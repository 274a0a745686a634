"""Checkpoints: everything that a run needs to go on as if it had never been stopped."""

import hashlib
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.agent import read_card
from ..agents.ppo import moved, save_model
from ..errors import MORE_MEMORY, UserError, memory_permitting
from ..policies import generators
from .grpo import GRPO
from .ppo import PPO

_STATE = "state.pkl"


@dataclass(frozen=True)
class Checkpoint:
    """A folder that appeared by one rename, so it is whole or not there.

    It holds the agent (`agents.ppo`: model, optimiser, counters and the last observation),
    and the states of the environments and of all random generators. The state is unpickled
    when a run is resumed: resume only runs that you trust.
    """

    folder: Path

    @property
    def steps(self) -> int:
        """Steps that had been trained."""
        return int(self.folder.name)

    def restore(self, device: str) -> PPO:
        """Load the model with its environments, and set the random generators.

        Raises:
            UserError: the checkpoint is damaged, or memory is used up.
        """
        damaged = UserError(
            f"the checkpoint {self.folder} is damaged: delete it to resume from an older one"
        )
        try:
            card = read_card(self.folder)
            raw = (self.folder / _STATE).read_bytes()
            if hashlib.sha256(raw).hexdigest() != card["state_sha256"]:
                raise damaged
            state = pickle.loads(raw)
            model_file = (self.folder / "model.zip").read_bytes()
            if hashlib.sha256(model_file).hexdigest() != card["model_sha256"]:
                raise damaged
            elsewhere = moved(self.folder)
            if elsewhere:
                state["envs"].model = elsewhere["policy_kwargs"]["model"]
            kind = GRPO if card.get("algorithm") == "grpo" else PPO
            with memory_permitting(MORE_MEMORY):
                model: PPO = kind.load(
                    self.folder / "model.zip", env=state["envs"], device=device,
                    force_reset=False, custom_objects=elsewhere,
                )  # fmt: skip
        except UserError:
            raise
        except Exception as error:  # unpickling can fail in any way there is
            raise damaged from error
        generators.restore(state["generators"])
        return model


def write_checkpoint(root: Path, model: PPO, card: dict[str, Any]) -> Checkpoint:
    """Save a run under `root`, by its number of steps.

    Args:
        root: The run's folder of checkpoints.
        model: The model, with its environments.
        card: What the agent says about itself; see `agents.ppo.save_model`.

    Raises:
        OSError: no room; what was there before is untouched.
    """
    final = root / f"{model.num_timesteps:012d}"
    if final.exists():
        return Checkpoint(final)
    draft = root / f".writing-{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        raw = pickle.dumps({"envs": model.env, "generators": generators.states()})
        (draft / _STATE).write_bytes(raw)
        save_model(model, draft, card | {"state_sha256": hashlib.sha256(raw).hexdigest()})
        for path in draft.iterdir():
            _sync(path)
        draft.rename(final)
        _sync(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Checkpoint(final)


def latest_checkpoint(root: Path) -> Checkpoint | None:
    """Return the newest checkpoint, or None; drafts that a kill left behind are removed."""
    for draft in root.glob(".writing-*"):
        shutil.rmtree(draft, ignore_errors=True)
    found = sorted(path for path in root.glob("[0-9]*") if path.is_dir())
    return Checkpoint(found[-1]) if found else None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
