"""The compiled PPO is stable-baselines3's PPO to its user."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from palaestra.train.buffers import RolloutBuffer
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO
from stable_baselines3.common import buffers
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .vec_envs import dummies, kernels

SMALL: dict[str, Any] = {
    "n_steps": 32, "batch_size": 48, "n_epochs": 3, "seed": 0, "device": "cpu",
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")


def weights(model: stable_baselines3.PPO) -> Any:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


class Watch(BaseCallback):
    """Note what is called, and with what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def _on_training_start(self) -> None:
        self.calls.append("training start")

    def _on_rollout_start(self) -> None:
        self.calls.append("rollout start")

    def _on_step(self) -> bool:
        shapes = {
            k: v.shape for k, v in self.locals.items() if isinstance(v, np.ndarray | torch.Tensor)
        }
        shapes.pop("terminal_obs", None)
        shapes.pop("terminal_value", None)
        self.calls.append(("step", self.n_calls, self.num_timesteps, shapes))
        return True

    def _on_rollout_end(self) -> None:
        self.calls.append(("rollout end", self.n_calls, self.num_timesteps))

    def _on_training_end(self) -> None:
        self.calls.append("training end")


class Quiet(Watch):
    """Look at no step."""

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_fused_rollout_is_the_one_that_callbacks_see(name: str) -> None:
    fused, watched = (
        PPO("MlpPolicy", kernels(name), **SMALL).learn(1024, callback)
        for callback in (Quiet(), Watch())
    )
    assert torch.equal(weights(fused), weights(watched))
    assert [(e["r"], e["l"]) for e in fused.ep_info_buffer or ()] == [
        (e["r"], e["l"]) for e in watched.ep_info_buffer or ()
    ]
    assert fused.ep_info_buffer
    np.testing.assert_array_equal(fused._last_obs, watched._last_obs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(fused._last_episode_starts, watched._last_episode_starts)  # type: ignore[arg-type]


def test_callbacks_are_called_as_sb3_calls_them() -> None:
    ours, its, quiet = Watch(), Watch(), Quiet()
    PPO("MlpPolicy", kernels(), **SMALL).learn(256, ours)
    PPO("MlpPolicy", kernels(), **SMALL).learn(256, quiet)
    stable_baselines3.PPO("MlpPolicy", dummies(), **SMALL).learn(256, its)
    assert ours.calls == its.calls
    assert quiet.calls == [call for call in its.calls if call[0] != "step"]


@pytest.mark.parametrize("kind", [PPO, stable_baselines3.PPO])
def test_a_policy_trains_only_where_it_is_trained(kind: Any) -> None:
    model = kind("MlpPolicy", kernels() if kind is PPO else dummies(), **SMALL)
    modes: list[set[bool]] = []

    class Modes(Quiet):
        def _on_rollout_end(self) -> None:
            modes.append({module.training for module in model.policy.modules()})

    model.learn(256, Modes())
    modes.append({module.training for module in model.policy.modules()})
    assert modes == [{False}, {False}, {True}]


def pair(**settings: Any) -> tuple[PPO, stable_baselines3.PPO]:
    """Return ours after 256 steps and a rollout, and SB3's with the same weights and rollout."""
    settings = SMALL | settings
    ours = PPO("MlpPolicy", kernels(), **settings).learn(256)
    its = stable_baselines3.PPO("MlpPolicy", dummies(), **settings)
    its.set_parameters(copy.deepcopy(ours.get_parameters()))
    _, callback = ours._setup_learn(256, Quiet())
    ours.collect_rollouts(ours.env, callback, ours.rollout_buffer, 32)  # type: ignore[arg-type]
    its.rollout_buffer, its._n_updates = ours.rollout_buffer, ours._n_updates
    for model in (ours, its):
        model.set_logger(Logger(None, []))
        model._current_progress_remaining = 0.5
    return ours, its


def learn_the_same(ours: PPO, its: stable_baselines3.PPO) -> None:
    """Let both learn from their rollout, and compare all that comes of it."""
    for model in (ours, its):
        np.random.seed(1)  # noqa: NPY002
        model.train()
    torch.testing.assert_close(weights(ours), weights(its), rtol=0, atol=1e-6)
    mine, theirs = ours.logger.name_to_value, its.logger.name_to_value
    assert mine.keys() == theirs.keys()
    assert dict(mine) == pytest.approx(dict(theirs), rel=1e-4, abs=1e-6)
    assert adam_steps(ours) == adam_steps(its)
    assert ours._n_updates == its._n_updates


def adam_steps(model: stable_baselines3.PPO) -> float:
    state: Any = model.policy.optimizer.state_dict()["state"][0]
    return float(state["step"])


@pytest.mark.parametrize(
    "settings",
    [
        {"ent_coef": 0.01},
        {"rollout_buffer_class": buffers.RolloutBuffer},
        {"learning_rate": lambda left: 2e-3 * left, "clip_range": lambda left: 0.1 * left},
        {"clip_range_vf": lambda left: 0.2 * left, "normalize_advantage": False},
        {"clip_range_vf": lambda left: left - 0.6},  # as a schedule is beyond its end
        {"max_grad_norm": 0.01, "vf_coef": 2.0, "batch_size": 127},
    ],
)
def test_an_update_is_that_of_sb3(settings: dict[str, Any]) -> None:
    learn_the_same(*pair(**settings))


@pytest.mark.parametrize("target", [1e-6, 0.003, 0.01])
def test_too_much_divergence_stops_where_sb3_stops(target: float) -> None:
    ours, its = pair(learning_rate=0.02, n_epochs=10)
    before = adam_steps(ours)
    ours.target_kl = its.target_kl = target
    learn_the_same(ours, its)
    assert adam_steps(ours) < before + 30


def test_what_is_invalid_is_not_learned_from() -> None:
    ours, its = pair()
    buffer: Any = ours.rollout_buffer
    buffer.valid_T_N[3:9, 1] = False
    buffer.rewards[3:9, 1] = np.nan
    learn_the_same(ours, its)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_files_go_both_ways(name: str, tmp_path: Path) -> None:
    ours = PPO("MlpPolicy", kernels(name), **SMALL).learn(256)
    ours.save(tmp_path / "ours.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        its = stable_baselines3.PPO.load(tmp_path / "ours.zip", dummies(name), device="cpu")
    assert torch.equal(weights(ours), weights(its))
    for mine, theirs in zip(
        ours.policy.optimizer.state_dict()["state"].values(),
        its.policy.optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    seen = np.random.default_rng(0).normal(size=(50, 4 if "Cart" in name else 3)).astype(np.float32)
    for known in (True, False):
        torch.manual_seed(0)
        mine = ours.predict(seen, deterministic=known)[0]
        torch.manual_seed(0)
        np.testing.assert_array_equal(mine, its.predict(seen, deterministic=known)[0])
    its.learn(256)
    its.save(tmp_path / "its.zip")
    back = PPO.load(tmp_path / "its.zip", kernels(name), device="cpu")
    assert torch.equal(weights(back), weights(its))
    before = back.policy.optimizer.state_dict()["state"][0]["step"].item()
    back.learn(256)
    assert back.policy.optimizer.state_dict()["state"][0]["step"].item() == 1.5 * before
    assert not torch.equal(weights(back), weights(its))


def test_parameters_that_are_set_are_learned_from() -> None:
    first, second = (PPO("MlpPolicy", kernels(), **SMALL) for _ in range(2))
    first.learn(128)
    second.learn(256)
    second.set_parameters(copy.deepcopy(first.get_parameters()))  # torch would share them
    for p in second.policy.parameters():
        p.data = p.data.clone()  # as a move to another device leaves them
    assert torch.equal(weights(first), weights(second))
    for model in (first, second):
        model.set_random_seed(5)
        model.learn(128)
    assert torch.equal(weights(first), weights(second))


def test_a_dense_network_stays_on_the_cpu_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect.signature(PPO) == inspect.signature(stable_baselines3.PPO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert PPO("MlpPolicy", kernels(), n_steps=32).device.type == "cpu"
    assert PPO("MlpPolicy", kernels(), n_steps=32, device="meta").device.type == "meta"


def test_a_training_compiles_and_loads_what_it_uses() -> None:
    code = (
        "import sys, gymnasium, palaestra.envs\n"
        "from palaestra.train.compiled.rollout import collector\n"
        "from palaestra.train.kernel_vec_env import KernelVecEnv\n"
        "from palaestra.train.ppo import PPO\n"
        "PPO('MlpPolicy', 'palaestra.envs:palaestra/CartPole-v1', n_steps=32).learn(32)\n"
        "if collector.cache_info().currsize: sys.exit('compiled for nobody')\n"
        "envs = gymnasium.make_vec('palaestra/CartPole-v1', 2, 'vector_entry_point',"
        " autoreset_mode='SameStep')\n"
        "PPO('MlpPolicy', KernelVecEnv(envs.unwrapped), n_steps=32).learn(64)\n"
        "if not collector.cache_info().currsize: sys.exit('not fused')\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_a_training_in_torch_loads_no_compiler_either() -> None:
    code = (
        "import sys, torch\n"
        "from palaestra.train.ppo import PPO\n"
        "options = {'activation_fn': torch.nn.ELU}\n"
        "PPO('MlpPolicy', 'CartPole-v1', n_steps=32, policy_kwargs=options).learn(32)\n"
        "sys.exit(not {'torch._dynamo', 'sympy'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_a_seed_is_a_training() -> None:
    one, same, other = (
        PPO("MlpPolicy", kernels(), **(SMALL | {"seed": seed})).learn(256) for seed in (0, 0, 1)
    )
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_a_fused_rollout_draws_after_callbacks_have() -> None:
    class Draws(Quiet):
        def _on_rollout_start(self) -> None:
            np.random.random()  # noqa: NPY002

    class Watches(Draws):
        def _on_step(self) -> bool:
            return bool(self.locals)

    weights = [
        PPO("MlpPolicy", kernels(), **SMALL).learn(256, callback).policy.state_dict()
        for callback in (Draws(), Watches())
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class Seeds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seed NumPy's global generator in every reset, as some do."""

    def reset(self, **kwargs: Any) -> Any:
        np.random.seed(7)  # noqa: NPY002
        return super().reset(**kwargs)


def test_environments_that_seed_the_global_generator_see_different_actions() -> None:
    envs = DummyVecEnv([lambda: Seeds(gymnasium.make("CartPole-v1", max_episode_steps=4))])
    found = []

    class Notes(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            found.append(self.model.rollout_buffer.actions.reshape(-1, 4))  # type: ignore[attr-defined]

    model = PPO("MlpPolicy", envs, **SMALL)
    for _ in range(2):  # which begins to count steps anew
        model.learn(256, Notes())
    episodes = np.concatenate(found)  # of four steps each
    assert len(np.unique(episodes, axis=0)) > 10
    assert len({rollout.tobytes() for rollout in found}) == len(found)


def test_what_is_left_to_sb3_is_said_once() -> None:
    model = PPO("MlpPolicy", dummies(), policy_kwargs={"activation_fn": torch.nn.ELU}, **SMALL)
    with pytest.warns(UserWarning, match="ELU") as said:
        model.learn(384)
    assert len([w for w in said if "compiled" in str(w.message)]) == 1
    assert model._n_updates == 9


def test_environments_that_were_never_reset_are_not_played() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128)
    model.set_env(kernels(), force_reset=False)
    with pytest.raises(gymnasium.error.ResetNeeded):
        model.learn(128, reset_num_timesteps=False)


def frozen(model: PPO) -> None:
    model.policy.action_net.weight.requires_grad = False


def amsgrad(model: PPO) -> None:
    model.policy.optimizer.param_groups[0]["amsgrad"] = True
    model.policy.optimizer.state.clear()


def hooked(model: PPO) -> None:
    model.policy.action_net.weight.register_hook(lambda gradient: 0 * gradient)


def listened(model: PPO) -> None:
    model.policy.action_net.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("change", "why"),
    [(frozen, "frozen"), (amsgrad, "amsgrad"), (hooked, "hooks"), (listened, "hooks")],
)
def test_what_changes_between_two_trainings_is_heeded(change: Any, why: str) -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128)
    change(model)
    before = model.policy.action_net.weight.clone()
    with pytest.warns(UserWarning, match=why):
        model.learn(128, reset_num_timesteps=False)
    assert change is not frozen or torch.equal(model.policy.action_net.weight, before)


def test_what_was_frozen_for_a_while_learns_again() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128)
    frozen(model)
    with pytest.warns(UserWarning, match="frozen"):
        model.learn(128, reset_num_timesteps=False)
    weight = model.policy.action_net.weight
    weight.requires_grad = True
    before = weight.clone()
    with pytest.warns(UserWarning, match="more often"):
        model.learn(128, reset_num_timesteps=False)
    assert not torch.equal(weight, before)


class Pays(KernelVecEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, dones, infos = super().step(actions)
        return observations, rewards - 8, dones, infos


def test_what_a_subclass_does_at_each_step_is_done() -> None:
    model = PPO("MlpPolicy", Pays(kernels().vector), **SMALL).learn(128)
    assert model.rollout_buffer.rewards.max() == -7


@pytest.mark.parametrize("place", ["env", "rollout_buffer", "model"])
def test_what_is_replaced_is_called_at_each_step(place: str) -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL)
    name = {"env": "step", "rollout_buffer": "add", "model": "_update_info_buffer"}[place]
    held: Any = model if place == "model" else getattr(model, place)
    method, calls = getattr(held, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return method(*args, **kwargs)

    setattr(held, name, counted)
    model.learn(128)
    assert len(calls) == SMALL["n_steps"]


class Looks(PPO):
    """Look at what every step says."""

    seen = 0

    def _update_info_buffer(self, infos: Any, dones: Any = None) -> None:
        self.seen += 1
        super()._update_info_buffer(infos, dones)


def test_a_subclass_may_look_at_every_step() -> None:
    assert Looks("MlpPolicy", kernels(), **SMALL).learn(128).seen == SMALL["n_steps"]


class Reads(Quiet):
    def _on_rollout_end(self) -> None:
        self.calls.append(len(self.locals["infos"]))


def test_a_callback_that_reads_the_last_step_finds_it() -> None:
    callback = Reads()
    PPO("MlpPolicy", kernels(), **SMALL).learn(128, callback)
    assert 4 in callback.calls


class Copies(Watch):
    """Copy and pickle the policy in the middle of a rollout."""

    def _on_step(self) -> bool:
        self.copies = (
            copy.deepcopy(self.model.policy),
            pickle.loads(pickle.dumps(self.model.policy)),
        )
        return True


def test_a_copy_of_the_policy_is_on_its_own() -> None:
    callback = Copies()
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128, callback)
    seen = torch.ones(3, 4)
    for other in callback.copies:
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
            assert not other.predict_values(seen).any()
            assert not other.forward(seen)[1].any()
    with torch.no_grad():
        assert model.policy.predict_values(seen).any()


@pytest.mark.parametrize("kind", [RolloutBuffer, buffers.RolloutBuffer])
def test_nothing_is_learned_from_an_empty_buffer(kind: type[buffers.RolloutBuffer]) -> None:
    model = PPO("MlpPolicy", kernels(), rollout_buffer_class=kind, **SMALL)
    model._setup_learn(10)
    with pytest.raises(ValueError, match="not full"):
        model.train()


@pytest.mark.parametrize("kind", [RolloutBuffer, buffers.RolloutBuffer])
@pytest.mark.parametrize(
    "given",
    [
        {"n_envs": 2},
        {"n_envs": 8},
        {"observation_space": spaces.Box(-1, 1, (3,))},
        {"action_space": spaces.MultiDiscrete([2, 2])},
    ],
)
def test_nothing_is_written_into_a_buffer_of_other_environments(
    given: dict[str, Any], kind: type[buffers.RolloutBuffer]
) -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL)
    made = {
        "observation_space": model.observation_space, "action_space": model.action_space,
        "n_envs": model.n_envs,
    }  # fmt: skip
    model.rollout_buffer = kind(model.n_steps, **(made | given))
    with pytest.raises(ValueError, match="shape"):
        model.learn(128)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_policy_that_is_no_number_is_named_in_a_fused_rollout(name: str) -> None:
    model = PPO("MlpPolicy", kernels(name), **SMALL).learn(128)
    with torch.no_grad():
        model.policy.action_net.weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="training diverged"):
        model.learn(128, reset_num_timesteps=False)


def test_normalised_observations_are_played_and_learned_from() -> None:
    envs = VecNormalize(kernels(), gamma=0.98)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PPO("MlpPolicy", envs, **(SMALL | {"batch_size": 64})).learn(512)
    np.testing.assert_allclose(model.rollout_buffer.observations.std(), 1.0, atol=0.5)
    assert envs.obs_rms.count > 500  # type: ignore[union-attr]


def test_a_state_that_is_no_number_is_named_in_a_fused_rollout() -> None:
    envs = kernels()
    model = PPO("MlpPolicy", envs, **SMALL).learn(128)
    envs.vector.state_N_S[2] = np.nan
    with pytest.raises(ValueError, match=r"observation .*environment 2"):
        model.learn(128, reset_num_timesteps=False)


def test_tensorboard_gets_what_sb3_writes(tmp_path: Path) -> None:
    found = []
    for kind, envs in ((PPO, kernels()), (stable_baselines3.PPO, dummies())):
        folder = tmp_path / kind.__module__
        kind("MlpPolicy", envs, tensorboard_log=str(folder), **SMALL).learn(512)
        [path] = folder.iterdir()
        events = EventAccumulator(str(path)).Reload()
        tags = events.Tags()["scalars"]
        found.append({tag: [event.step for event in events.Scalars(tag)] for tag in tags})
    assert found[0] == found[1]
    assert "train/approx_kl" in found[0]


class Broken(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, observation: float, reward: float) -> None:
        self.said, self.paid = np.full(2, observation, np.float32), reward

    def reset(self, **kwargs: Any) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return self.said, self.paid, False, False, {}


@pytest.mark.parametrize(
    ("seen", "paid", "named"), [(np.nan, 0, "observation"), (0, np.inf, "reward")]
)
def test_what_is_not_finite_is_named(seen: float, paid: float, named: str) -> None:
    model = PPO("MlpPolicy", Broken(seen, paid), **SMALL)
    with pytest.raises(ValueError, match=named):
        model.learn(64)


class Probe(gymnasium.Env[Any, Any]):
    """Pay 1 at the second of two steps, whatever is done: the values are gamma and 1."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.MultiDiscrete([2, 2])

    def reset(self, **kwargs: Any) -> Any:
        self.done = False
        return np.array([-1.0], np.float32), {}

    def step(self, action: Any) -> Any:
        last, self.done = self.done, True
        return np.array([1.0], np.float32), float(last) * action[1], last, False, {}


def test_values_and_actions_of_a_known_world_are_found() -> None:
    model = PPO(
        "MlpPolicy", Probe(), n_steps=64, batch_size=32, learning_rate=3e-3, gamma=0.5, seed=0,
        device="cpu",
    ).learn(4000)  # fmt: skip
    values = model.policy.predict_values(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    assert values == pytest.approx([0.5, 1.0], abs=0.1)
    assert model.predict(np.array([1.0], np.float32), deterministic=True)[0][1] == 1


def test_it_balances_the_pole() -> None:
    model = PPO(
        "MlpPolicy", kernels(count=8), n_steps=32, batch_size=256, n_epochs=20, gamma=0.98,
        gae_lambda=0.8, learning_rate=1e-3, seed=0, device="cpu",
    ).learn(40_000)  # fmt: skip
    assert np.mean([e["r"] for e in model.ep_info_buffer or ()]) > 150
