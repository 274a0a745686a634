"""Kernels whose operations may be reordered: one and the same everywhere, and right."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.train.compiled import network
from palaestra.train.ppo import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

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


_few = numba.njit(network._multiply_few.py_func)


@given(rows=st.integers(1, 11), outputs=st.integers(1, 7), inputs=st.integers(0, 40))
@settings(deadline=None)
def test_few_rows_are_multiplied_as_many_are(rows: int, outputs: int, inputs: int) -> None:
    rng = np.random.default_rng([rows, outputs, inputs])
    below, weight = rng.normal(size=(rows, inputs)), rng.normal(size=(outputs, inputs))
    above = np.full((rows, outputs), np.nan, np.float32)
    _few(below.astype(np.float32), weight.astype(np.float32), above)
    np.testing.assert_allclose(above, below @ weight.T, atol=1e-5)


@pytest.mark.parametrize("count", [2, 5, 32, 33])
def test_wide_networks_act_as_torch_has_it(count: int) -> None:
    envs = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * count)
    wide = {"net_arch": [521, 600]}
    ppo = PPO("MlpPolicy", envs, n_steps=2, batch_size=2 * count, n_epochs=1, policy_kwargs=wide)
    _, callback = ppo._setup_learn(2 * count)
    ppo.collect_rollouts(envs, callback, ppo.rollout_buffer, 2)
    buffer = ppo.rollout_buffer
    seen = torch.from_numpy(np.concatenate(list(buffer.observations)))
    acted = torch.from_numpy(np.concatenate(list(buffer.actions)))[:, 0]
    values, log_probs, _ = ppo.policy.evaluate_actions(seen, acted)
    np.testing.assert_allclose(buffer.values.ravel(), values.detach()[:, 0], atol=1e-5)
    np.testing.assert_allclose(buffer.log_probs.ravel(), log_probs.detach(), atol=1e-5)
