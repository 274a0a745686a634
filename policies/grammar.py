"""Grammars that messages are held to, alike when they are written and when they are learned from.

A token that no message of the grammar could go on with has probability 0, in the sampled
message and in the update: else the ratio of the two would not be PPO's. llguidance reads the
grammars, in its dialect of Lark: https://github.com/guidance-ai/llguidance
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from .chat import Chat
from .decoding import Choose, Rest, unknown
from .token_choice import Allowed, held, unpacked

_TEXT = r"[^<]([^<]|<+[^<\/])*"
"""What stands between tags: anything that does not close them."""
_LONGEST_ENDING = 64
"""Tokens that are looked ahead: some grammars leave one way to go on, and no end."""


def named(grammar: str, tools: Sequence[dict[str, Any]], chat: Chat) -> str | None:
    """Return the grammar that a name or a text means, None for none.

    Args:
        grammar: `calls`, or a text in llguidance's Lark; empty for nothing.
        tools: What may be called. Who has no tools is answered in many ways, so `calls` then
            means nothing.
        chat: Whose tokens.
    """
    if grammar != "calls":
        return grammar or None
    return calls(tools, chat) if tools else None


def calls(tools: Iterable[dict[str, Any]], chat: Chat) -> str:
    """Return a grammar of messages that call a tool or answer, and say nothing else.

    Args:
        tools: Their JSON schemas, as chat templates take them. What has one parameter is called
            by `<name>argument</name>`, what has more by JSON in `<tool_call>`.
        chat: Whose tokens: some models have one for a whole tag.
    """
    rules = {"answer": _tagged("answer", chat)}
    for tool in tools:
        function = tool["function"]
        name, parameters = function["name"], function["parameters"]
        if len(parameters["properties"]) == 1:
            rule = _tagged(name, chat)
        else:
            call = {
                "name": {"const": name},
                "arguments": {**parameters, "additionalProperties": False},
            }
            schema = {
                "type": "object", "properties": call, "required": list(call),
                "additionalProperties": False,
            }  # fmt: skip
            start, end = _literal("<tool_call>", chat), _literal("</tool_call>", chat)
            rule = f"{start} %json {json.dumps(schema)} {end}"
        rules[f"tool_{len(rules)}"] = rule
    return "\n".join([f"start: {' | '.join(rules)}", *(f"{n}: {r}" for n, r in rules.items())])


def _tagged(name: str, chat: Chat) -> str:
    start, end = f"<{name}>", f"</{name}>"
    if _token_of(start, chat) is None and _token_of(end, chat) is None:
        # As one terminal: a text of its own would swallow the bracket that closes it.
        return f"/{start}{_TEXT}<\\/{name}>/"
    return f"{_literal(start, chat)} /{_TEXT}/ {_literal(end, chat)}"


def _literal(tag: str, chat: Chat) -> str:
    token = _token_of(tag, chat)
    return json.dumps(tag) if token is None else f"<[{token}]>"


def _token_of(tag: str, chat: Chat) -> int | None:
    found: int | None = chat.tokenizer.get_added_vocab().get(tag)
    return found


def held_by(grammar: "Grammar | None", choose: Choose) -> tuple[Choose, Rest]:
    """Return what `Grammar.holding` does; without a grammar, the choice as it is."""
    return grammar.holding(choose) if grammar else (choose, unknown)


class Grammar:
    """A grammar for the tokens of one model.

    Args:
        text: In llguidance's Lark.
        chat: Whose tokens.
        vocabulary: How many logits the model has.

    Raises:
        UserError: the text or the tokenizer cannot be read.
    """

    def __init__(self, text: str, chat: Chat, vocabulary: int) -> None:
        try:
            tokens = from_tokenizer(chat.tokenizer, vocabulary, chat.end)
        except ValueError as error:
            raise UserError(f"no grammar fits the tokenizer of {chat.name!r}: {error}") from None
        self._first = LLMatcher(tokens, LLMatcher.grammar_from_lark(text))
        if self._first.is_error():
            raise UserError(f"the grammar cannot be read: {self._first.get_error()}")
        self._vocabulary, self._end = vocabulary, chat.end
        # An update asks for the same messages in each of its epochs.
        self._bits_of = lru_cache(maxsize=1024)(self._bits_along)

    def holding(self, choose: Choose) -> tuple[Choose, Rest]:
        """Return a choice of tokens that leaves a choice no others than the grammar does.

        And what says of which rows it leaves no choice up to their ends.
        """
        states: dict[int, Any] = {}

        def chosen(logits_AV: Tensor, rows: list[int]) -> Tensor:
            here = [states.setdefault(row, self._first.deep_copy()) for row in rows]
            bits = [np.frombuffer(state.compute_bitmask(), np.uint8) for state in here]
            tokens_A = choose(held(logits_AV, unpacked(np.stack(bits), self._vocabulary)), rows)
            for state, token in zip(here, tokens_A.tolist(), strict=True):
                state.consume_token(token)
            return tokens_A

        return chosen, lambda row: self._ending(states[row])

    def _ending(self, state: Any) -> list[int]:
        """Return the tokens that a message can but end with; none where there is a choice."""
        tokens: list[int] = []
        state = state.deep_copy()
        for _ in range(_LONGEST_ENDING):
            allowed = int.from_bytes(state.compute_bitmask(), "little")
            if allowed.bit_count() != 1:
                break
            tokens.append(allowed.bit_length() - 1)
            if tokens[-1] == self._end:
                return tokens
            state.consume_token(tokens[-1])
        return []

    def allowed(self, said: Sequence[Sequence[int]]) -> Allowed:
        """Return what could have stood where each token of messages stands.

        Where a message has left the grammar, which one that was written by it never does,
        nothing but what stands there is allowed.
        """
        bits = np.concatenate([self._bits_of(tuple(tokens)) for tokens in said])
        return Allowed.of(bits, self._vocabulary)

    def decided(self, tokens: Sequence[int]) -> int:
        """Return after how many tokens of a message nothing was left to choose, at least one."""
        counts = np.bitwise_count(self._bits_of(tuple(tokens))).sum(1, dtype=np.int64)
        chosen = np.flatnonzero(counts > 1)
        return int(chosen[-1]) + 1 if len(chosen) else 1

    def _bits_along(self, tokens: tuple[int, ...]) -> NDArray[np.uint8]:
        state, inside = self._first.deep_copy(), True
        rows: list[NDArray[np.uint8]] = []
        for token in tokens:
            bits = np.frombuffer(state.compute_bitmask() if inside else b"", np.uint8)
            bits = bits.copy() if inside else np.zeros_like(rows[-1])
            bit = 1 << token % 8
            inside = inside and bool(bits[token // 8] & bit)
            bits[token // 8] |= bit
            rows.append(bits)
            if inside:
                state.consume_token(token)
        return np.stack(rows)
