"""A copy of a language model in fewer bits, which writes and never learns.

Idea: on a GPU, writing waits for memory, and half the bits are read in half the time. But their
log-probabilities are off by tenths of a nat, which would be taken for changes of the policy; so
what was written is read once more by the model itself, in one pass, and only that is learned from.
"""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from .engines import engine_of


class Draft:
    """Writes in place of a model whose weights change.

    Args:
        model: What is trained.
        dtype: Of the copy.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        copied: Any = copy.deepcopy(model).requires_grad_(False)
        # Not the frequencies of positions, which `from_pretrained` leaves as they are, too.
        for parameter in copied.parameters():
            parameter.data = parameter.data.to(dtype)
        self.engine = engine_of(copied)
        """What runs the copy."""
        pairs = zip(copied.parameters(), model.parameters(), strict=True)
        self._trained = [(theirs, ours) for theirs, ours in pairs if ours.requires_grad]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the weights that have changed."""
        for theirs, ours in self._trained:
            theirs.copy_(ours)
