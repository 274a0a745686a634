"""PPO's update where torch runs the network: any policy of stable-baselines3, on any device.

Idea: beside the network itself, SB3 spends most of an update in small calls of torch. Here the
rollout goes to the device once, nothing is read back from it before an epoch ends, and on the
CPU the loss and its gradient with respect to what the network says are one compiled call, as are
the parts of known networks that are known (`images`, `choices`). Features that cannot change are
computed once a rollout.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.autograd import Variable
from torch.nn import functional as F

from ..errors import UserError
from .choices import scorer
from .compiled.network import Network
from .compiled.structure import DISTRIBUTIONS, choices_of, draws_otherwise, is_own
from .compiled.transitions import check_choices, order_of, pack
from .compiled.update import KL, LOSS, Settings, differentiate_outputs
from .descent import Descent, fused
from .features import Read, picked, reader

_CHUNK = 256
"""Transitions whose features are computed at a time."""
_NO_INPUTS, _NO_LAYERS = np.empty((0, 0), np.float32), np.empty((0, 5), np.int64)


class _Loss(NamedTuple):
    """The loss of a minibatch, and where gradients flow back from."""

    statistics_6: Any
    """As `compiled.update` has them: an array, or a tensor on the device."""
    roots: Sequence[torch.Tensor]
    slopes: Sequence[torch.Tensor]
    """The gradients of the loss with respect to the roots."""


class TorchLearner:
    """Learn from one rollout.

    Args:
        policy: Of any kind.
        buffer: The rollout.

    Raises:
        UserError: something in the rollout is not finite, or no transition of it is valid.
    """

    def __init__(self, policy: ActorCriticPolicy, buffer: RolloutBuffer) -> None:
        self._policy, self._buffer = policy, buffer
        self._on_cpu = policy.device.type == "cpu"
        # What is not SB3's own may do anything, so it is called as SB3 calls it.
        self._is_standard = is_own(policy, "evaluate_actions")
        self._network = _distribution_of(policy) if self._on_cpu and self._is_standard else None
        self.transitions = pack(buffer, lambda observations: observations)
        if self._network is not None:
            check_choices(buffer, self.transitions)
        self._columns = [self._on_device(column) for column in self.transitions[1:]]
        self._arrays = self.transitions._replace(observations_M_D=_NO_INPUTS)
        self._observations = self._on_device(self.transitions.observations_M_D)
        self._read: Read = _as_asked(policy, self._observations)
        if self._is_standard and is_own(policy, "extract_features"):
            self._read = reader(policy, self._observations)
        self._features_M_F = self._constant_features() if self._is_standard else None
        self._score = None
        if self._features_M_F is not None and self._on_cpu:
            self._score = scorer(policy.mlp_extractor, self._features_M_F)

    def update(self, settings: Settings, epochs: int) -> tuple[list[NDArray[np.float64]], bool]:
        """Learn for some epochs.

        Returns:
            The statistics of each epoch's minibatches, shape (B, 6), and whether the last one
            stopped early.

        Raises:
            UserError: the loss or a gradient is not finite.
        """
        parameters = list(self._policy.parameters())
        statistics: list[NDArray[np.float64]] = []
        norms: list[Any] = []
        stopped = False
        descent = Descent(self._policy.optimizer, parameters)
        with fused(self._policy.optimizer):
            while len(statistics) < epochs and not stopped:
                found: list[Any] = []
                for rows_B in self._minibatches(settings.batch_size):
                    loss = self._lose(rows_B, settings)
                    found.append(loss.statistics_6)
                    limit = 1.5 * settings.target_kl  # without one, nothing asks the device
                    if stopped := limit < math.inf and bool(loss.statistics_6[KL] > limit):
                        break
                    norms.append(self._descend(loss, descent, settings))
                    del loss  # and what the network has kept for the way back
                statistics.append(_on_host(found))
                if not np.isfinite([*statistics[-1][:, LOSS], *_on_host(norms)]).all():
                    raise _diverged()
        return statistics, stopped

    def _minibatches(self, size: int) -> Iterator[torch.Tensor]:
        whole = bool(getattr(self._policy, "whole_dialogues", False))
        order_M = order_of(self._buffer, len(self.transitions.returns_M), whole)
        rows_M = torch.as_tensor(order_M.astype(np.int64), device=self._policy.device)
        yield from torch.split(rows_M, size)

    def _descend(self, loss: _Loss, descent: Descent, settings: Settings) -> Any:
        """Take a step, and return the norm of the gradient before it was clipped."""
        descent.clear()
        # What `torch.autograd.backward` calls, after imports that take a third of a start.
        Variable._execution_engine.run_backward(
            tuple(loss.roots), tuple(loss.slopes), False, False, (),
            allow_unreachable=True, accumulate_grad=True,
        )  # fmt: skip
        norm = descent.step(settings.max_grad_norm)
        if isinstance(norm, float) and not math.isfinite(norm):
            raise _diverged()
        return norm

    # The loss

    def _lose(self, rows_B: torch.Tensor, settings: Settings) -> _Loss:
        if self._network is None:
            return self._lose_in_torch(rows_B, settings)
        latent_pi, latent_vf = self._latents(rows_B)
        outputs_B_K = self._policy.action_net(latent_pi)
        values_B_1 = self._policy.value_net(latent_vf)
        log_std_A = getattr(self._policy, "log_std", torch.empty(0))
        actions = self._arrays.actions_M_A.shape[1]
        if not _fit(self._network, outputs_B_K, values_B_1, log_std_A, actions):
            self._network = None
            return self._lose_in_torch(rows_B, settings)
        tensors = [outputs_B_K, values_B_1, log_std_A]
        slopes = [t.detach().clone(memory_format=torch.contiguous_format) for t in tensors]
        arrays = [slope.numpy() for slope in slopes]
        statistics_6, of_log_std_A = np.empty(6), np.empty(len(log_std_A))
        differentiate_outputs(
            self._network, arrays[2], arrays[0], arrays[1], self._arrays, rows_B.numpy(),
            settings, statistics_6, of_log_std_A,
        )  # fmt: skip
        arrays[2][:] = of_log_std_A
        learned = [i for i, tensor in enumerate(tensors) if tensor.requires_grad]
        return _Loss(statistics_6, [tensors[i] for i in learned], [slopes[i] for i in learned])

    def _lose_in_torch(self, rows_B: torch.Tensor, settings: Settings) -> _Loss:
        """Compute what stable-baselines3 computes, and leave it on the device."""
        actions_B_A, _, old_values_B, old_log_probs_B, advantages_B, returns_B = (
            column if column.numel() == 0 else column.index_select(0, rows_B)
            for column in self._columns
        )
        values_B, log_probs_B, entropy_B = self._evaluate(rows_B, actions_B_A)
        if settings.normalize_advantage and len(rows_B) > 1:
            advantages_B = (advantages_B - advantages_B.mean()) / (advantages_B.std() + 1e-8)
        log_ratio_B = log_probs_B - old_log_probs_B
        ratio_B = torch.exp(log_ratio_B)
        clip, clip_vf = settings.clip_range, settings.clip_range_vf
        kept_B = torch.clamp(ratio_B, 1 - clip, 1 + clip)
        policy_loss = -torch.min(advantages_B * ratio_B, advantages_B * kept_B).mean()
        if clip_vf < math.inf:
            values_B = old_values_B + torch.clamp(values_B - old_values_B, -clip_vf, clip_vf)
        value_loss = F.mse_loss(returns_B, values_B)
        entropy_loss = log_probs_B.mean() if entropy_B is None else -entropy_B.mean()
        loss = policy_loss + settings.ent_coef * entropy_loss + settings.vf_coef * value_loss
        with torch.no_grad():
            kl = ((ratio_B - 1) - log_ratio_B).mean()
            clipped = ((ratio_B - 1).abs() > clip).float().mean()
            statistics_6 = torch.stack([policy_loss, value_loss, entropy_loss, kl, clipped, loss])
        return _Loss(statistics_6, [loss], [torch.ones_like(loss)])

    # What the policy says

    def _evaluate(self, rows_B: torch.Tensor, actions_B_A: torch.Tensor) -> tuple[Any, Any, Any]:
        """Return values, log-probabilities and entropies, each of shape (B,)."""
        if isinstance(self._buffer.action_space, spaces.Discrete):
            actions_B_A = actions_B_A.long().flatten()
        if not self._is_standard:
            seen = picked(self._observations, rows_B)
            values_B, log_probs_B, entropy_B = self._policy.evaluate_actions(seen, actions_B_A)
            return values_B.flatten(), log_probs_B, entropy_B
        latent_pi, latent_vf = self._latents(rows_B)
        distribution = self._policy._get_action_dist_from_latent(latent_pi)
        log_probs_B = distribution.log_prob(actions_B_A)
        values_B = self._policy.value_net(latent_vf).flatten()
        return values_B, log_probs_B, distribution.entropy()

    def _latents(self, rows_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Do the first half of `ActorCriticPolicy.evaluate_actions`."""
        policy = self._policy
        if self._score is not None:
            return self._score(rows_B)
        if self._features_M_F is None:
            features: Any = self._read(rows_B)
        else:
            features = self._features_M_F.index_select(0, rows_B)
        if policy.share_features_extractor:
            latents: tuple[torch.Tensor, torch.Tensor] = policy.mlp_extractor(features)
            return latents
        latent_pi = policy.mlp_extractor.forward_actor(features[0])
        return latent_pi, policy.mlp_extractor.forward_critic(features[1])

    def _constant_features(self) -> torch.Tensor | None:
        """Return the features of all transitions, if nothing ever changes them."""
        policy = self._policy
        extractor = policy.features_extractor
        if not (
            policy.share_features_extractor
            # What is derived from such an extractor need not be constant.
            and vars(type(extractor)).get("constant_features") is True
            and not any(p.requires_grad for p in extractor.parameters())
            and is_own(policy, "extract_features")
        ):
            return None
        rows_M = torch.arange(len(self.transitions.returns_M), device=policy.device)
        with torch.no_grad():
            features: Any = [self._read(rows) for rows in torch.split(rows_M, _CHUNK)]
        return features[0] if len(features) == 1 else torch.cat(features)

    def _on_device(self, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: self._on_device(part) for key, part in data.items()}
        return torch.as_tensor(data, device=self._policy.device)


