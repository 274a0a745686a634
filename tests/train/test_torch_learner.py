"""Where torch runs the network, an update is stable-baselines3's, whatever the policy."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from palaestra.envs import views
from palaestra.errors import UserError
from palaestra.policies.choices import ChoicePolicy
from palaestra.train import choices, torch_learner
from palaestra.train.buffers import RolloutBuffer
from palaestra.train.compiled.products import IS_FAST
from palaestra.train.ppo import PPO
from stable_baselines3.common import buffers
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

VECTOR = spaces.Box(-1.0, 1.0, (5,), np.float32)
TWO = spaces.Dict({"kind": spaces.Discrete(3), "place": VECTOR})
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
ACTIONS: dict[str, Any] = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 4]),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "bits": spaces.MultiBinary(3),
}
SMALL: dict[str, Any] = {
    "n_steps": 32, "batch_size": 24, "n_epochs": 3, "ent_coef": 0.01, "seed": 0, "device": "cpu",
}  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:You have specified a mini-batch size"),
    pytest.mark.filterwarnings("ignore:PPO"),
]


class Random(gymnasium.Env[Any, Any]):
    """Show something at random, and pay for the action's first number."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = copy.deepcopy((observations, actions))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        paid = float(np.ravel(action)[0])
        return self.observation_space.sample(), paid, self.np_random.random() < 0.1, False, {}


class Own(MultiInputActorCriticPolicy):
    """Evaluate actions in a way of its own."""

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        values, log_prob, _ = super().evaluate_actions(obs, actions)
        return 2 * values, log_prob, None


class Frozen(MultiInputActorCriticPolicy):
    """Have a part that does not learn."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.mlp_extractor.policy_net[0].weight.requires_grad = False


class Hooked(MultiInputActorCriticPolicy):
    """Have a gradient that somebody changes."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net.weight.register_hook(torch.sign)


def pair(policy: Any, observations: Any, actions: Any, **settings: Any) -> Any:
    """Return ours after a training and another rollout, and SB3's in the same place."""
    return pair_in(lambda: Random(observations, actions), policy, **settings)


def pair_in(make: Callable[[], gymnasium.Env[Any, Any]], policy: Any, **settings: Any) -> Any:
    """Do as `pair` does, in any environment."""
    settings = SMALL | settings
    ours, its = (kind(policy, make(), **settings) for kind in (PPO, stable_baselines3.PPO))
    ours.learn(64)
    its.set_parameters(copy.deepcopy(ours.get_parameters()))
    _, callback = ours._setup_learn(64)
    ours.collect_rollouts(ours.env, callback, ours.rollout_buffer, 32)
    its.rollout_buffer, its._n_updates = ours.rollout_buffer, ours._n_updates
    for model in (ours, its):
        model.set_logger(Logger(None, []))
        model._current_progress_remaining = 0.5
    return ours, its


def weights(model: stable_baselines3.PPO) -> Any:
    return torch.cat([p.detach().reshape(-1) for p in model.policy.parameters()])


def train(model: stable_baselines3.PPO) -> None:
    """Learn from the rollout, in an order that is always the same."""
    np.random.seed(1)  # noqa: NPY002 (SB3 draws from this generator)
    model.train()


def learn_the_same(ours: PPO, its: stable_baselines3.PPO) -> None:
    """Let both learn from their rollout, and compare all that comes of it."""
    before = weights(ours)
    for model in (ours, its):
        train(model)
    assert not torch.equal(weights(ours), before)
    torch.testing.assert_close(weights(ours), weights(its), rtol=0, atol=2e-6)
    mine, theirs = ours.logger.name_to_value, its.logger.name_to_value
    assert mine.keys() == theirs.keys()
    assert dict(mine) == pytest.approx(dict(theirs), rel=1e-4, abs=1e-6)
    assert ours._n_updates == its._n_updates
    mine, theirs = (m.policy.optimizer.state_dict() for m in (ours, its))
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()


