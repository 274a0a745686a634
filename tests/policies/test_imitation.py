"""What a model is taught of dialogues."""

from pathlib import Path

import pytest
import torch
from palaestra.policies.adapting import adapt
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.engines import engine_of
from palaestra.policies.imitation import _IGNORED, _labelled, _loss, imitate
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from .conftest import DIALOGUES


@pytest.mark.parametrize("turns", [1, 60])
def test_each_token_is_taught_where_it_stands(turns: int, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    [system, *said] = DIALOGUES[0]
    dialogue = [system, *said * turns]
    ids, labels = _labelled(lm, dialogue)
    assert len(ids) == len(labels) + 1 <= lm.context + 1
    whole = lm.chat.tokenize(lm.chat.render(dialogue, prompt=False))
    assert ids == [*whole[:-1], ids[-1]][-len(ids) :]  # of what is too long, the end
    taught = [i for i, label in enumerate(labels) if label != _IGNORED]
    assert all(labels[i] == ids[i + 1] for i in taught)
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


@pytest.mark.parametrize("last_layers", [None, 1])
def test_the_loss_is_that_of_transformers(last_layers: int | None, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    engine = engine_of(lm.model, adapt(lm.model, last_layers))
    rows = [_labelled(lm, dialogue) for dialogue in (DIALOGUES[0], DIALOGUES[1] * 2)]
    plain = AutoModelForCausalLM.from_pretrained(tiny_chat_folder)
    told, count = 0.0, 0
    for ids, labels in rows:
        logits = plain(torch.tensor([ids[:-1]])).logits[0]
        known = sum(label != _IGNORED for label in labels)
        told += cross_entropy(logits, torch.tensor(labels)).item() * known
        count += known
    for _ in range(2):  # the second time from what was kept
        assert _loss(lm, engine, rows).item() == pytest.approx(told / count, rel=1e-5)
