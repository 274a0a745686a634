"""Rollouts in which no dialogue waits beside those in which all do."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from palaestra.envs.vector import make_vec
from palaestra.policies.language import LanguagePolicy
from palaestra.train.grpo import GRPO
from palaestra.train.infra import MaskInfra
from palaestra.train.language_training import warm_up
from palaestra.train.ppo import PPO
from palaestra.train.recipe import LanguageRecipe, load_recipe
from palaestra.train.token_vec_env import TokenVecEnv
from palaestra.train.vec_env import AsVecEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

CALCULATOR = "palaestra/Calculator-v0"
N, STEPS, LENGTH = 4, 6, 16
NEARLY_GREEDY = 1e-6
"""A temperature at which samples do not depend on the order in which they are drawn."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose messages end, sooner or later."""
    made = tmp_path_factory.mktemp("taught") / "model"
    changes = {"warmup_dialogues": 640, "warmup_epochs": 2}
    recipe = load_recipe(CALCULATOR, Path("tiny"), changes, "language-ppo")
    assert isinstance(recipe, LanguageRecipe)
    warm_up(CALCULATOR, recipe, 0, made)
    return made


def envs(folder: Path, world: str = CALCULATOR, **kwargs: Any) -> TokenVecEnv:
    vector = make_vec(
        world, N, "sync", "dialogue", autoreset="SameStep", **kwargs
    )  # fmt: skip
    return TokenVecEnv(vector, str(folder), LENGTH, monitor=True)


def learner(
    kind: type[Any], env: VecEnv, folder: Path, continuous: bool = True, **kwargs: Any
) -> Any:
    options = {"model": str(folder), "temperature": NEARLY_GREEDY, "last_layers": 1}
    options |= {"continuous_batching": continuous} | kwargs.pop("options", {})
    model = kind(
        LanguagePolicy, env, n_steps=STEPS, batch_size=8, n_epochs=1, seed=0,
        policy_kwargs=options, **kwargs,
    )  # fmt: skip
    torch.manual_seed(0)
    for weight in model.policy.value_net.parameters():  # so that all values are different
        torch.nn.init.normal_(weight, std=0.3)
    return model


class Told(BaseCallback):
    """Notes what SB3's callbacks are told."""

    def __init__(self, stop: int = 10**6) -> None:
        super().__init__()
        self.stop, self.told = stop, list[dict[str, Any]]()

    def _on_rollout_start(self) -> None:
        self.told.append({"start": self.num_timesteps})

    def _on_step(self) -> bool:
        names = (
            "n_steps",
            "obs_tensor",
            "actions",
            "values",
            "log_probs",
            "new_obs",
            "rewards",
            "dones",
        )
        told = {name: np.asarray(self.locals[name]).copy() for name in names}
        infos = [dict(info) for info in self.locals["infos"]]
        for info in infos:  # which has the clock
            info["episode"] = {k: v for k, v in info.get("episode", {}).items() if k != "t"}
        loop = {"idx", "done", "terminal_obs", "terminal_value"}  # variables of SB3's last step
        self.told.append(
            told | {"infos": infos, "count": self.num_timesteps, "names": set(self.locals) - loop}
        )
        return self.num_timesteps < self.stop

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        names = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs",
                 "advantages", "returns")  # fmt: skip
        self.told.append({name: np.array(getattr(buffer, name)) for name in names})


def close(ours: Any, its: Any) -> bool:
    """Tell whether two things are the same but for the rounding of 32 bits."""
    if isinstance(ours, dict):
        return ours.keys() == its.keys() and all(close(ours[k], its[k]) for k in its)
    if isinstance(ours, list | tuple):
        return len(ours) == len(its) and all(map(close, ours, its))
    if isinstance(ours, np.ndarray) and ours.dtype.kind == "f":
        return np.allclose(ours, its, rtol=1e-3, atol=1e-3)
    return np.array_equal(ours, its)


@pytest.mark.parametrize("world", [CALCULATOR, "palaestra/GuessNumber-v0"])
@pytest.mark.parametrize("options", [{}, {"sampling_dtype": "float32"}], ids=["own", "draft"])
def test_callbacks_and_the_buffer_are_told_what_they_are_told_in_step(
    world: str, options: dict[str, Any], folder: Path
) -> None:
    told = []
    for kind, continuous in ((stable_baselines3.PPO, False), (PPO, True)):
        env = envs(folder, world, max_episode_steps=4)
        model = learner(kind, env, folder, continuous, options=options)
        model.train = lambda: None
        callback = Told()
        model.learn(2 * N * STEPS, callback=callback)
        told.append((callback.told, [episode["r"] for episode in model.ep_info_buffer]))
    (ours, returns), (its, expected) = reversed(told)
    assert len(ours) == 2 * (STEPS + 2)
    assert returns == expected
    assert len(returns) >= N
    for one, other in zip(ours, its, strict=True):
        assert close(one, other), {k for k in other if not close(one[k], other[k])}
    buffers = [step for step in ours if "advantages" in step]
    assert all(np.ptp(buffer["values"]) > 0.1 for buffer in buffers)
    infos = [info for step in ours if "infos" in step for info in step["infos"]]
    assert any(info["TimeLimit.truncated"] for info in infos) or world == CALCULATOR


def test_no_dialogue_waits_for_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs(folder)
    model = learner(PPO, env, folder, options={"temperature": 1.0})
    stepped, step = list[list[int]](), env.step_some

    def noting(indices: Any, actions: Any) -> Any:
        stepped.append(list(indices))
        return step(indices, actions)

    monkeypatch.setattr(env, "step_some", noting)
    model.train = lambda: None
    model.learn(N * STEPS)
    assert any(len(indices) < N for indices in stepped)
    counts = [sum(i in indices for indices in stepped) for i in range(N)]
    assert counts == [STEPS] * N
    # Somebody was in a later turn than somebody else.
    done = np.array([[i in indices for i in range(N)] for indices in stepped]).cumsum(0)
    assert (np.ptp(done, axis=1) > 1).any()