@pytest.fixture(params=["compiled", "torch"])
def loss(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute the loss in compiled code, or in torch as on a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(torch_learner, "_distribution_of", lambda policy: None)
    return str(request.param)


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize("actions", ACTIONS)
def test_dictionaries_are_learned_from(actions: str) -> None:
    learn_the_same(*pair("MultiInputPolicy", TWO, ACTIONS[actions]))


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": lambda left: 2e-3 * left, "clip_range": lambda left: 0.1 * left},
        {"clip_range_vf": lambda left: 0.2 * left, "normalize_advantage": False},
        {"clip_range_vf": lambda left: left - 0.6},
        {"max_grad_norm": 0.01, "vf_coef": 2.0, "batch_size": 31},
        {"rollout_buffer_class": buffers.DictRolloutBuffer},
        {"policy_kwargs": {"share_features_extractor": False}},
        {"policy_kwargs": {"activation_fn": torch.nn.ELU}},
        {"policy_kwargs": {"optimizer_class": torch.optim.AdamW}},
        {"policy_kwargs": {"optimizer_class": torch.optim.SGD}},
        {"policy_kwargs": {"optimizer_class": torch.optim.Adafactor}},
        {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True, "weight_decay": 0.1}}},
    ],
)
def test_settings_mean_what_they_mean_in_sb3(settings: dict[str, Any]) -> None:
    learn_the_same(*pair("MultiInputPolicy", TWO, ACTIONS["multi"], **settings))


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize("policy", [Own, Frozen, Hooked])
def test_a_policy_of_ones_own_is_heeded(policy: Any) -> None:
    learn_the_same(*pair(policy, TWO, ACTIONS["discrete"]))


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2])])
def test_numbers_that_stand_for_things_are_learned_from(space: Any) -> None:
    elu = {"activation_fn": torch.nn.ELU}
    learn_the_same(*pair("MlpPolicy", space, ACTIONS["discrete"], policy_kwargs=elu))


def test_one_transition_is_learned_from() -> None:
    one = {"n_steps": 1, "batch_size": 1, "normalize_advantage": False}
    ours = PPO("MultiInputPolicy", Random(TWO, ACTIONS["discrete"]), **(SMALL | one))
    before = weights(ours)
    ours.learn(1)
    assert not torch.equal(weights(ours), before)


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize(
    "image", [IMAGE, spaces.Box(0, 255, (45, 38, 1), np.uint8), spaces.Box(0, 1, (2, 36, 37))]
)
def test_images_are_learned_from(image: spaces.Box) -> None:
    kwargs: dict[str, Any] = {}
    if image.dtype != np.uint8:
        kwargs = {"features_extractor_kwargs": {"normalized_image": True}}
        kwargs["normalize_images"] = False
    learn_the_same(*pair("CnnPolicy", image, ACTIONS["discrete"], policy_kwargs=kwargs))


@pytest.mark.usefixtures("loss")
def test_weights_may_lie_in_memory_in_another_order() -> None:
    ours, its = pair("CnnPolicy", IMAGE, ACTIONS["discrete"])
    for model in (ours, its):  # Adam's memory stays as it is
        model.policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learn_the_same(ours, its)


class Views(BaseFeaturesExtractor):
    """Take images as they mostly lie, and remember how they lay."""

    orders: ClassVar[set[bool]] = set()

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 8)
        self.layer = torch.nn.Conv2d(3, 8, 36)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.orders.add(observations.is_contiguous())
        return torch.relu(self.layer(observations.view(-1, 3, 36, 36)).view(-1, 8))


class TakesChannelsLast(Views):
    """Take them in another order, too."""

    channels_last = True

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.orders.add(observations.is_contiguous())
        return torch.relu(self.layer(observations).flatten(1))


class Derived(TakesChannelsLast):
    """Be derived from what takes them, and say nothing."""


NARROW = {"features_extractor_kwargs": {"features_dim": 8}}


def put_in_place(policy: Any) -> None:
    policy.features_extractor = Views(policy.observation_space)


def put_inside(policy: Any) -> None:
    policy.features_extractor.cnn[-1] = Flat()


def hook(policy: Any) -> None:
    policy.features_extractor.cnn[0].register_forward_hook(lambda m, i, o: o.view(-1).view_as(o))


