"""Grammars: nothing else is written, and what is written is as likely when it is learned from."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from palaestra.envs.parsing import Malformed, parse
from palaestra.envs.tools import Tool
from palaestra.envs.vector import make_vec
from palaestra.errors import UserError
from palaestra.policies.chat import Chat
from palaestra.policies.grammar import Grammar, calls
from palaestra.policies.language import LanguagePolicy
from palaestra.policies.token_choice import Writer
from palaestra.train.token_vec_env import TokenVecEnv


def look_up(word: str) -> str:
    """Look a word up.

    Args:
        word: Which.
    """
    return word


def ratio(x: int, y: int) -> str:
    """Divide.

    Args:
        x: This.
        y: By this.
    """
    return str(x / y)


TOOLS = {t.name: t for t in (Tool(look_up), Tool(ratio))}
SCHEMAS = [tool.schema for tool in TOOLS.values()]


def written(grammar: Grammar, chat: Chat, length: int, seed: int) -> str:
    """Return what somebody writes who likes all tokens alike, but for those that come to an end."""
    torch.manual_seed(seed)
    (choose, _), ids = grammar.holding(Writer(1.0)), []
    words = chat.tokenizer.convert_ids_to_tokens(range(len(chat.tokenizer)))
    logits = torch.tensor([[5.0 if {*word} & {*'<"}'} else 0.0 for word in words]])
    while len(ids) < length and chat.end not in ids:
        ids += choose(logits, [0]).tolist()
    return chat.text(ids) if ids[-1] == chat.end else ""


def mask_of(grammar: Grammar, ids: list[int]) -> torch.Tensor:
    """Return what may stand where each token of a message stands, shape (N, V)."""
    allowed = grammar.allowed([ids]).in_full()
    mask_NV = torch.zeros(len(ids), allowed.mask_PV.shape[1], dtype=torch.bool)
    mask_NV[torch.arange(len(ids)), torch.tensor(ids)] = True
    mask_NV[allowed.many_P] = allowed.mask_PV
    return mask_NV


@pytest.mark.parametrize("said", ["1 << 2", "a <= b << c", "x", "< is less"])
def test_what_stands_in_a_call_may_hold_brackets(said: str, tiny_chat_folder: Path) -> None:
    chat = Chat(str(tiny_chat_folder))
    grammar = Grammar(calls(SCHEMAS, chat), chat, len(chat.tokenizer))
    ids = [*chat.tokenize(f"<look_up>{said}</look_up>"), chat.end]
    left = []

    def say(logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
        token = ids[len(left)]
        left.append(bool(logits_AV[0, token] == 0))
        return torch.tensor([token])

    choose, _ = grammar.holding(say)
    for _ in ids:
        choose(torch.zeros(1, len(chat.tokenizer)), [0])
    assert all(left) is not said.startswith("<")


def test_whatever_is_written_is_a_call_or_an_answer(tiny_chat_folder: Path) -> None:
    chat = Chat(str(tiny_chat_folder))
    grammar = Grammar(calls(SCHEMAS, chat), chat, len(chat.tokenizer))
    messages = [m for seed in range(300) if (m := written(grammar, chat, 120, seed))]
    assert len(messages) > 30
    kinds = {type(parse(m, TOOLS)).__name__ for m in messages}
    assert kinds == {"ToolCall", "Answer"}, messages
    assert not any(isinstance(parse(m, TOOLS), Malformed) for m in messages)
    assert {m.partition(">")[0] for m in messages} == {"<answer", "<look_up", "<tool_call"}


def test_how_a_message_ends_is_told_as_soon_as_there_is_one_way_only(
    tiny_chat_folder: Path,
) -> None:
    chat = Chat(str(tiny_chat_folder))
    grammar = Grammar(calls(SCHEMAS, chat), chat, len(chat.tokenizer))
    ids = [*chat.tokenize("<look_up>oak</look_up>"), chat.end]
    wanted = iter(ids)
    choose, rest = grammar.holding(lambda logits, rows: torch.tensor([next(wanted)]))
    told = []
    for _ in ids[:-1]:
        choose(torch.zeros(1, len(chat.tokenizer)), [5])
        told.append(rest(5))
    counts = mask_of(grammar, ids).sum(1).tolist()
    last = max(place for place, count in enumerate(counts) if count > 1)
    assert grammar.decided(ids) == last + 1
    assert 0 < last < len(ids) - 2
    assert told == [ids[place:] if place > last else [] for place in range(1, len(ids))]


def test_an_end_is_not_looked_for_very_far_ahead(tiny_chat_folder: Path) -> None:
    chat = Chat(str(tiny_chat_folder))
    grammar = Grammar("start: /x{200}/", chat, len(chat.tokenizer))
    choose, rest = grammar.holding(lambda logits, rows: logits.argmax(1))
    said, told = [], []
    for _ in range(200):
        said += choose(torch.zeros(1, len(chat.tokenizer)), [0]).tolist()
        told.append(rest(0))
    assert chat.text(said) == "x" * 200
    assert told[:136] == [[]] * 136
    assert told[136:] == [[*said[place:], chat.end] for place in range(137, 201)]


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        ("<look_up>oak</look_up>", True),
        ("<answer>a < b, and b > c</answer>", True),
        ("<answer></answer>", False),
        ("<look_up>oak</answer>", False),
        ("oak", False),
        ("<ratio>1</ratio>", False),
        ('<tool_call>{"name": "ratio", "arguments": {"x": 1, "y": 2}}</tool_call>', True),
        ('<tool_call>{"name": "ratio", "arguments": {"x": 1}}</tool_call>', False),
        ("<answer>1</answer> indeed", False),
    ],
)
def test_what_could_have_stood_in_a_message(
    tiny_chat_folder: Path, message: str, fits: bool
) -> None:
    chat = Chat(str(tiny_chat_folder))
    grammar = Grammar(calls(SCHEMAS, chat), chat, len(chat.tokenizer))
    ids = [*chat.tokenize(message), chat.end]
    # Written token by token, each forced on a writer who would take it if it were allowed.
    choose, _ = grammar.holding(lambda logits, rows: logits.argmax(1))
    taken = []
    for wanted in ids:
        logits = torch.zeros(1, len(chat.tokenizer))
        logits[0, wanted] = 1.0
        taken += choose(logits, [0]).tolist()
        if taken[-1] != wanted:
            break
    assert (taken == ids) is fits
    allowed = mask_of(grammar, ids)
    assert allowed.shape == (len(ids), len(chat.tokenizer))
    assert all(allowed[place, token] for place, token in enumerate(ids))
    if not fits:  # nothing but what stands there, from where it left the grammar
        assert allowed[len(taken) :].sum(1).eq(1).all()
        assert grammar.decided(ids) <= len(taken)


@pytest.mark.parametrize("relative", [False, True])
def test_a_held_policy_writes_calls_that_are_as_likely_when_learned_from(
    tiny_chat_folder: Path, relative: bool
) -> None:
    chat = Chat(str(tiny_chat_folder))
    text = calls(
        [{"function": {"name": "calculator", "parameters": {"properties": {"x": {}}}}}], chat
    )
    vector = make_vec("palaestra/Calculator-v0", 8, "sync", "dialogue", autoreset="SameStep")
    env = TokenVecEnv(vector, str(tiny_chat_folder), 12)
    torch.manual_seed(0)
    ours: Any = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-2, model=str(tiny_chat_folder),
        grammar=text, relative_entropy=relative, temperature=1.3,
    )  # fmt: skip
    obs = torch.from_numpy(np.asarray(env.reset()))
    for _ in range(2):  # as it starts, and after a step
        actions, _, log_probs = ours(obs)
        said = [chat.text(row) for row in actions.tolist()]
        assert all(re.match(r"<(calculator|answer)>", message) for message in said), said
        again = ours.evaluate_actions(obs, actions)
        torch.testing.assert_close(again[1], log_probs, atol=1e-4, rtol=0)
        assert torch.isfinite(again[2]).all()
        (-again[1].mean() - again[2].mean()).backward()
        assert all(torch.isfinite(p.grad).all() for p in ours.parameters() if p.grad is not None)
        ours.optimizer.step()
    assert (ours.kl_and_entropy(obs, actions)[0] > 0).all()


def test_what_cannot_be_a_grammar_is_told(tiny_chat_folder: Path) -> None:
    chat = Chat(str(tiny_chat_folder))
    with pytest.raises(UserError, match="grammar cannot be read"):
        Grammar("start: nobody", chat, len(chat.tokenizer))
