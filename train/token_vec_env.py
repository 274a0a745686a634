"""Dialogues for stable-baselines3 whose actions are the token ids of messages."""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ..errors import UserError
from ..policies.chat import Chat


class TokenVecEnv(VecEnvWrapper):
    """Take actions as token ids, and send what they say.

    The environments know no tokenizer: ids are decoded here, through the first token that ends a
    turn. The action space is `MultiDiscrete`, as many tokens as a message may have; shorter ones
    are padded with the token that ends a turn.

    Args:
        venv: Environments in the view `dialogue`.
        model: Whose tokenizer, as `LanguagePolicy` takes it.
        max_new_tokens: Most tokens of a message.

    Raises:
        UserError: the environments take no messages, or there is no such model.
    """

    def __init__(self, venv: VecEnv, model: str | Chat, max_new_tokens: int = 48) -> None:
        if not isinstance(venv.action_space, spaces.Text):
            raise UserError(
                f"tokens make messages, and these environments take {venv.action_space}: make "
                "them in the view 'dialogue'"
            )
        self._chat = Chat(model) if isinstance(model, str) else model
        count = len(self._chat.tokenizer)
        super().__init__(venv, action_space=spaces.MultiDiscrete([count] * max_new_tokens))

    def reset(self) -> VecEnvObs:
        """Begin new episodes."""
        return self.venv.reset()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Send the messages of N rows of tokens, shape (N, L)."""
        self.venv.step_async([self._message(row) for row in actions.tolist()])  # type: ignore[arg-type]

    def step_wait(self) -> VecEnvStepReturn:
        """Return what the environments say."""
        return self.venv.step_wait()

    def _message(self, ids: list[int]) -> str:
        end = self._chat.end
        return self._chat.text(ids[: ids.index(end) + 1] if end in ids else ids)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tokenizer, which is loaded again."""
        return {k: v for k, v in vars(self).items() if k != "_chat"} | {"model": self._chat.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._chat = Chat(self.__dict__.pop("model"))
