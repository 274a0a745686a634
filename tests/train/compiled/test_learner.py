"""What others do to a policy, its parameters and its optimiser is heeded by compiled code."""

import inspect
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from palaestra.errors import UserError
from palaestra.train.buffers import RolloutBuffer
from palaestra.train.compiled.callbacks import watches_steps
from palaestra.train.ppo import PPO
from stable_baselines3.common import buffers
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn.modules.module import register_module_forward_hook

from ..vec_envs import dummies, kernels

SMALL: dict[str, Any] = {
    "n_steps": 32, "batch_size": 64, "n_epochs": 2, "seed": 0, "device": "cpu",
}  # fmt: skip


def torch_is_told(model: PPO, why: str) -> None:
    """See that the next training says why it runs in torch, and learns."""
    before = [p.clone() for p in model.policy.parameters()]
    with pytest.warns(UserWarning, match=why):
        model.learn(128, reset_num_timesteps=False)
    after = model.policy.parameters()
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


SHARING = """
import gymnasium, palaestra.envs, torch
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.ppo import PPO
envs = gymnasium.make_vec("palaestra/CartPole-v1", 2, "vector_entry_point",
                          autoreset_mode="SameStep")
model = PPO("MlpPolicy", KernelVecEnv(envs.unwrapped), n_steps=64, seed=0, device="cpu").learn(128)
{share}
seen = model.policy.state_dict()["action_net.weight"]
before = seen.clone()
model.learn(512, reset_num_timesteps=False)
assert torch.isfinite(seen).all() and not torch.equal(seen, before), "it learns where others see it"
assert {shared} == model.policy.action_net.weight.is_shared()
"""


@pytest.mark.parametrize(
    "share",
    [
        "model.policy.share_memory()",
        "torch.multiprocessing.get_context('spawn').Queue().put(model.policy.state_dict())\n"
        "import time; time.sleep(0.5)",
    ],
)
def test_memory_that_processes_share_is_learned_in(share: str) -> None:
    code = SHARING.format(share=share, shared=True)
    # In a process of its own, for kernels that write into memory that is gone may kill it.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_memory_that_was_shared_before_stays_shared() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL)
    model.policy.share_memory()
    torch_is_told(model, "memory that processes share")
    assert all(p.is_shared() for p in model.policy.parameters())


def test_weights_that_are_tied_stay_tied() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL)
    one, other = (net[2].weight for net in (model.policy.mlp_extractor.policy_net,
                                            model.policy.mlp_extractor.value_net))  # fmt: skip
    other.data = one.data
    torch_is_told(model, "share memory")
    assert one.data_ptr() == other.data_ptr()


class Many(gymnasium.Env[Any, Any]):
    """Show noise, and take any action."""

    def __init__(self, actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = spaces.Box(-1, 1, (4,)), actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        seen = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return seen, float(np.sum(action)), False, self.np_random.random() < 0.1, {}


def narrow_head(model: Any) -> None:
    model.policy.action_net = torch.nn.Linear(64, 2)


def wide_critic(model: Any) -> None:
    model.policy.value_net = torch.nn.Linear(64, 2)


def short_bias(model: Any) -> None:
    model.policy.action_net.bias = torch.nn.Parameter(torch.zeros(1))


def one_deviation(model: Any) -> None:
    model.policy.log_std = torch.nn.Parameter(torch.full((1,), -2.0))


@pytest.mark.parametrize(
    ("actions", "change"),
    [
        (spaces.MultiDiscrete([3, 3]), narrow_head),
        (spaces.Discrete(3), wide_critic),
        (spaces.Discrete(3), short_bias),
        (spaces.Box(-1, 1, (40,)), one_deviation),
        (spaces.Box(-1, 1, (40,)), short_bias),
    ],
)
def test_layers_that_do_not_fit_together_do_what_they_do_in_torch(
    actions: spaces.Space[Any], change: Any
) -> None:
    found = []
    for kind in (stable_baselines3.PPO, PPO):
        model = kind("MlpPolicy", Many(actions), **SMALL)
        change(model)
        policy = model.policy
        policy.optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3, eps=1e-5)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.learn(64)
        except (RuntimeError, ValueError, UserError):
            found.append("refused")
        else:
            found.append(str([p.shape for p in policy.parameters()]))
            assert all(torch.isfinite(p).all() for p in policy.parameters())
    assert found[0] == found[1]


