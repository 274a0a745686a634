"""Supervised learning of what an assistant says in dialogues."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .causal_lm import CausalLM
from .crossing import Message

_IGNORED = -100
"""The label of a token that is not the assistant's, as torch's cross entropy has it."""


def imitate(
    lm: CausalLM,
    dialogues: Sequence[Sequence[Message]],
    seed: int,
    epochs: int = 1,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    tell: Callable[[float], None] = lambda loss: None,
) -> None:
    """Teach a model to say what the assistant says, each token where it stands.

    Args:
        lm: Changed in place, all of its weights.
        dialogues: Each begins anew.
        seed: Of the order.
        epochs: How often each dialogue is seen.
        batch_size: Dialogues of a step.
        learning_rate: Of AdamW at its height, which rises for a twentieth of the steps and then
            falls to 0 along a cosine.
        tell: Called with the loss of each step, in nats a token.
    """
    lm.model.requires_grad_(True)
    rows = [_labelled(lm, dialogue) for dialogue in dialogues]
    rng = np.random.default_rng(seed)
    steps = epochs * math.ceil(len(rows) / batch_size)
    parameters = list(lm.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _height(n / steps))
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), batch_size):
            loss = _loss(lm, [rows[i] for i in order[start : start + batch_size]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            tell(loss.item())


def _height(progress: float) -> float:
    return min(progress * 20, 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))


def _labelled(lm: CausalLM, dialogue: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Return the tokens of a dialogue, and for each what should follow it, if that is known."""
    ids: list[int] = []
    labels: list[int] = []
    for place, message in enumerate(dialogue):
        if message["role"] == "assistant":
            _, [prompt] = lm.chat.prompts([dialogue[:place]], (), lm.context)
            said = [*lm.chat.tokenize(message["content"]), lm.chat.end]
            labels += [_IGNORED] * (len(prompt) - len(labels) - 1) + said
            ids = [*prompt, *said]
    return ids[:-1], labels


def _loss(lm: CausalLM, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    labels = [torch.tensor(labels, device=lm.model.device) for _, labels in rows]
    labels_BT = pad_sequence(labels, True, _IGNORED)
    known_BT = labels_BT != _IGNORED
    hidden_BTH = lm.engine.read([ids for ids, _ in rows])
    logits_MV = lm.model.get_output_embeddings()(hidden_BTH[known_BT]).float()
    return F.cross_entropy(logits_MV, labels_BT[known_BT])
