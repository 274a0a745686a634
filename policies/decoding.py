"""Continue B dialogues behind one prefix that they share, with a causal LM of transformers.

Idea: the keys and values of the prefix exist once, not once a row. At every new token all rows
attend to them in one product, so a long few-shot prompt costs about as much for 32 rows as for
one; what each row has of its own is written into memory that was laid out for the longest
reply, a row that has ended leaves the batch or gives its place to the next, and a dialogue that
comes back with its next turn is read from where it was left. transformers' own generation copies
the prefix into each row, copies all keys and values again at every token, runs each row until
the last one ends, and reads a dialogue anew at every turn.

Source: Juravsky et al., "Hydragen: High-Throughput LLM Inference with Shared Prefixes" (2024).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from .branches import Row, apart, padded
from .keys_values import NOTHING, KeysValues, Past, Rows
from .reading import alike

Choose = Callable[[Tensor, list[int]], Tensor]
"""From logits, shape (A, V), of the rows of these numbers to tokens, shape (A,)."""

Follow = Callable[[list[tuple[int, list[int]]]], list[list[int]]]
"""From the numbers and tokens of rows that have just ended to rows that take their places, at most
as many. Rows are numbered in the order in which they come."""

Rest = Callable[[int], list[int]]
"""From the number of a row to the tokens that it can but end with now; none if it may still choose.
They are read when somebody asks what follows them."""


def unknown(row: int) -> list[int]:
    """Tell of no row how it ends."""
    return []


_ATTENTION = "palaestra-shared-prefix"
_FITTING = frozenset({"llama", "qwen2", "qwen3"})
"""Architectures whose attention is a softmax over all that went before, and nothing beside."""


def fits(model: PreTrainedModel) -> bool:
    """Tell whether a model's attention can be computed here."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    rope = getattr(model.config, "rope_parameters", None) or {}
    # Whose angles depend on the longest row of a batch.
    uneven = rope.get("rope_type") in ("dynamic", "longrope")
    return model.config.model_type in _FITTING and kinds == {"full_attention"} and not uneven


class Continuation(NamedTuple):
    """How a row goes on."""

    tail: list[int]
    """The row behind the prefix."""
    tokens: list[int]
    """New ones, the end included."""
    hidden_H: Tensor
    """What the last layer said before the first of them, shape (H,)."""


class Reading(NamedTuple):
    """What was made of a row."""

    hidden_NH: Tensor
    """What the last layer said of it where it was new, at its end, shape (N, H)."""
    inputs_TH: Tensor | None
    """What went into the layer `first`, shape (T, H); None without one."""


@dataclass
class _Row:
    """A row while it is continued."""

    tail: list[int]
    tokens: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)
    hidden_H: Tensor | None = None

    @property
    def read(self) -> list[int]:
        """What has been read of it behind the prefix: all tokens but the last."""
        return [*self.tail, *self.tokens][:-1]

    @property
    def newest(self) -> int:
        """The last token, which is read next."""
        return (self.tokens or self.tail)[-1]

    def take(self, token: int, hidden_AH: Tensor, place: int) -> None:
        """Go on with a token, before which the last layer said something in one of the places."""
        self.tokens.append(token)
        if self.hidden_H is None:
            self.hidden_H = hidden_AH[place].clone()  # and not all that was said with it

    @property
    def continuation(self) -> Continuation:
        """How it went on."""
        assert self.hidden_H is not None
        return Continuation(self.tail, self.tokens + self.rest, self.hidden_H)


