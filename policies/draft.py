"""What writes in the place of a language model that learns: a copy in fewer bits, or vLLM.

Idea: on a GPU, writing waits for memory, and half the bits are read in half the time. But their
log-probabilities are off by tenths of a nat, which would be taken for changes of the policy; so
what was written is read once more by the model itself, in one pass, and only that is learned from.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .branches import Ids
from .decoding import Follow
from .engines import engine_of
from .grammar import Grammar, held_by
from .token_choice import Writer


class Draft(ABC):
    """Writes in place of a model whose weights change."""

    @abstractmethod
    def write(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        writer: Writer,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
    ) -> list[list[int]]:
        """Continue each prompt until it says `end` or has as many new tokens as it may.

        Args:
            prefix: Tokens that all rows begin with.
            prompts: Tokens of each row behind the prefix.
            writer: Says how tokens are taken.
            end: The token that ends a message; it is part of what is returned.
            max_new_tokens: Most tokens of a message.
            follow: Says which prompts take the places of those whose messages have just ended;
                none without.

        Returns:
            The messages, in the order of their numbers.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Take the weights that have changed; to be called after `forget`."""

    @abstractmethod
    def forget(self) -> None:
        """Forget what was read."""


class Copy(Draft):
    """A copy of the model.

    Args:
        model: What is trained.
        dtype: Of the copy.
        grammar: What messages are held to.
    """

    def __init__(
        self, model: PreTrainedModel, dtype: torch.dtype, grammar: Grammar | None = None
    ) -> None:
        copied: Any = copy.deepcopy(model).requires_grad_(False)
        # Not the frequencies of positions, which `from_pretrained` leaves as they are, too.
        for parameter in copied.parameters():
            parameter.data = parameter.data.to(dtype)
        self.engine = engine_of(copied)
        """What runs the copy."""
        self._grammar = grammar
        pairs = zip(copied.parameters(), model.parameters(), strict=True)
        self._trained = [(theirs, ours) for theirs, ours in pairs if ours.requires_grad]

    def write(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        writer: Writer,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
    ) -> list[list[int]]:
        """Continue each prompt until it says `end` or has as many new tokens as it may."""
        choose, rest = held_by(self._grammar, writer)
        found = self.engine.decode(prefix, prompts, choose, end, max_new_tokens, follow, rest)
        return [continuation.tokens for continuation in found]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the weights that have changed."""
        for theirs, ours in self._trained:
            theirs.copy_(ours)

    def forget(self) -> None:
        """Forget what was read."""
        self.engine.forget()
