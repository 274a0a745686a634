"""A causal language model that continues dialogues, batched, from a shared few-shot prefix."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
)

from .. import assets
from ..errors import UserError
from . import PACKAGED_MODEL
from .loading import quietly

Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    text: str
    """Without special tokens."""
    tokens: int
    """Tokens that were generated, the end of turn included."""


class CausalLM:
    """A transformers chat model with its tokenizer.

    Args:
        name: `SmolLM2-135M-Instruct`, a local folder, or a name on a hub.
        device: A torch device, or `auto` for a GPU if there is one.
        dtype: Name of a torch dtype; float32 is what repeats on any CPU.

    Raises:
        UserError: there is no such model here, or it has no chat template.
    """

    def __init__(
        self, name: str = PACKAGED_MODEL, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self.name = name
        source = _source(name)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
            with quietly():
                model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
        except (OSError, ValueError, AttributeError, TypeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"cannot load the language model {name!r}: {reason}; give {PACKAGED_MODEL!r}, or a "
                "folder that transformers can load"
            ) from None
        if not self._tokenizer.chat_template:
            raise UserError(f"{name!r} has no chat template: give an instruction-tuned model")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = model.to(device).eval()
        self._device = torch.device(device)
        self._prefixes: dict[str, tuple[list[int], list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def reply(
        self,
        dialogues: Sequence[Sequence[Message]],
        prefix: Sequence[Message] = (),
        *,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        rngs: Sequence[np.random.Generator] = (),
        tools: Sequence[dict[str, Any]] = (),
    ) -> list[Reply]:
        """Continue B dialogues by one message of the assistant each.

        Args:
            dialogues: Messages that follow the prefix.
            prefix: Messages that all dialogues share; its keys and values are computed once.
            max_new_tokens: Tokens after which a reply is cut.
            temperature: 0 takes the likeliest token, above that tokens are sampled.
            rngs: A generator a dialogue, so that a sample depends on its dialogue alone and
                not on its neighbours in the batch; needed above temperature 0.
            tools: JSON schemas, for chat templates that present them.
        """
        head = self._render(prefix, tools, prompt=False) if prefix else ""
        head_ids, keys_and_values = self._prefix(head)
        tails = []
        for dialogue in dialogues:
            whole = self._render([*prefix, *dialogue], tools, prompt=True)
            if not whole.startswith(head):
                raise UserError(f"the chat template of {self.name!r} rewrites earlier messages")
            tails.append(
                self._tokenize(whole[len(head) :])[-self._room(head_ids, max_new_tokens) :]
            )
        input_ids, attention = self._padded(head_ids, tails)
        generated = self._model.generate(
            input_ids=input_ids,
            attention_mask=attention,
            past_key_values=self._cache(keys_and_values, len(tails)),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self._tokenizer.eos_token_id,
            logits_processor=_sampler(temperature, rngs),
        )
        return [self._read(row) for row in generated[:, input_ids.shape[1] :].tolist()]

    def _read(self, ids: list[int]) -> Reply:
        end = self._tokenizer.eos_token_id
        count = ids.index(end) + 1 if end in ids else len(ids)
        text: str = self._tokenizer.decode(ids[:count], skip_special_tokens=True)
        return Reply(text.strip(), count)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], prompt: bool
    ) -> str:
        # The content of an assistant's message is what the model wrote, its calls included:
        # a template that writes tool_calls again would show each of them twice.
        plain = [{k: v for k, v in m.items() if k != "tool_calls"} for m in messages]
        rendered: str = self._tokenizer.apply_chat_template(
            plain, tools=list(tools) or None, tokenize=False, add_generation_prompt=prompt
        )
        return rendered

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _room(self, head: list[int], max_new_tokens: int) -> int:
        """Return how many tokens of a dialogue fit between the prefix and the reply."""
        room = self._model.config.max_position_embeddings - len(head) - max_new_tokens
        if room < 16:
            raise UserError("the examples leave no room in the context: give fewer shots")
        return int(room)

    def _padded(self, head: list[int], tails: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and attention mask, shape (B, T): prefix, padding, dialogue."""
        width = max(len(tail) for tail in tails)
        pad = self._tokenizer.pad_token_id
        ids = [[*head, *[pad] * (width - len(tail)), *tail] for tail in tails]
        mask = [[1] * len(head) + [0] * (width - len(t)) + [1] * len(t) for t in tails]
        return (
            torch.tensor(ids, device=self._device),
            torch.tensor(mask, device=self._device),
        )

    def _prefix(self, text: str) -> tuple[list[int], list[tuple[torch.Tensor, torch.Tensor]]]:
        """Return the ids of the prefix and its keys and values, layer by layer."""
        if not text:
            return [], []
        if text not in self._prefixes:
            ids = self._tokenize(text)
            self._room(ids, 1)  # too long a prefix is told before it is computed
            cache = DynamicCache(config=self._model.config)
            self._model(input_ids=torch.tensor([ids], device=self._device), past_key_values=cache)
            layers: Any = cache.layers
            self._prefixes = {text: (ids, [(layer.keys, layer.values) for layer in layers])}
        return self._prefixes[text]

    def _cache(
        self, keys_and_values: list[tuple[torch.Tensor, torch.Tensor]], rows: int
    ) -> DynamicCache:
        """Return a cache that holds the prefix once a row; the stored one stays as it is."""
        cache = DynamicCache(config=self._model.config)
        for layer, (keys, values) in enumerate(keys_and_values):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache


class _GumbelMax(LogitsProcessor):
    """Add Gumbel noise to the logits: the largest is then a sample of their softmax.

    Source: Maddison, Tarlow and Minka, "A* Sampling" (2014), section 2.
    """

    def __init__(self, temperature: float, rngs: Sequence[np.random.Generator]) -> None:
        self._temperature = temperature
        # A batch runs until its longest reply ends; what a row draws after its own end must
        # not move the generator that its next reply is drawn with.
        self._rngs = [np.random.default_rng(rng.integers(2**63)) for rng in rngs]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = np.stack([rng.gumbel(size=scores.shape[1]) for rng in self._rngs])
        return scores / self._temperature + torch.as_tensor(
            noise, dtype=scores.dtype, device=scores.device
        )


def _sampler(temperature: float, rngs: Sequence[np.random.Generator]) -> LogitsProcessorList:
    return LogitsProcessorList([_GumbelMax(temperature, rngs)] if temperature > 0 else [])


def _source(name: str) -> str:
    if name.lower() == PACKAGED_MODEL.lower():
        return str(assets.smollm2_directory())
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
