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
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from .. import assets
from ..errors import UserError
from . import PACKAGED_MODEL, decoding
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
        fits = decoding.fits(self._model)
        self._decoder = decoding.Decoder(self._model) if fits else None
        self._device = torch.device(device)
        self._heads: dict[str, list[int]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()

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
            prefix: Messages that all dialogues share; read once, where the model's architecture
                is one that `decoding` fits.
            max_new_tokens: Tokens after which a reply is cut.
            temperature: 0 takes the likeliest token, above that tokens are sampled.
            rngs: A generator a dialogue, so that a sample depends on its dialogue alone and
                not on its neighbours in the batch; needed above temperature 0.
            tools: JSON schemas, for chat templates that present them.
        """
        head = self._render(prefix, tools, prompt=False) if prefix else ""
        head_ids = self._head(head)
        tails = []
        for dialogue in dialogues:
            whole = self._render([*prefix, *dialogue], tools, prompt=True)
            if not whole.startswith(head):
                raise UserError(f"the chat template of {self.name!r} rewrites earlier messages")
            tails.append(
                self._tokenize(whole[len(head) :])[-self._room(head_ids, max_new_tokens) :]
            )
        choose = _Sampler(temperature, rngs) if temperature > 0 else _likeliest
        end = self._tokenizer.eos_token_id
        if self._decoder:
            said = self._decoder.decode(head_ids, tails, choose, end, max_new_tokens)
        else:
            said = self._generate([head_ids + tail for tail in tails], choose, max_new_tokens)
        return [self._read(row) for row in said]

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], choose: decoding.Choose, max_new_tokens: int
    ) -> list[list[int]]:
        """Continue prompts by transformers' own generation, which any architecture has."""
        width, pad = max(map(len, prompts)), self._tokenizer.pad_token_id
        padding = [width - len(ids) for ids in prompts]
        ids_BT = [[pad] * n + ids for n, ids in zip(padding, prompts, strict=True)]
        mask_BT = [[0] * n + [1] * (width - n) for n in padding]
        generated = self._model.generate(
            input_ids=torch.tensor(ids_BT, device=self._device),
            attention_mask=torch.tensor(mask_BT, device=self._device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=self._tokenizer.eos_token_id,
            logits_processor=LogitsProcessorList([_Chosen(choose)]),
        )
        said: list[list[int]] = generated[:, width:].tolist()
        return said

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

    def _head(self, text: str) -> list[int]:
        """Return the ids of the prefix."""
        if text not in self._heads:
            ids = self._tokenize(text)
            self._room(ids, 1)  # too long a prefix is told before it is read
            self._heads = {text: ids}
        return self._heads[text]


def _likeliest(logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return logits_AV.argmax(1)


class _Sampler:
    """Sample tokens from the softmax of the logits, each row by a generator of its own.

    Args:
        temperature: What logits are divided by.
        rngs: A generator a row. One number is drawn from each, whatever the length of the
            replies: the next reply of a dialogue does not depend on its neighbours in a batch.
    """

    def __init__(self, temperature: float, rngs: Sequence[np.random.Generator]) -> None:
        self._temperature = temperature
        self._rngs = [np.random.default_rng(rng.integers(2**63)) for rng in rngs]

    def __call__(self, logits_AV: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Return tokens, shape (A,), for the rows of these numbers."""
        sums_AV = torch.softmax(logits_AV.double() / self._temperature, 1).cumsum(1)
        draws_A1 = sums_AV.new_tensor([[self._rngs[row].random()] for row in rows])
        # The first whose sum is above the draw: what has no probability is never taken.
        found_A1 = torch.searchsorted(sums_AV, draws_A1 * sums_AV[:, -1:], right=True)
        return found_A1[:, 0].clamp(max=sums_AV.shape[1] - 1)


class _Chosen(LogitsProcessor):
    """Leave transformers' greedy generation nothing but the tokens that were chosen."""

    def __init__(self, choose: decoding.Choose) -> None:
        self._choose = choose

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = self._choose(scores, list(range(len(scores))))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def _source(name: str) -> str:
    if name.lower() == PACKAGED_MODEL.lower():
        return str(assets.smollm2_directory())
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
