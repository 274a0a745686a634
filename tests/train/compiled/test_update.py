"""Compiled gradients and Adam's steps are torch's, whatever the network and the loss."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.train.compiled.learner import Learner
from palaestra.train.compiled.structure import NotCompiled, read
from palaestra.train.compiled.transitions import NO_MASKS
from palaestra.train.compiled.update import KL, LOSS, Settings, Transitions
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn import functional as F

COUNT = 300  # more than a chunk
BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)
PLAIN = Settings(64, 0.2, np.inf, True, 0.0, 0.5, 0.5, np.inf, 3e-4, 0.9, 0.999, 1e-5, 0.0)
SPACES: dict[str, Any] = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 4, 3]),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}


def policy_of(space: Any, seed: int = 0, **kwargs: Any) -> ActorCriticPolicy:
    torch.manual_seed(seed)
    made = ActorCriticPolicy(BOX, space, lambda _: 3e-4, **kwargs)
    with torch.no_grad():
        for p in made.parameters():  # away from logits and biases of 0
            p += 0.1 * torch.randn_like(p)
    return made


def transitions_of(space: Any, seed: int = 0, masked: bool = False) -> Transitions:
    rng = np.random.default_rng(seed)
    space.seed(seed)
    actions = np.array([np.ravel(space.sample()) for _ in range(COUNT)], np.float32)
    masks = NO_MASKS
    if masked:
        sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec
        masks = (rng.random((COUNT, sum(sizes))) < 0.5).astype(np.float32)
        starts = np.cumsum([0, *sizes[:-1]])
        np.put_along_axis(masks, (actions + starts).astype(int), 1.0, axis=1)
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Transitions(f(COUNT, 5), actions, masks, f(COUNT), f(COUNT) - 2, f(COUNT), f(COUNT))


def loss_of(policy: ActorCriticPolicy, data: Transitions, rows: Any, s: Settings) -> Any:
    """Return SB3's loss and divergence of a minibatch."""
    observations, actions, masks, old_values, old, advantages, returns = (
        torch.from_numpy(a[rows]) if a.size else None for a in data
    )
    assert observations is not None
    assert actions is not None
    assert advantages is not None
    dtype = next(policy.parameters()).dtype
    latent_pi, latent_vf = policy.mlp_extractor(observations.to(dtype))
    outputs, values = policy.action_net(latent_pi), policy.value_net(latent_vf).flatten()
    if masks is not None:
        outputs = torch.where(masks > 0, outputs, -1e8)
    if isinstance(policy.action_space, spaces.Box):
        policy.action_dist.proba_distribution(outputs, policy.log_std)  # type: ignore[call-arg]
    else:
        policy.action_dist.proba_distribution(outputs)  # type: ignore[call-arg]
        actions = actions.long()
        actions = actions.flatten() if actions.shape[1] == 1 else actions
    log_prob, entropy = policy.action_dist.log_prob(actions), policy.action_dist.entropy()
    assert entropy is not None
    if s.normalize_advantage and len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = torch.exp(log_prob - old)
    kept = torch.clamp(ratio, 1 - s.clip_range, 1 + s.clip_range)
    policy_loss = -torch.min(advantages * ratio, advantages * kept).mean()
    if s.clip_range_vf < np.inf:
        change = torch.clamp(values - old_values, -s.clip_range_vf, s.clip_range_vf)
        values = old_values + change
    loss = policy_loss - s.ent_coef * entropy.mean() + s.vf_coef * F.mse_loss(returns, values)
    return loss, ((ratio - 1) - (log_prob - old)).mean()


def gradient_of(policy: ActorCriticPolicy) -> Any:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def weights_of(policy: ActorCriticPolicy) -> Any:
    return nn.utils.parameters_to_vector(policy.parameters()).detach()


def distance(ours: Any, its: Any) -> float:
    return float(torch.linalg.vector_norm(ours - its) / torch.linalg.vector_norm(its))


CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("discrete", {}, {}, False),
    ("discrete", {"net_arch": []}, {"ent_coef": 0.1}, False),
    ("discrete", {"net_arch": [32], "activation_fn": nn.ReLU}, {"clip_range_vf": 0.3}, False),
    ("discrete", {"net_arch": {"pi": [7], "vf": [64, 33, 9]}}, {"vf_coef": 1.0}, True),
    ("multi", {"share_features_extractor": False}, {"ent_coef": 0.01}, True),
    ("multi", {"net_arch": {"pi": [], "vf": [16]}}, {"normalize_advantage": False}, False),
    ("box", {}, {"ent_coef": 0.05, "clip_range_vf": 0.5}, False),
    ("box", {"net_arch": [128, 128, 128], "activation_fn": nn.ReLU}, {}, False),
]


@pytest.mark.parametrize(("space", "kwargs", "changes", "masked"), CASES)
def test_gradient_is_that_of_torch(
    space: str, kwargs: dict[str, Any], changes: dict[str, Any], masked: bool
) -> None:
    ours, its = (policy_of(SPACES[space], **kwargs) for _ in range(2))
    data, rows = transitions_of(SPACES[space], masked=masked), np.arange(COUNT)
    settings = PLAIN._replace(batch_size=COUNT, max_grad_norm=1e9, **changes)
    ((found,),), stopped = Learner(ours).update(buffer(ours), data, settings, 1)
    loss, kl = loss_of(its.double(), data, rows, settings)  # whose own rounding is no matter
    loss.backward()
    assert distance(gradient_of(ours), gradient_of(its)) < 1e-6
    assert found[LOSS] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert found[KL] == pytest.approx(float(kl.detach()), rel=1e-4)
    assert not stopped


@pytest.mark.parametrize(("space", "kwargs", "changes", "masked"), CASES)
def test_80_steps_of_adam_are_those_of_torch(
    space: str, kwargs: dict[str, Any], changes: dict[str, Any], masked: bool
) -> None:
    ours, its = (policy_of(SPACES[space], **kwargs) for _ in range(2))
    data, settings = transitions_of(SPACES[space], masked=masked), PLAIN._replace(**changes)
    np.random.seed(3)  # noqa: NPY002
    Learner(ours).update(buffer(ours), data, settings, 16)
    np.random.seed(3)  # noqa: NPY002
    for _ in range(16):
        order = np.random.permutation(COUNT)  # noqa: NPY002
        for first in range(0, COUNT, 64):  # five, the last one short
            loss, _ = loss_of(its, data, order[first : first + 64], settings)
            its.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(its.parameters(), settings.max_grad_norm)
            its.optimizer.step()
    assert distance(weights_of(ours), weights_of(its)) < 1e-6
    for ours_p, its_p in zip(ours.parameters(), its.parameters(), strict=True):
        mine, theirs = ours.optimizer.state[ours_p], its.optimizer.state[its_p]
        assert mine["step"] == theirs["step"] == 80
        assert mine.keys() == theirs.keys()


def buffer(policy: ActorCriticPolicy) -> RolloutBuffer:
    return RolloutBuffer(1, policy.observation_space, policy.action_space, "cpu")


def test_what_is_not_finite_stops_before_it_does_harm() -> None:
    policy = policy_of(SPACES["discrete"])
    data = transitions_of(SPACES["discrete"])
    data.returns_M[5] = np.inf
    before = weights_of(policy).clone()
    with pytest.raises(ValueError, match="not finite"):
        Learner(policy).update(buffer(policy), data, PLAIN._replace(batch_size=COUNT), 1)
    assert torch.equal(weights_of(policy), before)


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"activation_fn": nn.ELU}, "ELU"),
        ({"optimizer_class": torch.optim.SGD}, "SGD"),
        ({"optimizer_kwargs": {"amsgrad": True}}, "amsgrad"),
    ],
)
def test_what_cannot_be_compiled_is_named(kwargs: dict[str, Any], why: str) -> None:
    with pytest.raises(NotCompiled, match=why):
        read(policy_of(SPACES["discrete"], **kwargs))
