"""A language model as an agent, shown a few solved tasks first."""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import UserError
from ..policies import PACKAGED_MODEL
from ..policies.causal_lm import CausalLM
from ..policies.grammar import Grammar, named
from .agent import Actions, Agent, Seat, digest


class LanguageModel(Agent):
    """Let a chat model write the next message.

    Args:
        seat: Where it plays.
        model: A name or folder that `CausalLM` takes.
        shots: Solved training tasks in its prompt, one of each kind before a second of any.
        temperature: 0 is greedy.
        max_new_tokens: Tokens after which a message is cut.
        grammar: What messages are held to: `calls`, for calls of the tools and answers, or a
            text in llguidance's Lark. Empty for nothing.
        dtype: Name of a torch dtype.
        device: A torch device, or `auto`.

    Raises:
        UserError: there is no such model, or an option is out of range.
    """

    view = "text"

    def __init__(
        self,
        seat: Seat,
        model: str = PACKAGED_MODEL,
        shots: int = 9,
        temperature: float = 0.0,
        max_new_tokens: int = 48,
        grammar: str = "",
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        if shots < 0 or not 0 <= temperature < math.inf or max_new_tokens < 1:
            raise UserError(
                f"shots={shots} and temperature={temperature} must be finite and at least 0, and "
                f"max_new_tokens={max_new_tokens} at least 1"
            )
        super().__init__(
            seat,
            model=model,
            shots=shots,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            grammar=grammar,
            dtype=dtype,
        )
        self._lm = CausalLM(model, device, dtype)
        self._prefix = seat.prefix(shots)
        self._held = lru_cache(self._held_to)
        self._held("[]")  # tells now what cannot be read

    @property
    def name(self) -> str:
        """The model and how it is asked, such as `SmolLM2-135M-Instruct (9 shots, T=1)`."""
        model = self.options["model"].rstrip("/").rpartition("/")[2]
        hot = f", T={self.options['temperature']:g}" if self.options["temperature"] else ""
        held = ", grammar" if self.options["grammar"] else ""
        return f"{model} ({self.options['shots']} shots{hot}{held})"

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Continue the dialogue of each episode by one message."""
        tools = infos[0]["tools"]
        # The prefix opens with the system's message, which is the same in every episode.
        skip = 1 if self._prefix else 0
        replies = self._lm.reply(
            [info["messages"][skip:] for info in infos],
            self._prefix,
            max_new_tokens=self.options["max_new_tokens"],
            temperature=self.options["temperature"],
            rngs=rngs,
            # Who has seen examples knows the form; who has not is told in its own way.
            tools=() if self._prefix else tools,
            grammar=self._held(json.dumps(tools)),
        )
        return Actions([r.text for r in replies], [r.tokens for r in replies])

    def _held_to(self, tools: str) -> Grammar | None:
        text = named(self.options["grammar"], json.loads(tools), self._lm.chat)
        return self._lm.grammar(text) if text else None

    def fingerprint(self) -> str:
        """Return a hash of the weights, the tokens, the prompt and the options."""
        model = [self._lm.fingerprint, self._lm.chat.fingerprint]
        return digest({**self.options, "model": model, "prefix": self._prefix})
