"""The scores that stand in the docstrings of the environments, as reference.

    python benchmarks/reference_scores.py --env palaestra/Films-v0 palaestra/Hangman-v0

Random, PPO (stable-baselines3, reading through MiniLM) and SmolLM2-135M-Instruct, greedy and
sampled, play tasks of the split `test`; PPO is trained once on the split `train`. Success comes
with its 95 % bootstrap interval over episodes, which knows nothing of other training seeds.
What has been trained and played is kept in the folder and not done again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from palaestra.envs import views
from palaestra.policies import PACKAGED_MODEL
from palaestra.train.board import estimate
from palaestra.train.evaluation import Evaluation, evaluation_command, seat
from palaestra.train.recipe import load_recipe
from palaestra.train.records import read_records
from palaestra.train.training import Run, train

SHOTS = {"Reasoning": 4, "Factbook": 2, "GuessNumber": 3, "Hangman": 2, "Synthesis": 4, "BabyAI": 1}
"""Solved dialogues in the language model's prompt where nine would not fit or take minutes."""
STEPS = 6_144
"""Of PPO's training; BabyAI's arrays are fast, and get thirty times as many."""


def main() -> None:
    """Train, play, and print a line an agent and environment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", nargs="+", required=True, metavar="ID")
    parser.add_argument("--agents", nargs="+", default=["random", "ppo", "greedy", "sampled"])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/reference"))
    options = parser.parse_args()
    for env_id in options.env:
        for who in options.agents:
            name, settings = contestant(env_id, who, options.out)
            split = "test" if "test" in views.splits_of(views.find_spec(env_id)) else None
            records = options.out / f"{env_id.rpartition('/')[2]}-{who}.jsonl"
            agent = seat(env_id, split, name, settings)
            texts = [f"{key}={value}" for key, value in settings.items()]
            command = evaluation_command(env_id, name, split, texts, options.episodes, 0)
            evaluation = Evaluation(agent, env_id, split, command=command)
            evaluation.run(range(options.episodes), records, options.batch)
            print(line(env_id, who, records), flush=True)


def contestant(env_id: str, who: str, out: Path) -> tuple[str, dict[str, Any]]:
    """Return who plays, trained if need be, and its options."""
    world = env_id.rpartition("/")[2].partition("-")[0]
    if who == "ppo":
        return str(trained(env_id, world, out).folder), {}
    if who in ("greedy", "sampled"):
        shots = {"shots": SHOTS[world]} if world in SHOTS else {}
        return PACKAGED_MODEL, shots | ({"temperature": 1.0} if who == "sampled" else {})
    return who, {}


def trained(env_id: str, world: str, out: Path) -> Run:
    """Return PPO's run, after its last step."""
    text = views.is_text(views.make(env_id).unwrapped)
    fast = {"total_steps": STEPS * 30, "evaluate_every": STEPS * 10}
    changes: dict[str, Any] = {"total_steps": STEPS, "evaluate_every": 2_048} if text else fast
    recipe = load_recipe(env_id, changes=changes)
    run = Run(env_id, recipe, seed=0, folder=out / f"ppo-{env_id.rpartition('/')[2].lower()}")
    train(run, resume=(run.folder / "run.yaml").exists())
    return run


def line(env_id: str, who: str, records: Path) -> str:
    """Return what a docstring says of an agent."""
    played = [r for r in read_records([records]) if r.valid]
    success = estimate(np.array([float(bool(r.success)) for r in played]))
    format_errors = sum(r.failures.get("format", 0) for r in played) / len(played)
    return (
        f"{env_id} {who}: {success.mean:.2f} ({success.low:.2f} to {success.high:.2f}; "
        f"{len(played)} episodes), {format_errors:.2f} format failures an episode"
    )


if __name__ == "__main__":
    main()
