"""Whether the compiled PPO learns as stable-baselines3's does: areas under learning curves.

    palaestra bench learning --rounds 100 --json learning.json

Both train with one recipe from so many training seeds: three a round on CartPole, and on Pendulum
and Acrobot one in two rounds. A curve is the mean return of the last 100 training
episodes after each rollout, the area under it is its mean. Given are the mean areas and their
difference as a share of SB3's, with 95 % bootstrap intervals over training seeds. A round takes
more than a minute.
"""

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import stable_baselines3
from measuring import Row, heading, machine, one_core, options
from numpy.typing import NDArray
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO
from ppo import RECIPES
from scipy.stats import bootstrap
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

TRAININGS = {
    "CartPole-v1, rl-zoo3's recipe": (50_000, 3.0),
    "Pendulum-v1, rl-zoo3's recipe without gSDE": (60_000, 0.5),
    "Acrobot-v1, rl-zoo3's recipe without scaling": (120_000, 0.5),
}
"""Steps of a training, and training seeds a round."""


class Curve(BaseCallback):
    """Note the mean return of the last episodes after each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if ended := self.model.ep_info_buffer:
            self.means.append(float(np.mean([episode["r"] for episode in ended])))


def main() -> None:
    """Train, print a table, and write it if asked."""
    chosen = options(__doc__, rounds=20)
    one_core()
    found = machine()
    print(heading(found))
    print(f"{'':48}{'seeds':>6} {'area, ours':28}{'area, SB3':28}ours is above it by")
    rows: list[Row] = []
    for what, (steps, share) in TRAININGS.items():
        areas: dict[str, list[float]] = {"palaestra": [], "SB3": []}
        for seed in range(max(round(chosen.rounds * share), 2)):
            for who, of_seed in areas.items():
                of_seed.append(area(who, what, steps, seed))
        rows.append(compared(what, areas))
        print(line(rows[-1]), flush=True)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps({"machine": found, "results": rows}, indent=2) + "\n")


def area(who: str, what: str, steps: int, seed: int) -> float:
    """Train from a seed, and return the area under the curve."""
    name, count, _, settings = RECIPES[what]
    curve = Curve()
    kind: Any = PPO if who == "palaestra" else stable_baselines3.PPO
    envs = kernels(name, count) if who == "palaestra" else make_vec_env(name, count, seed=seed)
    kind("MlpPolicy", envs, seed=seed, device="cpu", **settings).learn(steps, curve)
    return float(np.mean(curve.means))


def kernels(name: str, count: int) -> KernelVecEnv:
    """Make environments that a kernel steps."""
    made: Any = gymnasium.make_vec(
        f"palaestra/{name}", count, "vector_entry_point", autoreset_mode="SameStep"
    )
    return KernelVecEnv(made.unwrapped)


def compared(what: str, areas: dict[str, list[float]]) -> Row:
    """Return what was found out, with each area."""
    ours, theirs = (np.array(of_seed) for of_seed in areas.values())
    return {
        "what": what,
        "seeds": len(ours),
        "ours": spread((ours,), np.mean),
        "theirs": spread((theirs,), np.mean),
        "difference": spread((ours, theirs), difference),
        "areas": areas,
    }


def difference(ours: Any, theirs: Any, axis: int = -1) -> Any:
    """Return by which share of theirs our mean is above it."""
    mean = theirs.mean(axis)
    return (ours.mean(axis) - mean) / abs(mean)


def spread(samples: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any]) -> list[float]:
    """Return a statistic and the ends of its 95 % bootstrap interval over training seeds."""
    found = bootstrap(
        samples, statistic, method="percentile", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    return [float(statistic(*samples)), float(found.low), float(found.high)]


def line(row: Row) -> str:
    """Write a row of the table."""
    ours, theirs = ("{:.1f} ({:.1f} to {:.1f})".format(*row[who]) for who in ("ours", "theirs"))
    share = "{:+.1%} ({:+.1%} to {:+.1%})".format(*row["difference"])
    return f"{row['what']:48}{row['seeds']:6} {ours:28}{theirs:28}{share}"


if __name__ == "__main__":
    main()
