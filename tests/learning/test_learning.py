"""What the packaged recipes reach; minutes each, so not run by default."""

from pathlib import Path

import numpy as np
import pytest
from palaestra.train.board import estimate
from palaestra.train.evaluation import Evaluation, seat
from palaestra.train.recipe import load_recipe
from palaestra.train.records import Record, read_records
from palaestra.train.training import Run, train

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]


def trained(env_id: str, folder: Path) -> str:
    run = Run(env_id, load_recipe(env_id), 0, folder / "run")
    train(run, device="cpu")
    return str(run.folder)


def evaluated(env_id: str, split: str | None, who: str, folder: Path) -> list[Record]:
    path = folder / f"{Path(who).name}.jsonl"
    Evaluation(seat(env_id, split, who, {}, "cpu"), env_id, split).run(range(100), path)
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
