"""Steps per second of CartPole: the kernel beside Gymnasium's own, in the same run.

    python benchmarks/cartpole.py --json cartpole.json

Each contestant steps the same number of times with the same random actions, in turns, on one
thread; the table gives medians of the rounds in steps of CPU time, and their ratios.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
from palaestra.train.records import versions

CONTESTANTS: dict[str, Callable[[int], gymnasium.vector.VectorEnv]] = {
    "palaestra, kernel": lambda n: gymnasium.make_vec("palaestra/CartPole-v1", num_envs=n),
    "gymnasium, CartPoleVectorEnv": lambda n: gymnasium.make_vec("CartPole-v1", num_envs=n),
    "gymnasium, SyncVectorEnv": lambda n: gymnasium.make_vec(
        "CartPole-v1", num_envs=n, vectorization_mode="sync"
    ),
}


def main() -> None:
    """Measure, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = [row for n in (1, 8, 64, 1024) for row in measure(n, options.rounds)]
    print(f"{'N':>5}  {'contestant':30} {'steps/s':>12}  {'the kernel is':>14}")
    for row in results:
        ratio = f"{row['kernel_ratio']:.1f}x"
        print(f"{row['n']:5}  {row['contestant']:30} {row['steps_per_second']:12,.0f}  {ratio:>14}")
    if options.json:
        machine = {"machine": platform.machine(), "system": platform.system(), **versions()}
        options.json.write_text(json.dumps({"versions": machine, "results": results}, indent=2))


def measure(n: int, rounds: int) -> list[dict[str, object]]:
    """Return a row for each contestant with N environments."""
    steps = max(20_000 // n, 100)
    envs = {name: make(n) for name, make in CONTESTANTS.items()}
    for env in envs.values():  # compile, and fill caches
        run(env, n, 10)
    times: dict[str, list[float]] = {name: [] for name in envs}
    for _ in range(rounds):
        for name, env in envs.items():
            times[name].append(run(env, n, steps))
    speed = {name: n * steps / statistics.median(spent) for name, spent in times.items()}
    kernel = speed["palaestra, kernel"]
    return [
        {"n": n, "contestant": name, "steps_per_second": s, "kernel_ratio": kernel / s}
        for name, s in speed.items()
    ]


def run(env: gymnasium.vector.VectorEnv, n: int, steps: int) -> float:
    """Step all environments and return the seconds of CPU time."""
    actions = np.random.default_rng(0).integers(0, 2, (steps, n))
    env.reset(seed=0)
    start = time.process_time()
    for action in actions:
        env.step(action)
    return time.process_time() - start


if __name__ == "__main__":
    main()
