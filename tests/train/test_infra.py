"""What the machinery spoilt is kept out of training, and nothing else is."""

from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.agents.ppo import policy_hash
from palaestra.errors import UserError
from palaestra.train.buffers import DictRolloutBuffer, RolloutBuffer
from palaestra.train.infra import MaskInfra
from palaestra.train.minibatches import shuffled
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import buffers
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

T, N = 32, 3
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Tool(gymnasium.Env[Any, int]):
    """Reward for action 1 where the first number is positive; its tool crashes now and then.

    The second number of an observation is its serial number, so that it can be recognised.
    """

    def __init__(self, shape: str = "array", crashes: float = 0.2, serial: int = 0) -> None:
        self.action_space = spaces.Discrete(2)
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = box if shape == "array" else spaces.Dict({"a": box, "b": box})
        self.crashes = crashes
        self.serial = serial

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.np_random.random() < self.crashes:
            info = {"reward_valid": False, "failure": "infra", "is_success": False}
            # A reward that would do harm if anybody took it for one.
            return self._observe(), -1e6, False, True, info | {"spoilt": self.serial - 1}
        reward = float((self.shown > 0) == bool(action))
        over = bool(self.np_random.random() < 0.2)
        info = {"reward_valid": True, "failure": None, "is_success": True}
        return self._observe(), reward, over, False, info

    def _observe(self) -> Any:
        self.shown = float(self.np_random.uniform(-1, 1))
        seen = np.array([self.shown, self.serial], np.float32)
        self.serial += 1
        return seen if isinstance(self.observation_space, spaces.Box) else {"a": seen, "b": -seen}


def ppo(shape: str = "array", crashes: float = 0.2, **options: Any) -> PPO:
    envs = DummyVecEnv([lambda n=n: Monitor(Tool(shape, crashes, 1000 * n)) for n in range(N)])
    masked = RolloutBuffer if shape == "array" else DictRolloutBuffer
    policy = "MlpPolicy" if shape == "array" else "MultiInputPolicy"
    settings = {
        "rollout_buffer_class": masked, "n_steps": T, "batch_size": 16, "n_epochs": 2,
        "policy_kwargs": {"net_arch": [8]}, "seed": 1, "device": "cpu",
    }  # fmt: skip
    return PPO(policy, envs, **settings | options)


def collected(model: PPO, callback: BaseCallback) -> RolloutBuffer:
    """Play one rollout as `learn` does, without learning from it."""
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(T * N, callback)
    callback.on_training_start(locals(), globals())
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model.rollout_buffer


def our_permutation(count: int) -> Any:
    """Shuffle for SB3's buffer as ours does."""
    return shuffled(count, int(np.random.random() * 2**53))  # noqa: NPY002


# Without a failure


@pytest.mark.parametrize("shape", ["array", "dict"])
def test_where_all_is_valid_it_is_the_buffer_of_stable_baselines(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.random, "permutation", our_permutation)
    stock = buffers.RolloutBuffer if shape == "array" else buffers.DictRolloutBuffer
    theirs = ppo(shape, crashes=0.0, rollout_buffer_class=stock).learn(4 * T * N)
    state = np.random.get_state()  # noqa: NPY002
    ours = ppo(shape, crashes=0.0).learn(4 * T * N, MaskInfra())
    assert policy_hash(ours) == policy_hash(theirs)
    for a, b in zip(np.random.get_state(), state, strict=True):  # noqa: NPY002
        assert np.array_equal(a, b)


def test_a_rollout_of_nothing_valid_is_refused() -> None:
    buffer = collected(ppo(crashes=1.0), MaskInfra())
    with pytest.raises(UserError, match="no transition of the rollout is valid"):
        next(buffer.get())


