"""Rollout buffers: SB3's samples in another order, and errors where SB3 says nothing."""

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.agents.ppo import policy_hash
from palaestra.errors import UserError
from palaestra.train.buffers import DictRolloutBuffer, RolloutBuffer
from palaestra.train.minibatches import shuffled
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import buffers
from stable_baselines3.common.vec_env import DummyVecEnv

T, N = 7, 3
BOX = spaces.Box(-5.0, 5.0, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": BOX,
    "double": spaces.Box(-5.0, 5.0, (2, 3), np.float64),
    "wide": spaces.Box(-5.0, 5.0, (600,), np.float32),
    "image": IMAGE,
    "bytes": spaces.Box(0, 255, (5,), np.uint8),
    "discrete": spaces.Discrete(6),
    "multi discrete": spaces.MultiDiscrete([3, 4]),
    "bits": spaces.MultiBinary(5),
    "dict": spaces.Dict(image=IMAGE, box=BOX, which=spaces.Discrete(3), bits=spaces.MultiBinary(3)),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi discrete": spaces.MultiDiscrete([3, 4, 5]),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "bits": spaces.MultiBinary(3),
}


def our_permutation(count: int) -> Any:
    """Shuffle for SB3's buffer as ours does."""
    return shuffled(count, int(np.random.random() * 2**53))  # noqa: NPY002


def pair(
    observation: str = "box", action: str = "discrete", steps: int = T, envs: int = N
) -> tuple[Any, Any]:
    """Return SB3's buffer and ours."""
    space, is_dict = OBSERVATIONS[observation], observation == "dict"
    options = (steps, space, ACTIONS[action], "cpu", 0.9, 0.95, envs)
    stock = buffers.DictRolloutBuffer if is_dict else buffers.RolloutBuffer
    return stock(*options), (DictRolloutBuffer if is_dict else RolloutBuffer)(*options)


def step(buffer: Any, seed: int) -> dict[str, Any]:
    """Return what an algorithm adds in a step."""
    rng, space = np.random.default_rng(seed), copy.deepcopy(buffer.observation_space)
    space.seed(seed)
    seen = [space.sample() for _ in range(N)]
    keys = space.spaces if isinstance(space, spaces.Dict) else None
    obs: Any = {k: np.array([o[k] for o in seen]) for k in keys} if keys else np.array(seen)
    return {
        "obs": obs,
        "action": np.array([buffer.action_space.sample() for _ in range(N)]),
        "reward": rng.normal(size=N),
        "episode_start": rng.random(N) < 0.2,
        "value": torch.from_numpy(rng.normal(size=(N, 1))).float(),
        "log_prob": torch.from_numpy(rng.normal(size=N)).float(),
    }


def fill(*filled: Any, **changes: Any) -> None:
    """Add the same steps to each, and compute advantages."""
    filled[0].action_space.seed(0)
    for t in range(filled[0].buffer_size):
        added = step(filled[0], t) | changes
        for buffer in filled:
            buffer.add(**added)
    for buffer in filled:
        buffer.compute_returns_and_advantage(torch.ones(N), np.array([True, False, False]))


def tensors(batch: Any) -> list[torch.Tensor]:
    first, *rest = batch
    return [*(first.values() if isinstance(first, dict) else [first]), *rest]


