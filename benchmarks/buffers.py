"""Rollout buffers beside stable-baselines3's: advantages, and an epoch of minibatches.

    palaestra bench buffers --json buffers.json

T steps of N environments with observations of four numbers. `advantages` is the whole call,
`compute_returns_and_advantage`; `epoch` gives every transition once.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from measuring import Row, compared, in_turns, one_core, options, report
from palaestra.train.buffers import RolloutBuffer
from stable_baselines3.common import buffers

CONTESTANTS = {"palaestra": RolloutBuffer, "SB3": buffers.RolloutBuffer}
BATCHES = {1: 64, 8: 64, 256: 2048, 4096: 32768}
"""Size of the minibatches, by N."""


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__)
    one_core()
    rows: list[Row] = []
    for n, batch_size in BATCHES.items():
        rows += measure(128, n, batch_size, chosen.rounds)
    report(rows, chosen.json)


def measure(steps: int, n: int, batch_size: int, rounds: int) -> list[Row]:
    """Return the rows of buffers of one size."""
    last_values, dones_N = torch.zeros(n, 1), np.zeros(n, bool)
    filled = {name: fill(kind, steps, n) for name, kind in CONTESTANTS.items()}
    calls = max(200_000 // (steps * n), 20)

    def advantages(buffer: Any) -> None:
        for _ in range(calls):
            buffer.compute_returns_and_advantage(last_values, dones_N)

    def epoch(buffer: Any) -> None:
        for _ in range(calls):
            for _ in buffer.get(batch_size):
                pass

    rows = []
    for what, run in (("advantages", advantages), (f"epoch, batches of {batch_size}", epoch)):
        seconds = in_turns({name: partial(run, b) for name, b in filled.items()}, rounds)
        rows += compared(f"{what}, {steps} x {n}", seconds, calls * steps * n, "transitions")
    return rows


def fill(kind: Any, steps: int, n: int) -> Any:
    """Return a full buffer, the same of each kind."""
    rng = np.random.default_rng(0)
    space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    buffer = kind(steps, space, spaces.Discrete(2), "cpu", 0.95, 0.99, n)
    for _ in range(steps):
        observations, values = rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=(n, 1))
        starts, actions = rng.random(n) < 0.05, rng.integers(0, 2, (n, 1))
        buffer.add(
            observations, actions, rng.normal(size=n), starts,
            torch.tensor(values, dtype=torch.float32), torch.zeros(n),
        )  # fmt: skip
    return buffer


if __name__ == "__main__":
    main()
