"""Advantages among episodes of one task, against a loop over them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from palaestra.envs.vector import make_vec
from palaestra.errors import UserError
from palaestra.policies.language import LanguagePolicy
from palaestra.train.grpo import GRPO, GroupRolloutBuffer, compare
from palaestra.train.infra import MaskInfra
from palaestra.train.token_vec_env import TokenVecEnv
from stable_baselines3.common.callbacks import BaseCallback

T, K = 7, 3


def buffer(n: int = 2 * K, **kwargs: Any) -> GroupRolloutBuffer:
    space = spaces.Box(-1, 1, (2,), np.float32)
    return GroupRolloutBuffer(T, space, spaces.Discrete(3), "cpu", n_envs=n, group_size=K, **kwargs)


def filled(ours: GroupRolloutBuffer, rng: np.random.Generator, broken: float) -> Any:
    """Fill a buffer with episodes of one to four steps; return what was put in."""
    rewards = rng.integers(0, 3, (T, ours.n_envs)).astype(np.float32)
    starts = rng.random((T, ours.n_envs)) < 0.4
    starts[0] = True
    valid = rng.random((T, ours.n_envs)) >= broken
    dones = rng.random(ours.n_envs) < 0.5
    for t in range(T):
        ours.mark(valid[t])
        zeros = np.zeros((ours.n_envs, 2), np.float32)
        ours.add(
            zeros, np.zeros((ours.n_envs, 1)), rewards[t], starts[t],
            torch.full((ours.n_envs,), 0.5), torch.zeros(ours.n_envs),
        )  # fmt: skip
    return rewards, starts, valid, dones


def by_hand(ours: GroupRolloutBuffer, given: Any, baseline: str) -> tuple[Any, Any]:
    """Return advantages and validity, episode by episode."""
    rewards, starts, valid, dones = given
    advantages, counted = np.zeros_like(rewards), np.zeros(rewards.shape, bool)
    episodes = {}
    for n in range(ours.n_envs):
        begins = [*np.flatnonzero(starts[:, n]), T]
        for e, (a, b) in enumerate(itertools.pairwise(begins)):
            whole = (b < T or dones[n]) and valid[a:b, n].all()
            if whole:
                episodes[n, e] = (a, b, rewards[a:b, n].sum())
    for (n, e), (a, b, score) in episodes.items():
        others = [s for (m, f), (_, _, s) in episodes.items()
                  if f == e and m // K == n // K and m != n]  # fmt: skip
        if not others:
            continue
        counted[a:b, n] = True
        if baseline == "leave-one-out":
            advantages[a:b, n] = score - np.mean(others)
        else:
            everybody = [*others, score]
            advantages[a:b, n] = (score - np.mean(everybody)) / (np.std(everybody) + 1e-4)
    return advantages, counted


@pytest.mark.parametrize("baseline", ["group", "leave-one-out"])
@given(seed=st.integers(0, 2**32), broken=st.sampled_from([0.0, 0.2]))
def test_advantages_compare_whole_episodes_of_one_task(
    baseline: Any, seed: int, broken: float
) -> None:
    ours = buffer(baseline=baseline)
    given_ = filled(ours, np.random.default_rng(seed), broken)
    ours.compute_returns_and_advantage(torch.zeros(ours.n_envs), given_[3])
    advantages, counted = by_hand(ours, given_, baseline)
    assert np.array_equal(ours.valid_T_N, counted)
    assert np.array_equal(ours.spoilt_T_N, ~given_[2]), "what is not compared is not spoilt"
    np.testing.assert_allclose(ours.advantages[counted], advantages[counted], atol=1e-4)
    np.testing.assert_allclose(ours.returns, ours.values + ours.advantages, atol=1e-6)


def test_a_rollout_in_which_no_episodes_can_be_compared_says_what_to_do() -> None:
    ours = buffer()
    *_, dones = filled(ours, np.random.default_rng(0), 0.0)
    ours.episode_starts[1:] = 0
    with pytest.raises(UserError, match="larger n_steps"):
        ours.compute_returns_and_advantage(torch.zeros(ours.n_envs), np.zeros_like(dones))


def test_a_group_that_agrees_learns_nothing() -> None:
    for baseline in ("group", "leave-one-out"):
        assert not compare(np.ones(4, np.float32), baseline).any()  # type: ignore[arg-type]
    found = compare(np.array([1, 0, 0, 0], np.float32), "leave-one-out")
    np.testing.assert_allclose(found, [1, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)


@pytest.mark.parametrize("n", [4, 7])
def test_groups_that_do_not_fit_are_named(n: int) -> None:
    with pytest.raises(UserError, match="groups of 3"):
        buffer(n)
    with pytest.raises(UserError, match="leave-one-out"):
        buffer(baseline="mean")


class Questions(BaseCallback):
    """Notes what everybody is asked at the beginning of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self._new = False

    def _on_rollout_start(self) -> None:
        self._new = True

    def _on_step(self) -> bool:
        if self._new:
            self.asked.append([i["messages"][1]["content"] for i in self.locals["infos"]])
        self._new = False
        return True


def test_it_trains_a_language_model_on_tasks_that_groups_share(tiny_chat_folder: Path) -> None:
    vector = make_vec(
        "palaestra/Calculator-v0", 8, "sync", "dialogue", group_size=4, autoreset="SameStep"
    )
    env = TokenVecEnv(vector, str(tiny_chat_folder), 6, monitor=True)
    options = {"model": str(tiny_chat_folder)}
    model = GRPO(
        LanguagePolicy, env, n_steps=6, batch_size=16, n_epochs=1, group_size=4, seed=0,
        policy_kwargs=options,
    )  # fmt: skip
    questions = Questions()
    model.learn(8 * 6 * 2, callback=[MaskInfra(), questions])
    assert len(questions.asked) == 2
    for asked in questions.asked:
        assert len(set(asked[:4])) == len(set(asked[4:])) == 1
        assert asked[0] != asked[4]
    assert questions.asked[0] != questions.asked[1]
    assert model.vf_coef == 0


def test_what_a_critic_expects_is_no_part_of_a_return(
    tiny_chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = make_vec(
        "palaestra/Pendulum-v1", 4, "sync", "dialogue", group_size=4, autoreset="SameStep",
        max_episode_steps=3,
    )  # fmt: skip
    env, given = TokenVecEnv(vector, str(tiny_chat_folder), 4), []
    model = GRPO(
        LanguagePolicy, env, n_steps=6, batch_size=8, n_epochs=1, group_size=4, gamma=1.0, seed=0,
        policy_kwargs={"model": str(tiny_chat_folder)},
    )  # fmt: skip
    step = env.step_wait

    def noting() -> Any:
        stepped = step()
        given.append(stepped[1].copy())  # SB3 adds to it in place
        return stepped

    monkeypatch.setattr(env, "step_wait", noting)
    model.learn(24, callback=[MaskInfra()])
    np.testing.assert_array_equal(model.rollout_buffer.rewards, np.array(given, np.float32))
