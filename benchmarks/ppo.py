"""PPO from the first step to the last beside stable-baselines3's, the same recipe for both.

    palaestra bench ppo --json ppo.json

Ours plays in a `KernelVecEnv`, SB3's in what its own `make_vec_env` makes of Gymnasium's
environments. A round is so many steps of training of a model that is there already; how well
each learns is the table `learning`. Lines that begin with `update` are of policies that torch
has to run, and of the update of a rollout alone: what remains there is the network.
"""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import palaestra.envs  # noqa: F401
import stable_baselines3
from gymnasium.wrappers import TimeAwareObservation
from measuring import Row, compared, in_turns, one_core, options, report
from palaestra.envs.vector import make_vec
from palaestra.policies.choices import ChoicePolicy
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO
from palaestra.train.vec_env import AsVecEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

RECIPES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "CartPole-v1, rl-zoo3's recipe": (
        "CartPole-v1", 8, 5_120,
        {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8,
         "learning_rate": 1e-3},
    ),
    "CartPole-v1, SB3's defaults": ("CartPole-v1", 1, 4_096, {}),
    "CartPole-v1, 64 envs, batches of 2048": (
        "CartPole-v1", 64, 32_768, {"n_steps": 128, "batch_size": 2048},
    ),
    "Pendulum-v1, rl-zoo3's recipe without gSDE": (
        "Pendulum-v1", 4, 4_096,
        {"n_steps": 1024, "gamma": 0.9, "learning_rate": 1e-3},
    ),
    "Acrobot-v1, rl-zoo3's recipe without scaling": (
        "Acrobot-v1", 16, 4_096,
        {"n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4},
    ),
}  # fmt: skip
"""Environment, number of environments, steps of a round, and what differs from the defaults."""
UPDATES: dict[str, tuple[Any, Callable[[], VecEnv], dict[str, Any]]] = {
    "update, dictionary of two arrays": (
        "MultiInputPolicy",
        lambda: DummyVecEnv(
            [lambda: TimeAwareObservation(gymnasium.make("CartPole-v1"), flatten=False)] * 8
        ),
        {"n_steps": 64},
    ),
    "update, text (Capitals)": (
        ChoicePolicy,
        lambda: AsVecEnv(
            make_vec("palaestra/Capitals-v0", 8, "sync", "array", autoreset="SameStep")
        ),
        {"n_steps": 32, "n_epochs": 4},
    ),
    "update, images of 40 x 40 x 3": (
        "CnnPolicy",
        lambda: DummyVecEnv([lambda: FakeImageEnv(screen_height=40, screen_width=40)] * 4),
        {"n_steps": 64, "n_epochs": 2},
    ),
    "update, images of 84 x 84 x 3": (
        "CnnPolicy",
        lambda: DummyVecEnv([lambda: FakeImageEnv()] * 4),
        {"n_steps": 64, "n_epochs": 2},
    ),
}
"""Policy, environments, and what differs from the defaults."""


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__)
    one_core()
    warnings.filterwarnings("ignore", "PPO runs the network in torch")
    rows: list[Row] = []
    for what, (name, n, steps, settings) in RECIPES.items():
        made: Any = gymnasium.make_vec(
            f"palaestra/{name}", n, "vector_entry_point", autoreset_mode="SameStep"
        )
        models = {
            "palaestra": PPO("MlpPolicy", KernelVecEnv(made.unwrapped), device="cpu", **settings),
            "SB3": stable_baselines3.PPO(
                "MlpPolicy", make_vec_env(name, n), device="cpu", **settings
            ),
        }
        runs = {who: lambda m=model, k=steps: m.learn(k) for who, model in models.items()}
        rows += compared(what, in_turns(runs, chosen.rounds), steps, "steps")
    for what, (policy, make, settings) in UPDATES.items():
        learners = {
            who: kind(policy, make(), device="cpu", **settings).learn(1)  # which fills the buffer
            for who, kind in (("palaestra", PPO), ("SB3", stable_baselines3.PPO))
        }
        seconds = in_turns({who: model.train for who, model in learners.items()}, chosen.rounds)
        rows += compared(what, seconds, learners["SB3"].rollout_buffer.returns.size, "steps")
    report(rows, chosen.json)


if __name__ == "__main__":
    main()
