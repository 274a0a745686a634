"""The contract of a text environment: a dialogue in, a message out.

Idea: the newest message from the world is the observation, the agent's raw message is the
action, and `info` holds everything a language model or a trainer wants beside them:

==============  =====================================================================
messages        the dialogue so far, in OpenAI's shape
kind            which kind of task this is, for tables by kind
tools           JSON schemas of the tools, as chat templates take them
choices         admissible messages, in an order that comes from the seed
parsed_action   what was understood: (tool, arguments), ("answer", text) or None
success         True as soon as the task is solved
failure         None, "format", "tool", "timeout" or "infra"
reward_valid    False where the machinery failed, so that no trainer learns from it
==============  =====================================================================
"""

import copy
import re
from abc import abstractmethod
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces

from ..errors import UserError
from .parsing import Answer, Malformed, ToolCall, parse
from .tools import Tool, ToolError

SUCCESS_REWARD, FORMAT_REWARD = 1.0, -0.1
MAX_ACTION_LENGTH = 4096
"""Characters of an agent's message; a longer one is a format failure."""
MAX_OBSERVATION_LENGTH = 2048
"""Characters of a message from the world; a longer one is cut."""

# Letters that names of countries and cities are written with, and common punctuation.
CHARSET = frozenset(
    chr(c)
    for c in (
        10,
        *range(0x20, 0x7F),
        *range(0xA0, 0x250),
        *range(0x2B0, 0x370),
        *range(0x1E00, 0x1F00),
    )
) | frozenset("–—‘’“”„…−×÷‹›⟦⟧")
ParsedAction = tuple[str, dict[str, Any] | str]
"""No dictionary: Gymnasium's vector environments would merge those of their members."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_OWN_TAGS = r"tool_call|answer|think"
_ANGLE_MARKER = re.compile(r"<(/?[|｜]?[A-Za-z_/][\w|｜▁:.-]{0,60}?[|｜]?/?)>")
_SQUARE_MARKER = re.compile(r"\[(/?[A-Z][A-Z_]{1,40})\]")


class TextEnv(gymnasium.Env[str, str]):
    """Base of the environments that are played in words.

    A subclass sets `instructions`, `max_turns`, `max_choices` and `tools`, and writes
    `_new_task`, `_kind`, `_choices`, `_is_right` and `solution`. Everything else, and above all
    what happens to a hostile message, is decided here.

    Args:
        split: Which tasks are drawn: one of `splits`, which share none.

    Raises:
        UserError: the split does not exist.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    instructions: ClassVar[str]
    """What the agent is told before the task: the tools and the form of an answer."""
    max_turns: ClassVar[int] = 4
    """Messages that the agent may send; a rule of the task, so reaching it terminates."""
    max_choices: ClassVar[int]
    """Most choices that `info["choices"]` ever holds."""

    def __init__(self, split: str = "train", render_mode: str | None = None) -> None:
        if split not in self.splits:
            raise UserError(f"unknown split {split!r}; the splits are: {', '.join(self.splits)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"unknown render mode {render_mode!r}; text environments have 'ansi'")
        self.split = split
        self.render_mode = render_mode
        self.observation_space, self.action_space = text_spaces()
        self._messages: list[dict[str, Any]] = []
        self._turns = 0
        self._results = 0
        self._over = True

    @property
    @abstractmethod
    def tools(self) -> dict[str, Tool]:
        """The tools by name."""

    @abstractmethod
    def _new_task(self) -> str:
        """Draw a task from `self.np_random` and return the question."""

    @property
    @abstractmethod
    def _kind(self) -> str:
        """The kind of the task at hand."""

    @abstractmethod
    def _choices(self) -> list[str]:
        """Return the admissible messages at this point."""

    @abstractmethod
    def _is_right(self, answer: str) -> bool:
        """Tell whether the answer solves the task."""

    @abstractmethod
    def solution(self) -> str:
        """Return the next message of a dialogue that solves the task."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a task and return its question."""
        super().reset(seed=seed)
        question = _sayable(self._new_task())
        system = f"{self.instructions} You may send {self.max_turns} messages."
        self._messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
        ]
        self._turns = self._results = 0
        self._over = False
        return question, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the agent's message and return what the world says to it.

        Any string is taken. A malformed one costs 0.1 and a turn, and the world says what it
        expected; a failed tool costs a turn.

        Raises:
            TypeError: the action is not a string.
            gymnasium.error.ResetNeeded: the episode is over, or never began.
        """
        if not isinstance(action, str):
            raise TypeError(f"the action is a message of type str, not {type(action).__name__}")
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset()")
        self._turns += 1
        parsed = (
            parse(action, self.tools)
            if len(action) <= MAX_ACTION_LENGTH
            else Malformed(f"a message has at most {MAX_ACTION_LENGTH} characters")
        )
        self._messages.append(self._assistant(action, parsed))
        match parsed:
            case Answer(text):
                return self._answered(text)
            case ToolCall(tool, arguments):
                return self._called(tool, arguments)
            case Malformed(reason):
                expected = f"Not understood: {reason}. {self.instructions}"
                return self._said("user", expected, FORMAT_REWARD, "format", None)

    def render(self) -> str | None:
        """Return the dialogue so far, a message a paragraph."""
        if self.render_mode != "ansi":
            return None
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self._messages)

    def _answered(self, text: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        right = self._is_right(text)
        self._over = True
        info = self._info(("answer", text), success=right)
        return "", SUCCESS_REWARD if right else 0.0, True, False, info

    def _called(
        self, tool: Tool, arguments: dict[str, Any]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        parsed = (tool.name, arguments)
        try:
            result, failure = tool.function(**arguments), None
        except ToolError as error:
            result, failure = f"error: {error}", error.failure
        except Exception as error:
            # Not the agent's doing, whatever it was: cut the episode off and mark it.
            self._over = True
            info = self._info(parsed, failure="infra") | {"reward_valid": False}
            said = _sayable(harmless(f"the tool is out of order: {error!r}", keep=self.tools))
            return said, 0.0, False, True, info
        self._results += failure is None
        return self._said("tool", result, 0.0, failure, parsed, name=tool.name)

    def _said(
        self,
        role: str,
        content: str,
        reward: float,
        failure: str | None,
        parsed: ParsedAction | None,
        **more: str,
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        # A tool may repeat what the agent gave it.
        content = _sayable(harmless(content, keep=self.tools))
        self._messages.append({"role": role, **more, "content": content})
        self._over = self._turns >= self.max_turns
        return content, reward, self._over, False, self._info(parsed, failure=failure)

    def _info(
        self,
        parsed: ParsedAction | None = None,
        *,
        success: bool = False,
        failure: str | None = None,
    ) -> dict[str, Any]:
        return {
            "messages": copy.deepcopy(self._messages),
            "kind": self._kind,
            "tools": [copy.deepcopy(tool.schema) for tool in self.tools.values()],
            "choices": [] if self._over else self._choices(),
            "parsed_action": parsed,
            "success": success,
            "failure": failure,
            "reward_valid": True,
        }

    def _assistant(self, action: str, parsed: object) -> dict[str, Any]:
        """Return the agent's message for the dialogue, its tool call beside its words."""
        content = harmless(action[:MAX_ACTION_LENGTH], keep=self.tools)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if isinstance(parsed, ToolCall):
            arguments = {
                name: harmless(value, keep=self.tools) if isinstance(value, str) else value
                for name, value in parsed.arguments.items()
            }
            function = {"name": parsed.tool.name, "arguments": arguments}
            message["tool_calls"] = [{"type": "function", "function": function}]
        return message