def test_parameters_of_another_shape_are_refused_as_torch_refuses_them() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128)
    model.policy.action_net.bias.data = torch.zeros(1)
    with pytest.warns(UserWarning, match="a layer is"), pytest.raises(RuntimeError, match="shape"):
        model.learn(128, reset_num_timesteps=False)


@pytest.mark.filterwarnings("ignore:PPO")
@pytest.mark.parametrize("wrong", [2, -1, 1e9])
@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_an_action_that_there_is_not_is_named(wrong: float, policy: str) -> None:
    class Spoil(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.rollout_buffer.actions[3, 1] = wrong  # type: ignore[attr-defined]

    envs: Any = kernels()
    if policy == "MultiInputPolicy":
        envs = DummyVecEnv([lambda: gymnasium.wrappers.TransformObservation(
            gymnasium.make("CartPole-v1"), lambda seen: {"seen": seen},
            spaces.Dict({"seen": gymnasium.make("CartPole-v1").observation_space}),
        )] * 2)  # fmt: skip
    model = PPO(policy, envs, **SMALL)
    with pytest.raises(UserError, match="environment 1 at step 3"):
        model.learn(256, Spoil())


class Counts:
    """Call a function, and count."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "forward"),
        ("", "predict_values"),
        ("", "extract_features"),
        ("", "evaluate_actions"),
        ("", "_get_action_dist_from_latent"),
        ("action_net", "forward"),
        ("action_dist", "proba_distribution"),
        ("action_dist", "log_prob"),
        ("mlp_extractor", "forward_actor"),
        ("mlp_extractor", "forward_critic"),
        ("optimizer", "step"),
    ],
)
def test_a_method_that_somebody_replaced_is_called_as_sb3_calls_it(place: str, name: str) -> None:
    counts = []
    for kind, envs in ((stable_baselines3.PPO, dummies()), (PPO, kernels())):
        model = kind("MlpPolicy", envs, **SMALL).learn(128)
        patched = model.policy if not place else getattr(model.policy, place)
        counted = Counts(getattr(patched, name))
        setattr(patched, name, counted)
        if kind is PPO:
            torch_is_told(model, "somebody")
        else:
            model.learn(128, reset_num_timesteps=False)
        assert vars(patched)[name] is counted, "it is left where it was put"
        counts.append(counted.calls)
    assert counts[0] > 0
    assert counts[1] > 0
    # An evaluation of a rollout's last observations may be one of more; the rest is the same.
    assert counts[0] == counts[1] or name in (
        "forward", "extract_features", "forward_critic", "predict_values",
    )  # fmt: skip


def test_another_distribution_is_left_to_torch() -> None:
    model = PPO("MlpPolicy", kernels("Pendulum-v1"), **SMALL)
    model.policy.action_dist = SquashedDiagGaussianDistribution(1)
    torch_is_told(model, "SquashedDiagGaussian")


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_of_the_optimiser_are_called(kind: str) -> None:
    model, calls = PPO("MlpPolicy", kernels(), **SMALL).learn(128), []
    register = getattr(model.policy.optimizer, f"register_step_{kind}_hook")
    register(lambda *args: calls.append(kind))
    torch_is_told(model, "takes part")
    assert len(calls) == 4


def test_hooks_of_gradients_are_called() -> None:
    model, calls = PPO("MlpPolicy", kernels(), **SMALL).learn(128), []
    model.policy.action_net.bias.register_post_accumulate_grad_hook(calls.append)
    torch_is_told(model, "hooks")
    assert len(calls) == 4


def test_hooks_of_all_modules_are_called() -> None:
    model, calls = PPO("MlpPolicy", kernels(), **SMALL).learn(128), []
    handle = register_module_forward_hook(lambda *args: calls.append(args))
    try:
        torch_is_told(model, "hooks")
    finally:
        handle.remove()
    assert calls


@pytest.mark.parametrize("name", ["forward", "extract_features"])
def test_a_method_of_all_policies_that_somebody_replaced_is_called(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL).learn(128)
    method, calls = getattr(ActorCriticPolicy, name), []

    def other(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return method(*args, **kwargs)

    monkeypatch.setattr(ActorCriticPolicy, name, other)
    torch_is_told(model, "method of its class")
    assert calls


def test_to_look_at_the_class_of_policies_changes_nothing() -> None:
    inspect.getmembers(ActorCriticPolicy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PPO("MlpPolicy", kernels(), **SMALL).learn(128)


class Halves(FlattenExtractor):
    """See half of everything."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return super().forward(observations) / 2


class Plain(torch.nn.Linear):
    """A layer that is none of torch's own."""


def other_extractor(policy: Any) -> None:
    policy.features_extractor = Halves(policy.observation_space)


def own_module(policy: Any) -> None:
    policy.mlp_extractor.policy_net = Plain(3, 64)


def single_layer(policy: Any) -> None:
    policy.mlp_extractor.policy_net = torch.nn.Linear(3, 64)


def nested_layers(policy: Any) -> None:
    net = policy.mlp_extractor.policy_net
    policy.mlp_extractor.policy_net = torch.nn.Sequential(torch.nn.Sequential(*net))


def constant_deviation(policy: Any) -> None:
    del policy.log_std
    policy.log_std = torch.full((1,), -1.0)


def deviation_in_a_buffer(policy: Any) -> None:
    del policy.log_std
    policy.register_buffer("log_std", torch.full((1,), -1.0))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_extractor, "Halves"),
        (own_module, "hidden layers are Plain"),
        (single_layer, "hidden layers are Linear"),
        (nested_layers, "a layer is Sequential"),
        (constant_deviation, "standard deviations"),
        (deviation_in_a_buffer, "standard deviations"),
    ],
)
def test_a_policy_that_somebody_rebuilt_runs_in_torch_as_sb3_runs_it(change: Any, why: str) -> None:
    model = PPO("MlpPolicy", kernels("Pendulum-v1"), **SMALL)
    change(model.policy)
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-3, eps=1e-5)
    with pytest.warns(UserWarning, match=why) as told:
        model.learn(128)
    assert all("\n" not in str(one.message) for one in told)


