"""PPO from the first step to the last beside stable-baselines3's, the same recipe for both.

    palaestra bench ppo --json ppo.json

Ours plays in a `KernelVecEnv`, SB3's in what its own `make_vec_env` makes of Gymnasium's
environments. A round is so many steps of training of a model that is there already; how well
each learns is the table `learning`. Lines that begin with `update` are of policies that torch
has to run (but for the actor of `ChoicePolicy`, which texts go through, and NatureCNN, which images
go through where no other network is named), and of the update of a rollout alone. `the network
alone` is SB3's policy forward and backward on the minibatches of an update, without loss, clipping
or steps.
"""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import palaestra.envs  # noqa: F401
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeAwareObservation
from measuring import Row, compared, in_turns, one_core, options, report
from palaestra.envs.vector import make_vec
from palaestra.policies.choices import ChoicePolicy
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO
from palaestra.train.vec_env import AsVecEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn

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


class Impala(BaseFeaturesExtractor):
    """The larger network for images of Espeholt et al., "IMPALA" (2018)."""

    channels_last = True

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 256)
        layers: list[nn.Module] = []
        below = observation_space.shape[0]
        for channels in (16, 32, 32):
            layers += [nn.Conv2d(below, channels, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
            layers += [Residual(channels), Residual(channels)]
            below = channels
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(256), nn.ReLU())
        with torch.no_grad():
            self.layers(torch.zeros(1, *observation_space.shape))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the features of B images, shape (B, 256)."""
        features: torch.Tensor = self.layers(observations)
        return features


class Residual(nn.Module):
    """Two convolutions beside which the input passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image of the same shape."""
        answer: torch.Tensor = image + self.layers(image)
        return answer


def images(side: int, channels: int) -> VecEnv:
    """Return four environments that show random images."""
    return DummyVecEnv([lambda: FakeImageEnv(6, side, side, channels)] * 4)


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
    "update, images of 40 x 40 x 1": (
        "CnnPolicy",
        lambda: images(40, 1),
        {"n_steps": 64, "n_epochs": 2},
    ),
    "update, images of 84 x 84 x 3": (
        "CnnPolicy",
        lambda: images(84, 3),
        {"n_steps": 64, "n_epochs": 2},
    ),
    "update, images of 84 x 84 x 4, as of Atari": (
        "CnnPolicy",
        lambda: images(84, 4),
        {"n_steps": 64, "n_epochs": 2},
    ),
    "update, images of 84 x 84 x 4 by IMPALA's network": (
        "CnnPolicy",
        lambda: images(84, 4),
        {"n_steps": 32, "n_epochs": 1, "policy_kwargs": {"features_extractor_class": Impala}},
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
        runs = {who: model.train for who, model in learners.items()}
        runs["the network alone"] = lambda model=learners["SB3"]: through_the_network(model)
        seconds = in_turns(runs, chosen.rounds)
        rows += compared(what, seconds, learners["SB3"].rollout_buffer.returns.size, "steps")
    report(rows, chosen.json)


def through_the_network(model: stable_baselines3.PPO) -> None:
    """Go forward and backward through a policy as often as an update does."""
    for _ in range(model.n_epochs):
        for batch in model.rollout_buffer.get(model.batch_size):
            said = model.policy.evaluate_actions(batch.observations, batch.actions.flatten())
            model.policy.zero_grad()
            torch.autograd.backward([said[0].sum(), said[1].sum()])


if __name__ == "__main__":
    main()
