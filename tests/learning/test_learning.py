"""What the packaged recipes reach; minutes each, so not run by default."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra.train.board import estimate
from palaestra.train.evaluation import Evaluation, seat
from palaestra.train.recipe import Recipe, load_recipe
from palaestra.train.records import Record, read_records
from palaestra.train.training import Run, train

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]


def trained(env_id: str, folder: Path, recipe: Recipe | None = None) -> str:
    run = Run(env_id, recipe or load_recipe(env_id), 0, folder / "run")
    train(run, device="cpu")
    return str(run.folder)


def evaluated(
    env_id: str, split: str | None, who: str, folder: Path, episodes: int = 100, **options: Any
) -> list[Record]:
    path = folder / f"{Path(who).name}.jsonl"
    agent = seat(env_id, split, who, options, "cpu")
    Evaluation(agent, env_id, split).run(range(episodes), path, batch=50)
    return read_records([path])


def test_ppo_balances_the_pole(tmp_path: Path) -> None:
    env_id = "palaestra/CartPole-v1"
    records = evaluated(env_id, None, trained(env_id, tmp_path), tmp_path)
    assert len(records) == 100
    assert np.mean([r.episode_return for r in records]) >= 475


def test_ppo_learns_to_use_the_calculator(tmp_path: Path) -> None:
    env_id = "palaestra/Calculator-v0"
    learned, guessed = (
        estimate(np.array([r.episode_return for r in evaluated(env_id, "test", who, tmp_path)]))
        for who in (trained(env_id, tmp_path), "random")
    )
    assert learned.low is not None
    assert guessed.high is not None
    assert learned.low > guessed.high


def test_a_tiny_language_model_learns_from_reward_what_phrases_mean(tmp_path: Path) -> None:
    env_id = "palaestra/Calculator-v0"
    run = trained(env_id, tmp_path, load_recipe(env_id, Path("tiny"), agent="language-ppo"))
    before = evaluated(env_id, "test", f"{run}/base", tmp_path, episodes=300, shots=0)
    after = evaluated(env_id, "test", run, tmp_path, episodes=300)
    assert np.mean([bool(r.success) for r in before]) < 0.4
    assert np.mean([bool(r.success) for r in after]) >= 0.95