def test_algorithms_other_than_ppo_may_have_them() -> None:
    envs = DummyVecEnv([Tool] * N)
    options: Any = {"n_steps": T, "seed": 0, "device": "cpu"}
    model = A2C("MlpPolicy", envs, rollout_buffer_class=RolloutBuffer, **options)
    model.learn(4 * T * N, MaskInfra())
    assert all(p.isfinite().all() for p in model.policy.parameters())


# By hand: gamma = lambda = 1/2, and numbers that have no rounding

REWARDS, VALUES, LAST = [1.0, 0.0, 2.0, 1.0], [0.5, 0.25, 1.0, 2.0], 4.0


def advantages(
    invalid: int, starts: list[int], done: bool = False, fake: float = 0.0
) -> tuple[list[float], list[float]]:
    """Return advantages and returns of four steps of which one is invalid."""
    buffer = RolloutBuffer(4, BOX, spaces.Discrete(2), "cpu", 0.5, 0.5, n_envs=2)
    for t in range(4):
        buffer.mark(np.array([t != invalid, True]))
        reward = fake if t == invalid else REWARDS[t]
        start, value = np.array([starts[t], 0.0]), torch.tensor([VALUES[t], 0.0])
        state = np.zeros((2, 2)), np.zeros((2, 1))
        buffer.add(*state, np.array([reward, 0.0]), start, value, torch.zeros(2))
    buffer.compute_returns_and_advantage(torch.tensor([LAST, 0.0]), np.array([done, False]))
    assert not buffer.advantages[:, 1].any()  # the environment beside it
    return buffer.advantages[:, 0].tolist(), buffer.returns[:, 0].tolist()


@pytest.mark.parametrize("fake", [0.0, -7.0, 1e9, np.nan])
@pytest.mark.parametrize("next_starts", [0, 1])
def test_an_invalid_step_is_a_cut_off(fake: float, next_starts: int) -> None:
    # t=3: 1 + 4/2 - 2; t=2: 2 + 2/2 - 1 + 1/4; t=0: 1 + (1/4)/2 - 1/2 and nothing behind.
    expected = [0.625, 0.0, 2.25, 1.0], [1.125, 0.25, 3.25, 3.0]
    assert advantages(1, [1, 0, next_starts, 0], fake=fake) == expected


@pytest.mark.parametrize("fake", [0.0, 1e9])
@pytest.mark.parametrize("done", [False, True])
def test_so_is_the_last_step_of_a_rollout(fake: float, done: bool) -> None:
    # t=2: 2 + 2/2 - 1; t=1: 0 + 1/2 - 1/4 + 2/4; t=0: 1 + (1/4)/2 - 1/2 + 0.75/4.
    found = advantages(3, [1, 0, 0, 0], done, fake)
    assert found == ([0.8125, 0.75, 2.0, 0.0], [1.3125, 1.0, 3.0, 2.0])


def test_and_the_first() -> None:
    found, returns = advantages(0, [1, 1, 0, 0], fake=9.0)
    assert (found[0], returns[0]) == (0.0, VALUES[0])
    assert found[1:] == [0.8125, 2.25, 1.0]


def test_a_rollout_begins_with_nothing_masked() -> None:
    buffer = RolloutBuffer(4, BOX, spaces.Discrete(2), "cpu", n_envs=2)
    buffer.mark(np.array([False, True]))
    assert buffer.valid_T_N.tolist() == [[False, True], *[[True, True]] * 3]
    buffer.reset()
    assert buffer.valid_T_N.all()


# With a tool that crashes at one call in five


class Watched(MaskInfra):
    """Note the serial numbers of the observations on which the machinery failed."""

    def _on_training_start(self) -> None:
        self.spoilt: set[int] = set()

    def _on_step(self) -> bool:
        self.spoilt |= {info["spoilt"] for info in self.locals["infos"] if "spoilt" in info}
        return super()._on_step()


