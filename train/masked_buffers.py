"""Rollout buffers with masks: which actions were admissible, which tokens are the agent's."""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from ..errors import UserError
from .buffers import DictRolloutBuffer, RolloutBuffer
from .storing import on_host, reshaped, store

_MOST_TOKENS = 2**24
"""Numbers up to which float32, in which SB3 hands out actions, tells one token from the next."""


class MaskableRolloutBufferSamples(NamedTuple):
    """SB3's samples and the masks, as sb3-contrib has them."""

    observations: Any
    actions: torch.Tensor
    old_values: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    action_masks: torch.Tensor
    """1 where an action was admissible, else 0; float32, shape (B, K)."""


class MaskableRolloutBuffer(RolloutBuffer):
    """`RolloutBuffer` with the admissible actions of each step, as in sb3-contrib.

    K is the number of actions: n of a `Discrete`, the sum over the parts of a `MultiDiscrete`,
    two for each bit of a `MultiBinary`.

    Raises:
        UserError: the action space has no such list of actions.
    """

    action_masks: NDArray[np.float32]
    """1 where action k was admissible at step t in environment n, shape (T, N, K)."""
    fields = (*RolloutBuffer.fields, "action_masks")
    sample_class: ClassVar[Any] = MaskableRolloutBufferSamples

    def reset(self) -> None:
        """Forget the rollout; every action is admissible as far as nobody says otherwise."""
        shape = (self.buffer_size, self.n_envs, _count_actions(self.action_space))
        self.action_masks = np.ones(shape, np.float32)
        super().reset()

    def admit(self, action_masks: NDArray[Any]) -> NDArray[np.float32]:
        """Say which actions of the transitions that are added next are admissible.

        Args:
            action_masks: 0 where an action is not admissible, else positive, shape (N, K), or
                (N, ...) with K in all.

        Returns:
            The masks as they are stored, shape (N, K).
        """
        self._check_room()
        masks_N_K: NDArray[np.float32] = self.action_masks[self.pos]
        flags = np.asarray(action_masks)
        if self.n_envs == 1 or flags.shape[:1] == (self.n_envs,):
            flags = reshaped(flags, masks_N_K)
        store(masks_N_K, flags, "action mask")
        if not (masks_N_K >= 0).all():
            raise UserError("an action mask is 0 where an action is not admissible, else positive")
        np.sign(masks_N_K, out=masks_N_K)
        return masks_N_K

    def add(self, *args: Any, action_masks: NDArray[Any] | None = None, **kwargs: Any) -> None:
        """Store a step as `RolloutBuffer.add` does, with its masks, shape (N, K)."""
        self._check_room()
        if action_masks is not None:
            self.admit(action_masks)
        super().add(*args, **kwargs)


class MaskableDictRolloutBuffer(MaskableRolloutBuffer, DictRolloutBuffer):
    """`MaskableRolloutBuffer` for observations that are dictionaries."""


class TokenRolloutBufferSamples(NamedTuple):
    """SB3's samples, and what a loss over tokens needs."""

    observations: Any
    actions: torch.Tensor
    """Token ids, shape (B, L); float32 as SB3 has it, exact for ids below 2^24."""
    old_values: torch.Tensor
    old_log_prob: torch.Tensor
    """Of the whole action, shape (B,): what PPO's ratio is made of, unchanged SB3's too."""
    advantages: torch.Tensor
    returns: torch.Tensor
    token_masks: torch.Tensor
    """Whether a token is the agent's and no padding; bool, shape (B, L)."""
    old_token_log_probs: torch.Tensor | None = None
    """Of each token, 0 where it is padding, shape (B, L); None unless `per_token`."""


