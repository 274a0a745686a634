"""What a model is taught of dialogues."""

from pathlib import Path

import numpy as np
import pytest
import torch
from palaestra.errors import UserError
from palaestra.policies import imitation
from palaestra.policies.adapting import adapt
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.engines import engine_of
from palaestra.policies.imitation import _IGNORED, _Disguise, _labelled, _loss, imitate
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from .conftest import DIALOGUES


@pytest.mark.parametrize("turns", [1, 60])
def test_each_token_is_taught_where_it_stands(turns: int, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    [system, *said] = DIALOGUES[0]
    dialogue = [system, *said * turns]
    [(ids, labels)] = _labelled(lm, [dialogue])
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
    imitate(lm, DIALOGUES[:2] * 12, 0, 1, 2, 5e-3, last_layers, tell=losses.append)
    changed = {n for n, p in lm.model.named_parameters() if not torch.equal(p, before[n])}
    last = f"layers.{lm.model.config.num_hidden_layers - 1}."
    expected = {n for n in before if last_layers is None or last in n or "model.norm" in n}
    assert changed == expected
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("last_layers", [None, 1])
def test_the_loss_is_that_of_transformers(last_layers: int | None, tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    engine = engine_of(lm.model, adapt(lm.model, last_layers))
    rows = _labelled(lm, [DIALOGUES[0], DIALOGUES[1] * 2])
    plain = AutoModelForCausalLM.from_pretrained(tiny_chat_folder)
    told, count = 0.0, 0
    for ids, labels in rows:
        logits = plain(torch.tensor([ids[:-1]])).logits[0]
        known = sum(label != _IGNORED for label in labels)
        told += cross_entropy(logits, torch.tensor(labels)).item() * known
        count += known
    for _ in range(2):  # the second time from what was kept
        assert _loss(lm, engine, rows).item() == pytest.approx(told / count, rel=1e-5)


def test_equal_digits_become_equal_tokens_that_no_dialogue_holds(tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    rows = _labelled(lm, DIALOGUES)
    held = {token for ids, _ in rows for token in ids}
    digits = {i for i in held if lm.chat.tokenizer.decode([i]) in set("0123456789")}
    assert len(digits) == 10
    disguise, rng, worn = _Disguise(lm.chat, rows), np.random.default_rng(0), set()
    for ids, labels in rows:
        shown, taught = disguise((ids, labels), rng)
        pairs = set(zip(ids, shown, strict=True))
        assert all((new != old) == (old in digits) for old, new in pairs)
        assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
        assert {label for label in taught if label != _IGNORED} <= {*shown, lm.chat.end}
        known = dict(pairs)
        assert taught == [known.get(label, label) for label in labels]
        worn |= set(shown) - set(ids)
    assert not worn & held
    assert len(worn) > 100
    assert not worn & {*lm.chat.tokenizer.all_special_ids}


@pytest.mark.parametrize(
    ("symbols", "least", "most"), [(0.0, 0, 0), (0.3, 50, 120), (1.0, 270, 270)]
)
def test_a_share_of_the_dialogues_is_shown_in_disguise(
    symbols: float, least: int, most: int, tiny_chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    plain = _labelled(lm, DIALOGUES)
    shown = []

    def look(lm: CausalLM, engine: object, rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
        shown.extend(rows)
        return next(lm.model.parameters()).sum()

    monkeypatch.setattr(imitation, "_loss", look)
    imitate(lm, DIALOGUES, 0, epochs=3, symbols=symbols)
    assert len(shown) == 3 * len(DIALOGUES) == 270
    assert least <= sum(row not in plain for row in shown) <= most


def test_too_few_tokens_for_a_disguise_are_named(tiny_chat_folder: Path) -> None:
    lm = CausalLM(str(tiny_chat_folder))
    everything = list(lm.chat.tokenizer.get_vocab().values())
    with pytest.raises(
        UserError, match=r"all but 0 tokens, too few to stand for \d+ digits.*symbols=0"
    ):
        _Disguise(lm.chat, [(everything, [])])


@pytest.mark.parametrize("dialogues", [[], [DIALOGUES[0][:2]], [DIALOGUES[0], DIALOGUES[1][:1]]])
def test_dialogues_that_teach_nothing_are_refused(
    dialogues: list[list[dict[str, str]]], tiny_chat_folder: Path
) -> None:
    with pytest.raises(UserError, match="messages of the assistant"):
        imitate(CausalLM(str(tiny_chat_folder)), dialogues, 0)