@pytest.mark.parametrize("shape", ["array", "dict"])
def test_what_the_machinery_spoilt_never_reaches_the_loss(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, watched, met = ppo(shape), Watched(), Counter[int]()
    evaluate = model.policy.evaluate_actions

    def spy(obs: Any, actions: torch.Tensor) -> Any:
        met.update((obs["a"] if isinstance(obs, dict) else obs)[:, 1].int().tolist())
        return evaluate(obs, actions)

    monkeypatch.setattr(model.policy, "evaluate_actions", spy)
    before = policy_hash(model)
    model.learn(T * N, watched)
    assert policy_hash(model) != before
    valid = int(model.rollout_buffer.valid_T_N.sum())
    assert T * N - valid == len(watched.spoilt) > 5
    assert not met.keys() & watched.spoilt
    assert len(met) == valid
    assert set(met.values()) == {model.n_epochs}


@pytest.mark.parametrize("shape", ["array", "dict"])
def test_the_gradient_is_that_of_the_rollout_without_these_rows(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.random, "permutation", our_permutation)
    model = ppo(shape)
    buffer = collected(model, MaskInfra())
    keep = [(t, n) for n in range(N) for t in range(T) if buffer.valid_T_N[t, n]]
    assert 0 < len(keep) < T * N
    stock = buffers.RolloutBuffer if shape == "array" else buffers.DictRolloutBuffer
    twin = ppo(shape, rollout_buffer_class=stock)
    twin.set_logger(Logger(None, []))
    twin.set_parameters(model.get_parameters())
    twin.rollout_buffer = without(buffer, keep, stock)
    for learner in (model, twin):
        np.random.seed(0)  # noqa: NPY002
        learner.train()
    for ours, theirs in zip(model.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert policy_hash(model) == policy_hash(twin)


def without(buffer: RolloutBuffer, keep: list[tuple[int, int]], kind: Any) -> RolloutBuffer:
    """Return a buffer of one environment that went through these transitions only."""
    rows = tuple(np.array(keep).T)
    made = kind(len(keep), buffer.observation_space, buffer.action_space, "cpu", n_envs=1)
    for name in ("actions", "values", "log_probs", "advantages", "returns"):
        setattr(made, name, getattr(buffer, name)[rows][:, None])
    seen: Any = buffer.observations
    made.observations = (
        {key: part[rows][:, None] for key, part in seen.items()}
        if isinstance(seen, dict)
        else seen[rows][:, None]
    )
    made.full = True
    return made


@pytest.mark.parametrize("valid", [1, 2, 5, 17])
def test_few_valid_rows_are_enough(valid: int) -> None:
    class Most(MaskInfra):
        def _on_rollout_end(self) -> None:
            self._buffer.valid_T_N.ravel()[valid:] = False
            super()._on_rollout_end()

    model = ppo(crashes=0.0)
    before = policy_hash(model)
    model.learn(T * N, Most())
    assert policy_hash(model) != before
    assert all(p.isfinite().all() for p in model.policy.parameters())


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_statistics_are_of_episodes_that_the_agent_ended(kind: Any) -> None:
    model = ppo()
    model.set_env(kind([lambda: Monitor(Tool())] * N))
    logged: dict[str, Any] = {}
    model.set_logger(Logger(None, []))
    model.logger.dump = lambda step=0: logged.update(model.logger.name_to_value)  # type: ignore[method-assign]
    model.learn(T * N, MaskInfra())
    model.env.close()
    infra = (~model.rollout_buffer.valid_T_N).sum()
    assert logged["rollout/infra"] == infra > 0
    assert logged["rollout/ep_rew_mean"] >= 0
    assert all(model.ep_success_buffer)
    assert all(episode["r"] >= 0 for episode in model.ep_info_buffer)
    assert len(model.ep_info_buffer) > 0


def test_a_buffer_that_cannot_mask_is_named() -> None:
    with pytest.raises(UserError, match="rollout_buffer_class=RolloutBuffer"):
        ppo(rollout_buffer_class=buffers.RolloutBuffer).learn(1, MaskInfra())