class Flat(torch.nn.Module):
    """Flatten what lies as it mostly does."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.view(len(image), -1)


@pytest.mark.parametrize("change", [put_in_place, put_inside, hook])
def test_a_network_that_somebody_has_changed_gets_images_as_they_mostly_lie(change: Any) -> None:
    ours, _ = pair("CnnPolicy", IMAGE, ACTIONS["discrete"], policy_kwargs=NARROW)
    change(ours.policy)
    ours.train()


def test_two_networks_may_see_images() -> None:
    apart = {"share_features_extractor": False}
    learn_the_same(*pair("CnnPolicy", IMAGE, ACTIONS["discrete"], policy_kwargs=apart))


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_steps_are_compiled(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair(policy, IMAGE if policy == "CnnPolicy" else TWO, ACTIONS["discrete"])
    before = weights(ours)
    monkeypatch.setattr(torch.optim.Adam, "step", None)
    ours.train()
    assert not torch.equal(weights(ours), before)


@pytest.mark.parametrize("kind", [Views, TakesChannelsLast, Derived])
def test_an_extractor_of_ones_own_says_whether_channels_may_come_last(kind: type[Views]) -> None:
    extractor = {"features_extractor_class": kind}
    ours, its = pair("CnnPolicy", IMAGE, ACTIONS["discrete"], policy_kwargs=extractor)
    Views.orders.clear()
    train(ours)
    assert Views.orders == {kind is not TakesChannelsLast}
    train(its)
    torch.testing.assert_close(weights(ours), weights(its), rtol=0, atol=2e-6)


class Reads(BaseFeaturesExtractor):
    """Read the image of a dictionary, and remember how it lay."""

    channels_last = True
    orders: ClassVar[set[bool]] = set()

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, 3 * 36 * 36)

    def forward(self, observations: Any) -> torch.Tensor:
        self.orders.add(observations["seen"].is_contiguous())
        return observations["seen"].flatten(1)


def test_an_extractor_of_dictionaries_may_take_channels_last() -> None:
    space = spaces.Dict({"seen": IMAGE, "place": VECTOR})
    extractor = {"features_extractor_class": Reads}
    ours, its = pair("MultiInputPolicy", space, ACTIONS["discrete"], policy_kwargs=extractor)
    Reads.orders.clear()
    train(ours)
    assert Reads.orders == {False}
    train(its)
    torch.testing.assert_close(weights(ours), weights(its), rtol=0, atol=2e-6)


def pad(policy: Any) -> None:
    policy.features_extractor.cnn[0].padding = (2, 2)


def test_natures_network_with_other_convolutions_gets_channels_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, _ = pair("CnnPolicy", IMAGE, ACTIONS["discrete"], policy_kwargs=NARROW)
    pad(ours.policy)
    seen, forward = set(), torch.nn.Conv2d.forward

    def look(module: Any, image: torch.Tensor) -> torch.Tensor:
        if module.in_channels == 3:
            seen.add(image.is_contiguous(memory_format=torch.channels_last))
        return forward(module, image)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", look)
    ours.train()
    assert seen == {True}


class Asks(ActorCriticCnnPolicy):
    """Extract features in a way of its own."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs, features_extractor)


