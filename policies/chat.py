"""Dialogues as tokens: what a model's tokenizer and chat template make of messages."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoTokenizer

from .. import assets
from ..errors import UserError
from . import PACKAGED_MODEL, is_gguf
from .crossing import Message

LOAD_ERRORS = (
    OSError, ValueError, AttributeError, TypeError, RuntimeError, ImportError, SafetensorError
)  # fmt: skip
"""What transformers raises where there is no such model."""


class Chat:
    """A chat model's tokenizer.

    Args:
        name: `SmolLM2-135M-Instruct`, a local folder, a GGUF file, or a name on a hub.

    Raises:
        UserError: there is no such model here, or it has no chat template.
    """

    def __init__(self, name: str = PACKAGED_MODEL) -> None:
        self.name = name
        source, options = source_of(name)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
        except LOAD_ERRORS as error:
            raise cannot_load(name, error) from None
        self._begin()

    @classmethod
    def of(cls, tokenizer: Any) -> "Chat":
        """Return the chat of a tokenizer that somebody has loaded.

        Raises:
            UserError: it has no chat template.
        """
        chat = cls.__new__(cls)
        chat.name, chat.tokenizer = str(tokenizer.name_or_path), tokenizer
        chat._begin()
        return chat

    def _begin(self) -> None:
        if not self.tokenizer.chat_template:
            raise UserError(f"{self.name!r} has no chat template: give an instruction-tuned model")
        self.end = self._end_of_turn()
        """The token that ends a turn."""
        self._heads: dict[str, list[int]] = {}

    def _end_of_turn(self) -> int:
        """Return what the template writes behind an assistant's message, or what ends all texts.

        Not all models end their turns with what ends a text.
        """
        special = {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        special.update(self.tokenizer.all_special_ids)
        dialogue: list[Message] = [
            {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
        ]  # fmt: skip
        try:
            whole = self.render(dialogue, prompt=False)
        except UserError:  # a template of its own kind, which may take what it is then given
            whole = ""
        _, found, behind = whole.rpartition(_SAID)
        ends = [token for token in self.tokenize(behind) if token in special] if found else []
        end: int | None = ends[0] if ends else self.tokenizer.eos_token_id
        if end is None:
            raise UserError(
                f"{self.name!r} has no token that ends a message: neither does its chat template "
                "write a special one, nor has its tokenizer an eos_token"
            )
        return end

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the template and of the tokens, which decide what a model is shown."""
        said = [self.tokenizer.chat_template, sorted(self.tokenizer.get_vocab().items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def prompts(
        self,
        dialogues: Sequence[Sequence[Message]],
        prefix: Sequence[Message],
        room: int,
        tools: Sequence[dict[str, Any]] = (),
    ) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of the prefix, and those of each dialogue that follow them.

        Args:
            dialogues: Messages that follow the prefix.
            prefix: Messages that all dialogues share.
            room: Most tokens of both; of a dialogue that is too long the end is kept.
            tools: JSON schemas, for chat templates that present them.

        Raises:
            UserError: the prefix leaves no room, or the template rewrites earlier messages.
        """
        head = self.render(prefix, tools, prompt=False) if prefix else ""
        head_ids = self._head(head)
        if (left := room - len(head_ids)) < _LEAST:
            raise UserError("the examples leave no room in the context: give fewer shots")
        tails = []
        for dialogue in dialogues:
            whole = self.render([*prefix, *dialogue], tools)
            tails.append(self.tokenize(self._behind(head, whole))[-left:])
        return head_ids, tails

    def text(self, ids: Sequence[int]) -> str:
        """Return what tokens say, without special ones."""
        said: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return said.strip()

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.tokenize_all([text])[0]

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, which many together take less time for."""
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def reply_to(self, dialogue: Sequence[Message], ended: bool) -> list[int]:
        """Return the tokens that stand between the assistant's last message and its next.

        Args:
            dialogue: It goes on behind a message of the assistant.
            ended: Whether that message was ended by `end`.

        Raises:
            UserError: the template rewrites earlier messages.
        """
        said = max(i for i, message in enumerate(dialogue) if message["role"] == "assistant") + 1
        before, whole = self.render(dialogue[:said], prompt=False), self.render(dialogue)
        follows = self._behind(before, whole)
        end: str = self.tokenizer.decode([self.end])
        _, found, behind = before.rpartition(end)
        reply = self.tokenize((behind if found else "") + follows)
        return reply if ended else [self.end, *reply]

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        prompt: bool = True,
    ) -> str:
        """Return messages as the chat template writes them, and the beginning of a reply."""
        # The content of an assistant's message is what the model wrote, its calls included:
        # a template that writes tool_calls again would show each of them twice.
        plain = [{k: v for k, v in m.items() if k != "tool_calls"} for m in messages]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                plain, tools=list(tools) or None, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError as error:
            roles = ", ".join(dict.fromkeys(m["role"] for m in messages))
            raise UserError(
                f"the chat template of {self.name!r} does not take messages of {roles}: {error}; "
                "give a model whose template takes system, user, assistant and tool"
            ) from None
        return rendered

    def _behind(self, head: str, whole: str) -> str:
        if not whole.startswith(head):
            raise UserError(f"the chat template of {self.name!r} rewrites earlier messages")
        return whole[len(head) :]

    def _head(self, text: str) -> list[int]:
        """Return the ids of the prefix."""
        if text not in self._heads:
            self._heads = {text: self.tokenize(text)}
        return self._heads[text]


_ASKED, _SAID = "ask", "said"
_LEAST = 16
"""Tokens of a dialogue without which nobody can answer it."""


def source_of(name: str) -> tuple[str, dict[str, str]]:
    """Return where transformers finds a model, and what it must be told beside that."""
    if name.lower() == PACKAGED_MODEL.lower():
        return str(assets.smollm2_directory()), {}
    path = Path(name).expanduser()
    if is_gguf(path):
        return str(path.parent), {"gguf_file": path.name}
    return (str(path) if path.is_dir() else name), {}


def cannot_load(name: str, error: Exception) -> UserError:
    """Return what to tell somebody whose model is not to be had."""
    reason = str(error).partition("\n")[0]
    return UserError(
        f"cannot load the language model {name!r}: {reason}; give {PACKAGED_MODEL!r}, or a "
        "folder that transformers can load"
    )