class Decoder:
    """Continue rows of tokens, and remember what was read for the next turn.

    Args:
        model: A model that `fits`, whose attention is computed here from now on.
        memory: Most tokens of which keys and values are remembered; the oldest rows go first.
        first: A layer; what goes into it is remembered, too. None for nothing.
        keep: Called with the tokens of each row that has ended, all but the last, and with what
            of them went into that layer, shape (T, H).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory: int = 32_768,
        first: int | None = None,
        keep: Callable[[Row, Tensor], object] = lambda row, inputs_TH: None,
    ) -> None:
        model.set_attn_implementation(_ATTENTION)
        self._model, self._memory, self._first, self._keep = model, memory, first, keep
        self._prefix_ids: list[int] = []
        self._prefix: KeysValues = []
        self._pasts: deque[Past] = deque()

    @torch.inference_mode()
    def decode(
        self,
        prefix: Sequence[int],
        tails: Sequence[Sequence[int]],
        choose: Choose,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
        rest: Rest = unknown,
    ) -> list[Continuation]:
        """Continue each row until it says `end` or has as many new tokens as it may.

        Args:
            prefix: Tokens that all rows begin with; they are read once, until others come.
            tails: Tokens of each row behind the prefix, at least one.
            choose: Takes the next tokens.
            end: The token that ends a row; it is part of what is returned.
            max_new_tokens: Most tokens of a row.
            follow: Says which rows take the places of those that have just ended; none without.
            rest: Says which rows can go on in one way only, up to their ends.

        Returns:
            How each row goes on, in the order of their numbers.
        """
        self._read_prefix(list(prefix))
        rows = [_Row(list(tail)) for tail in tails]
        count = len(rows)
        pasts = self._recall_all([row.tail for row in rows])
        room = _ROOM * max_new_tokens if follow else max_new_tokens - 1
        hidden, batch = self._read(tails, pasts, room)
        hidden_AH = torch.stack([hidden_NH[-1] for hidden_NH in hidden])
        active = list(range(count))
        while True:
            chosen = choose(self._logits(hidden_AH), active).tolist()
            for place, (n, token) in enumerate(zip(active, chosen, strict=True)):
                rows[n].take(token, hidden_AH, place)
                if token != end:
                    rows[n].rest = rest(n)[: max_new_tokens - len(rows[n].tokens)]
            ended = [
                place
                for place, n in enumerate(active)
                if chosen[place] == end or rows[n].rest or len(rows[n].tokens) == max_new_tokens
            ]
            for place in ended:
                past = batch.take(place, rows[active[place]].read)
                self._pasts.append(past)
                if (inputs_TH := self._inputs(past)) is not None:
                    self._keep(Row(tuple(past.ids)), inputs_TH)
            said = [(active[place], rows[active[place]].continuation.tokens) for place in ended]
            new = [_Row(list(tail)) for tail in follow(said)] if follow and said else []
            taken, left = ended[: len(new)], set(ended[len(new) :])
            if len(left) == len(active):
                break
            if left:
                going = [place for place in range(len(active)) if place not in left]
                batch.keep(going)
                active = [active[place] for place in going]
            # Those that are left stood behind these, whose places therefore are what they were.
            for place, row in zip(taken, new, strict=True):
                active[place] = len(rows)
                rows.append(row)
            here = [rows[n] for n in active]
            if new:
                batch = self._seat(batch, here, taken, max_new_tokens)
                self._forget(len(ended))
            hidden_AH = self._forward([[row.newest] for row in here], batch)[:, 0]
        self._forget(count)
        return [row.continuation for row in rows]

    @torch.inference_mode()
    def read(
        self, prefix: Sequence[int], rows: Sequence[Row], dialogues: Sequence[int] | None = None
    ) -> list[Reading]:
        """Read rows to their ends, without a token more.

        Args:
            prefix: As for `decode`.
            rows: What is read.
            dialogues: Tokens of each that are remembered for the next turn; the last of them,
                and all behind it, are read in any case. None to remember nothing.
        """
        self._read_prefix(list(prefix))
        tails = [list(row.ids) for row in rows]
        lengths = dialogues or [row.stem for row in rows]
        known = [tail[:length] for tail, length in zip(tails, lengths, strict=True)]
        recalled = self._recall_all(known) if dialogues else [self._recall(k)[1] for k in known]
        hidden, found = self._read(tails, recalled, 0, rows)
        pasts = [found.take(i, tail) for i, tail in enumerate(tails)]
        if dialogues:
            new = {tuple(k): past for k, past in zip(known, pasts, strict=True)}
            self._pasts += [past.first(len(k)).alone() for k, past in new.items()]
            self._forget(len(new))
        return [
            Reading(hidden_NH, self._inputs(past))
            for hidden_NH, past in zip(hidden, pasts, strict=True)
        ]

    def prefix_inputs(self, ids: list[int]) -> Tensor | None:
        """Return what goes into the layer `first` of a prefix, shape (P, H); None without one."""
        self._read_prefix(ids)
        return self._inputs(Past(ids, self._prefix)) if ids else None

    def forget(self) -> None:
        """Forget everything: the weights have changed."""
        self._prefix_ids, self._prefix = [], []
        self._pasts.clear()

    def _inputs(self, past: Past) -> Tensor | None:
        return None if self._first is None else torch.cat(past.layers[-1], -1)[0]

    def _logits(self, hidden_AH: Tensor) -> Tensor:
        """Return the logits of the tokens that may follow, shape (A, V)."""
        head: Any = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: Tensor = head(hidden_AH).float()
        return logits

    @torch.inference_mode()
    def _read_prefix(self, ids: list[int]) -> None:
        if ids == self._prefix_ids:
            return
        self.forget()  # until it has been read, there is none
        if ids:
            rows = self._rows([NOTHING], len(ids))
            self._forward([ids], rows)
            self._prefix_ids, self._prefix = ids, rows.take(0, ids).layers

    def _recall_all(self, tails: Sequence[list[int]]) -> list[Past]:
        """Return what is remembered of rows, which is then remembered no more.

        What is remembered of a row at its end says what was recalled of it, too.
        """
        recalled = [self._recall(tail) for tail in tails]
        used = {place for place, past in recalled if past.ids}
        self._pasts = deque(past for i, past in enumerate(self._pasts) if i not in used)
        return [past for _, past in recalled]

    def _recall(self, tail: list[int]) -> tuple[int, Past]:
        """Return where something is remembered of the beginning of a row, and what.

        The last token is left to be read: what follows it is what is asked for.
        """
        # Most others differ in their first tokens, which is told at once.
        start, known = tail[:_WORTH_IT], tail[:-1]
        lengths = [
            _common(past.ids, known) if past.ids[:_WORTH_IT] == start else 0 for past in self._pasts
        ]
        if max(lengths, default=0) < _WORTH_IT:
            return 0, NOTHING
        place = max(range(len(lengths)), key=lengths.__getitem__)
        return place, self._pasts[place].first(lengths[place])

    def _seat(
        self, batch: Rows, here: Sequence[_Row], places: Sequence[int], max_new_tokens: int
    ) -> Rows:
        """Put new rows, of each all but the last token, in places of a batch, and return it.

        Their last tokens are read with the next ones of the others.
        """
        pasts = self._recall_all([here[place].tail for place in places])
        if unread := [
            i for i, place in enumerate(places) if len(pasts[i].ids) < len(here[place].read)
        ]:
            tails = [here[places[i]].read for i in unread]
            _, found = self._read(tails, [pasts[i] for i in unread], 0)
            for place, (i, tail) in enumerate(zip(unread, tails, strict=True)):
                pasts[i] = found.take(place, tail)
        if batch.has_room(max(past.length for past in pasts), max_new_tokens):
            for place, past in zip(places, pasts, strict=True):
                batch.put(place, past)
            return batch
        new = dict(zip(places, pasts, strict=True))
        kept = [new.get(i) or batch.take(i, row.read) for i, row in enumerate(here)]
        return self._rows(kept, _ROOM * max_new_tokens)

    def _read(
        self,
        tails: Sequence[Sequence[int]],
        pasts: list[Past],
        more: int,
        shapes: Sequence[Row] = (),
    ) -> tuple[list[Tensor], Rows]:
        """Read the rest of each row, and return what the last layer says, and rows to go on with.

        Rows of different lengths are read apart, since padding is read as slowly as words.

        Args:
            tails: Tokens of each row.
            pasts: What is remembered of each; used up.
            more: Tokens that will follow.
            shapes: The rows, where some of them end in branches.
        """
        new = [list(tail[past.length :]) for tail, past in zip(tails, pasts, strict=True)]
        groups = alike([len(tokens) for tokens in new])
        if len(groups) == 1:
            rows = self._rows(pasts, len(new[groups[0][0]]) + more)
            pasts.clear()
            hidden_BTH = self._forward(new, rows, shapes)
            return [h_TH[-len(t) :] for h_TH, t in zip(hidden_BTH, new, strict=True)], rows
        hidden: dict[int, Tensor] = {}
        for group in groups:
            rows = self._rows([pasts[i] for i in group], len(new[group[0]]))
            some = [shapes[i] for i in group] if shapes else ()
            found_GTH = self._forward([new[i] for i in group], rows, some)
            for place, i in enumerate(group):
                hidden[i] = found_GTH[place, -len(new[i]) :]
                pasts[i] = rows.take(place, list(tails[i]))
        rows = self._rows(pasts, more)
        pasts.clear()
        return [hidden[i] for i in range(len(tails))], rows

    def _rows(self, pasts: Sequence[Past], more: int) -> Rows:
        return Rows(self._model, pasts, more, self._first is not None)

    def _forget(self, newest: int) -> None:
        """Forget the oldest rows, and last of all some of the newest, whose turns are to come."""
        while sum(past.length for past in self._pasts) > self._memory:
            self._pasts.popleft() if len(self._pasts) > newest else self._pasts.pop()

    def _forward(self, tokens: list[list[int]], rows: Rows, shapes: Sequence[Row] = ()) -> Tensor:
        """Read more tokens of each row and return what the last layer says, shape (A, T, H).

        Tokens stand at the right. Of rows that end in branches, `shapes`, the last of their tokens.
        """
        width = max(map(len, tokens))
        device = rows.real_BT.device
        ids_BT = padded(tokens, width, True, device)
        new_BT = padded([[1] * len(t) for t in tokens], width, True, device).bool()
        before = rows.real_BT.shape[1]
        rows.real_BT = torch.cat([rows.real_BT, new_BT], 1)
        positions_BT = (rows.real_BT.cumsum(1)[:, before:] - 1).clamp(min=0)
        # A padding token sees itself, for a softmax over nothing is no number; none sees padding.
        earlier = torch.ones(width, before + width, dtype=torch.bool, device=device).tril(before)
        mask_BTS = (rows.real_BT[:, None] & earlier) | earlier.triu(before)
        if any(row.branches for row in shapes):
            detours = [row.detours[-len(t) :] for row, t in zip(shapes, tokens, strict=True)]
            owners = [row.owners[-len(t) :] for row, t in zip(shapes, tokens, strict=True)]
            positions_BT -= padded(detours, width, True, device)
            mask_BTS[..., before:] &= apart(padded(owners, width, True, device))
        body: Any = self._model.base_model
        with _inputs_of(body, self._first) as inputs:
            out: Any = body(
                input_ids=ids_BT,
                attention_mask=mask_BTS[:, None],
                position_ids=positions_BT + (len(self._prefix_ids) if self._prefix else 0),
                past_key_values=rows,
                shared_prefix=self._prefix,
            )
        for inputs_BTH in inputs:
            rows.remember(inputs_BTH)
        hidden_ATH: Tensor = out.last_hidden_state
        return hidden_ATH


@contextmanager
def _inputs_of(body: Any, layer: int | None) -> Iterator[list[Tensor]]:
    """Collect what goes into a layer."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    hook = body.layers[layer].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()


