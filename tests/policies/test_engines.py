"""Both ways to run a language model against one pass of transformers over everything."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from palaestra.errors import UserError
from palaestra.policies import branches
from palaestra.policies.adapting import adapt
from palaestra.policies.branches import Row
from palaestra.policies.engines import Engine, Plain, SharedPrefix, engine_of, speaks_plainly
from palaestra.policies.token_choice import Writer, evaluate_tokens
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    Qwen3Config,
)

VOCABULARY, END, NEW = 50, 49, 9
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "initializer_range": 0.5,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
PREFIX = [7, 3, 9, 4, 4, 1, 30, 22]
PROMPTS = [[5], [8, 2, 41, 17, 6], [3, 3, 12], [40, 11]]
LLAMA, QWEN = LlamaConfig(**SIZES), Qwen3Config(**SIZES)
GPT2 = GPT2Config(
    vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=2, n_positions=128, bos_token_id=END,
    eos_token_id=END, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
)  # fmt: skip


def build(config: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


def whole(model: Any, prefix: list[int], prompt: list[int], said: list[int]) -> torch.Tensor:
    """Return what transformers itself says before each token, shape (N, V)."""
    logits = model(torch.tensor([[*prefix, *prompt, *said]])).logits[0]
    return logits[len(prefix) + len(prompt) - 1 : -1]


def head_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return model.get_output_embeddings()


ENGINES = [
    pytest.param(LLAMA, {}, id="llama, all"),
    pytest.param(LLAMA, {"last_layers": 1}, id="llama, last"),
    pytest.param(QWEN, {"last_layers": 3}, id="qwen, last three"),
    pytest.param(LLAMA, {"last_layers": 2, "lora_rank": 2}, id="llama, adapters"),
    pytest.param(LLAMA, {"lora_rank": 2}, id="llama, adapters everywhere"),
    pytest.param(GPT2, {}, id="gpt2"),
    pytest.param(GPT2, {"last_layers": 1}, id="gpt2, last"),
]


def engine(config: Any, trained: dict[str, int]) -> tuple[Any, Engine]:
    model = build(config)
    return model, engine_of(model, adapt(model, **trained))


@pytest.mark.parametrize(("config", "trained"), ENGINES)
@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
def test_what_is_written_is_as_likely_when_it_is_read(
    config: Any, trained: dict[str, int], prefix: list[int]
) -> None:
    model, ours = engine(config, trained)
    torch.manual_seed(0)
    # A token that the first row says, and not at once, is made the one that ends rows.
    end = ours.decode(prefix, PROMPTS, Writer(1.0), END, NEW)[0].tokens[3]
    torch.manual_seed(0)
    writer = Writer(1.0)
    found = ours.decode(prefix, PROMPTS, writer, end, NEW)
    said = [continuation.tokens for continuation in found]
    assert len({len(tokens) for tokens in said}) > 1
    log_probs = writer.log_probs(said)
    hidden_BNH = ours.evaluate(prefix, PROMPTS, said)
    last_BH = ours.last(prefix, PROMPTS)
    for i, (prompt, tokens) in enumerate(zip(PROMPTS, said, strict=True)):
        with torch.no_grad():
            expected = whole(build(config), prefix, prompt, tokens)
            read = head_of(model)(hidden_BNH[i, : len(tokens)])
            torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                head_of(model)(last_BH[i]), expected[0], atol=1e-4, rtol=1e-4
            )
            before = head_of(model)(found[i].hidden_H)
            torch.testing.assert_close(before, expected[0], atol=1e-4, rtol=1e-4)
        taken = expected.log_softmax(1).gather(1, torch.tensor(tokens)[:, None]).sum()
        torch.testing.assert_close(log_probs[i], taken, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("config", "trained"), ENGINES)
def test_gradients_are_those_of_one_pass_over_everything(
    config: Any, trained: dict[str, int]
) -> None:
    model, ours = engine(config, trained)
    plain = build(config)
    adapt(plain, **trained)
    said = [[4, 9], [1], [2, 2, END], [7]]
    ours.evaluate(PREFIX, PROMPTS, said)  # what was kept is as good the second time
    compare_with_alone(model, plain, ours.evaluate(PREFIX, PROMPTS, said), PREFIX, PROMPTS, said)


def compare_with_alone(
    model: Any,
    plain: Any,
    hidden_BNH: torch.Tensor,
    prefix: list[int],
    prompts: list[list[int]],
    said: list[list[int]],
) -> None:
    """Compare what was read, and its gradients, with a pass of transformers for each row."""
    for i, (prompt, tokens) in enumerate(zip(prompts, said, strict=True)):
        found = head_of(model)(hidden_BNH[i, : len(tokens)])
        expected = whole(plain, prefix, prompt, tokens)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        found.log_softmax(1)[:, 3].sum().backward(retain_graph=True)
        expected.log_softmax(1)[:, 3].sum().backward()
    compared = 0
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if mine.requires_grad:
            assert mine.grad is not None, name
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-3, rtol=1e-3, msg=name)
            compared += 1
        else:
            assert mine.grad is None
    assert compared


TURNS = [[5, 6], [5, 6, 4, 9, 2, 8], [8, 2, 41], [5, 6], [5, 6, 4, 9, 2, 8, 7, 1, 3], [5, 6]]
REPLIES = [[4, 9], [7, 1, END], [30], [4, END], [2, 2], [4, 9]]


@pytest.mark.parametrize(("config", "trained"), ENGINES)
@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
def test_turns_of_a_dialogue_are_read_as_if_each_stood_alone(
    config: Any, trained: dict[str, int], prefix: list[int]
) -> None:
    model, ours = engine(config, trained)
    plain = build(config)
    adapt(plain, **trained)
    assert len(branches.joined(TURNS, REPLIES)[0]) == 2
    hidden_BNH = ours.evaluate(prefix, TURNS, REPLIES)
    compare_with_alone(model, plain, hidden_BNH, prefix, TURNS, REPLIES)


def test_turns_that_were_written_are_read_from_what_was_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, ours = engine(LLAMA, {"last_layers": 1})
    assert isinstance(ours, SharedPrefix)
    prompts, said = list(PROMPTS), list[list[int]]()
    for turn in range(3):
        newest = prompts[-len(PROMPTS) :]
        torch.manual_seed(turn)
        replies = [c.tokens for c in ours.decode(PREFIX, newest, Writer(1.0), END, NEW)]
        said += replies
        if turn < 2:
            prompts += [[*p, *r, 11, 7] for p, r in zip(newest, replies, strict=True)]
    expected = [ours.evaluate(PREFIX, [p], [s])[0] for p, s in zip(prompts, said, strict=True)]
    read = list[int]()
    monkeypatch.setattr(ours._decoder, "read", lambda prefix, rows: read.append(len(rows)))
    found_BNH = ours.evaluate(PREFIX, prompts, said)
    assert not read
    for found_NH, expected_NH in zip(found_BNH, expected, strict=True):
        torch.testing.assert_close(found_NH[: len(expected_NH)], expected_NH, atol=1e-4, rtol=1e-4)


@given(
    asked=st.lists(
        st.tuples(
            st.lists(st.integers(0, 1), min_size=1, max_size=5),
            st.lists(st.integers(0, 1), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_row_is_the_beginning_of_another(asked: list[tuple[list[int], list[int]]]) -> None:
    prompts, said = [list(part) for part in zip(*asked, strict=True)]
    rows, places = branches.joined(prompts, said)
    begun = [0] * len(rows)
    for (prompt, tokens), place in zip(asked, places, strict=True):
        read = (*prompt, *tokens[:-1])
        assert rows[place.row].ids[: len(read)] == read
        assert (place.before, place.start) == (len(prompt) - 1, len(prompt))
        begun[place.row] += 1
    assert all(begun)
    for i, row in enumerate(rows):
        assert all(other.ids[: len(row.ids)] != row.ids for other in rows[:i] + rows[i + 1 :])
    asked_of = branches.asked(places, said)
    for place, tokens in zip(places, said, strict=True):
        assert set(branches.tokens_before(place, tokens)) <= set(asked_of[place.row])
    assert all(of == sorted(set(of)) for of in asked_of)
    assert len(asked_of) == len(rows)
    assert sum(map(len, asked_of)) <= sum(map(len, said))


@pytest.mark.parametrize(("config", "trained"), ENGINES[:2])
def test_after_a_change_nothing_old_is_told(config: Any, trained: dict[str, int]) -> None:
    model, ours = engine(config, trained)
    ours.decode(PREFIX, PROMPTS, Writer(1.0, greedy=True), END, NEW)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1)
    ours.forget()
    changed = build(config)
    changed.load_state_dict(model.state_dict())
    for prompt, hidden in zip(PROMPTS, ours.last(PREFIX, PROMPTS), strict=True):
        with torch.no_grad():
            expected = whole(changed, PREFIX, prompt, [0])[0]
            torch.testing.assert_close(head_of(model)(hidden), expected, atol=1e-4, rtol=1e-4)


def test_little_room_to_keep_changes_nothing() -> None:
    model = build(LLAMA)
    ours = SharedPrefix(model, adapt(model, last_layers=1), kept=6)
    said = [[4, 9], [1], [2, 2, END], [7]]
    expected = engine(LLAMA, {"last_layers": 1})[1].evaluate(PREFIX, PROMPTS, said)
    for _ in range(2):
        found = ours.evaluate(PREFIX, PROMPTS, said)
        for row, other, tokens in zip(found, expected, said, strict=True):
            torch.testing.assert_close(row[: len(tokens)], other[: len(tokens)])


def test_what_a_model_would_do_when_it_generates_alone_changes_nothing() -> None:
    model, ours = engine(GPT2, {})
    model.generation_config.repetition_penalty = 5.0
    writer = Writer(1.0)
    torch.manual_seed(0)
    said = [c.tokens for c in ours.decode(PREFIX, PROMPTS, writer, END, NEW)]
    found = evaluate_tokens(head_of(model), ours.evaluate(PREFIX, PROMPTS, said), said, 1.0, False)
    torch.testing.assert_close(writer.log_probs(said), found.log_probs_B, atol=1e-4, rtol=0)


def test_who_makes_more_of_its_logits_is_told_apart() -> None:
    granite = GraniteConfig(**SIZES)
    assert all(speaks_plainly(build(config)) for config in (LLAMA, GPT2, granite))
    granite.logits_scaling = 8.0
    gemma = Gemma2Config(**SIZES, final_logit_softcapping=0.1)
    assert not any(speaks_plainly(build(config)) for config in (granite, gemma))


def test_frozen_layers_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ours = engine(LLAMA, {"last_layers": 1})
    writer = Writer(1.0)
    said = [c.tokens for c in ours.decode(PREFIX, PROMPTS, writer, END, NEW)]
    ours.evaluate(PREFIX, PROMPTS, said)
    monkeypatch.setattr(model.model.layers[0], "forward", lambda *_, **__: 1 / 0)
    ours.evaluate(PREFIX, PROMPTS, said)


@pytest.mark.parametrize("config", [LLAMA, QWEN], ids=["llama", "qwen"])
def test_the_last_layer_is_run_for_the_actions_and_not_for_the_dialogues(config: Any) -> None:
    model, ours = engine(config, {"last_layers": 2})
    said, run = [[4, 9], [1], [2, 2, END], [7]], {2: 0, 3: 0}
    ours.evaluate(PREFIX, PROMPTS, said)  # which reads what frozen layers make of them
    for layer in run:

        def count(module: Any, given: Any, made: torch.Tensor, layer: int = layer) -> None:
            run[layer] += made.numel() // SIZES["hidden_size"]

        model.model.layers[layer].mlp.register_forward_hook(count)
    ours.evaluate(PREFIX, PROMPTS, said)
    assert run[3] == sum(map(len, said)) < run[2]
    # Nor for what stands between the actions of two turns.
    ours.evaluate(PREFIX, TURNS, REPLIES)
    run[3] = 0
    ours.evaluate(PREFIX, TURNS, REPLIES)
    assert run[3] == 8


def test_which_engine_fits() -> None:
    assert isinstance(engine_of(build(LLAMA)), SharedPrefix)
    assert isinstance(engine_of(build(GPT2)), Plain)


@pytest.mark.parametrize("trained", [{"last_layers": 0}, {"last_layers": 5}, {"lora_rank": 0}])
def test_what_cannot_be_trained_is_named(trained: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(trained))):
        adapt(build(LLAMA), **trained)


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_rows_that_follow_are_as_likely_when_they_are_read(config: Any) -> None:
    ours = engine_of(build(config), adapt(build(config), last_layers=1))
    rows, told = [list(prompt) for prompt in PROMPTS], []

    def follow(ended: list[tuple[int, list[int]]]) -> list[list[int]]:
        told.extend(ended)
        new = [[*rows[n], *tokens, 3] for n, tokens in ended if n < 3 * len(PROMPTS)]
        rows.extend(new)
        return new

    torch.manual_seed(0)
    writer = Writer(1.0)
    found = ours.decode(PREFIX, PROMPTS, writer, 7, NEW, follow)
    assert [c.tail for c in found] == rows
    assert sorted(told) == [(n, c.tokens) for n, c in enumerate(found)]
    assert len(found) == 4 * len(PROMPTS)
    said = [c.tokens for c in found]
    log_probs = writer.log_probs(said)
    for i, (row, tokens) in enumerate(zip(rows, said, strict=True)):
        with torch.no_grad():
            expected = whole(build(config), PREFIX, row, tokens).log_softmax(1)
        taken = expected.gather(1, torch.tensor(tokens)[:, None]).sum()
        torch.testing.assert_close(log_probs[i], taken, atol=1e-4, rtol=0)


def test_what_is_kept_of_rows_that_follow_is_no_more_than_it_may_be() -> None:
    model = build(LLAMA)
    ours, most = SharedPrefix(model, adapt(model, last_layers=1), kept=60), list[int]()

    def follow(ended: list[tuple[int, list[int]]]) -> list[list[int]]:
        most.append(sum(len(row.ids) for row in ours._rows))
        return [[11, n % VOCABULARY, 3] for n, _ in ended if n < 40]

    found = ours.decode(PREFIX, PROMPTS, Writer(1.0), -1, NEW, follow)
    assert len(found) == 44
    assert 40 < max(most) <= 60
    rows = [Row((*c.tail, *c.tokens[:-1])) for c in found]
    assert list(ours._rows) == rows[-len(ours._rows) :]
    assert not any(kept.is_inference() for kept in ours._rows.values())  # learned from, later


FORKED = [[5, 9, 9, 31, 2, 6, 6], [8, 2, 41, 17, 6, 1, 12, 4], [40, 11, 5, 23, 22, 21, 9, 3]]
CHOICES = [[[4, 9], [1], [4, 2, END], [7]], [[3, END]], [[8], [9]]]
"""Of each: several, one, and such of which nothing is read."""


def asked() -> tuple[list[list[int]], list[list[int]], list[int]]:
    numbered = [(i, one) for i, said in enumerate(CHOICES) for one in said]
    return [FORKED[i] for i, _ in numbered], [one for _, one in numbered], [i for i, _ in numbered]


@pytest.mark.parametrize(("config", "trained"), ENGINES)
@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
@pytest.mark.parametrize("most", [1, 128], ids=["short rows", "long rows"])
def test_choices_are_read_as_if_each_stood_alone(
    config: Any,
    trained: dict[str, int],
    prefix: list[int],
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ours = engine(config, trained)
    plain = build(config)
    adapt(plain, **trained)
    monkeypatch.setattr(branches, "_BRANCHES", most)
    prompts, said, groups = asked()
    weighed_BNH = ours.weigh(prefix, prompts, said, groups)
    # In an update they come in another order, and not all.
    again_RNH = ours.evaluate(prefix, prompts[4:], said[4:], groups[4:])
    hidden_BNH = ours.evaluate(prefix, prompts, said, groups)
    for row, other, tokens in zip(again_RNH, hidden_BNH[4:], said[4:], strict=True):
        torch.testing.assert_close(row[: len(tokens)], other[: len(tokens)], atol=1e-5, rtol=1e-4)
    for i, (prompt, tokens) in enumerate(zip(prompts, said, strict=True)):
        weighed = head_of(model)(weighed_BNH[i, : len(tokens)])
        expected = whole(plain, prefix, prompt, tokens)
        torch.testing.assert_close(weighed, expected, atol=1e-4, rtol=1e-4)
    compare_with_alone(model, plain, hidden_BNH, prefix, prompts, said)


def test_choices_of_the_next_turn_are_read_from_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ours = engine(LLAMA, {"last_layers": 1})
    assert isinstance(ours, SharedPrefix)
    prompts, said, groups = asked()
    prompts = [[*prompt, *range(16)] for prompt in prompts]  # what is worth to be remembered
    ours.weigh(PREFIX, prompts, said, groups)
    held = [part for past in ours._decoder._pasts for layer in past.layers for part in layer]
    counted_tokens = sum(past.length for past in ours._decoder._pasts)
    assert sorted(map(len, FORKED)) == sorted(p.length - 16 for p in ours._decoder._pasts)
    stored = sum(part.untyped_storage().nbytes() for part in held) / sum(p.nbytes for p in held)
    assert counted_tokens == sum(map(len, FORKED)) + 3 * 16
    assert stored == 1
    read, forward = list[int](), ours._decoder._forward

    def counted(tokens: list[list[int]], *rest: Any) -> torch.Tensor:
        read.extend(len(t) for t in tokens)
        return forward(tokens, *rest)

    monkeypatch.setattr(ours._decoder, "_forward", counted)
    taken = [0, 4, 5]
    later = [[*prompts[i], *said[i], 2, 30, 1] for i in taken]
    for _ in range(2):
        found = ours.weigh(PREFIX, later, said[:3], [0, 1, 2])
        for row, prompt, tokens in zip(found, later, said, strict=False):
            expected = whole(build(LLAMA), PREFIX, prompt, tokens)
            logits = head_of(model)(row[: len(tokens)])
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert max(read) <= 8


def test_each_question_has_rows_of_its_own_which_do_not_grow_long() -> None:
    prompt, said = list(range(20)), [[1] * 30] * 9
    rows, places = branches.joined([prompt] * 9, said, [0] * 6 + [1] * 3)
    assert [len(row.branches) for row in rows] == [4, 2, 3]
    assert [place.row for place in places] == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    rows, _ = branches.joined([prompt] * 9, [[1] * 29 + [i, 1] for i in range(9)])
    assert [row.branches for row in rows] == [()] * 9
