"""Steps per second of classic control: one kernel beside Gymnasium's vectors and SB3's.

    palaestra bench envs --json envs.json

Through `gymnasium.make_vec` beside Gymnasium's own `CartPoleVectorEnv` and `SyncVectorEnv`; as
stable-baselines3 takes one (`KernelVecEnv`) beside `DummyVecEnv` of environments in a `Monitor`.
All take the same random actions, drawn before; only steps are timed, with the resets that they
bring about.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
from measuring import Row, compared, in_turns, one_core, options, report
from palaestra.train.kernel_vec_env import KernelVecEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__, rounds=7)
    one_core()
    rows: list[Row] = []
    for n in (1, 8, 64, 1024, 4096):
        own = {"gymnasium, CartPoleVectorEnv": partial(gymnasium.make_vec, "CartPole-v1", n)}
        rows += measure("CartPole-v1", n, chosen.rounds, own)
    for name in ("Acrobot-v1", "Pendulum-v1"):
        rows += measure(name, 8, chosen.rounds, {})
    for n in (8, 1024):
        rows += measure_for_sb3(n, chosen.rounds)
    report(rows, chosen.json)


def measure(name: str, n: int, rounds: int, peers: dict[str, Callable[[], Any]]) -> list[Row]:
    """Return the rows of N environments made by `make_vec`."""
    makers = {
        "palaestra": partial(gymnasium.make_vec, f"palaestra/{name}", n),
        **peers,
        "gymnasium, SyncVectorEnv": partial(gymnasium.make_vec, name, n, "sync"),
    }
    return stepped(
        f"make_vec, {name}, N={n}", {who: make() for who, make in makers.items()}, rounds
    )


def measure_for_sb3(n: int, rounds: int) -> list[Row]:
    """Return the rows of N environments as stable-baselines3 steps them."""
    made: Any = gymnasium.make_vec(
        "palaestra/CartPole-v1", n, "vector_entry_point", autoreset_mode="SameStep"
    )
    envs = {
        "palaestra, KernelVecEnv": KernelVecEnv(made.unwrapped),
        "SB3, DummyVecEnv of Monitor": DummyVecEnv(
            [lambda: Monitor(gymnasium.make("CartPole-v1"))] * n
        ),
    }
    return stepped(f"VecEnv, CartPole-v1, N={n}", envs, rounds)


def stepped(what: str, envs: dict[str, Any], rounds: int) -> list[Row]:
    """Return the rows of vectors of as many environments."""
    runs = {}
    for who, env in envs.items():
        if isinstance(env, VecEnv):
            env.seed(0)
            env.reset()
        else:
            env.reset(seed=0)
        moves = moves_of(env)
        runs[who] = partial(play, env, moves)
    return compared(what, in_turns(runs, rounds), len(moves) * env.num_envs, "steps")


def play(env: Any, moves: Any) -> None:
    """Step a vector."""
    for actions in moves:
        env.step(actions)


def moves_of(env: Any) -> Any:
    """Return random actions for a vector, shape (steps, N, ...)."""
    n, rng = env.num_envs, np.random.default_rng(0)
    space, steps = getattr(env, "single_action_space", env.action_space), max(20_000 // n, 100)
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(0, space.n, (steps, n))
    return rng.uniform(space.low, space.high, (steps, n, *space.shape)).astype(np.float32)


if __name__ == "__main__":
    main()
