"""Read rows of tokens once more, to learn from them: only the layers that can change.

Idea: what goes into the first layer that is trained does not change while the layers above it
do, so it is kept from the rollout (`decoding.Decoder`), and an update runs the
upper layers alone. The prefix that all rows share is read once a minibatch, with its gradient. What
the last layer makes of a token goes nowhere but to who asks, so that its widest part is run for the
actions alone and not for the dialogues before them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from .branches import Row, apart, padded

_KeysValues = Mapping[int, tuple[Tensor, Tensor]]
"""By the number of the layer, shapes (K, S, D)."""


class Read(NamedTuple):
    """What the last layer says of rows of tokens."""

    hidden_MH: Tensor
    """Of the tokens that were asked for, one row behind the other, or of more."""
    at: Sequence[Mapping[int, int] | range]
    """Where each token of each row is that was asked for."""


class UpperLayers:
    """The layers of a model from one on, for rows behind a prefix.

    Args:
        model: A model that `decoding.fits`, whose attention is computed there.
        first: The first layer that is run.
    """

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        self._body: Any = model.base_model
        self._first = first

    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return what goes into the first layer of all, shape (B, T, H), T of the longest row."""
        embedding = self._body.embed_tokens
        ids_BT = padded(rows, max(map(len, rows)), False, embedding.weight.device)
        embedded: Tensor = embedding(ids_BT)
        return embedded

    def run(
        self,
        prefix_PH: Tensor | None,
        rows: Sequence[Row],
        inputs: Sequence[Tensor] | None,
        asked: Sequence[Sequence[int]],
    ) -> Read:
        """Return what the last layer says of each row.

        Args:
            prefix_PH: What goes into the first of these layers of the prefix, if there is one.
            rows: The tokens.
            inputs: What goes into that layer of each row, shape (T, H); None if it is the first
                of all.
            asked: The tokens of each row for which is asked what the last layer says.
        """
        seen, before = _Recorder(), 0
        if prefix_PH is not None:
            before = len(prefix_PH)
            self._pass(prefix_PH[None], 0, [], {}, seen, [])  # of which nothing is asked
        hidden, place = [], 0
        at: list[dict[int, int]] = [{} for _ in rows]
        for group in alike([len(row.ids) for row in rows]):
            some = [rows[i] for i in group]
            # Padding stands behind what is read, where causal attention never sees it.
            rows_BTH = (
                self.embed([row.ids for row in some])
                if inputs is None
                else pad_sequence([inputs[i] for i in group], batch_first=True)
            )
            of_B = [asked[i] for i in group]
            hidden.append(self._pass(rows_BTH, before, some, seen.read, None, of_B))
            for i in group:
                at[i] = {token: place + k for k, token in enumerate(asked[i])}
                place += len(asked[i])
        return Read(torch.cat(hidden), at)

    def _pass(
        self,
        hidden: Tensor,
        before: int,
        rows: Sequence[Row],
        prefix: _KeysValues,
        seen: "_Recorder | None",
        asked: Sequence[Sequence[int]],
    ) -> Tensor:
        """Return what the last layer says of the tokens of rows that are asked for, (M, H)."""
        width, device = hidden.shape[1], hidden.device
        places_BT = torch.arange(before, before + width, device=device)[None]
        mask_BTT = torch.ones(width, width, dtype=torch.bool, device=device).tril()[None]
        if any(row.branches for row in rows):
            places_BT = places_BT - padded([row.detours for row in rows], width, False, device)
            mask_BTT = mask_BTT & apart(padded([row.owners for row in rows], width, False, device))
        given = {
            "attention_mask": mask_BTT[:, None],
            "position_ids": places_BT,
            "position_embeddings": self._body.rotary_emb(hidden, position_ids=places_BT),
            "past_key_values": seen,
            "shared_prefix": prefix,
        }
        for layer in self._body.layers[self._first : -1]:
            hidden = layer(hidden, **given)
        places = [b * width + token for b, tokens in enumerate(asked) for token in tokens]
        places_M = torch.tensor(places, dtype=torch.long, device=device)
        said: Tensor = self._body.norm(self._last(hidden, given, places_M))
        return said

    def _last(self, hidden: Tensor, given: Mapping[str, Any], places_M: Tensor) -> Tensor:
        """Run the last layer, from where its tokens no longer meet for some of them, (M, H)."""
        layer = self._body.layers[-1]
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **given)
        hidden_MH = (hidden + attended).flatten(0, 1).index_select(0, places_M)
        made_MH: Tensor = hidden_MH + layer.mlp(layer.post_attention_layernorm(hidden_MH))
        return made_MH


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


_CALL = 64
"""Tokens of padding that a group of rows may have."""


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Divide rows into groups of similar lengths, the longest row of each first.

    Padding is read as slowly as words.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups:
            group = groups[-1]
            longest, padding = lengths[group[0]], sum(lengths[group[0]] - lengths[k] for k in group)
            # Another call of the network costs about as much as so many tokens.
            if padding + longest - lengths[i] <= _CALL:
                group.append(i)
                continue
        groups.append([i])
    return groups