@pytest.mark.parametrize("width", [1, 4999, 5001])
@pytest.mark.parametrize("hidden", [8, 512])
def test_an_observation_of_another_width_is_refused(width: int, hidden: int) -> None:
    space = spaces.Box(-1, 1, (5000,))
    worlds = DummyVecEnv([lambda: gymnasium.wrappers.TransformObservation(
        gymnasium.make("CartPole-v1"), lambda _: np.zeros(5000, np.float32), space,
    )] * 4)  # fmt: skip

    class Asks(BaseCallback):
        def _on_step(self) -> bool:
            with torch.no_grad():
                self.model.policy.predict_values(torch.ones(4, width))  # type: ignore[operator]
            return True

    model = PPO("MlpPolicy", worlds, **SMALL, policy_kwargs={"net_arch": [hidden]})
    with pytest.raises(UserError, match=f"has {width} numbers"):
        model.learn(128, Asks())


def in_place(policy: Any, bias: torch.Tensor) -> None:
    with torch.no_grad():
        policy.action_net.bias.copy_(bias)


def other_data(policy: Any, bias: torch.Tensor) -> None:
    policy.action_net.bias.data = bias


def other_parameter(policy: Any, bias: torch.Tensor) -> None:
    policy.action_net.bias = torch.nn.Parameter(bias)


def other_layer(policy: Any, bias: torch.Tensor) -> None:
    layer = torch.nn.Linear(64, 2)
    layer.bias.data = bias
    policy.action_net = layer


def assigned(policy: Any, bias: torch.Tensor) -> None:
    policy.load_state_dict(policy.state_dict() | {"action_net.bias": bias}, assign=True)


def hooked(policy: Any, bias: torch.Tensor) -> None:
    policy.action_net.register_forward_hook(lambda _module, _given, said: said + bias)


def other_method(policy: Any, bias: torch.Tensor) -> None:
    method = policy.action_net.forward
    policy.action_net.forward = lambda latent: method(latent) + bias


class Decide(BaseCallback):
    """Make one action certain when a rollout begins, or at its first step."""

    def __init__(self, change: Any, at_step: bool) -> None:
        super().__init__()
        self._change, self._at_step = change, at_step

    def _on_rollout_start(self) -> None:
        if not self._at_step:
            self._change(self.model.policy, torch.tensor([-100.0, 100.0]))

    def _on_step(self) -> bool:
        if self._at_step and self.n_calls == 1:
            self._change(self.model.policy, torch.tensor([-100.0, 100.0]))
        return True

    def _on_rollout_end(self) -> None:
        first = 1 if self._at_step else 0
        self.chosen = self.model.rollout_buffer.actions[first:].copy()  # type: ignore[attr-defined]


class Quiet(Decide):
    """Look at no step, so that a rollout may be one call."""

    def _on_step(self) -> bool:
        return True


