"""What a model is taught of dialogues."""

from pathlib import Path

import pytest
import torch
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.imitation import _IGNORED, _labelled, imitate

from .conftest import DIALOGUES


@pytest.mark.parametrize("turns", [1, 60])
def test_each_token_is_taught_where_it_stands(turns: int, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    [system, *said] = DIALOGUES[0]
    dialogue = [system, *said * turns]
    ids, labels = _labelled(lm, dialogue)
    assert len(ids) == len(labels) == min(len(ids), lm.context)
    whole = lm.chat.tokenize(lm.chat.render(dialogue, prompt=False))
    assert ids == whole[:-1][-lm.context :]  # of what is too long, the end
    taught = [i for i, label in enumerate(labels) if label != _IGNORED]
    assert all(labels[i] == [*ids[1:], lm.chat.end][i] for i in taught)
    texts = [lm.chat.tokenize(m["content"]) for m in said if m["role"] == "assistant"]
    expected = [token for text in texts for token in [*text, lm.chat.end]] * turns
    assert [labels[i] for i in taught] == expected[-len(taught) :]
    assert len(taught) > len(labels) / 4


@pytest.mark.parametrize("last_layers", [None, 1])
def test_so_many_layers_are_taught(last_layers: int | None, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    losses: list[float] = []
    imitate(lm, DIALOGUES[:2] * 12, 0, 1, 2, 5e-3, last_layers, losses.append)
    changed = {n for n, p in lm.model.named_parameters() if not torch.equal(p, before[n])}
    last = f"layers.{lm.model.config.num_hidden_layers - 1}."
    expected = {n for n in before if last_layers is None or last in n or "model.norm" in n}
    assert changed == expected
    assert losses[-1] < losses[0]