def epoch(buffer: Any, size: int | None = None, seed: int = 0) -> list[Any]:
    np.random.seed(seed)  # noqa: NPY002
    return list(buffer.get(size))


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert type(a) is type(b)
        for ours, theirs in zip(tensors(a), tensors(b), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype
            assert ours.is_contiguous()


# The same as stable-baselines3's


@pytest.mark.parametrize("size", [None, 1, 4, T * N, 1000])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_samples_are_those_of_stable_baselines(
    observation: str, action: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.random, "permutation", our_permutation)
    theirs, ours = pair(observation, action)
    for rollout in range(2):
        theirs.reset(), ours.reset()
        fill(theirs, ours)
        for seed in range(3):
            assert_same(epoch(ours, size, seed + rollout), epoch(theirs, size, seed + rollout))
    for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
        a, b = getattr(ours, name), getattr(theirs, name)
        for key in b if isinstance(b, dict) else [...]:
            assert np.array_equal(a[key], b[key])
            assert a[key].dtype == b[key].dtype
    assert_same([ours._get_samples(np.arange(5))], [theirs._get_samples(np.arange(5))])


class Game(gymnasium.Env[Any, Any]):
    """Reward for nothing in particular, in any spaces."""

    def __init__(self, observation: str, action: str) -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observation])
        self.action_space = ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward, end = float(np.sum(action)) + self.np_random.normal(), self.np_random.random()
        return self.observation_space.sample(), reward, end < 0.1, end > 0.95, {}


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(
    ("observation", "action", "options"),
    [
        ("box", "discrete", {}),
        ("box", "discrete", {"target_kl": 1e-4, "batch_size": 16}),
        ("box", "box", {"use_sde": True, "sde_sample_freq": 4}),
        ("box", "box", {"normalize_advantage": False}),
        ("image", "discrete", {}),
        ("dict", "multi discrete", {}),
        ("discrete", "bits", {"clip_range_vf": 0.2}),
    ],
)
def test_ppo_learns_the_same(
    observation: str, action: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.random, "permutation", our_permutation)
    policy = {"image": "CnnPolicy", "dict": "MultiInputPolicy"}.get(observation, "MlpPolicy")
    hashes, states = [], []
    for kind in (type(buffer) for buffer in pair(observation, action)):
        envs = DummyVecEnv([lambda: Game(observation, action)] * N)
        settings = {"n_steps": 8, "batch_size": 10, "n_epochs": 3, "seed": 3, "device": "cpu"}
        options = {"rollout_buffer_class": kind} | settings | options
        model = PPO(policy, envs, **options | {"rollout_buffer_class": kind}).learn(3 * 8 * N)
        hashes.append(policy_hash(model))
        states.append(np.random.get_state()[1])  # noqa: NPY002
    assert hashes[0] == hashes[1]
    assert np.array_equal(*states)


def test_other_algorithms_may_have_it() -> None:
    hashes = []
    for kind in (buffers.RolloutBuffer, RolloutBuffer):
        envs = DummyVecEnv([lambda: Game("box", "box")] * N)
        options: Any = {"n_steps": 8, "seed": 0, "device": "cpu", "rollout_buffer_class": kind}
        model = A2C("MlpPolicy", envs, use_sde=True, **options).learn(5 * 8 * N)
        hashes.append([p.detach() for p in model.policy.parameters()])
    for theirs, ours in zip(*hashes, strict=True):  # one minibatch, in another order
        assert torch.allclose(ours, theirs, atol=1e-5)


# Epochs


def test_an_epoch_is_seeded_as_all_of_stable_baselines() -> None:
    _, buffer = pair()
    fill(buffer)
    same, again, other = epoch(buffer, 4, 1), epoch(buffer, 4, 1), epoch(buffer, 4, 2)
    assert_same(same, again)
    assert not torch.equal(same[0].advantages, other[0].advantages)
    state = np.random.get_state()  # noqa: NPY002
    first = list(buffer.get(4))
    assert not torch.equal(first[0].advantages, other[0].advantages)
    np.random.set_state(state)  # noqa: NPY002
    assert_same(list(buffer.get(4)), first)


@pytest.mark.parametrize("observation", ["box", "image", "dict"])
def test_valid_transitions_come_once_and_no_other(observation: str) -> None:
    _, buffer = pair(observation, steps=40)
    valid_T_N = np.random.default_rng(0).random((40, N)) < 0.7
    for t in range(40):
        buffer.mark(valid_T_N[t])
        # The log-probability is the transition's number, and so is its value.
        number = torch.arange(N) + t * N
        buffer.add(**step(buffer, t) | {"log_prob": number, "value": number})
    buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))
    advantages = buffer.advantages.ravel()
    seen = epoch(buffer, 8)
    numbers = torch.cat([batch.old_log_prob for batch in seen]).int().tolist()
    assert sorted(numbers) == np.flatnonzero(valid_T_N).tolist()
    assert torch.cat([batch.old_values for batch in seen]).int().tolist() == numbers
    assert torch.cat([batch.advantages for batch in seen]).tolist() == advantages[numbers].tolist()
    assert all(len(tensor) == 8 for batch in seen[:-1] for tensor in tensors(batch))


def test_samples_that_are_kept_stay_as_they_were() -> None:
    _, buffer = pair("dict")
    kept, copies = [], []
    for rollout in range(3):
        buffer.reset()
        fill(buffer, reward=np.full(N, float(rollout)))
        for _ in range(3):
            for batch in buffer.get(5):
                kept.append(batch)
                copies.append(copy.deepcopy(batch))
    assert_same(kept, copies)


def test_a_sample_may_be_changed() -> None:
    _, buffer = pair("dict")
    fill(buffer)
    for batch in buffer.get(5):
        batch.observations.clear()
        batch.advantages.zero_()
    del batch
    for batch in buffer.get(5):
        assert set(batch.observations) == set(OBSERVATIONS["dict"])
        assert batch.advantages.any()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("observation", ["box", "image", "dict"])
