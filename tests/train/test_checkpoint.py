"""Checkpoints: whole or not there, and good to the last bit."""

import json
import pickle
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from palaestra.agents.ppo import policy_hash
from palaestra.errors import UserError
from palaestra.train.checkpoint import Checkpoint, latest_checkpoint, write_checkpoint
from palaestra.train.recipe import Recipe
from palaestra.train.training import Run, build
from stable_baselines3 import PPO

CARTPOLE = "palaestra/CartPole-v1"
CARD = {"env": CARTPOLE, "training_seed": 0, "steps": 64}
RECIPE = Recipe(n_envs=2, n_steps=32, batch_size=32, n_epochs=1)


def trained() -> PPO:
    model = build(Run(CARTPOLE, RECIPE, 0, Path()), "cpu")
    return model.learn(64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Write a checkpoint; return its folder and the weights after another rollout."""
    root = tmp_path_factory.mktemp("checkpoints")
    model = trained()
    written = write_checkpoint(root, model, CARD)
    return written.folder, goes_on(model)


def goes_on(model: PPO) -> str:
    model.learn(64, reset_num_timesteps=False)
    return policy_hash(model)


@pytest.fixture
def folder(made: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "root" / made[0].name))


def test_a_restored_run_goes_on_as_if_nothing_had_happened(
    made: tuple[Path, str], folder: Path
) -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    model = Checkpoint(folder).restore("cpu")
    assert model.num_timesteps == Checkpoint(folder).steps == 64
    assert goes_on(model) == made[1]


def test_a_checkpoint_is_a_model_of_stable_baselines(folder: Path) -> None:
    model = PPO.load(folder / "model.zip", device="cpu")
    assert policy_hash(model) == policy_hash(Checkpoint(folder).restore("cpu"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "agent.json", "model.zip", "state.pkl"
    ]  # fmt: skip
    card = json.loads((folder / "agent.json").read_text())
    assert card | CARD == card
    assert card["agent"] == "ppo"


def test_what_is_there_is_not_written_again(folder: Path) -> None:
    model = Checkpoint(folder).restore("cpu")
    before = (folder / "model.zip").stat().st_mtime_ns
    assert write_checkpoint(folder.parent, model, CARD) == Checkpoint(folder)
    assert (folder / "model.zip").stat().st_mtime_ns == before


def test_the_newest_is_found_and_drafts_are_swept_away(folder: Path) -> None:
    root = folder.parent
    newer = root / "000000000128"
    shutil.copytree(folder, newer)
    draft = root / ".writing-123"
    shutil.copytree(folder, draft)
    (root / "000000000999").touch()  # a file is none
    assert latest_checkpoint(root) == Checkpoint(newer)
    assert not draft.exists()
    assert latest_checkpoint(root / "none") is None


@pytest.mark.parametrize("name", ["agent.json", "model.zip", "state.pkl"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "other"])
def test_a_damaged_checkpoint_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    raw = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.touch()
        case "cut":
            path.write_bytes(raw[:-9])
        case "flipped":
            middle = len(raw) // 2
            path.write_bytes(raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :])
        case "other":
            path.write_bytes(b"[]" if name == "agent.json" else pickle.dumps(print))
    with pytest.raises(UserError, match=str(folder)):
        Checkpoint(folder).restore("cpu")


def test_a_damaged_checkpoint_does_not_touch_the_generators(folder: Path) -> None:
    (folder / "model.zip").unlink()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        Checkpoint(folder).restore("cpu")
    assert torch.equal(torch.get_rng_state(), before)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["state.pkl", "model.zip"])
def test_a_full_disk_leaves_older_checkpoints_as_they_were(folder: Path, name: str) -> None:
    root = folder.parent
    model = Checkpoint(folder).restore("cpu")
    model.num_timesteps = 128
    size = (folder / name).stat().st_size // 2
    with files_of_at_most(size), pytest.raises((OSError, RuntimeError)):
        write_checkpoint(root, model, CARD)
    assert [path.name for path in root.iterdir()] == [folder.name]
    assert latest_checkpoint(root) == Checkpoint(folder)
    Checkpoint(folder).restore("cpu")
    # With room again it works.
    assert write_checkpoint(root, model, CARD).steps == 128
