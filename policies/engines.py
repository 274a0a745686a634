"""How a causal LM is run: to write on, and to read what was written once more with gradients.

`SharedPrefix` is for the architectures that `decoding` fits, `Plain` for all others.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from .branches import Ids, Place, Row, asked, joined, padded, tokens_before
from .decoding import Choose, Continuation, Decoder, Follow, Rest, fits, unknown
from .reading import Read, UpperLayers
from .token_choice import through


class Engine(ABC):
    """Runs a model for B rows that share a prefix."""

    @abstractmethod
    def decode(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        choose: Choose,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
        rest: Rest = unknown,
    ) -> list[Continuation]:
        """Continue each prompt until it says `end` or has as many new tokens as it may.

        Then let those that `follow` on it take its place. What a row can but end with, by `rest`,
        may be taken for said before it is read.
        """

    @abstractmethod
    def last(self, prefix: Ids, prompts: Sequence[Ids]) -> Tensor:
        """Return what the last layer says behind each prompt, shape (B, H), without gradient."""

    @torch.no_grad()
    def weigh(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        actions: Sequence[Ids],
        groups: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what the last layer says before each token of actions that may be taken.

        For who is about to act, and then comes back with the next turn. As `evaluate`, without
        gradients.
        """
        return self.evaluate(prefix, prompts, actions, groups)

    @abstractmethod
    def evaluate(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        actions: Sequence[Ids],
        groups: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what the last layer says before each token of the actions, with gradients.

        Args:
            prefix: Tokens before all rows.
            prompts: Of each row.
            actions: Of each row.
            groups: Numbers of the rows; neighbours of one number have the same prompt, which may
                be read once for all of them. Without, what is read once are rows that are the
                beginnings of others: the earlier turns of a dialogue.

        Returns:
            Shape (B, N, H), N of the longest action; what is beyond an action means nothing.
        """

    @abstractmethod
    def forget(self) -> None:
        """Forget what was computed with weights that have changed."""


class SharedPrefix(Engine):
    """Read the prefix once for all rows, a dialogue once for all turns, and a frozen trunk once.

    Args:
        model: A model that `decoding.fits`.
        first: The first layer that is trained. 0 if anything below it is; None if nothing is.
        kept: Most tokens of which what goes into that layer is kept from rollout to update.
    """

    def __init__(
        self, model: PreTrainedModel, first: int | None = None, kept: int = 262_144
    ) -> None:
        below = first or None
        self._decoder = Decoder(model, first=below, keep=self._keep)
        self._upper = UpperLayers(model, first or 0)
        self._frozen, self._most = below is not None, kept
        self._rows: OrderedDict[Row, Tensor] = OrderedDict()
        self._tokens = 0
        self._prefix: tuple[list[int], Tensor | None] = [], None

    def decode(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        choose: Choose,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
        rest: Rest = unknown,
    ) -> list[Continuation]:
        """Continue each prompt, and at once what follows on one that has ended."""
        return self._decoder.decode(prefix, prompts, choose, end, max_new_tokens, follow, rest)

    def last(self, prefix: Ids, prompts: Sequence[Ids]) -> Tensor:
        """Return what the last layer says behind each prompt, shape (B, H), without gradient."""
        found = self._decoder.read(prefix, [Row(tuple(prompt)) for prompt in prompts])
        return torch.stack([reading.hidden_NH[-1] for reading in found])

    @torch.no_grad()
    def weigh(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        actions: Sequence[Ids],
        groups: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what the last layer says before each token of actions that may be taken."""
        rows, places = joined(prompts, actions, groups)
        dialogues = [tokens[0] + 1 for tokens in asked(places, actions)]
        found = self._decoder.read(prefix, rows, dialogues)
        at, end = [], 0
        for row, reading in zip(rows, found, strict=True):
            end += len(reading.hidden_NH)
            at.append(range(end - len(row.ids), end))  # of what was remembered nothing is asked
            if self._frozen:
                assert reading.inputs_TH is not None
                self._keep(row, reading.inputs_TH)
        hidden_MH = torch.cat([reading.hidden_NH for reading in found])
        return _before(Read(hidden_MH, at), places, actions)

    def evaluate(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        actions: Sequence[Ids],
        groups: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what the last layer says before each token of the actions, with gradients."""
        rows, places = joined(prompts, actions, groups)
        inputs = self._inputs(prefix, rows) if self._frozen else None
        before = self._prefix_inputs(list(prefix))
        read = self._upper.run(before, rows, inputs, asked(places, actions))
        return _before(read, places, actions)

    def forget(self) -> None:
        """Forget what was computed with weights that have changed."""
        self._decoder.forget()
        # So that what is computed depends on the weights and not on what was asked before.
        self._rows.clear()
        self._tokens, self._prefix = 0, ([], None)

    def _prefix_inputs(self, prefix: list[int]) -> Tensor | None:
        if not prefix:
            return None
        if not self._frozen:
            return self._upper.embed([prefix])[0]
        if self._prefix[0] != prefix:
            found = self._decoder.prefix_inputs(prefix)
            self._prefix = prefix, _own(found) if found is not None else None
        return self._prefix[1]

    def _inputs(self, prefix: Ids, rows: list[Row]) -> list[Tensor]:
        """Return what goes into the first layer of rows, whether or not it was kept."""
        known = {row: self._rows[row] for row in rows if row in self._rows}
        if missing := [row for row in dict.fromkeys(rows) if row not in known]:
            for row, reading in zip(missing, self._decoder.read(prefix, missing), strict=True):
                assert reading.inputs_TH is not None
                known[row] = self._keep(row, reading.inputs_TH)
        return [known[row] for row in rows]

    def _keep(self, row: Row, inputs_TH: Tensor) -> Tensor:
        kept = _own(inputs_TH)
        if row not in self._rows:
            self._tokens += len(row.ids)
        self._rows[row] = kept
        while self._tokens > self._most and len(self._rows) > 1:
            oldest, _ = self._rows.popitem(last=False)
            self._tokens -= len(oldest.ids)
        return kept


def _own(tensor: Tensor) -> Tensor:
    """Return a copy that gradients may be computed from, as they may not in inference mode."""
    with torch.inference_mode(mode=False):
        return tensor.clone()


class Plain(Engine):
    """Let transformers generate, and read whole rows, the prefix in each."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model

    def decode(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        choose: Choose,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
        rest: Rest = unknown,
    ) -> list[Continuation]:
        """Continue all prompts, and when all have ended those that follow on them."""
        found: list[Continuation] = []
        while prompts:
            first = len(found)
            numbered = partial(_choose_numbered, choose, first)
            new = self._generate(prefix, prompts, numbered, end, max_new_tokens)
            found += new
            said = [(first + i, continuation.tokens) for i, continuation in enumerate(new)]
            prompts = follow(said) if follow else []
        return found

    @torch.no_grad()
    def _generate(
        self, prefix: Ids, prompts: Sequence[Ids], choose: Choose, end: int, max_new_tokens: int
    ) -> list[Continuation]:
        rows = [[*prefix, *prompt] for prompt in prompts]
        width = max(map(len, rows))
        ids_BT = torch.tensor([[end] * (width - len(row)) + row for row in rows])
        mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        # Nothing of the model's own, which may penalise repetitions, for instance, and which
        # `generate` takes for what it is not told.
        usual = self._model.generation_config
        self._model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        try:
            generated = self._model.generate(
                input_ids=ids_BT.to(self._model.device),
                attention_mask=mask_BT.to(self._model.device),
                max_new_tokens=max_new_tokens,
                pad_token_id=end,
                eos_token_id=end,
                logits_processor=LogitsProcessorList([_Chosen(choose)]),
            )
        finally:
            self._model.generation_config = usual
        hidden_BH = self.last(prefix, prompts)
        said = [through(row, end) for row in generated[:, width:].tolist()]
        return [
            Continuation(list(prompt), tokens, hidden_H)
            for prompt, tokens, hidden_H in zip(prompts, said, hidden_BH, strict=True)
        ]

    @torch.no_grad()
    def last(self, prefix: Ids, prompts: Sequence[Ids]) -> Tensor:
        """Return what the last layer says behind each prompt, shape (B, H), without gradient."""
        return self.evaluate(prefix, prompts, [[0]] * len(prompts))[:, 0]

    def evaluate(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        actions: Sequence[Ids],
        groups: Sequence[int] | None = None,
    ) -> Tensor:
        """Return what the last layer says before each token of the actions, with gradients."""
        rows, places = joined([[*prefix, *prompt] for prompt in prompts], actions)
        ids = [torch.tensor(row.ids) for row in rows]
        ids_BT = pad_sequence(ids, batch_first=True).to(self._model.device)
        mask_BT = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        out = self._model.base_model(input_ids=ids_BT, attention_mask=mask_BT.to(ids_BT.device))
        hidden_BTH: Tensor = out.last_hidden_state
        B, T, _ = hidden_BTH.shape
        read = Read(hidden_BTH.flatten(0, 1), [range(b * T, (b + 1) * T) for b in range(B)])
        return _before(read, places, actions)

    def forget(self) -> None:
        """Do nothing: nothing is remembered."""


def _before(read: Read, places: Sequence[Place], actions: Sequence[Ids]) -> Tensor:
    """Return what was said before each token of the actions, shape (B, N, H)."""
    found = [
        [read.at[place.row][token] for token in tokens_before(place, action)]
        for place, action in zip(places, actions, strict=True)
    ]
    places_BN = padded(found, max(map(len, found)), False, read.hidden_MH.device)
    found_MH = read.hidden_MH.index_select(0, places_BN.flatten())
    return found_MH.view(*places_BN.shape, -1)


def _choose_numbered(choose: Choose, first: int, logits_AV: Tensor, rows: list[int]) -> Tensor:
    """Take tokens for the rows of a batch, of which the first has this number."""
    return choose(logits_AV, [first + row for row in rows])


class _Chosen(LogitsProcessor):
    """Leave transformers' greedy generation nothing but the tokens that were chosen."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self._choose(scores, list(range(len(scores))))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


@torch.no_grad()
def speaks_plainly(model: PreTrainedModel) -> bool:
    """Tell whether logits are its head's product with what the last layer says, and no more.

    Some architectures scale or cap them, each in its own way.
    """
    whole: Any = model
    if fits(model):
        return True
    ids = torch.arange(3, device=model.device)[None]
    said = whole.base_model(input_ids=ids).last_hidden_state
    return torch.allclose(whole.get_output_embeddings()(said), whole(input_ids=ids).logits)


def engine_of(model: PreTrainedModel, first: int | None = None) -> Engine:
    """Return the best engine for a model of which layer `first` is the first to be trained."""
    return SharedPrefix(model, first) if fits(model) else Plain(model)