class TokenRolloutBuffer(RolloutBuffer):
    """`RolloutBuffer` for language policies, whose action is a row of L token ids.

    Rows are padded on the right. Which tokens the agent wrote is stored beside them: `add` is
    told, or else it is everything through the first stop token, so that SB3's own loop, which
    tells nothing, will do. Padding never counts, whatever its ids and log-probabilities.

    Args:
        args: For `RolloutBuffer`.
        stop_id: Token that ends an action; None if rows that come without a mask are full.
        per_token: Whether log-probabilities come for each token, shape (N, L). Their sum over
            the agent's tokens is the log-probability of the action.
        kwargs: For `RolloutBuffer`.

    Raises:
        UserError: the actions are no rows of integers, or there are too many tokens.
    """

    token_masks: NDArray[np.bool_]
    """Whether token l of step t in environment n is the agent's, shape (T, N, L)."""
    token_log_probs: NDArray[np.float32]
    """Their log-probabilities, 0 elsewhere, shape (T, N, L); empty unless `per_token`."""
    sample_class: ClassVar[Any] = TokenRolloutBufferSamples

    def __init__(
        self, *args: Any, stop_id: int | None = None, per_token: bool = False, **kwargs: Any
    ) -> None:
        self.stop_id, self.per_token = stop_id, per_token
        extras = ("token_masks", "token_log_probs") if per_token else ("token_masks",)
        self.fields = (*RolloutBuffer.fields, *extras)
        super().__init__(*args, **kwargs)
        space = self.action_space
        if not isinstance(space, spaces.MultiDiscrete):
            raise UserError(f"the actions of a language policy are a MultiDiscrete, not {space}")
        if space.nvec.max() > _MOST_TOKENS:
            raise UserError(f"SB3 has actions in float32, which hold {_MOST_TOKENS} tokens at most")

    def reset(self) -> None:
        """Forget the rollout."""
        shape = (self.buffer_size, self.n_envs, self.action_dim)
        self.token_masks = np.zeros(shape, bool)
        self.token_log_probs = np.zeros(shape if self.per_token else 0, np.float32)
        super().reset()

    def add(
        self,
        obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        episode_start: NDArray[Any],
        value: torch.Tensor,
        log_prob: torch.Tensor,
        token_masks: NDArray[Any] | None = None,
    ) -> None:
        """Store a step as `RolloutBuffer.add` does.

        Args:
            obs: Observations, shape (N, ...).
            action: Token ids, shape (N, L).
            reward: Rewards, shape (N,).
            episode_start: Whether the observations are the first of an episode, shape (N,).
            value: Values of the observations, shape (N,) or (N, 1).
            log_prob: Log-probabilities, shape (N,), or (N, L) if they are `per_token`.
            token_masks: Which tokens are the agent's, shape (N, L).
        """
        self._check_room()
        if token_masks is None:
            token_masks = through_stop(np.asarray(action), self.stop_id)
        masks_N_L = self.token_masks[self.pos]
        store(masks_N_L, token_masks, "token mask")
        if self.per_token:
            log_probs_N_L = self.token_log_probs[self.pos]
            store(log_probs_N_L, on_host(log_prob), "log-probability")
            log_probs_N_L[~masks_N_L] = 0.0
            log_prob = torch.from_numpy(log_probs_N_L.sum(axis=1))
        super().add(obs, action, reward, episode_start, value, log_prob)


class TokenDictRolloutBuffer(TokenRolloutBuffer, DictRolloutBuffer):
    """`TokenRolloutBuffer` for observations that are dictionaries."""


def through_stop(tokens_N_L: NDArray[Any], stop_id: int | None) -> NDArray[np.bool_]:
    """Return which tokens come before the first stop token or are it, shape (N, L)."""
    if stop_id is None:
        return np.ones(tokens_N_L.shape, bool)
    stops_N_L = tokens_N_L == stop_id
    before_N_L: NDArray[np.bool_] = np.cumsum(stops_N_L, axis=1) - stops_N_L == 0
    return before_N_L


def _count_actions(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.MultiBinary):
        return 2 * int(np.prod(space.n))
    raise UserError(f"actions can be masked where there is a list of them, not in {space}")
