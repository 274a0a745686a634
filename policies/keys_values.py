"""What causal language models have read: keys and values, of one row or of many side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

KeysValues = list[tuple[Tensor, Tensor]]
"""Of each layer, shapes (K, S, D): K heads, S tokens, D numbers."""


class Past(NamedTuple):
    """What was read of a row behind the prefix."""

    ids: list[int]
    layers: KeysValues

    @property
    def length(self) -> int:
        """How many tokens."""
        return len(self.ids)

    def first(self, length: int) -> "Past":
        """Return the beginning of it."""
        return Past(self.ids[:length], [(k[:, :length], v[:, :length]) for k, v in self.layers])

    def alone(self) -> "Past":
        """Return the same in memory of its own, so that no more is held than it has."""
        return Past(self.ids, [(k.clone(), v.clone()) for k, v in self.layers])


NOTHING = Past([], [])


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of what each row has of its own, in memory that is laid out once."""

    def __init__(self, pasts: list[tuple[Tensor, Tensor] | None], width: int, more: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pasts, self._length, self._capacity = pasts, width, width + more

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens and return all that there are."""
        if not self.is_initialized:
            self._lay_out(key_states)
        new = slice(self._length, self._length + key_states.shape[2])
        self._keys[:, :, new], self._values[:, :, new] = key_states, value_states
        self._length = new.stop
        self.keys, self.values = self._keys[:, :, : new.stop], self._values[:, :, : new.stop]
        return self.keys, self.values

    def _lay_out(self, like_BKTD: Tensor) -> None:
        B, K, _, D = like_BKTD.shape
        self._lay(like_BKTD.new_zeros(2, B, K, self._capacity, D))
        for row, past in enumerate(self._pasts):
            if past is not None:
                self.put(row, past)
        self._pasts, self.is_initialized = [], True

    def _lay(self, both_2BKSD: Tensor) -> None:
        self._both = both_2BKSD
        self._keys, self._values = both_2BKSD

    def take(self, row: int, real_S: Tensor) -> tuple[Tensor, Tensor]:
        """Return a row's tokens that stand there, shapes (K, S, D), in memory of their own."""
        if not self.is_initialized and (past := self._pasts[row]) is not None:
            return past
        keys_KSD, values_KSD = self._both[:, row].index_select(2, real_S)
        return keys_KSD, values_KSD

    def has_room(self, length: int, more: int) -> bool:
        """Tell whether a row of so many tokens can be put here, and each go on for as many more."""
        fits = length <= self._length and self._length + more <= self._capacity
        return self.is_initialized and fits

    def put(self, row: int, past: tuple[Tensor, Tensor]) -> None:
        """Write a row over another."""
        where = slice(self._length - past[0].shape[1], self._length)
        self._keys[row, :, where], self._values[row, :, where] = past

    def keep(self, places: Tensor) -> None:
        """Forget all rows but some."""
        if self.is_initialized:
            self._lay(self._both[:, places])
        else:
            self._pasts = [self._pasts[place] for place in places.tolist()]


class Rows(Cache):
    """What B rows have of their own: keys and values, and where there is but padding.

    Tokens stand at the right of what was added together, so all rows go on at the same place.
    """

    def __init__(
        self, model: PreTrainedModel, pasts: Sequence[Past], more: int, inputs: bool
    ) -> None:
        width = max(past.length for past in pasts)
        # What goes into a layer is kept as keys are, a half, and as values are, the other half.
        self._own = [
            _Layer([p.layers[i] if p.ids else None for p in pasts], width, more)
            for i in range(model.config.num_hidden_layers + inputs)
        ]
        super().__init__(layers=list(self._own))
        real = [[False] * (width - past.length) + [True] * past.length for past in pasts]
        self.real_BT = torch.tensor(real, dtype=torch.bool, device=model.device)

    def remember(self, inputs_BTH: Tensor) -> None:
        """Add what went into a layer, of the tokens that were added last."""
        self._own[-1].update(*inputs_BTH[:, None].chunk(2, -1))

    def take(self, place: int, ids: list[int]) -> Past:
        """Return what a row holds, which are these tokens."""
        real_S = self.real_BT[place].nonzero()[:, 0]
        return Past(ids, [layer.take(place, real_S) for layer in self._own])

    def has_room(self, length: int, more: int) -> bool:
        """Tell whether a row of so many tokens can be put here, and each go on for as many more."""
        return self._own[0].has_room(length, more)  # as all of them are

    def put(self, place: int, past: Past) -> None:
        """Let a row take the place of another, where there is room."""
        self.real_BT[place] = False
        self.real_BT[place, self.real_BT.shape[1] - past.length :] = True
        for layer, keys_values in zip(
            self._own, past.layers, strict=False
        ):  # nothing has no layers
            layer.put(place, keys_values)

    def keep(self, places: list[int]) -> None:
        """Forget all rows but some."""
        index = torch.tensor(places, device=self.real_BT.device)
        self.real_BT = self.real_BT[index]
        for layer in self._own:
            layer.keep(index)