_ROOM = 2
"""Longest rows for which memory is laid out at a time, where others follow on those that end."""
_WORTH_IT = 16
"""Tokens; less is read again faster than it is put in place."""


def _common(one: list[int], other: list[int]) -> int:
    """Return how many tokens two lists begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    shared_prefix: KeysValues | Mapping[int, tuple[Tensor, Tensor]],
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the prefix and to what the row has of its own, as transformers calls it.

    Args:
        module: The layer.
        query: Shape (B, H, T, D), H heads.
        key: Shape (B, K, S, D); each serves H / K heads.
        value: Shape (B, K, S, D).
        attention_mask: Of what the row has of its own, shape (B, 1, T, S).
        scaling: What the products are multiplied with.
        shared_prefix: Of each layer by its number; empty for none.
        kwargs: Nothing that matters to the models that fit.

    Returns:
        What was attended to, shape (B, T, H, D).
    """
    if shared_prefix:
        common_key_KPD, common_value_KPD = shared_prefix[module.layer_idx]
        if query.shape[2] == 1:
            once = _attend_once(
                query, key, value, attention_mask, scaling, common_key_KPD, common_value_KPD
            )
            return once, None
        B, P = len(query), common_key_KPD.shape[1]
        key = torch.cat([common_key_KPD.expand(B, -1, -1, -1), key], 2)
        value = torch.cat([common_value_KPD.expand(B, -1, -1, -1), value], 2)
        seen = attention_mask.new_ones(1).expand(*attention_mask.shape[:3], P)
        attention_mask = torch.cat([seen, attention_mask], 3)
    out_BHTD = scaled_dot_product_attention(
        query, key, value, attention_mask, scale=scaling, enable_gqa=True
    )
    return out_BHTD.transpose(1, 2).contiguous(), None


