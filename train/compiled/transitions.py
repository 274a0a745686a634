"""What a rollout buffer holds, as the update takes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common import buffers
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs

from ...errors import UserError
from ..buffers import DictRolloutBuffer, RolloutBuffer
from ..minibatches import Order, shuffled
from ..storing import check_finite
from .network import Floats
from .structure import NotCompiled, choices_of
from .update import Transitions

NO_MASKS = np.empty((0, 0), np.float32)
"""For kernels: every choice is admissible."""


_KNOWN = (buffers.RolloutBuffer, buffers.DictRolloutBuffer, RolloutBuffer, DictRolloutBuffer)
_MAKING = {
    name: {getattr(kind, name, None) for kind in _KNOWN}
    for name in ("get", "_get_samples", "to_torch", "_sample", "_numbers", "_load")
}
"""What makes minibatches, as it is known."""


def check(buffer: buffers.RolloutBuffer) -> None:
    """See whether a buffer is full and its minibatches are what its arrays say.

    Raises:
        UserError: it is not full.
        NotCompiled: it makes them in a way of its own.
    """
    if not buffer.full:
        raise UserError("the rollout buffer is not full: collect a rollout before train()")
    if any(
        getattr(type(buffer), name, None) not in known or name in vars(buffer)
        for name, known in _MAKING.items()
    ):
        raise NotCompiled(f"{type(buffer).__name__} makes minibatches in its own way")


def pack(buffer: buffers.RolloutBuffer, read: Callable[[Any], Any]) -> Transitions:
    """Return the valid transitions of a buffer, environment by environment.

    Args:
        buffer: A full rollout.
        read: Makes of the observations, an array or a dictionary of such, what is wanted.

    Raises:
        UserError: something is not finite, or no transition is valid.
    """
    flat = buffer.generator_ready  # somebody has read minibatches before
    lead = buffer.values.shape[:2]
    valid = np.ones(lead, bool) if flat else getattr(buffer, "valid_T_N", np.ones(lead, bool))
    if not valid.any():
        raise UserError("no transition of the rollout is valid: there is nothing to learn from")
    observations: Any = buffer.observations
    parts = {"observations": observations}
    if isinstance(observations, dict):
        parts = {f"observation {key!r}": part for key, part in observations.items()}
    for name in ("actions", "rewards", "values", "log_probs", "advantages"):
        if name != "rewards" or not flat:  # which SB3 does not flatten
            parts[name] = getattr(buffer, name)
    for name, array in parts.items():
        check_finite(name.removesuffix("s").replace("_", "-"), array, valid)
    rows = slice(None) if valid.all() else valid.T.ravel()

    def take(array: NDArray[Any]) -> NDArray[Any]:
        return (array if flat else buffer.swap_and_flatten(array))[rows]

    is_dict = isinstance(observations, dict)
    masks: NDArray[Any] | None = getattr(buffer, "action_masks", None)
    return Transitions(
        read({k: take(v) for k, v in observations.items()} if is_dict else take(observations)),
        _floats(take(buffer.actions)),
        NO_MASKS if masks is None else _floats(take(masks)),
        take(buffer.values).ravel(),
        take(buffer.log_probs).ravel(),
        take(buffer.advantages).ravel(),
        take(buffer.returns).ravel(),
    )


def check_choices(buffer: buffers.RolloutBuffer, transitions: Transitions) -> None:
    """See whether actions are choices that there are: kernels look at no bounds.

    Args:
        buffer: What the transitions were packed from.
        transitions: All that are valid.

    Raises:
        UserError: naming the first action that there is not.
    """
    choices_A = choices_of(buffer.action_space)
    if not len(choices_A):
        return
    actions_M_A = transitions.actions_M_A
    known_M_A = (actions_M_A >= 0) & (actions_M_A < choices_A)
    known_M_A &= actions_M_A == np.trunc(actions_M_A)
    for m in np.flatnonzero(~known_M_A.all(axis=1)):
        valid = None if buffer.generator_ready else getattr(buffer, "valid_T_N", None)
        n, t = divmod(int(m if valid is None else np.flatnonzero(valid.T)[m]), buffer.buffer_size)
        raise UserError(
            f"the action of environment {n} at step {t} of the rollout is {actions_M_A[m]}, which "
            f"is not in {buffer.action_space}"
        )


def inputs_of(observations_N: NDArray[Any], policy: ActorCriticPolicy) -> Floats:
    """Return observations of shape (N, ...) as the network takes them, shape (N, D).

    Raises:
        UserError: D is not what the network takes: kernels look at no bounds.
    """
    space = policy.observation_space
    if not isinstance(space, spaces.Box) or observations_N.dtype != np.float32:
        if isinstance(space, spaces.Discrete):
            observations_N = observations_N.reshape(-1)
        tensor = torch.as_tensor(observations_N)
        seen = preprocess_obs(tensor, space, normalize_images=policy.normalize_images)
        assert isinstance(seen, torch.Tensor)
        observations_N = seen.numpy()
    inputs_N_D = _floats(observations_N.reshape(len(observations_N), -1))
    if inputs_N_D.shape[1] != policy.features_dim:
        raise UserError(
            f"an observation has {inputs_N_D.shape[1]} numbers, where the policy, made for "
            f"{space}, takes {policy.features_dim}: give it what its environments say"
        )
    return inputs_N_D


def order_of(buffer: buffers.RolloutBuffer, count: int, whole_episodes: bool = False) -> Order:
    """Draw the order of an epoch as the buffer itself draws it, from NumPy's global generator.

    Args:
        buffer: What the transitions were packed from.
        count: How many are valid.
        whole_episodes: Whether those of an episode then follow each other, one episode behind
            the other in the drawn order of their first transitions.
    """
    if isinstance(buffer, RolloutBuffer):
        order_M = shuffled(count, int(np.random.random() * 2**53))  # noqa: NPY002
    else:
        order_M = np.random.permutation(count).astype(np.uint32)  # noqa: NPY002
    if not whole_episodes:
        return order_M
    starts_T_N = buffer.episode_starts.astype(bool)
    starts_T_N[0] = True
    valid_T_N = getattr(buffer, "valid_T_N", np.ones_like(starts_T_N))
    numbers_M = np.cumsum(starts_T_N.T.ravel())[valid_T_N.T.ravel()]
    _, firsts_E, episodes_M = np.unique(numbers_M, return_index=True, return_inverse=True)
    drawn_M = np.argsort(order_M)
    return np.argsort(drawn_M[firsts_E][episodes_M], kind="stable").astype(np.uint32)


def _floats(array: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, np.float32)
