"""CartPole against Gymnasium's own, bit for bit, alone and in a vector."""

import re
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from palaestra.envs.cartpole import CartPole, CartPoleVector
from palaestra.envs.kernel import BLOCK
from palaestra.envs.sines import are_those_of_c

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode
OURS, THEIRS = "palaestra/CartPole-v1", "CartPole-v1"


def hold(observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the actions of a linear controller that holds the pole."""
    return observations @ np.array([0.1, 0.3, 3.0, 1.0], np.float32) > 0


def vectors(count: int, mode: AutoresetMode, **kwargs: Any) -> tuple[CartPoleVector, VectorEnv]:
    theirs = [lambda: gymnasium.make(THEIRS, **kwargs)] * count
    ours = CartPoleVector(count, autoreset_mode=mode, **kwargs)
    return ours, SyncVectorEnv(theirs, autoreset_mode=mode)


def assert_same_step(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for mine, reference in zip(ours[:4], theirs[:4], strict=True):
        assert np.asarray(mine).dtype == np.asarray(reference).dtype
        assert np.asarray(mine).tobytes() == np.asarray(reference).tobytes()


def assert_same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours.keys() & {"_final_obs", "_final_info"}:
        np.testing.assert_array_equal(ours[key], theirs[key])
    for mine, reference in zip(ours.get("final_obs", ()), theirs.get("final_obs", ()), strict=True):
        assert (mine is None) == (reference is None)
        assert reference is None or mine.tobytes() == reference.tobytes()


@pytest.mark.parametrize("seed", [0, 123, 2**31])
@pytest.mark.parametrize("sutton_barto_reward", [False, True])
def test_alone_it_is_gymnasiums(seed: int, sutton_barto_reward: bool) -> None:
    ours = gymnasium.make(OURS, sutton_barto_reward=sutton_barto_reward)
    theirs = gymnasium.make(THEIRS, sutton_barto_reward=sutton_barto_reward)
    rng = np.random.default_rng(seed)
    lengths = []
    for episode in range(25):
        chance_of_holding = (0.0, 0.5, 1.0)[episode % 3]
        start = seed if episode == 0 else None
        observation, _ = ours.reset(seed=start)
        assert observation.tobytes() == theirs.reset(seed=start)[0].tobytes()
        over, length = False, 0
        while not over:
            wise = rng.random() < chance_of_holding
            action = int(hold(observation)) if wise else int(rng.integers(2))
            mine, reference = ours.step(action), theirs.step(action)
            assert_same_step(mine, reference)
            observation, over, length = mine[0], mine[2] or mine[3], length + 1
        lengths.append(length)
    assert max(lengths) == 500
    assert min(lengths) < 30


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP, DISABLED], ids=lambda mode: mode.name)
@pytest.mark.parametrize("sutton_barto_reward", [False, True])
@pytest.mark.parametrize("count", [15, 16, BLOCK + 1, 2 * BLOCK + 3])
def test_many_are_stepped_as_few_are(
    count: int, mode: AutoresetMode, sutton_barto_reward: bool
) -> None:
    """Those in loops that vectorise are as those that are stepped one after the other."""
    rng, pays = np.random.default_rng(1), {"sutton_barto_reward": sutton_barto_reward}
    many, few = (
        CartPoleVector(count, max_episode_steps=30, autoreset_mode=mode, **pays) for _ in range(2)
    )
    for vector in (many, few):
        vector.reset(seed=3)
    few.settings = few.settings[:-1]  # as in pickles of vectors that knew no other way
    assert many.settings[-1] == are_those_of_c()
    terminated = truncated = 0
    for step in range(120):
        if step % 50 == 49:  # as states may be set to anything
            strange = rng.choice([0.9, -3.0, 1e9, np.inf, -np.inf, np.nan], (count, 4))
            chosen = rng.random((count, 4)) < 0.2
            for vector in (many, few):
                vector.state_N_S[chosen] = strange[chosen]
        actions = rng.integers(2, size=count)
        mine, reference = many.step(actions), few.step(actions)
        finals = [told[4].get("final_obs", ()) for told in (mine, reference)]
        for ours, theirs in zip((*mine[:4], *finals[0]), (*reference[:4], *finals[1]), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(many.state_N_S, few.state_N_S)
        over = mine[2] | mine[3]
        if mode is DISABLED and over.any():
            for vector in (many, few):
                vector.reset(options={"reset_mask": over})
        terminated, truncated = terminated + mine[2].sum(), truncated + mine[3].sum()
    assert terminated > 2 * count
    assert truncated > 0


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP], ids=lambda mode: mode.name)
@pytest.mark.parametrize("seed", [0, 7, 991])
def test_a_vector_is_gymnasiums_over_hundreds_of_episodes(mode: AutoresetMode, seed: int) -> None:
    ours, theirs = vectors(16, mode)
    observations, _ = ours.reset(seed=seed)
    assert observations.tobytes() == theirs.reset(seed=seed)[0].tobytes()
    rng = np.random.default_rng(seed)
    chance_of_holding = np.repeat([0.0, 0.3, 1.0], [10, 4, 2])
    terminated = truncated = 0
    for _ in range(1100):
        wise = rng.random(16) < chance_of_holding
        actions = np.where(wise, hold(observations), rng.integers(2, size=16))
        mine, reference = ours.step(actions), theirs.step(actions)
        assert_same_step(mine, reference)
        assert_same_infos(mine[4], reference[4])
        observations = mine[0]
        terminated += mine[2].sum()
        truncated += mine[3].sum()
    assert terminated + truncated >= 400
    assert truncated >= 4


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP], ids=lambda mode: mode.name)
def test_a_vector_pays_sutton_and_bartos_reward(mode: AutoresetMode) -> None:
    ours, theirs = vectors(4, mode, sutton_barto_reward=True)
    assert ours.reset(seed=1)[0].tobytes() == theirs.reset(seed=1)[0].tobytes()
    rng = np.random.default_rng(1)
    rewards = []
    for _ in range(200):
        actions = rng.integers(2, size=4)
        mine = ours.step(actions)
        assert_same_step(mine, theirs.step(actions))
        rewards.append(mine[1])
    assert set(np.unique(rewards)) == {-1.0, 0.0}


def test_without_autoreset_a_mask_restarts_what_is_over() -> None:
    ours, theirs = vectors(4, DISABLED)
    assert ours.reset(seed=4)[0].tobytes() == theirs.reset(seed=4)[0].tobytes()
    rng = np.random.default_rng(4)
    resets = 0
    for step in range(300):
        actions = rng.integers(2, size=4)
        mine = ours.step(actions)
        assert_same_step(mine, theirs.step(actions))
        if (mask := mine[2] | mine[3]).any():
            # Now and then with a seed, which only those that are over may take.
            seed = step if resets % 3 == 0 else None
            again = ours.reset(seed=seed, options={"reset_mask": mask})[0]
            reference = theirs.reset(seed=seed, options={"reset_mask": mask.copy()})[0]
            assert again.tobytes() == reference.tobytes()
            resets += 1
    assert resets > 20


def test_without_autoreset_what_is_over_must_be_restarted() -> None:
    env = CartPoleVector(2, max_episode_steps=1, autoreset_mode=DISABLED)
    env.reset(seed=0)
    env.step(np.zeros(2, int))
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.step(np.zeros(2, int))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.step(np.zeros(2, int))


@pytest.mark.parametrize(
    "mask", [np.array([True]), np.array([1, 0]), np.ones(3, bool), np.ones((2, 1), bool), True]
)
def test_a_mask_that_does_not_fit_is_refused(mask: Any) -> None:
    env = CartPoleVector(2)
    with pytest.raises(ValueError, match="2 booleans"):
        env.reset(seed=0, options={"reset_mask": mask})


def test_seeds_may_be_listed() -> None:
    ours, theirs = vectors(3, NEXT_STEP)
    assert ours.reset(seed=[5, 9, 5])[0].tobytes() == theirs.reset(seed=[5, 9, 5])[0].tobytes()
    # None goes on drawing where the stream was.
    assert (
        ours.reset(seed=[None, 3, None])[0].tobytes()
        == theirs.reset(seed=[None, 3, None])[0].tobytes()
    )
    assert ours.reset()[0].tobytes() == theirs.reset()[0].tobytes()
    with pytest.raises(ValueError, match="2 seeds were given for 3 environments"):
        ours.reset(seed=[1, 2])


def test_unseeded_vectors_differ() -> None:
    first, second = (CartPoleVector(4).reset()[0] for _ in range(2))
    assert first.tobytes() != second.tobytes()
    assert len(np.unique(first)) == first.size


def episodes_alone(seed: int, actions: NDArray[np.int64]) -> Iterator[bytes]:
    env = gymnasium.make(OURS)
    yield env.reset(seed=seed)[0].tobytes()
    for action in actions:
        observation, _, terminated, truncated, _ = env.step(int(action))
        yield (env.reset()[0] if terminated or truncated else observation).tobytes()


def test_in_a_vector_of_8_each_plays_as_it_would_alone() -> None:
    actions = np.random.default_rng(0).integers(2, size=(200, 8))
    vector = gymnasium.make_vec(OURS, 8, "vector_entry_point", autoreset_mode=SAME_STEP)
    assert isinstance(vector.unwrapped, CartPoleVector)
    seen = [vector.reset(seed=40)[0], *(vector.step(row)[0] for row in actions)]
    for i in range(8):
        alone = list(episodes_alone(40 + i, actions[:, i]))
        assert [observations[i].tobytes() for observations in seen] == alone


@pytest.mark.parametrize("bounds", [{"low": 0.1, "high": 0.2}, {"low": -0.3}, {"high": 0.01}])
def test_reset_options_bound_the_first_state(bounds: dict[str, float]) -> None:
    ours, theirs = CartPole(), gymnasium.make(THEIRS)
    observation = ours.reset(seed=2, options=bounds)[0]
    assert observation.tobytes() == theirs.reset(seed=2, options=bounds)[0].tobytes()
    vector = CartPoleVector(2).reset(seed=1, options=bounds)[0]
    assert vector[1].tobytes() == observation.tobytes()
    low, high = bounds.get("low", -0.05), bounds.get("high", 0.05)
    assert np.all((observation >= np.float32(low)) & (observation <= np.float32(high)))


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="low"):
        CartPoleVector(2).reset(seed=0, options={"low": 0.2, "high": 0.1})


@pytest.mark.parametrize("action", [2, -1, 0.5, "left", None, np.array([0, 1])], ids=repr)
def test_a_bad_action_is_refused(action: Any) -> None:
    env = CartPole()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="is not in Discrete"):
        env.step(action)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(3, int), "give 2 integers"),
        (np.zeros((2, 1), int), "give 2 integers"),
        (np.zeros(2), "give 2 integers"),
        (np.array([True, False]), "give 2 integers"),
        (["left", "right"], "give 2 integers"),
        (0, "give 2 integers"),
        (np.array([0, 2]), "is not in Discrete"),
        (np.array([-1, 0]), "is not in Discrete"),
    ],
    ids=str,
)
def test_bad_actions_of_a_vector_are_refused(actions: Any, message: str) -> None:
    env = CartPoleVector(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_actions_may_have_any_integer_type() -> None:
    steps = []
    for kind in (np.int64, np.int32, np.uint8, np.int8):
        env = CartPoleVector(2)
        env.reset(seed=0)
        steps.append(env.step(np.array([0, 1], kind))[0].tobytes())
    assert len(set(steps)) == 1


def test_stepping_needs_a_reset() -> None:
    with pytest.raises(ResetNeeded, match="call reset"):
        CartPole().step(0)
    with pytest.raises(ResetNeeded, match="call reset"):
        CartPoleVector(1).step(np.array([0]))


@pytest.mark.parametrize(
    "arguments", [{"num_envs": 0}, {"max_episode_steps": 0}, {"render_mode": "rgb_array"}]
)
def test_a_vector_refuses_what_it_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|does not render"):
        CartPoleVector(**arguments)


def test_observations_are_not_overwritten_by_later_steps() -> None:
    env = CartPoleVector(2)
    first = env.reset(seed=0)[0]
    second = env.step(np.array([0, 1]))[0]
    kept = first.copy(), second.copy()
    env.step(np.array([1, 1]))
    np.testing.assert_array_equal((first, second), kept)


@pytest.mark.parametrize("sutton_barto_reward", [False, True])
def test_after_the_fall_rewards_are_gymnasiums(sutton_barto_reward: bool) -> None:
    ours = CartPole(sutton_barto_reward=sutton_barto_reward)
    theirs = gymnasium.make(THEIRS, sutton_barto_reward=sutton_barto_reward).unwrapped
    for env in (ours, theirs):
        env.reset(seed=0)
    with pytest.warns(UserWarning, match="an episode that is over"):
        mine = [ours.step(1) for _ in range(15)]
    with pytest.warns(UserWarning, match="already returned terminated"):
        reference = [theirs.step(1) for _ in range(15)]
    for step in zip(mine, reference, strict=True):
        assert_same_step(*step)
    assert mine[-1][2]


def test_pixels_are_gymnasiums() -> None:
    frames = []
    for env_id in (OURS, THEIRS):
        env = gymnasium.make(env_id, render_mode="rgb_array")
        env.reset(seed=3)
        frames.append([env.render(), *(env.step(a) and env.render() for a in (1, 1, 0, 1))])
        env.close()
    np.testing.assert_array_equal(frames[0], frames[1])
    assert frames[0][0].shape == (400, 600, 3)
    assert (frames[0][0] != frames[0][-1]).any()


def test_it_says_an_observation_in_words() -> None:
    observation = np.array([-0.5, 0.25, np.radians(3.0), np.radians(-40)], np.float32)
    said = CartPole().describe(observation)
    assert re.findall(r"\d+(?:\.\d+)?", said) == ["3.0", "40", "0.50", "0.25"]
    assert re.findall(r"left|right", said) == ["right", "left", "left", "right"]
    mirrored = re.sub(r"left|right", lambda m: {"left": "right", "right": "left"}[m[0]], said)
    assert CartPole().describe(-observation) == mirrored
