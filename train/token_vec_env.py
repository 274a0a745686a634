"""Dialogues for stable-baselines3 whose actions are the token ids of messages."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from ..envs.vector import Vector
from ..errors import UserError
from ..policies.chat import Chat
from ..policies.token_choice import through
from .vec_env import AsVecEnv


class TokenVecEnv(AsVecEnv):
    """Show a vector to stable-baselines3, and take actions as token ids.

    The environments know no tokenizer: ids are decoded here, through the first token that ends a
    turn. The action space is `MultiDiscrete`, as many tokens as a message may have; shorter ones
    are padded, with anything.

    Args:
        vector: In the view `dialogue`; resets its members in the step in which an episode ends.
        model: Whose tokenizer, as `LanguagePolicy` takes it.
        max_new_tokens: Most tokens of a message.
        monitor: As for `AsVecEnv`.

    Raises:
        UserError: the environments take no messages, reset at another time, or there is no such
            model.
    """

    def __init__(
        self, vector: Vector, model: str, max_new_tokens: int = 48, monitor: bool = False
    ) -> None:
        super().__init__(vector, monitor)
        if not isinstance(self.action_space, spaces.Text):
            raise UserError(
                f"tokens make messages, and these environments take {self.action_space}: make "
                "them in the view 'dialogue'"
            )
        self.model = model
        """Whose tokenizer; a run that was moved has it elsewhere."""
        count = len(self._chat.tokenizer)
        self.action_space = spaces.MultiDiscrete([count] * max_new_tokens)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note the messages that N rows of tokens say, shape (N, L)."""
        super().step_async(self._said(actions))

    def step_some(self, indices: Sequence[int], actions: NDArray[Any]) -> VecEnvStepReturn:
        """Say messages in some members, and return what `step` does, of these."""
        return super().step_some(indices, self._said(actions))

    def _said(self, actions: NDArray[Any]) -> list[str]:
        end = self._chat.end
        return [self._chat.text(through(row, end)) for row in np.asarray(actions).tolist()]

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.model)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tokenizer, which is loaded again."""
        return {k: v for k, v in vars(self).items() if k != "_chat"}
