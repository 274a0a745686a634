"""A causal language model that continues dialogues, batched, from a shared few-shot prefix."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from ..assets import forget_quantisation
from ..errors import MORE_MEMORY, UserError, memory_permitting
from . import PACKAGED_MODEL
from .chat import LOAD_ERRORS, Chat, cannot_load, source_of
from .crossing import Message
from .decoding import Choose
from .engines import engine_of
from .grammar import Grammar, held_by
from .packed import pack
from .quiet import quietly
from .token_choice import Sampler, likeliest

_UNLIMITED = 2**31
"""What transformers takes for the length that a tokenizer does not know is more."""


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    text: str
    """Without special tokens."""
    tokens: int
    """Tokens that were generated, the end of turn included."""


def load_model(name: str, dtype: str = "float32") -> Any:
    """Return transformers' model of a name, on the CPU.

    Args:
        name: As `CausalLM` takes it.
        dtype: Name of a torch dtype.

    Raises:
        UserError: there is no such model here, or memory is used up.
    """
    source, options = source_of(name)
    try:
        with quietly(), memory_permitting(MORE_MEMORY):
            model: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=getattr(torch, dtype), **options
            )
    except UserError:
        raise
    except LOAD_ERRORS as error:
        raise cannot_load(name, error) from None
    if "gguf_file" in options:
        forget_quantisation(model)
    return model


class CausalLM:
    """A transformers chat model with its tokenizer.

    Args:
        name: `SmolLM2-135M-Instruct`, a local folder, a GGUF file, or a name on a hub.
        device: A torch device, or `auto` for a GPU if there is one.
        dtype: Name of a torch dtype; float32 is what repeats on any CPU.

    Raises:
        UserError: there is no such model here, it has no chat template, or memory is used up.
    """

    def __init__(
        self, name: str = PACKAGED_MODEL, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self.chat = Chat(name)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(name, dtype)
        with memory_permitting(MORE_MEMORY):
            self.model: Any = model.to(device).eval().requires_grad_(False)
            pack(self.model)
        self.engine = engine_of(self.model)

    @property
    def name(self) -> str:
        """As it was given."""
        return self.chat.name

    @property
    def context(self) -> int:
        """Most tokens that the model can read and write.

        Raises:
            UserError: neither the model nor its tokenizer says.
        """
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is None:  # as where positions are a bias, or a state is carried on
            most = self.chat.tokenizer.model_max_length
        if most > _UNLIMITED:
            raise UserError(f"{self.name!r} does not say how many tokens it can read: set "
                            "model_max_length in its tokenizer_config.json")  # fmt: skip
        return int(most)

    def grammar(self, text: str) -> Grammar:
        """Return a grammar for the tokens of this model.

        Raises:
            UserError: it cannot be read.
        """
        return Grammar(text, self.chat, self.model.get_output_embeddings().weight.shape[0])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
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
        grammar: Grammar | None = None,
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
            grammar: What the replies are held to.
        """
        room = self.context - max_new_tokens
        head_ids, tails = self.chat.prompts(dialogues, prefix, room, tools)
        choose: Choose = Sampler(temperature, rngs) if temperature > 0 else likeliest
        choose, rest = held_by(grammar, choose)
        found = self.engine.decode(
            head_ids, tails, choose, self.chat.end, max_new_tokens, rest=rest
        )
        return [Reply(self.chat.text(c.tokens), len(c.tokens)) for c in found]
