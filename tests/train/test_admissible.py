"""PPO draws admissible actions, and learns of them as of draws among these."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from palaestra.errors import UserError
from palaestra.train.compiled.structure import choices_of
from palaestra.train.masked_buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from palaestra.train.ppo import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "seed": 0, "device": "cpu"}
SPACES = {"discrete": spaces.Discrete(5), "multi": spaces.MultiDiscrete([2, 4, 3])}
N = 4


class Picky(gymnasium.Env[Any, Any]):
    """Show which choices are admissible, and take no other."""

    def __init__(self, actions: spaces.Space[Any], nothing: bool = False) -> None:
        self.action_space, self._nothing = copy.deepcopy(actions), nothing
        self._nvec = choices_of(actions)
        self.observation_space = spaces.Box(0, 1, (int(self._nvec.sum()),), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: Any) -> Any:
        starts = np.cumsum([0, *self._nvec[:-1]])
        taken = self._mask[starts + np.ravel(action)]
        assert taken.all(), "an action that is not admissible"
        return self._look(), float(np.ravel(action)[0]), self.np_random.random() < 0.1, False, {}

    def action_masks(self) -> NDArray[np.bool_]:
        return self._mask & (not self._nothing)

    def _look(self) -> NDArray[np.float32]:
        masks = [self.np_random.random(n) < 0.5 for n in self._nvec]
        for part in masks:
            part[self.np_random.integers(len(part))] = True
        self._mask = np.concatenate(masks)
        return self._mask.astype(np.float32)


class Masks(BaseCallback):
    """Note the masks of each step, as the environments have them."""

    def _on_training_start(self) -> None:
        self.seen = [self._now()]

    def _on_step(self) -> bool:
        self.seen.append(self._now())
        return True

    def _now(self) -> Any:
        return np.stack(self.training_env.env_method("action_masks"))


def made(space: str, **kwargs: Any) -> PPO:
    envs = DummyVecEnv([lambda: Picky(SPACES[space])] * N)
    options = SMALL | {"rollout_buffer_class": MaskableRolloutBuffer} | kwargs
    return PPO("MlpPolicy", envs, **options)


@pytest.mark.parametrize("space", SPACES)
def test_actions_are_drawn_from_those_that_are_admissible(space: str) -> None:
    model, masks = made(space), Masks()
    model.learn(32 * N, masks)
    buffer: Any = model.rollout_buffer
    np.testing.assert_array_equal(buffer.action_masks, np.stack(masks.seen[:-1]))
    assert 0.3 < buffer.action_masks.mean() < 0.9


@pytest.mark.parametrize("space", SPACES)
def test_before_a_step_old_and_new_probabilities_are_the_same(space: str) -> None:
    model = made(space, n_epochs=1, batch_size=32 * N)
    _, callback = model._setup_learn(32 * N)
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    model.set_logger(Logger(None, []))
    model.train()
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6
    assert model.logger.name_to_value["train/clip_fraction"] == 0


def test_among_equals_each_admissible_action_is_as_likely() -> None:
    model = made("discrete", n_steps=2048)
    with torch.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(torch.tensor([0.0, 0, 0, 0, 50]))
    _, callback = model._setup_learn(2048 * N)
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 2048)
    buffer: Any = model.rollout_buffer
    masks, actions = buffer.action_masks.reshape(-1, 5), buffer.actions.reshape(-1).astype(int)
    log_probs = buffer.log_probs.reshape(-1)
    sure = masks[:, 4] == 1
    assert (actions[sure] == 4).all()
    np.testing.assert_allclose(log_probs[sure], 0, atol=1e-6)
    np.testing.assert_allclose(log_probs[~sure], -np.log(masks[~sure].sum(1)), atol=1e-5)
    full = ~sure & (masks[:, :4].all(axis=1))
    counts = np.bincount(actions[full], minlength=4)[:4]
    assert counts.min() > 0.7 * counts.mean()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_predictions_take_masks(space: str, deterministic: bool) -> None:
    model = made(space)
    envs = [Picky(SPACES[space]) for _ in range(200)]
    masks = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    seen = np.random.default_rng(0).random(masks.shape).astype(np.float32)
    actions, _ = model.predict(seen, deterministic=deterministic, action_masks=masks)
    for env, action in zip(envs, actions, strict=True):
        env.step(action)
    one, _ = model.predict(seen[0], deterministic=True, action_masks=masks[0])
    first, _ = model.predict(seen[:1], deterministic=True, action_masks=masks[:1])
    assert np.array_equal(one, first[0])
    free, _ = model.predict(seen, deterministic=True, action_masks=np.ones_like(masks))
    assert np.array_equal(free, model.predict(seen, deterministic=True)[0])


def test_it_learns_which_of_them_is_best() -> None:
    model = made(
        "discrete", n_steps=256, batch_size=256, n_epochs=10, learning_rate=0.01, gamma=0.0
    )
    model.learn(256 * N * 10)
    rng = np.random.default_rng(1)
    seen = (rng.random((300, 5)) < 0.5).astype(np.float32)
    seen[:, 0] = 1
    actions, _ = model.predict(seen, deterministic=True, action_masks=seen)
    best = np.array([np.flatnonzero(row).max() for row in seen])
    assert (actions == best).mean() > 0.95


def test_who_looks_at_something_else_in_a_rollout_is_told_of_all_actions() -> None:
    class Looks(Masks):
        def _on_step(self) -> bool:
            policy = self.model.policy
            for count in (1, N, 3 * N):
                with torch.no_grad():
                    actions = policy(torch.rand(count, 5))[0]
                assert actions.shape == (count,)
            with torch.no_grad():
                policy(torch.as_tensor(self.locals["new_obs"]))
            return super()._on_step()

    model, looks = made("discrete"), Looks()
    model.learn(32 * N, looks)
    buffer: Any = model.rollout_buffer
    np.testing.assert_array_equal(buffer.action_masks, np.stack(looks.seen[:-1]))


def test_environments_without_masks_are_named() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", rollout_buffer_class=MaskableRolloutBuffer, **SMALL)
    with pytest.raises(UserError, match="action_masks"):
        model.learn(32)


def test_a_mask_that_admits_nothing_is_named() -> None:
    envs = DummyVecEnv([lambda: Picky(SPACES["discrete"]), lambda: Picky(SPACES["discrete"], True)])
    model = PPO("MlpPolicy", envs, rollout_buffer_class=MaskableRolloutBuffer, **SMALL)
    with pytest.raises(UserError, match="environment 1 admits no action"):
        model.learn(64)


def test_a_part_of_an_action_that_has_no_choice_is_named() -> None:
    model = made("multi")
    mask = np.array([1, 1, 0, 0, 0, 0, 1, 0, 1])
    with pytest.raises(UserError, match="no action in part 1"):
        model.predict(np.zeros(9, np.float32), action_masks=mask)


def test_a_rollout_within_a_rollout_leaves_the_masks_of_the_outer_one() -> None:
    class Nested(Masks):
        def _on_step(self) -> bool:
            if self.n_calls == 3:
                with self.model._learner.acting():  # type: ignore[attr-defined]
                    pass
            return super()._on_step()

    model, nested = made("discrete"), Nested()
    model.learn(32 * N, nested)  # whose environments take no other actions
    buffer: Any = model.rollout_buffer
    np.testing.assert_array_equal(buffer.action_masks, np.stack(nested.seen[:-1]))


def test_who_stops_a_policy_from_being_masked_is_told() -> None:
    class Hooks(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            self.model.policy.action_net.register_forward_hook(lambda *_: None)

    with pytest.raises(UserError, match="cannot be masked"):
        made("discrete").learn(32 * N, Hooks())


@pytest.mark.filterwarnings("ignore:PPO")
def test_a_policy_that_knows_nothing_of_masks_is_named() -> None:
    model = made("discrete", policy_kwargs={"activation_fn": torch.nn.ELU})
    with pytest.raises(UserError, match="sb3-contrib"):
        model.learn(32 * N)
    envs = gymnasium.wrappers.TransformObservation(
        Picky(SPACES["discrete"]), lambda seen: {"seen": seen},
        spaces.Dict({"seen": spaces.Box(0, 1, (5,))}),
    )  # fmt: skip
    reads = PPO("MultiInputPolicy", envs, rollout_buffer_class=MaskableDictRolloutBuffer, **SMALL)
    with pytest.raises(UserError, match="sb3-contrib"):
        reads.learn(32)


def test_masks_that_do_not_fit_are_named() -> None:
    model = made("discrete")
    with pytest.raises(UserError, match=r"\(3,\)"):
        model.predict(np.zeros(5, np.float32), action_masks=np.ones(3))
    box = PPO("MlpPolicy", "Pendulum-v1", **SMALL)
    with pytest.raises(UserError, match="list of actions"):
        box.predict(np.zeros(3, np.float32), action_masks=np.ones(1))