def test_it_can_be_pickled(observation: str, begun: bool) -> None:
    _, buffer = pair(observation)
    fill(buffer)
    if begun:
        epoch(buffer)
    expected = epoch(copy.deepcopy(buffer), 4)
    found = pickle.loads(pickle.dumps(buffer))
    assert_same(epoch(found, 4), expected)
    assert_same(epoch(buffer, 4), expected)
    found.reset()
    fill(found)
    assert_same(epoch(found, 4), expected)


def test_its_size_is_the_number_of_steps() -> None:
    _, buffer = pair()
    assert buffer.size() == 0
    buffer.add(**step(buffer, 0))
    assert buffer.size() == 1
    buffer.reset()
    fill(buffer)
    assert buffer.size() == T


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.zeros(2)}, r"the reward has shape \(2,\), where \(3,\) is expected"),
        ({"obs": np.zeros((N, 3))}, r"the observation has shape \(3, 3\), where \(3, 4\)"),
        ({"obs": np.zeros(4)}, r"the observation has shape \(4,\)"),
        ({"action": np.zeros((N, 2), int)}, r"the action has shape \(3, 2\), where \(3, 1\)"),
        ({"action": np.full(N, 0.5)}, "the action is float64, which int64 cannot hold"),
        ({"value": torch.zeros(N + 1)}, r"the value has shape \(4,\)"),
        ({"log_prob": torch.zeros(N, 2)}, r"the log-probability has shape \(3, 2\)"),
        ({"episode_start": np.zeros((N, N))}, r"the episode start has shape \(3, 3\)"),
        ({"reward": np.array(["a"] * N)}, "the reward is <U1, which float32 cannot hold"),
        ({"reward": np.array([None] * N)}, "the reward is object"),
        ({"reward": np.zeros(N, complex)}, "the reward is complex128"),
    ],
)
def test_what_does_not_fit_is_named(changes: Any, message: str) -> None:
    _, buffer = pair()
    with pytest.raises(UserError, match=message):
        fill(buffer, **changes)
    assert buffer.pos == 0


def test_numbers_are_not_cut_off_silently() -> None:
    _, buffer = pair("bytes")
    for obs in (
        np.full((N, 5), 256), np.full((N, 5), -1), np.full((N, 5), 0.5),
        np.full((N, 5), 256, np.uint16), np.full((N, 5), 300, np.uint64),
    ):  # fmt: skip
        with pytest.raises(UserError, match="which uint8 cannot hold"):
            buffer.add(**step(buffer, 0) | {"obs": obs})
    buffer.add(**step(buffer, 0) | {"obs": np.full((N, 5), 255.0)})
    assert (buffer.observations[0] == 255).all()


@pytest.mark.parametrize("name", ["rewards", "values", "episode_starts"])
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float64),
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    ],
)
@pytest.mark.parametrize("envs", [N, 40])
def test_advantages_are_of_what_somebody_put_in_the_place_of_an_array(
    name: str, change: Any, envs: int
) -> None:
    theirs, ours = pair(envs=envs)
    rng = np.random.default_rng(0)
    for t in range(T):
        scalars = rng.normal(size=(4, envs)).astype(np.float32)
        rest = scalars[1] > 0, torch.from_numpy(scalars[2]), torch.from_numpy(scalars[3])
        for buffer in (theirs, ours):
            buffer.add(buffer.observations[t], np.zeros(envs, int), scalars[0], *rest)
    for buffer in (theirs, ours):
        setattr(buffer, name, change(getattr(buffer, name)))
        buffer.compute_returns_and_advantage(torch.ones(envs), np.zeros(envs, bool))
    np.testing.assert_allclose(ours.advantages, theirs.advantages, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_arrays_may_stand_in_the_place_of_each_other() -> None:
    theirs, ours = pair()
    fill(theirs, ours)
    for buffer in (theirs, ours):
        buffer.rewards, buffer.values = buffer.values, buffer.rewards
        buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))
    np.testing.assert_array_equal(ours.advantages, theirs.advantages)


@pytest.mark.parametrize("name", ["rewards", "values", "episode_starts"])
@pytest.mark.parametrize("cut", [np.s_[:2], np.s_[:, :2]])
def test_what_does_not_fit_in_the_place_of_an_array_is_named(name: str, cut: Any) -> None:
    _, buffer = pair()
    fill(buffer)
    setattr(buffer, name, getattr(buffer, name)[cut])
    with pytest.raises(
        UserError, match=f"the {name.removesuffix('s').replace('_', ' ')} has shape"
    ):
        buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))


