"""The demonstration: PPO and a language model, trained, evaluated and ranked side by side."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..envs import views
from ..policies import PACKAGED_MODEL
from .board import as_table, standings, write_page
from .evaluation import Evaluation, evaluation_command, seat
from .progress import console, progress_bar
from .recipe import load_recipe
from .records import read_records
from .training import Run, train

_CARTPOLE, _CALCULATOR, _CAPITALS = (
    "palaestra/CartPole-v1", "palaestra/Calculator-v0", "palaestra/Capitals-v0",
)  # fmt: skip
_STEPS = {_CARTPOLE: 100_000, _CALCULATOR: 6_144, _CAPITALS: 3_072}
"""Steps of PPO's training."""


@dataclass(frozen=True)
class _Match:
    """One agent at one environment."""

    env_id: str
    agent: str
    episodes: int
    options: dict[str, Any] = field(default_factory=dict)


_MATCHES = (
    *(_Match(env_id, who, 200) for env_id in _STEPS for who in ("random", "oracle", "ppo")),
    # A language model writes about a message a second on two cores, so it plays fewer.
    _Match(_CARTPOLE, PACKAGED_MODEL, 8, {"shots": 4}),
    _Match(_CALCULATOR, PACKAGED_MODEL, 40),
    _Match(_CAPITALS, PACKAGED_MODEL, 40),
)


def demo(folder: Path, budget: float = 1.0) -> None:
    """Train PPO, evaluate random, oracle, PPO and SmolLM2 everywhere, and show the board.

    What an earlier call has finished in the folder is kept and not done again.

    Args:
        folder: Where runs, records and the page go.
        budget: Share of the steps and episodes.
    """
    start = time.perf_counter()
    records = folder / "records.jsonl"
    runs = {
        env_id: _train(env_id, max(int(steps * budget), 1), budget, folder)
        for env_id, steps in _STEPS.items()
    }
    for match in _MATCHES:
        _evaluate(match, runs, max(round(match.episodes * budget), 2), records)
    found = read_records([records, *(run.records for run in runs.values())])
    board = standings(found)
    page = folder / "board.html"
    write_page(board, page, found)
    for standing in board:
        console().print()
        console().print(as_table(standing))
    print(
        "\nScores: random 0, oracle 1. Agents that the noise does not tell apart share a rank.\n"
        f"Done in {time.perf_counter() - start:.0f} s. Delete {folder} to start over.\n"
        f"  page:        {page.resolve()}\n"
        f"  TensorBoard: tensorboard --logdir {folder}"
    )


def _train(env_id: str, steps: int, budget: float, folder: Path) -> Run:
    whole = load_recipe(env_id)
    changes = {
        "total_steps": steps,
        # A short training must not be one long rollout between long evaluations.
        "n_steps": min(whole.n_steps, max(steps // whole.n_envs, 2)),
        "evaluate_episodes": max(round(whole.evaluate_episodes * budget), 2),
    }
    recipe = load_recipe(env_id, changes=changes)
    run = Run(env_id, recipe, seed=0, folder=folder / f"ppo-{env_id.rpartition('/')[2].lower()}")
    with (
        _announced(f"Training PPO on {env_id}, {steps:,} steps"),
        progress_bar(steps, "steps") as bar,
    ):
        train(run, resume=(run.folder / "run.yaml").exists(), tell=lambda n: bar.update(n - bar.n))
    return run


def _evaluate(match: _Match, runs: dict[str, Run], episodes: int, records: Path) -> None:
    splits = views.splits_of(views.find_spec(match.env_id))
    split = "test" if "test" in splits else None
    who = str(runs[match.env_id].folder) if match.agent == "ppo" else match.agent
    with _announced(f"Evaluating {match.agent} on {match.env_id}, {episodes} episodes"):
        agent = seat(match.env_id, split, who, dict(match.options))
        settings = [f"{key}={value}" for key, value in match.options.items()]
        command = evaluation_command(match.env_id, who, split, settings, episodes, seed=0)
        evaluation = Evaluation(agent, match.env_id, split, command=command)
        with progress_bar(episodes, "episodes") as bar:
            evaluation.run(range(episodes), records, tell=lambda episode: bar.update(1))


@contextmanager
def _announced(what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    start = time.perf_counter()
    print(f"{what} ...", flush=True)
    yield
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)
