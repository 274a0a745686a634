"""Supervised learning of what an assistant says in dialogues."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .adapting import adapt, layers_of
from .causal_lm import CausalLM
from .chat import Chat
from .crossing import Message
from .engines import Engine, engine_of
from .muon import Muon

_DECAY = 0.3
"""Of weights, times the learning rate."""
_IGNORED = -100
"""The label of a token that is not the assistant's, as torch's cross entropy has it."""
_Row = tuple[list[int], list[int]]
"""The tokens of a dialogue, and for all but the first what should stand there."""


def imitate(
    lm: CausalLM,
    dialogues: Sequence[Sequence[Message]],
    seed: int,
    epochs: int = 1,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    last_layers: int | None = None,
    symbols: float = 0.0,
    tell: Callable[[float], None] = lambda loss: None,
) -> None:
    """Teach a model to say what the assistant says, each token where it stands.

    Args:
        lm: Changed in place.
        dialogues: Each begins anew.
        seed: Of the order.
        epochs: How often each dialogue is seen.
        batch_size: Dialogues of a step.
        learning_rate: At its height, to which it rises for a twentieth of the steps; then it
            falls to 0 along a cosine.
        last_layers: How many of the last layers are taught; None for all weights.
        symbols: The share of dialogues, drawn anew in each epoch, whose digits are replaced by
            tokens that no dialogue holds.
        tell: Called with the loss of each step, in nats a token.

    Raises:
        UserError: there are not so many layers, or not enough tokens that no dialogue holds, or in
            some dialogue the assistant says nothing.
    """
    # Not the model's own, which reads all layers: what is below those that are taught is read once.
    engine = engine_of(lm.model, adapt(lm.model, last_layers))
    rows = _labelled(lm, dialogues)
    rng = np.random.default_rng(seed)
    disguise = _Disguise(lm.chat, rows) if symbols > 0 else None
    steps = epochs * math.ceil(len(rows) / batch_size)
    parameters = [p for p in lm.model.parameters() if p.requires_grad]
    optimizers = _optimizers(lm, parameters, learning_rate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _height(n / steps))
        for optimizer in optimizers
    ]
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), batch_size):
            batch = [rows[i] for i in order[start : start + batch_size]]
            if disguise is not None:
                batch = [disguise(row, rng) if rng.random() < symbols else row for row in batch]
            loss = _loss(lm, engine, batch)
            lm.model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            tell(loss.item())


class _Disguise:
    """Puts tokens that no dialogue holds in the place of digits, of equal ones the same.

    A model learns by heart which digit follows which, and that does not help with numbers that it
    was never shown: a tiny one that saw 2 only at the beginning of longer numbers takes
    `2 minus 58` for `28 - 5`. Where any token may stand for a digit, it has to copy what it sees.

    Args:
        chat: Of the model.
        rows: All dialogues.

    Raises:
        UserError: they hold nearly all tokens.
    """

    def __init__(self, chat: Chat, rows: Sequence[_Row]) -> None:
        tokenizer = chat.tokenizer
        held = {token for ids, labels in rows for token in (*ids, *labels)}
        texts = {i: tokenizer.decode([i]).strip() for i in held if i != _IGNORED}
        self._digits = frozenset(i for i, text in texts.items() if text.isdecimal())
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_encoder.values()}
        self._spare = np.array(sorted(set(tokenizer.get_vocab().values()) - held - special))
        if len(self._spare) < len(self._digits):
            raise UserError(
                f"the dialogues hold all but {len(self._spare)} tokens, too few to stand for "
                f"{len(self._digits)} digits: show digits as they are (symbols=0)"
            )

    def __call__(self, row: _Row, rng: np.random.Generator) -> _Row:
        """Return a dialogue in disguise."""
        ids, labels = row
        digits = sorted(self._digits.intersection(ids))
        drawn = rng.choice(self._spare, len(digits), replace=False).tolist()
        worn = dict(zip(digits, drawn, strict=True))
        return [worn.get(i, i) for i in ids], [worn.get(i, i) for i in labels]


def _optimizers(
    lm: CausalLM, parameters: Sequence[torch.nn.Parameter], learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, and AdamW for all else.

    A tiny model learns with it in half the steps, and what it learns then holds for numbers that
    it never saw: 1,250 steps of AdamW leave it copying three quarters of them, Muon nearly all.
    """
    within = {id(p) for p in layers_of(lm.model).parameters() if p.ndim == 2}
    matrices = [p for p in parameters if id(p) in within]
    others = [p for p in parameters if id(p) not in within]
    return [
        Muon(matrices, learning_rate, _DECAY),
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=_DECAY, fused=True),
    ]


def _height(progress: float) -> float:
    return min(progress * 20, 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))


def _labelled(lm: CausalLM, dialogues: Sequence[Sequence[Message]]) -> list[_Row]:
    """Return dialogues as tokens; of one that is longer than the model can read, the end."""
    turns = [
        (number, place)
        for number, dialogue in enumerate(dialogues)
        for place, message in enumerate(dialogue)
        if message["role"] == "assistant"
    ]
    if not dialogues or len({number for number, _ in turns}) < len(dialogues):
        raise UserError("what is imitated are messages of the assistant: give dialogues, each "
                        "with one or more")  # fmt: skip
    prompts = lm.chat.tokenize_all([lm.chat.render(dialogues[n][:place]) for n, place in turns])
    said = lm.chat.tokenize_all([dialogues[n][place]["content"] for n, place in turns])
    rows: list[_Row] = [([], []) for _ in dialogues]
    for (number, _), prompt, tokens in zip(turns, prompts, said, strict=True):
        _, labels = rows[number]
        taught = [*tokens, lm.chat.end]
        labels += [_IGNORED] * (len(prompt) - len(labels) - 1) + taught
        rows[number] = [*prompt, *taught], labels
    return [(ids[-lm.context - 1 :], labels[-lm.context :]) for ids, labels in rows]


def _loss(lm: CausalLM, engine: Engine, rows: Sequence[_Row]) -> Tensor:
    hidden_BNH = engine.evaluate([], [ids[:1] for ids, _ in rows], [ids[1:] for ids, _ in rows])
    known = [
        (b * hidden_BNH.shape[1] + place, label)
        for b, (_, labels) in enumerate(rows)
        for place, label in enumerate(labels)
        if label != _IGNORED
    ]
    places_K, labels_K = torch.tensor(known, device=lm.model.device).unbind(1)
    hidden_KH = hidden_BNH.flatten(0, 1).index_select(0, places_K)
    logits_KV = lm.model.get_output_embeddings()(hidden_KH).float()
    return F.cross_entropy(logits_KV, labels_K)
