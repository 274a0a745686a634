"""A language model of a few hundred thousand weights, made from scratch for one world.

It reads and writes nothing but the world's own phrases, and so learns in minutes on a laptop
what a large model learns in hours on a GPU: a whole recipe can be tried in the time of a coffee.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .crossing import Message
from .quiet import quietly

END = "<|end|>"
"""Ends a message."""
_ROLES = ("<|user|>", "<|assistant|>", "<|tool|>")
_TAG = re.compile(r"</?[a-z_]+>")
_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Without the system's message: it says the same in every dialogue."""


def make_tiny(
    folder: Path,
    dialogues: Iterable[Sequence[Message]],
    seed: int,
    width: int = 64,
    layers: int = 3,
    vocabulary: int = 512,
) -> None:
    """Write an untrained model and its tokenizer into a folder, as transformers has them.

    Args:
        folder: Where; made if it is not there.
        dialogues: What the tokenizer learns its pieces from.
        seed: Of the weights.
        width: Of the layers.
        layers: How many.
        vocabulary: Most tokens.
    """
    texts = [m["content"] for messages in dialogues for m in messages if m["role"] != "system"]
    tokenizer = _tokenizer(texts, vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 16,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    with quietly():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    # Digit by digit, so that numbers which were never seen are made of what was.
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    tags = sorted({tag for text in texts for tag in _TAG.findall(text)})
    raw.add_special_tokens([END, *_ROLES])
    raw.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(tags),
        special_tokens=[END, *_ROLES],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator((_TAG.sub(" ", text) for text in texts), trainer)
    raw.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, eos_token=END, pad_token=END, chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
