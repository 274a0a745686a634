"""Read rows of tokens once more, to learn from them: only the layers that can change.

Idea: what goes into the first layer that is trained does not change while the layers above it
do, so it is kept from the rollout (`decoding.Continuation.inputs_TH`), and an update runs the
upper layers alone. The prefix that all rows share is read once a minibatch, with its gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

_KeysValues = Mapping[int, tuple[Tensor, Tensor]]
"""By the number of the layer, shapes (K, S, D)."""


class UpperLayers:
    """The layers of a model from one on, for rows behind a prefix.

    Args:
        model: A model that `decoding.fits`, whose attention is computed there.
        first: The first layer that is run.
    """

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        self._body: Any = model.base_model
        self._first = first

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return what goes into the first layer of all, shape (T, H)."""
        embedding = self._body.embed_tokens
        embedded: Tensor = embedding(torch.tensor(list(ids), device=embedding.weight.device))
        return embedded

    def run(self, prefix_PH: Tensor | None, rows_TH: Sequence[Tensor]) -> Tensor:
        """Return what the last layer says of each row.

        Args:
            prefix_PH: What goes into the first of these layers of the prefix, if there is one.
            rows_TH: The same of each row.

        Returns:
            Shape (B, T, H), T of the longest row; what is beyond the end of a row is padding.
        """
        seen, before = _Recorder(), 0
        if prefix_PH is not None:
            before = len(prefix_PH)
            self._pass(prefix_PH[None], 0, {}, seen)
        # Padding stands behind what is read, where causal attention never sees it.
        rows_BTH = pad_sequence(list(rows_TH), batch_first=True)
        return self._pass(rows_BTH, before, seen.read, None)

    def _pass(
        self, hidden: Tensor, before: int, prefix: _KeysValues, seen: "_Recorder | None"
    ) -> Tensor:
        width = hidden.shape[1]
        positions_1T = torch.arange(before, before + width, device=hidden.device)[None]
        angles = self._body.rotary_emb(hidden, position_ids=positions_1T)
        mask_TS = torch.ones(width, width, dtype=torch.bool, device=hidden.device).tril()
        for layer in self._body.layers[self._first :]:
            hidden = layer(
                hidden,
                attention_mask=mask_TS[None, None],
                position_ids=positions_1T,
                position_embeddings=angles,
                past_key_values=seen,
                shared_prefix=prefix,
            )
        last: Tensor = self._body.norm(hidden)
        return last


class _Recorder(Cache):
    """Keeps the keys and values of one row, gradients included."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.read: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Note what a layer of one row has, shapes (1, K, S, D)."""
        self.read[layer_idx] = key_states[0], value_states[0]
        return key_states, value_states