def text_spaces() -> tuple[spaces.Text, spaces.Text]:
    """Return the spaces of what the world says and of what an agent says."""
    return (
        spaces.Text(MAX_OBSERVATION_LENGTH, min_length=0, charset=CHARSET),
        spaces.Text(MAX_ACTION_LENGTH, min_length=0, charset=CHARSET),
    )


def harmless(text: str, keep: dict[str, Tool] | None = None) -> str:
    """Turn what a chat template or tokenizer could take for a marker into plain text.

    An agent that writes `<|im_start|>tool` would otherwise speak for the world as soon as the
    dialogue is rendered. Brackets of such markers become look-alikes; the tags of calls and
    answers stay, and so do control characters' places, as spaces.
    """
    names = "|".join((_OWN_TAGS, *(re.escape(name) for name in keep or ())))
    own = re.compile(rf"/?(?:{names})", re.IGNORECASE)

    def disarm(found: re.Match[str]) -> str:
        return found[0] if own.fullmatch(found[1]) else f"‹{found[1]}›"

    text = _CONTROL.sub(" ", text)
    return _SQUARE_MARKER.sub(r"⟦\1⟧", _ANGLE_MARKER.sub(disarm, text))


def _sayable(text: str) -> str:
    """Bring a message of the world into the observation space."""
    return "".join(c if c in CHARSET else "?" for c in text[:MAX_OBSERVATION_LENGTH])
