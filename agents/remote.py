"""A model behind an endpoint that speaks OpenAI's chat completions, as an agent."""

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import UserError
from .agent import Actions, Agent, Seat, digest
from .endpoint import Endpoint, Pace, Unanswered
from .exchange import checked_url

_FORM = "write openai:MODEL@URL, such as openai:gpt-x@http://localhost:8000/v1"
_LIMITS = ("max_tokens", "max_completion_tokens")
_SILENCE = "(no message)"
"""Stands for an empty message, which some endpoints refuse."""


class Remote(Agent):
    """Let a model behind an OpenAI-compatible endpoint write the next message.

    The dialogue crosses as plain text, which every endpoint takes: of an assistant's message
    what it wrote, its calls included, and a tool's reply as a message of the user. A call that
    the endpoint has taken out of the text is put back. The key is the environment's
    `OPENAI_API_KEY`. What passes, such as a limit of requests, an overload, a connection that
    breaks or an answer that is none, is tried again; if it does not pass, the agent's machinery
    has failed, not the agent. Where there has never been a connection, the address is wrong.

    Args:
        seat: Where it plays.
        model: What the endpoint calls it.
        url: The endpoint, up to and without `/chat/completions`.
        shots: Solved training tasks in its prompt, one of each kind before a second of any.
        temperature: 0 is greedy; above that, a seed from the episode's generator goes along.
        max_new_tokens: Tokens after which a message is cut.
        limit_field: What the endpoint calls that: `max_tokens` or `max_completion_tokens`.
        timeout: Seconds that a request may take.
        retries: Times that a request is tried again.
        concurrency: Most requests in flight.
        requests_per_minute: Most requests a minute; 0 is no limit.
        price_in: Dollars a million tokens of prompts.
        price_out: Dollars a million tokens of replies.

    Raises:
        UserError: an option is out of range, or the URL is none.
    """

    view = "text"

    def __init__(
        self,
        seat: Seat,
        model: str,
        url: str,
        shots: int = 9,
        temperature: float = 0.0,
        max_new_tokens: int = 512,
        limit_field: str = "max_tokens",
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
        requests_per_minute: float = 0.0,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        numbers = (shots, temperature, requests_per_minute, price_in, price_out)
        if not all(0 <= number < math.inf for number in numbers):
            raise UserError(
                f"shots={shots}, temperature={temperature}, price_in={price_in}, price_out="
                f"{price_out} and requests_per_minute={requests_per_minute} must be finite and at "
                "least 0"
            )
        if max_new_tokens < 1 or concurrency < 1 or limit_field not in _LIMITS:
            raise UserError(
                f"max_new_tokens={max_new_tokens} and concurrency={concurrency} must be at least "
                f"1, and limit_field={limit_field!r} one of {', '.join(_LIMITS)}"
            )
        # Only what decides how it plays: to ask more slowly makes nobody another agent.
        super().__init__(
            seat,
            model=model,
            url=checked_url(url),
            shots=shots,
            temperature=float(temperature),
            max_new_tokens=max_new_tokens,
        )
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        pace = Pace(requests_per_minute)
        self.endpoint = Endpoint(self.options["url"], key, float(timeout), retries, pace)
        self._concurrency, self._limit_field = concurrency, limit_field
        self._prices = price_in, price_out
        self._prefix = seat.prefix(shots)

    @property
    def name(self) -> str:
        """The model, its host, its shots and its temperature: `gpt-x@localhost:8000 (9 shots)`."""
        model = self.options["model"].rstrip("/").rpartition("/")[2]
        hot = f", T={self.options['temperature']:g}" if self.options["temperature"] else ""
        return (
            f"{model}@{urlsplit(self.options['url']).netloc} ({self.options['shots']} shots{hot})"
        )

    def act(
        self,
        observations: Sequence[Any],
        infos: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Actions:
        """Continue the dialogue of each episode by one message.

        Raises:
            UserError: the endpoint refuses a request, or there is none.
        """
        # Numbers are drawn before anything is asked, so who fails or is late moves no other's.
        bodies = [self._body(i["messages"], rng) for i, rng in zip(infos, rngs, strict=True)]
        said = self._ask_all(bodies)
        return Actions(
            [None if reply.failed else reply.text for reply in said],
            [reply.tokens or 0 for reply in said],
            [self._cost(reply) for reply in said] if any(self._prices) else [],
            [reply.failed for reply in said],
        )

    def fingerprint(self) -> str:
        """Return a hash of the model's name, its address, the prompt and the options."""
        return digest({**self.options, "prefix": self._prefix})

    def _body(self, messages: Sequence[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
        # The prefix opens with the system's message, which is the same in every episode.
        dialogue = [*self._prefix, *messages[1 if self._prefix else 0 :]]
        body = {
            "model": self.options["model"],
            "messages": [_plain(message) for message in dialogue],
            "temperature": self.options["temperature"],
            self._limit_field: self.options["max_new_tokens"],
        }
        # Not every endpoint takes a seed, and who is greedy needs none.
        return body | {"seed": int(rng.integers(2**31))} if body["temperature"] else body

    def _ask_all(self, bodies: Sequence[dict[str, Any]]) -> list["Completion"]:
        stop = Event()
        with ThreadPoolExecutor(self._concurrency) as pool:
            asked = [pool.submit(self._ask, body, stop) for body in bodies]
            try:
                # A mistake of the user is told before the others have had their last try.
                for first in wait(asked, return_when=FIRST_EXCEPTION).done:
                    first.result()
            finally:
                stop.set()
            return [answer.result() for answer in asked]

    def _ask(self, body: dict[str, Any], stop: Event) -> "Completion":
        try:
            return self.endpoint.post("/chat/completions", body, read_completion, stop)
        except Unanswered as error:
            return Completion(failed=f"{self.options['url']} gave no answer: {error}")
        except UserError:
            stop.set()  # the others would hear the same
            raise

    def _cost(self, reply: "Completion") -> float | None:
        if reply.prompt_tokens is None or reply.tokens is None:
            return None
        price_in, price_out = self._prices
        return (reply.prompt_tokens * price_in + reply.tokens * price_out) / 1e6


@dataclass(frozen=True)
class Completion:
    """What an endpoint said."""

    text: str = ""
    """The message, empty if the model said nothing."""
    prompt_tokens: int | None = None
    """Tokens that it read, None if that is not told."""
    tokens: int | None = None
    """Tokens that it generated, None if that is not told."""
    failed: str | None = None
    """Why there is none of this."""


def read_completion(body: bytes) -> Completion:
    """Read a chat completion, which may be anything at all.

    Raises:
        ValueError: it is none.
    """
    try:
        answer = json.loads(body)
        text = _text(answer["choices"][0]["message"])
        usage = answer.get("usage") or {}
        read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("the answer is no chat completion") from None
    return Completion(text, read, written)


def parse_address(text: str) -> dict[str, str]:
    """Read `openai:MODEL@URL`; the URL is what follows the last `@`.

    Without any `@` it is the environment's `OPENAI_BASE_URL`, as OpenAI's own client has it.

    Raises:
        UserError: the model or the URL is missing or malformed.
    """
    model, at, url = text.partition(":")[2].rpartition("@")
    if not at:
        model, url = url, os.environ.get("OPENAI_BASE_URL", "")
    if "://" in model:  # of a URL with a user and a password, perhaps: it is not repeated
        raise UserError(f"an agent's URL holds no `@` and follows its model: {_FORM}")
    if not model.strip():
        raise UserError(f"{text!r} names no model: {_FORM}")
    if not at and not url:
        raise UserError(f"{text!r} names no endpoint: {_FORM}, or set OPENAI_BASE_URL")
    return {"model": model, "url": checked_url(url)}


def _plain(message: dict[str, Any]) -> dict[str, str]:
    """Return a message of a dialogue as any endpoint takes it."""
    role = "user" if message["role"] == "tool" else message["role"]
    content: str = message["content"]
    return {"role": role, "content": content if content.strip() else _SILENCE}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):  # parts of text, as some endpoints write it
        content = "".join(part.get("text") or "" for part in content)
    calls = message.get("tool_calls") or []
    return "\n".join([content.strip(), *map(_written, calls[:1])]).strip()


def _written(call: dict[str, Any]) -> str:
    """Write a call that came beside the text as a model writes it into the text."""
    function = call["function"]
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        with suppress(ValueError):  # the environment tells the agent that this is no object
            arguments = json.loads(arguments)
    written = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
    # In JSON `\/` is a slash; so no argument can end the call.
    written = written.replace("</", "<\\/")
    return f"<tool_call>{written}</tool_call>"


def _count(number: Any) -> int | None:
    return number if type(number) is int and 0 <= number < 2**31 else None