CHANGES = [in_place, other_data, other_parameter, other_layer, assigned, hooked, other_method]


@pytest.mark.filterwarnings("ignore:PPO")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [Decide, Quiet])
def test_what_a_callback_makes_of_the_policy_acts_at_once(change: Any, kind: Any) -> None:
    callback = kind(change, at_step=False)
    PPO("MlpPolicy", kernels(), **SMALL).learn(128, callback)
    assert (callback.chosen == 1).all()


@pytest.mark.filterwarnings("ignore:PPO")
@pytest.mark.parametrize("change", CHANGES)
def test_what_it_makes_of_it_between_two_steps_acts_at_the_next(change: Any) -> None:
    callback = Decide(change, at_step=True)
    PPO("MlpPolicy", kernels(), **SMALL).learn(128, callback)
    assert (callback.chosen == 1).all()


def test_other_digits_between_two_steps_are_refused_as_torch_refuses_them() -> None:
    class Doubles(BaseCallback):
        def _on_step(self) -> bool:
            self.model.policy.double()
            return True

    with pytest.raises(RuntimeError, match=r"[Dd]ouble"):
        PPO("MlpPolicy", kernels(), **SMALL).learn(128, Doubles())


def decay(model: Any) -> None:
    model.policy.optimizer.param_groups[0]["weight_decay"] = 1e-4


def another_critic(model: Any) -> None:
    model.policy.value_net = torch.nn.Linear(64, 1)
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-3, eps=1e-5)


@pytest.mark.parametrize("change", [decay, another_critic])
def test_what_still_compiles_after_a_rollout_has_begun_is_played(change: Any) -> None:
    class Change(BaseCallback):
        def _on_rollout_start(self) -> None:
            change(self.model)

        def _on_step(self) -> bool:
            return True

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = PPO("MlpPolicy", kernels(), **SMALL).learn(256, Change())
    assert model.num_timesteps == 256


def test_a_policy_that_torch_compiles_runs_in_torch() -> None:
    model = PPO("MlpPolicy", kernels(), **SMALL)
    model.policy.compile(backend="eager")
    torch_is_told(model, "replaced")


def test_an_action_is_looked_at_though_minibatches_were_read_before() -> None:
    class Spoil(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
            buffer.actions[3, 1] = 7
            next(buffer.get(16))

    for kind in (RolloutBuffer, buffers.RolloutBuffer):
        model = PPO("MlpPolicy", kernels(), rollout_buffer_class=kind, **SMALL)
        with pytest.raises(UserError, match="environment 1 at step 3"):
            model.learn(256, Spoil())


def test_a_rollout_within_a_rollout_leaves_the_outer_one_as_it_was() -> None:
    class Nested(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 3:
                inner = PPO("MlpPolicy", dummies(), **SMALL)
                inner.policy = self.model.policy
                inner.learn(128)
            return True

    model = PPO("MlpPolicy", kernels(), **SMALL).learn(256, Nested())
    assert not {"forward", "predict_values"} & vars(model.policy).keys()
    assert model.num_timesteps == 256


class Indirect(BaseCallback):
    """Read what the last step says, by a helper and when all is over."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.began = "infos" in self.locals

    def _on_rollout_end(self) -> None:
        self._look()

    def _on_training_end(self) -> None:
        self.ended = len(self.locals["infos"])

    def _look(self) -> None:
        self.looked = len(self.locals["infos"])


class ByProperty(Indirect):
    @property
    def _infos(self) -> Any:
        return next(self.locals[name] for name in ("infos",))

    def _look(self) -> None:
        self.looked = len(self._infos)


def test_who_reads_what_a_training_begins_with_keeps_rollouts_in_one_call() -> None:
    class Begins(BaseCallback):
        def _on_training_start(self) -> None:
            self.total = self.locals["total_timesteps"]

        def _on_step(self) -> bool:
            return True

    assert not watches_steps(Begins())
    assert not watches_steps(EventCallback())
    assert watches_steps(Indirect())
    assert watches_steps(CallbackList([Begins(), ByProperty()]))


@pytest.mark.parametrize("kind", [Indirect, ByProperty])
def test_a_callback_may_read_by_a_helper_what_steps_say(kind: Any) -> None:
    callback = kind()
    PPO("MlpPolicy", kernels(), **SMALL).learn(256, callback)
    assert (callback.began, callback.looked, callback.ended) == (True, 4, 4)