@pytest.mark.parametrize("policy", ["CnnPolicy", Asks])
def test_a_rollout_is_forgotten_once_it_was_learned_of(policy: Any) -> None:
    ours, _ = pair(policy, IMAGE, ACTIONS["discrete"])
    gc.disable()
    try:
        learner = torch_learner.TorchLearner(ours.policy, ours.rollout_buffer)
        learner.update(ours._settings(), 1)
        known = weakref.ref(learner)
        del learner
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_convolutions_of_images_are_compiled(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space: Any = IMAGE if policy == "CnnPolicy" else spaces.Dict({"seen": IMAGE, "place": VECTOR})
    ours, _ = pair(policy, space, ACTIONS["discrete"])
    before = weights(ours)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", None)
    ours.train()
    assert not torch.equal(weights(ours), before)


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize("shared", [True, False])
def test_dictionaries_with_images_are_learned_from(shared: bool) -> None:
    other = spaces.Box(0, 255, (1, 40, 37), np.uint8)
    seen = spaces.Dict({"seen": IMAGE, "place": VECTOR, "other": other})
    kwargs = {"share_features_extractor": shared}
    learn_the_same(*pair("MultiInputPolicy", seen, ACTIONS["discrete"], policy_kwargs=kwargs))


@pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
@pytest.mark.usefixtures("loss")
def test_what_choices_say_is_learned_from_in_compiled_code(
    counted: Callable[[Any], list[int]],
) -> None:
    ours, its = pair_in(lambda: views.make("palaestra/Calculator-v0", "array"), ChoicePolicy)
    counts = counted(choices)
    learn_the_same(ours, its)
    assert counts == [24, 8] * 3


class Shared(ActorCriticPolicy):
    """Have one standard deviation for all actions."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.log_std = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = self.optimizer_class(self.parameters(), lr=1e-3)  # type: ignore[call-arg]


class Never(torch.nn.Module):
    """Rule an action out."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(torch.tensor([False, True, False]), -torch.inf)


class Masked(ActorCriticPolicy):
    """Never take the second action."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net = torch.nn.Sequential(self.action_net, Never())


def test_one_standard_deviation_may_serve_all_actions() -> None:
    learn_the_same(*pair(Shared, VECTOR, ACTIONS["box"]))


@pytest.mark.usefixtures("loss")
def test_an_action_may_be_impossible() -> None:
    learn_the_same(*pair(Masked, VECTOR, ACTIONS["discrete"]))


class Doubles(BaseFeaturesExtractor):
    """Say everything in twice the digits."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations.double()


class Double(ActorCriticPolicy):
    """Compute with twice the digits."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.double()


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_numbers_of_twice_the_digits_are_computed_with(actions: str) -> None:
    extractor = {"features_extractor_class": Doubles}
    learn_the_same(*pair(Double, VECTOR, ACTIONS[actions], policy_kwargs=extractor))


def test_noise_that_depends_on_the_state_is_learned() -> None:
    learn_the_same(*pair("MlpPolicy", VECTOR, ACTIONS["box"], use_sde=True))


@pytest.mark.usefixtures("loss")
@pytest.mark.parametrize("target", [1e-6, 0.003])
def test_too_much_divergence_stops_where_sb3_stops(target: float) -> None:
    ours, its = pair("MultiInputPolicy", TWO, ACTIONS["discrete"], learning_rate=0.02, n_epochs=10)
    ours.target_kl = its.target_kl = target
    before = ours._n_updates
    learn_the_same(ours, its)
    assert ours._n_updates < before + 10


@pytest.mark.usefixtures("loss")
def test_a_step_that_would_spoil_the_policy_is_not_taken() -> None:
    model, _ = pair("MultiInputPolicy", TWO, ACTIONS["discrete"])
    model.rollout_buffer.advantages *= 1e30
    model.normalize_advantage, before = False, weights(model)
    with pytest.raises(UserError, match="not finite"):
        model.train()
    assert torch.equal(weights(model), before)


def test_an_observation_that_is_no_number_is_named() -> None:
    model, _ = pair("MultiInputPolicy", TWO, ACTIONS["discrete"])
    model.rollout_buffer.observations["place"][3, 0, 1] = np.nan
    with pytest.raises(UserError, match="observation 'place' of environment 0 at step 3 is nan"):
        model.train()


class Counts(BaseFeaturesExtractor):
    """Have no parameters, and count the rows that it is asked for."""

    constant_features = True
    rows = 0

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        type(self).rows += len(observations)
        return observations**2


@pytest.mark.usefixtures("loss")
def test_features_that_are_constant_are_computed_once_a_rollout() -> None:
    extractor = {"features_extractor_class": Counts}
    ours, its = pair("MlpPolicy", VECTOR, ACTIONS["discrete"], policy_kwargs=extractor)
    Counts.rows = 0
    learn_the_same(ours, its)
    assert Counts.rows == 32 + 3 * 32  # SB3 asks in every epoch


class Learns(Counts):
    """Be derived from what is constant, and not be constant."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.layer = torch.nn.Linear(5, 5)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(observations)
        return found


def test_features_that_are_learned_are_no_constants() -> None:
    extractor = {"features_extractor_class": Learns}
    learn_the_same(*pair("MlpPolicy", VECTOR, ACTIONS["discrete"], policy_kwargs=extractor))


@pytest.mark.usefixtures("loss")
def test_a_rollout_of_which_nothing_is_valid_is_no_rollout() -> None:
    model, _ = pair("MultiInputPolicy", TWO, ACTIONS["discrete"])
    model.rollout_buffer.valid_T_N[:] = False
    with pytest.raises(UserError, match="no transition of the rollout is valid"):
        model.train()


class Pessimist(buffers.RolloutBuffer):
    """Give samples of its own."""

    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        found = super()._get_samples(batch_inds, env)
        return found._replace(advantages=-found.advantages)


@pytest.mark.parametrize("policy", ["MlpPolicy", Masked])
@pytest.mark.filterwarnings("default:PPO's update")
def test_a_buffer_that_makes_samples_in_its_own_way_is_left_to_sb3(policy: Any) -> None:
    model = PPO(
        policy, Random(VECTOR, ACTIONS["discrete"]), rollout_buffer_class=Pessimist, **SMALL
    )
    with pytest.warns(UserWarning, match="Pessimist makes minibatches in its own way"):
        model.learn(64)


class ByHalves(RolloutBuffer):
    """Give minibatches of its own."""

    def get(self, batch_size: int | None = None) -> Any:
        yield from super().get(16)


def test_a_buffer_that_makes_minibatches_in_its_own_way_is_left_to_sb3() -> None:
    env = Random(VECTOR, ACTIONS["discrete"])
    model = PPO("MlpPolicy", env, rollout_buffer_class=ByHalves, **SMALL)
    with pytest.warns(UserWarning, match="ByHalves makes minibatches in its own way"):
        model.learn(64)
    assert model._n_updates == 6