def _attend_once(
    query_BH1D: Tensor,
    key_BKSD: Tensor,
    value_BKSD: Tensor,
    mask_B11S: Tensor,
    scaling: float,
    prefix_key_KPD: Tensor,
    prefix_value_KPD: Tensor,
) -> Tensor:
    """Attend from one new token a row: one product serves the prefix of all rows."""
    B, H, _, D = query_BH1D.shape
    K, P, _ = prefix_key_KPD.shape
    query_BKGD = (query_BH1D * scaling).view(B, K, H // K, D)
    query_KRD = query_BKGD.transpose(0, 1).reshape(K, -1, D)  # R = B * G rows of a head
    common_KRP = query_KRD @ prefix_key_KPD.transpose(1, 2)
    common_BKGP = common_KRP.view(K, B, H // K, P).transpose(0, 1)
    own_BKGS = (query_BKGD @ key_BKSD.transpose(2, 3)).masked_fill(~mask_B11S, -torch.inf)
    weights = torch.cat([common_BKGP, own_BKGS], 3).softmax(3, torch.float32).to(query_BH1D.dtype)
    weights_KRP = weights[..., :P].transpose(0, 1).reshape(K, -1, P)
    out_KRD = weights_KRP @ prefix_value_KPD
    out_BKGD = out_KRD.view(K, B, H // K, D).transpose(0, 1) + weights[..., P:] @ value_BKSD
    return out_BKGD.reshape(B, 1, H, D)


AttentionInterface.register(_ATTENTION, _attend)
