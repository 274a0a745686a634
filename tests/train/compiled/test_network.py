"""Kernels whose operations may be reordered still are one and the same kernel everywhere."""

import os
import subprocess
import sys
from pathlib import Path

TRAINED = """
import gymnasium
from palaestra.agents.ppo import policy_hash
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO

made = gymnasium.make_vec(
    "palaestra/Pendulum-v1", 4, "vector_entry_point", autoreset_mode="SameStep"
)
model = PPO(
    "MlpPolicy", KernelVecEnv(made.unwrapped), n_steps=16, batch_size=16, n_epochs=2, seed=0,
    device="cpu",
)
print(policy_hash(model.learn(128)))
"""


def test_just_compiled_or_loaded_it_learns_the_same(tmp_path: Path) -> None:
    """What a function calls must not be one copy of two that LLVM reordered each in its way."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", TRAINED], env=environment, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout
        for _ in range(2)
    )  # fmt: skip
    assert any(tmp_path.rglob("*.nbc"))
    assert first == second