def _as_asked(policy: ActorCriticPolicy, observations: Any) -> Read:
    return lambda rows_B: policy.extract_features(picked(observations, rows_B))


def _distribution_of(policy: ActorCriticPolicy) -> Network | None:
    """Return what kernels must know of a policy's distribution, None if they do not know it."""
    own = is_own(policy, "_get_action_dist_from_latent") and not draws_otherwise(policy)
    if not own or type(policy.action_dist) not in DISTRIBUTIONS:
        return None
    log_std = 0 if isinstance(policy.action_dist, DiagGaussianDistribution) else -1
    return Network(_NO_LAYERS, _NO_LAYERS, choices_of(policy.action_space), log_std)


def _fit(
    network: Network,
    outputs: torch.Tensor,
    values: torch.Tensor,
    log_std: torch.Tensor,
    actions: int,
) -> bool:
    """Tell whether kernels, which look at no bounds, can take what a policy says.

    torch would spread one standard deviation over all actions, say, or cast to more digits.
    """
    gaussian = network.log_std >= 0
    rows, width = len(outputs), actions if gaussian else int(network.choices_A.sum())
    return (
        outputs.shape == (rows, width)
        and values.shape == (rows, 1)
        and (not gaussian or log_std.shape == (width,))
        and all(t.dtype is torch.float32 for t in (outputs, values, log_std))
    )


def _on_host(found: list[Any]) -> NDArray[np.float64]:
    """Return the statistics of an epoch, shape (B, 6), or whatever else was found in it."""
    if not found:
        return np.empty(0)
    if isinstance(found[0], torch.Tensor):
        return torch.stack(found).numpy(force=True).astype(np.float64)
    return np.stack(found)


def _diverged() -> UserError:
    return UserError(
        "the loss or its gradient is not finite: the learning rate is too high, or observations "
        "or rewards are too large"
    )