def test_a_missing_key_is_named() -> None:
    _, buffer = pair("dict")
    added = step(buffer, 0)
    del added["obs"]["bits"]
    with pytest.raises(UserError, match=r"no 'bits', only \['box', 'image', 'which'\]"):
        buffer.add(**added)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["reward", "value", "observation", "log-probability", "action"])
def test_what_is_not_finite_is_named(what: str, number: float) -> None:
    _, buffer = pair("box", "box", steps=20)
    keys = {"observation": "obs", "log-probability": "log_prob"}
    for t in range(20):
        added = step(buffer, t)
        if t == 17:
            added[keys.get(what, what)][2] = number
        buffer.add(**added)
    message = f"the {what} of environment 2 at step 17 is {number}"
    last = torch.ones(N), np.zeros(N, bool)
    if what in ("reward", "value"):
        with pytest.raises(UserError, match=message):
            buffer.compute_returns_and_advantage(*last)
    else:
        buffer.compute_returns_and_advantage(*last)
        with pytest.raises(UserError, match=message):
            next(buffer.get())


def test_the_cause_is_named_and_not_the_effect() -> None:
    _, buffer = pair()
    for t in range(T):
        added = step(buffer, t)
        if t == 5:
            added["obs"][1, 3] = added["value"][1] = added["reward"][1] = np.nan
        buffer.add(**added)
    with pytest.raises(UserError, match="the observation of environment 1 at step 5 is nan"):
        buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))


def test_so_is_a_value_after_the_last_step() -> None:
    _, buffer = pair()
    for t in range(T):
        buffer.add(**step(buffer, t))
    with pytest.raises(UserError, match="the value of environment 1 after the last step is nan"):
        buffer.compute_returns_and_advantage(torch.tensor([0, np.nan, 0]), np.zeros(N, bool))


def test_and_an_advantage_that_is_too_large() -> None:
    _, buffer = pair()
    with pytest.raises(UserError, match=r"the advantage of environment \d at step \d is (nan|inf)"):
        fill(buffer, reward=np.full(N, 3e38))


def test_what_is_invalid_may_be_anything() -> None:
    _, buffer = pair("box")
    for t in range(T):
        buffer.mark(np.array([True, t != 3, True]))
        added = step(buffer, t)
        added["reward"][1] = added["obs"][1] = np.nan if t == 3 else 0.0
        buffer.add(**added)
    buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))
    assert sum(len(batch.returns) for batch in buffer.get(4)) == T * N - 1


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_what_is_given_after_the_last_step_is_not_written_to(kind: type) -> None:
    _, buffer = pair("box")
    for t in range(T):
        buffer.mark(np.array([True, t != T - 1, True]))
        buffer.add(**step(buffer, t))
    last_values, dones_N = torch.ones(N, 1), np.zeros(N, kind)
    buffer.compute_returns_and_advantage(last_values, dones_N)
    assert buffer.advantages[-1, 1] == 0.0
    assert torch.equal(last_values, torch.ones(N, 1))
    assert not dones_N.any()


def test_methods_out_of_order_are_named() -> None:
    _, buffer = pair()
    with pytest.raises(UserError, match="holds 0 of 7 steps"):
        next(buffer.get())
    buffer.add(**step(buffer, 0))
    with pytest.raises(UserError, match="holds 1 of 7 steps"):
        buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))
    for t in range(1, T):
        buffer.add(**step(buffer, t))
    with pytest.raises(UserError, match="call compute_returns_and_advantage first"):
        next(buffer.get())
    buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))
    for method in (lambda: buffer.add(**step(buffer, 0)), lambda: buffer.mark(np.ones(N, bool))):
        with pytest.raises(UserError, match=r"is full \(7 steps\): reset\(\) before adding"):
            method()
    for size in (0, -4):
        with pytest.raises(UserError, match=f"at least 1 transition, not {size}"):
            next(buffer.get(size))
    list(buffer.get())
    with pytest.raises(UserError, match="that is being learned from"):
        buffer.compute_returns_and_advantage(torch.ones(N), np.zeros(N, bool))


@pytest.mark.parametrize("refilled", [False, True])
def test_minibatches_end_with_the_rollout(refilled: bool) -> None:
    _, buffer = pair()
    fill(buffer)
    batches = buffer.get(4)
    next(batches)
    buffer.reset()
    if refilled:
        fill(buffer)
    with pytest.raises(UserError, match="was reset while its minibatches were read"):
        next(batches)
