"""Classic control as stable-baselines3 takes it: ours, and its own of Gymnasium's."""

import gymnasium
import palaestra.envs  # noqa: F401  (registers ours)
from palaestra.envs.kernel_vector import KernelVector
from palaestra.train.kernel_vec_env import KernelVecEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


def vector(name: str, count: int, mode: str = "SameStep") -> KernelVector:
    made = gymnasium.make_vec(
        f"palaestra/{name}", count, "vector_entry_point", autoreset_mode=mode
    ).unwrapped
    assert isinstance(made, KernelVector)
    return made


def kernels(name: str = "CartPole-v1", count: int = 4) -> KernelVecEnv:
    return KernelVecEnv(vector(name, count))


def dummies(name: str = "CartPole-v1", count: int = 4) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(gymnasium.make(name))] * count)
