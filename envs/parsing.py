"""One parser for every common way in which a language model calls a tool or answers.

A message is hostile input: nothing here raises on any string, and what a pattern
costs is bounded by the length of the message, which the environment bounds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tools import BadArguments, Tool


@dataclass(frozen=True)
class ToolCall:
    """A call whose arguments fit the tool."""

    tool: Tool
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A final answer."""

    text: str


@dataclass(frozen=True)
class Malformed:
    """A message that is neither; `reason` tells the agent what was wrong."""

    reason: str


Parsed = ToolCall | Answer | Malformed

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<([a-z_][\w.-]{0,60})>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```([a-z_][\w.-]{0,60})[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
# No control characters, no further brackets, no fence: nothing else of it could mean anything.
_PROSE = r"[\t\n -;=-Z\\-_a-~]*+"
PLAIN = re.compile(rf"{_PROSE}<([a-z_]\w{{0,40}}+)>([ -;=-Z\\-~]*+)</\1>{_PROSE}", re.ASCII)
"""Plain prose around one tag: a message that it matches whole means what the tag means, and
nothing else in it could be taken for a marker. It is found out many times faster than `parse`
reads a message."""
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


def parse(message: str, tools: Mapping[str, Tool]) -> Parsed:
    r"""Read the first tool call of a message, else its last answer.

    A call comes as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as
    `<name>argument</name>` for a tool with one parameter, or as a fenced block whose language
    is the tool's name. An answer comes as `<answer>...</answer>` or `\boxed{...}`. A call goes
    before an answer: an answer beside it was written without the result. What stands in
    `<think>...</think>` is neither.
    """
    message = _THOUGHT.sub("", message)
    calls = (m for pattern in (_CALL, _TAGGED, _FENCED) for m in pattern.finditer(message))
    for found in sorted(calls, key=lambda m: m.start()):
        if found.re is _CALL:
            return _from_json(found[1], tools)
        if tool := tools.get(found[1]) or tools.get(found[1].lower()):
            return parse_tag(tool, found[2].strip())
    if answers := _ANSWER.findall(message):
        return Answer(answers[-1].strip())
    if (boxed := _last_boxed(message)) is not None:
        return Answer(boxed.strip())
    return Malformed("no tool call and no answer was found")


def parse_tag(tool: Tool, text: str) -> ToolCall | Malformed:
    """Read a call that comes as a tag with the tool's name."""
    if len(tool.parameters) != 1:
        return Malformed(f"{tool.name} takes {', '.join(tool.parameters)}: call it with JSON")
    (name, kind), *_ = tool.parameters.items()
    try:
        value = text if kind is str else json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = text
    return _checked(tool, {name: value})


def _from_json(text: str, tools: Mapping[str, Tool]) -> ToolCall | Malformed:
    try:
        call = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return Malformed("the tool call is not valid JSON")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return Malformed('a tool call needs a "name"')
    arguments = call.get("arguments", {})
    if call["name"] not in tools:
        return Malformed(f"the tools are: {', '.join(tools) or 'none'}")
    if not isinstance(arguments, dict):
        return Malformed('"arguments" must be an object')
    return _checked(tools[call["name"]], arguments)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _checked(tool: Tool, arguments: dict[str, Any]) -> ToolCall | Malformed:
    try:
        tool.check(arguments)
    except BadArguments as error:
        return Malformed(str(error))
    return ToolCall(tool, arguments)


def _last_boxed(message: str) -> str | None:
    r"""Return what the last `\boxed{...}` holds, braces inside it balanced."""
    start = message.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(message)):
        depth += {"{": 1, "}": -1}.get(message[end], 0)
        if depth == 0:
            return message[start + len("\\boxed{") : end]
    return None
