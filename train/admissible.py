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
from .compiled.structure import choices_of
from .compiled.transitions import NO_MASKS
from .masked_buffers import MaskableRolloutBuffer


def asker(
    env: VecEnv, buffer: MaskableRolloutBuffer, last: Callable[[], Any]
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return what asks environments for their masks, and notes them in a buffer.

    Each environment has a method `action_masks`, as sb3-contrib wants it, that returns K numbers,
    positive where a choice is admissible and else 0: one for each choice of a `Discrete`, those of
    a `MultiDiscrete` one after the other.

    What is returned takes observations, and knows masks of the last ones alone: of others, which a
    callback may ask about, all actions are admissible.

    Args:
        env: The environments.
        buffer: Of their rollout.
        last: Returns their last observations, for which a step is to be stored next.

    Raises:
        UserError: they have no masks; or, when they are asked, one admits no action.
    """
    if not env.has_attr("action_masks"):
        raise UserError(
            f"a {type(buffer).__name__} needs environments with a method `action_masks`: give "
            "them one, or another rollout_buffer_class"
        )
    choices_A, noted = choices_of(env.action_space), -1

    def ask(observations: NDArray[Any]) -> NDArray[np.float32]:
        nonlocal noted
        if not np.array_equal(observations, last()):
            return NO_MASKS
        if noted != buffer.pos:  # and not once more when the environments have been stepped
            masks_N_K = buffer.admit(np.stack(env.env_method("action_masks")))
            _check(masks_N_K != 0, choices_A)
            noted = buffer.pos
        known_N_K: NDArray[np.float32] = buffer.action_masks[noted]
        return known_N_K

    return ask


def _check(masks_N_K: NDArray[np.bool_], choices_A: NDArray[np.int64]) -> None:
    starts_A = np.cumsum(choices_A) - choices_A
    some_N_A = np.logical_or.reduceat(masks_N_K, starts_A, axis=1)
    for n, a in np.argwhere(~some_N_A):
        part = f" in part {a}" if len(choices_A) > 1 else ""
        raise UserError(f"the mask of environment {n} admits no action{part}: one at least must be")


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
        UserError: the policy has no list of actions, the masks have another shape, or one admits
            no action.
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
    admitted_N_K = masks.reshape(logits_N_K.shape) != 0
    _check(admitted_N_K, choices_of(policy.action_space))
    masks_N_K = torch.as_tensor(admitted_N_K, device=logits_N_K.device)
    logits_N_K = logits_N_K.masked_fill(~masks_N_K, float(NEVER))
    chosen = []
    for logits in torch.split(logits_N_K, [part.logits.shape[1] for part in parts], 1):
        likely: Any = torch.distributions.Categorical(logits=logits)
        chosen.append(logits.argmax(1) if deterministic else likely.sample())
    shape = policy.action_space.shape or ()
    actions: NDArray[np.int64] = torch.stack(chosen, 1).numpy(force=True).reshape(-1, *shape)
    return actions if is_batch else actions[0]
