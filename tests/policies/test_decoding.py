"""Generation behind a shared prefix against transformers' own."""

import copy
import random
from typing import Any

import pytest
import torch
from palaestra.policies.decoding import Decoder, fits
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY, END = 50, 49
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "initializer_range": 0.5,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
FITTING = [LlamaConfig(**SIZES), Qwen2Config(**SIZES), Qwen3Config(**SIZES)]
PREFIX = [7, 3, 9, 4, 4, 1, 30, 22]
TAILS = [[5], [8, 2, 41, 17, 6], [3, 3, 12], [40, 11], [9], [13, 25, 31, 2, 2, 2, 8]]
NEW = 12


def build(config: Any) -> Any:
    """Return an untrained model whose rows say different things and end at different times."""
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


def decoder(config: Any) -> Decoder:
    return Decoder(build(config))


def decode(ours: Decoder, *args: Any) -> list[list[int]]:
    return [continuation.tokens for continuation in ours.decode(*args)]


def likeliest(logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return logits_AV.argmax(1)


def counted(ours: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return where it is noted how many tokens of each row are read at a time."""
    calls, forward = list[list[int]](), ours._forward

    def counting(tokens: list[list[int]], rows: Any, shapes: Any = ()) -> torch.Tensor:
        calls.append([len(row) for row in tokens])
        return forward(tokens, rows, shapes)

    monkeypatch.setattr(ours, "_forward", counting)
    return calls


def alone(model: Any, ids: list[int], new: int = NEW, end: int = END) -> list[int]:
    """Continue one row as transformers does."""
    said = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=new, do_sample=False, eos_token_id=end, pad_token_id=0,
    )  # fmt: skip
    return said[0, len(ids) :].tolist()


@pytest.mark.parametrize("config", FITTING, ids=lambda c: c.model_type)
@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
def test_rows_say_what_each_says_alone(config: Any, prefix: list[int]) -> None:
    plain, ours = build(config), decoder(config)
    expected = [alone(plain, prefix + tail) for tail in TAILS]
    # A token that some rows say, and not at once, is made the one that ends them.
    ends = [token for said in expected for token in said[2:6]]
    end = max(set(ends), key=ends.count)
    expected = [alone(plain, prefix + tail, end=end) for tail in TAILS]
    assert len({len(said) for said in expected}) > 1
    for _ in range(2):  # the prefix is as good the second time
        assert decode(ours, prefix, TAILS, likeliest, end, NEW) == expected


@pytest.mark.parametrize("config", FITTING, ids=lambda c: c.model_type)
def test_logits_are_those_of_one_pass_over_everything(config: Any) -> None:
    plain = build(config)
    seen: list[list[torch.Tensor]] = [[] for _ in TAILS]

    def remembering(logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
        for row, logits in zip(rows, logits_AV, strict=True):
            seen[row].append(logits)
        return likeliest(logits_AV, rows)

    said = decode(decoder(config), PREFIX, TAILS, remembering, END, NEW)
    for tail, new, logits in zip(TAILS, said, seen, strict=True):
        with torch.no_grad():
            whole = plain(torch.tensor([PREFIX + tail + new])).logits[0, -len(new) - 1 : -1]
        got = torch.stack(logits).log_softmax(1)
        torch.testing.assert_close(got, whole.log_softmax(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory", [8192, 60, 0])
@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
def test_a_dialogue_goes_on_as_if_it_were_read_anew(prefix: list[int], memory: int) -> None:
    plain, ours = build(FITTING[0]), Decoder(build(FITTING[0]), memory)
    rows = [tail * 3 for tail in TAILS]
    for turn in range(3):
        expected = [alone(plain, prefix + row) for row in rows]
        assert decode(ours, prefix, rows, likeliest, END, NEW) == expected
        assert sum(past.length for past in ours._pasts) <= memory
        assert ours._pasts or not memory
        # The world says something, one row less is there, and one was not said like that.
        rows = [row + said + [11, turn, 6] for row, said in zip(rows, expected, strict=True)][1:]
        rows[0][-5] += 1


def test_what_is_remembered_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = decoder(FITTING[0])
    read = counted(ours, monkeypatch)
    row = [*range(1, 31)]
    [said] = decode(ours, PREFIX, [row], likeliest, -1, 4)
    assert read == [[len(PREFIX)], [30], [1], [1], [1]]
    read.clear()
    decode(ours, PREFIX, [[*row, *said, 3, 2]], likeliest, -1, 1)
    assert read == [[3]]  # the last token that was said, and the two that are new
    assert len(ours._pasts) == 1  # no dialogue is remembered twice
    read.clear()
    decode(ours, PREFIX[:4], [row], likeliest, -1, 1)
    assert read == [[4], [30]]  # behind another prefix nothing is the same


def test_rows_of_unlike_lengths_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = decoder(FITTING[0]), build(FITTING[0])
    calls = counted(ours, monkeypatch)
    rows = [[*range(2, 2 + length)] * times for length, times in ((9, 1), (20, 8), (10, 1))]
    expected = [alone(plain, PREFIX + row, new=2, end=-1) for row in rows]
    assert decode(ours, PREFIX, rows, likeliest, -1, 2) == expected
    assert calls == [[len(PREFIX)], [160], [10, 9], [1, 1, 1]]


class Waiting:
    """Rows that take the places of others, and what is told of those."""

    def __init__(self, rows: list[list[int]], at_once: int) -> None:
        self.rows, self.told = list(rows), list[tuple[int, list[int]]]()
        self._at_once = at_once

    def __call__(self, ended: list[tuple[int, list[int]]]) -> list[list[int]]:
        self.told += [(n, list(tokens)) for n, tokens in ended]
        count = min(len(ended), self._at_once)
        new, self.rows = self.rows[:count], self.rows[count:]
        return new


@pytest.mark.parametrize("prefix", [PREFIX, []], ids=["prefix", "none"])
@pytest.mark.parametrize("config", FITTING, ids=lambda c: c.model_type)
@pytest.mark.parametrize("at_once", [1, 9])
def test_rows_that_take_the_places_of_others_say_what_each_says_alone(
    config: Any, prefix: list[int], at_once: int
) -> None:
    rng = random.Random(at_once)
    plain, ours = build(config), decoder(config)
    # Some need more room than there is, some have been read but for their last token, or begin
    # with it.
    lengths = [3, 1, 5, 2, 1, 40, 1, 4, 6, 2, 60, 1, 9, 3, 3, 1, 2, 8]
    rows = [[rng.randrange(VOCABULARY - 1) for _ in range(length)] for length in lengths]
    said = [alone(plain, prefix + row) for row in rows]
    ends = [token for tokens in said for token in tokens[:6]]
    end = max(set(ends), key=ends.count)
    expected = [alone(plain, prefix + row, end=end) for row in rows]
    assert len({len(tokens) for tokens in expected}) > 2
    for first in (1, 4):
        waiting = Waiting(rows[first:], at_once)
        found = ours.decode(prefix, rows[:first], likeliest, end, NEW, waiting)
        assert [c.tokens for c in found] == expected[: len(found)]
        assert [c.tail for c in found] == rows[: len(found)]
        assert sorted(waiting.told) == list(enumerate(expected[: len(found)]))
        assert len(found) + len(waiting.rows) == len(rows)
    assert not waiting.rows or at_once == 1


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_there_is_room_for_whatever_takes_a_place(seed: int, most: int) -> None:
    rng = random.Random(seed)
    ours, memory, rows, held, last = decoder(FITTING[0]), 40, [], list[int](), list[int]()
    ours._memory = memory

    def follow(ended: list[tuple[int, list[int]]]) -> list[list[int]]:
        last.append(ended[-1][0])
        held.append(sum(past.length for past in ours._pasts))
        count = min(len(ended) - (rng.random() < 0.1), 40 - len(rows))
        # Most are no longer than what stands there, which therefore is moved but now and then.
        new = [drawn(rng.randint(1, 6)) for _ in range(count)]
        rows.extend(new)
        return new

    def drawn(length: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(length)]

    rows += [drawn(7) for _ in range(5)]
    found = ours.decode(PREFIX, rows, likeliest, 17, most, follow)
    plain = build(FITTING[0])
    assert len(found) == len(rows) == 40
    for continuation, row in zip(found, rows, strict=True):
        assert continuation.tail == row
        assert continuation.tokens == alone(plain, PREFIX + row, new=most, end=17)
    # What has ended since the places were last taken comes on top.
    assert max(held) <= memory + 5 * (7 + most)
    assert sum(past.length for past in ours._pasts) <= memory
    newest = found[last[-1]]
    assert ours._pasts[-1].ids == [*newest.tail, *newest.tokens[:-1]]


def test_a_dialogue_that_takes_its_own_place_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = decoder(FITTING[0]), build(FITTING[0])
    calls = counted(ours, monkeypatch)
    rows = [[*range(1, 31)], [*range(30, 0, -1)]]
    expected = [alone(plain, PREFIX + row, new=3, end=-1) for row in rows]
    nexts = [row + said + [4, 11, 2] for row, said in zip(rows, expected, strict=True)]
    waiting = Waiting(nexts, 2)
    found = ours.decode(PREFIX, rows, likeliest, -1, 3, waiting)
    expected += [alone(plain, PREFIX + row, new=3, end=-1) for row in nexts]
    assert [c.tokens for c in found] == expected
    # What was said last and all but the last of what is new; that is read where others write.
    assert calls == [[len(PREFIX)], [30, 30], [1, 1], [1, 1], [3, 3], [1, 1], [1, 1], [1, 1]]
    assert sum(past.length for past in ours._pasts) == 2 * 38


def test_what_a_row_can_but_end_with_is_read_with_its_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, plain = decoder(FITTING[0]), build(FITTING[0])
    calls = counted(ours, monkeypatch)
    rows, taken, ending = [[*range(1, 21)], [*range(20, 0, -1)]], [0, 0], [17, 23, END]

    def rest(row: int) -> list[int]:
        taken[row] += 1
        return ending if taken[row] == 2 + row else []

    found = ours.decode(PREFIX, rows, likeliest, END, NEW, rest=rest)
    said = [alone(plain, PREFIX + row, new=2 + i, end=-1) for i, row in enumerate(rows)]
    assert [c.tokens for c in found] == [tokens + ending for tokens in said]
    assert calls == [[len(PREFIX)], [20, 20], [1, 1], [1]]
    nexts = [row + c.tokens + [4, 11] for row, c in zip(rows, found, strict=True)]
    assert decode(ours, PREFIX, nexts, likeliest, -1, 1) == [
        alone(plain, PREFIX + row, new=1, end=-1) for row in nexts
    ]
    assert calls[4:] == [[6, 6]]
    # It is no longer than a row may be.
    taken[:] = [0, 0]
    assert decode(ours, PREFIX, rows, likeliest, END, 3, None, rest) == [
        [*said[0][:2], 17],
        said[1][:3],
    ]


def test_a_reply_has_at_most_so_many_tokens() -> None:
    [said] = decode(decoder(FITTING[0]), [], [[5]], likeliest, -1, 1)
    assert said == alone(build(FITTING[0]), [5], new=1, end=-1)
    [more] = decode(decoder(FITTING[0]), [], [[5]], likeliest, -1, 5)
    assert len(more) == 5
    assert more[:1] == said


def test_half_precision_stays_near() -> None:
    logits = []

    def remembering(logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
        logits.append(logits_AV.log_softmax(1))
        return torch.full((len(rows),), 3)

    for dtype in (torch.float32, torch.bfloat16):
        ours = Decoder(build(FITTING[0]).to(dtype))
        decode(ours, PREFIX, TAILS, remembering, -1, 3)
    assert all(each.dtype == torch.float32 for each in logits)
    torch.testing.assert_close(torch.cat(logits[3:]), torch.cat(logits[:3]), atol=0.5, rtol=0)


def test_a_prefix_that_could_not_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = decoder(FITTING[0])
    with monkeypatch.context() as patch:
        patch.setattr(ours, "_forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decode(ours, PREFIX, TAILS, likeliest, END, NEW)
    expected = [alone(build(FITTING[0]), PREFIX + tail) for tail in TAILS]
    assert decode(ours, PREFIX, TAILS, likeliest, END, NEW) == expected


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2),
        Gemma2Config(**SIZES),
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        LlamaConfig(**SIZES, rope_parameters=DYNAMIC),
    ],
    ids=["gpt2", "gemma2", "sliding window", "dynamic angles"],
)
def test_other_kinds_of_attention_do_not_fit(config: Any) -> None:
    assert not fits(build(config))
    assert all(fits(build(fitting)) for fitting in FITTING)
