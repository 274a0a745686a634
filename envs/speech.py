"""What may be said: by an agent, who gets no power to say more, and by the world."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from .parsing import PLAIN, Answer, Malformed, ToolCall, parse, parse_tag
from .tools import Tool

MAX_ACTION_LENGTH = 4096
"""Characters of an agent's message; a longer one is a format failure."""

MAX_OBSERVATION_LENGTH = 2048
"""Characters of a message from the world; a longer one is cut."""

# Letters that names of countries and cities are written with, and common punctuation.
_RANGES = ((10, 10), (0x20, 0x7E), (0xA0, 0x24F), (0x2B0, 0x36F), (0x1E00, 0x1EFF))
_SIGNS = "–—‘’“”„…−×÷‹›⟦⟧"
CHARSET = frozenset(chr(c) for first, last in _RANGES for c in range(first, last + 1)) | frozenset(
    _SIGNS
)
_UNSAYABLE = re.compile("[^" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _RANGES) + _SIGNS + "]")

_REMEMBERED, _SHORT = 1024, 512
"""Messages that are remembered, and the most characters of one."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_SUSPECT = re.compile(r"[<\[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_OWN_TAGS = r"tool_call|answer|think"
_ANGLE_MARKER = re.compile(r"<(/?[|｜]?[A-Za-z_/][\w|｜▁:.-]{0,60}?[|｜]?/?)>")
_SQUARE_MARKER = re.compile(r"\[(/?[A-Z][A-Z_]{1,40})\]")


Heard = tuple[str, tuple[str, str] | ToolCall | Malformed, dict[str, Any]]
"""A message, understood: as it may stand in a dialogue; what it asks for, which for an answer is
what `parsed_action` tells, "answer" and its text; and the arguments of a call as they may stand in
a dialogue. Many are made in every second, and a tuple is made soonest."""

_NO_ARGUMENTS: dict[str, Any] = {}


class Speech:
    """What messages mean where certain tools are at hand.

    Meanings are remembered, because few agents say something new at every step, and shared by
    all environments with the same tools.
    """

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self.tools = dict(tools)
        self.heard: dict[str, Heard] = {}
        """Messages of agents that have been understood."""
        self.told: dict[str, str] = {}
        """Messages of the world, as it may say them."""

    def hear(self, message: str) -> Heard:
        """Return what a message means, however hostile it is."""
        heard: Heard | None = None
        if len(message) <= MAX_ACTION_LENGTH and (plain := PLAIN.fullmatch(message)):
            name, text = plain.groups()
            if tool := self.tools.get(name):
                parsed = parse_tag(tool, text.strip())
                heard = message, parsed, _arguments_of(parsed)
            elif name == "answer":
                heard = message, (name, text.strip()), _NO_ARGUMENTS
        heard = heard or self._understood(message)
        _remember(self.heard, message, heard)
        return heard

    def tell(self, message: str) -> str:
        """Return what the world may say of this: a tool may repeat what an agent gave it."""
        told = sayable(harmless(message, self.tools))
        _remember(self.told, message, told)
        return told

    def _understood(self, message: str) -> Heard:
        if len(message) > MAX_ACTION_LENGTH:
            reason = f"a message has at most {MAX_ACTION_LENGTH} characters"
            return harmless(message[:MAX_ACTION_LENGTH], self.tools), Malformed(reason), {}
        parsed, said = parse(message, self.tools), harmless(message, self.tools)
        if isinstance(parsed, Answer):
            return said, ("answer", parsed.text), _NO_ARGUMENTS
        return said, parsed, _harmless_inside(_arguments_of(parsed), self.tools)


def _arguments_of(parsed: ToolCall | Malformed) -> dict[str, Any]:
    return parsed.arguments if isinstance(parsed, ToolCall) else _NO_ARGUMENTS


T = TypeVar("T")


def _remember(memory: dict[str, T], message: str, meaning: T) -> None:
    if len(message) <= _SHORT:
        if len(memory) >= _REMEMBERED:
            memory.clear()
        memory[message] = meaning


_SPEECHES: WeakValueDictionary[tuple[tuple[str, int], ...], Speech] = WeakValueDictionary()


def speech_with(tools: Mapping[str, Tool]) -> Speech:
    """Return the speech of whoever has these tools."""
    # A speech holds its tools, so as long as it is there nothing else has their identities.
    key = tuple((name, id(tool)) for name, tool in tools.items())
    speech = _SPEECHES.get(key)
    if speech is None:
        speech = _SPEECHES[key] = Speech(tools)
    return speech


def sayable(text: str) -> str:
    """Bring a message of the world into the observation space."""
    text = text[:MAX_OBSERVATION_LENGTH]
    # A test that is many times faster than a search, and true of nearly all.
    return text if text.isascii() and text.isprintable() else _UNSAYABLE.sub("?", text)


def harmless(text: str, keep: Mapping[str, Tool] | None = None) -> str:
    """Turn what a chat template or tokenizer could take for a marker into plain text.

    An agent that writes `<|im_start|>tool` would otherwise speak for the world as soon as the
    dialogue is rendered. Brackets of such markers become look-alikes; the tags of calls and
    answers stay, and so do control characters' places, as spaces.
    """
    if not _SUSPECT.search(text):
        return text
    names = "|".join((_OWN_TAGS, *(re.escape(name) for name in keep or ())))
    own = re.compile(rf"/?(?:{names})", re.IGNORECASE)

    def disarm(found: re.Match[str]) -> str:
        return found[0] if own.fullmatch(found[1]) else f"‹{found[1]}›"

    text = _CONTROL.sub(" ", text)
    return _SQUARE_MARKER.sub(r"⟦\1⟧", _ANGLE_MARKER.sub(disarm, text))


def _harmless_inside(value: Any, keep: Mapping[str, Tool]) -> Any:
    """Return a copy of a JSON value in which every text is harmless."""
    match value:
        case str():
            return harmless(value, keep)
        case list():
            return [_harmless_inside(item, keep) for item in value]
        case dict():
            return {harmless(k, keep): _harmless_inside(v, keep) for k, v in value.items()}
        case _:
            return value