def test_it_learns_from_what_was_said(folder: Path) -> None:
    model = learner(PPO, envs(folder), folder, options={"temperature": 1.0})
    found = Told()
    model.learn(N * STEPS, callback=found)
    buffer, policy = model.rollout_buffer, model.policy
    fresh = learner(PPO, envs(folder), folder, options={"temperature": 1.0})
    observed = torch.as_tensor(buffer.observations.reshape(N * STEPS, -1))
    actions = torch.as_tensor(buffer.actions.reshape(N * STEPS, -1))
    with torch.no_grad():
        values, log_probs, _ = fresh.policy.evaluate_actions(observed, actions)
    np.testing.assert_allclose(buffer.log_probs.flatten(), log_probs, atol=1e-4)
    np.testing.assert_allclose(buffer.values.flatten(), values.flatten(), atol=1e-4)
    changed = zip(policy.parameters(), fresh.policy.parameters(), strict=True)
    assert any(not torch.equal(now, before) for now, before in changed)


def test_groups_play_the_same_tasks(folder: Path) -> None:
    env = envs(folder, group_size=2)
    model = learner(GRPO, env, folder, group_size=2, options={"temperature": 1.0})
    found = Told()
    model.learn(2 * N * STEPS, callback=CallbackList([MaskInfra(), found]))
    tasks: dict[int, list[list[str]]] = {}
    starts = [i for i, step in enumerate(found.told) if "start" in step]
    for begin, after in itertools.zip_longest(starts, starts[1:]):
        steps = [step for step in found.told[begin:after] if "infos" in step]
        for i in range(N):
            asked = [step["infos"][i]["messages"][1]["content"] for step in steps]
            tasks.setdefault(i, []).append([task for task, _ in itertools.groupby(asked)])
    for one, other in ((0, 1), (2, 3)):
        for mine, its in zip(tasks[one], tasks[other], strict=True):
            common = min(len(mine), len(its))
            assert mine[:common] == its[:common]
    assert tasks[0] != tasks[2]
    assert model.num_timesteps == 2 * N * STEPS


def shown(env: TokenVecEnv) -> Any:
    """Return what all environments show now."""
    return env.vector.batches.observations(env.vector._jobs.seen)


def test_a_callback_stops_it_and_it_goes_on_where_the_environments_stand(folder: Path) -> None:
    env = envs(folder)
    model = learner(PPO, env, folder)
    stopped = N * STEPS + 2 * N
    model.learn(10 * N * STEPS, callback=Told(stop=stopped))
    assert model.num_timesteps == stopped
    assert np.array_equal(model._last_obs, shown(env))
    callback = Told()
    model.learn(N * STEPS, callback=callback, reset_num_timesteps=False)
    assert callback.told[0]["start"] == stopped
    assert np.array_equal(model._last_obs, shown(env))


def test_who_is_interrupted_begins_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs(folder)
    model, step, steps = learner(PPO, env, folder), env.step_some, itertools.count()

    def interrupted(indices: Any, actions: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return step(indices, actions)

    monkeypatch.setattr(env, "step_some", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(N * STEPS)
    begun = list[bool]()
    told = Told()
    monkeypatch.setattr(
        told, "_on_rollout_start", lambda: begun.append(np.array_equal(model._last_obs, shown(env)))
    )
    model.learn(N * STEPS, callback=told, reset_num_timesteps=False)
    assert begun == [True]
    assert model.num_timesteps == N * STEPS


def test_a_rollout_begins_with_what_callbacks_leave(folder: Path) -> None:
    class Seeding(BaseCallback):
        def _on_rollout_start(self) -> None:
            env: Any = self.training_env
            env.seed(77)
            seen = model._last_obs = env.reset()
            model._last_episode_starts = np.array([True, False, True, False])
            self.seen = seen

        def _on_step(self) -> bool:
            return True

    model, callback = learner(PPO, envs(folder), folder), Seeding()
    model.train = lambda: None
    model.learn(N * STEPS, callback=callback)
    assert np.array_equal(model.rollout_buffer.observations[0], callback.seen)
    assert model.rollout_buffer.episode_starts[0].tolist() == [1, 0, 1, 0]


def test_environments_may_use_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs(folder)
    model, step, seen = learner(PPO, env, folder), env.step_some, set()

    def noting(indices: Any, actions: Any) -> Any:
        seen.add((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return step(indices, actions)

    monkeypatch.setattr(env, "step_some", noting)
    model.learn(N * STEPS)
    assert seen == {(False, True)}


@pytest.mark.parametrize(
    ("wrapped", "kind"),
    [(VecMonitor, "VecMonitor"), (lambda env: AsVecEnv(choosing()), "AsVecEnv")],
    ids=["wrapped", "choices"],
)
def test_where_messages_cannot_be_so_batched_it_says_so_and_steps_all(
    wrapped: Callable[[VecEnv], VecEnv], kind: str, folder: Path
) -> None:
    model = learner(PPO, wrapped(envs(folder)), folder)
    with pytest.warns(UserWarning, match=f"turn by turn: {kind} is no TokenVecEnv"):
        model.learn(N * STEPS)
    assert model.num_timesteps == N * STEPS


def choosing() -> Any:
    return make_vec(CALCULATOR, N, "sync", "array", autoreset="SameStep")
