"""Actions that are not admissible: who acts is told at each step, by the environments' masks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from ..errors import UserError
from .compiled.distributions import NEVER
from .compiled.transitions import NO_MASKS
from .masked_buffers import MaskableRolloutBuffer


def asker(env: VecEnv, buffer: MaskableRolloutBuffer) -> Callable[[int], NDArray[np.float32]]:
    """Return what asks environments for their masks, and notes them in a buffer.

    It is told for how many observations, and returns nothing for any other number than there are
    environments: then it is not they that are looked at.

    Each environment has a method `action_masks`, as sb3-contrib wants it, that returns K numbers
    or flags: one for each choice of a `Discrete`, those of a `MultiDiscrete` one after the other.

    Raises:
        UserError: they have none; or, when they are asked, a mask admits no action.
    """
    if not env.has_attr("action_masks"):
        raise UserError(
            f"a {type(buffer).__name__} needs environments with a method `action_masks`: give "
            "them one, or another rollout_buffer_class"
        )

    def ask(count: int) -> NDArray[np.float32]:
        if count != env.num_envs:
            return NO_MASKS
        masks_N_K = buffer.admit(np.stack(env.env_method("action_masks")))
        for n in np.flatnonzero(~masks_N_K.any(axis=1)):
            raise UserError(f"the mask of environment {n} admits no action: one at least must be")
        return masks_N_K

    return ask


@torch.no_grad()
def choose(
    policy: ActorCriticPolicy, observation: Any, action_masks: Any, deterministic: bool
) -> NDArray[np.int64]:
    """Choose admissible actions, as `predict` of a policy chooses actions.

    Args:
        policy: Of `Discrete` or `MultiDiscrete` actions.
        observation: Of one environment, or of N.
        action_masks: 0 where an action is not admissible, shape (K,) or (N, K).
        deterministic: Whether the likeliest are chosen, and not drawn.

    Raises:
        UserError: the policy has no list of actions, or the masks have another shape.
    """
    policy.set_training_mode(False)
    tensor, is_batch = policy.obs_to_tensor(observation)
    found: Any = policy.get_distribution(tensor).distribution
    parts = found if isinstance(found, list) else [found]
    if not all(isinstance(part, torch.distributions.Categorical) for part in parts):
        raise UserError(f"masks are of a list of actions, and not of {policy.action_space}")
    logits_N_K = torch.cat([part.logits for part in parts], 1)
    masks = np.asarray(action_masks)
    if masks.size != logits_N_K.numel():
        raise UserError(f"the masks have shape {masks.shape}, not {tuple(logits_N_K.shape)}")
    masks_N_K = torch.as_tensor(masks.reshape(logits_N_K.shape) != 0, device=logits_N_K.device)
    logits_N_K = logits_N_K.masked_fill(~masks_N_K, float(NEVER))
    chosen = []
    for logits in torch.split(logits_N_K, [part.logits.shape[1] for part in parts], 1):
        likely: Any = torch.distributions.Categorical(logits=logits)
        chosen.append(logits.argmax(1) if deterministic else likely.sample())
    shape = policy.action_space.shape or ()
    actions: NDArray[np.int64] = torch.stack(chosen, 1).numpy(force=True).reshape(-1, *shape)
    return actions if is_batch else actions[0]
