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

and what else the task has to tell, gold passages for instance. The lists are the
reader's own; the messages and schemas in them are the environment's, to be read and not to be
written to, for a copy of each would cost more than the step. Choices are a tuple, which all who
read can share.
"""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import gymnasium
from gymnasium import spaces

from ..errors import UserError
from .parsing import ToolCall
from .speech import CHARSET, MAX_ACTION_LENGTH, MAX_OBSERVATION_LENGTH, sayable, speech_with
from .tools import Tool, ToolError, ToolTimeout

SUCCESS_REWARD, FORMAT_REWARD = 1.0, -0.1
ParsedAction = tuple[str, dict[str, Any] | str]
"""No dictionary: Gymnasium's vector environments would merge those of their members."""
T = TypeVar("T")
Step = tuple[str, float, bool, bool, dict[str, Any]]


@dataclass
class Task:
    """A task and whatever changes while it is played; a snapshot of an episode copies it."""

    question: str
    """What the agent is asked."""
    kind: str
    """Which kind of task this is."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What `info` holds at every step beside the contract, under names of its own."""


class TextEnv(gymnasium.Env[str, str]):
    """Base of the environments that are played in words.

    A subclass sets `instructions`, `max_turns` and `max_choices`, has `tools` if there are any,
    and writes `_new_task`, `_choices`, `_judge` and `solution`. Everything else, and above
    all what happens to a hostile message, is decided here. Whatever changes in an episode
    belongs into `self.task`.

    Args:
        split: Which tasks are drawn: one of `splits`, which share none.
        level: How hard they are: one of `levels`, the first by default.
        render_mode: `ansi`, or None.

    Raises:
        UserError: there is no such split, level or render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    levels: ClassVar[tuple[str, ...]] = ()
    """Names of the levels of difficulty, easiest first; none where there is one only."""
    instructions: str
    """What the agent is told before the task: the tools and the form of an answer."""
    max_turns: int = 4
    """Messages that the agent may send; a rule of the task, so reaching it terminates."""
    max_choices: int
    """Most choices that `info["choices"]` ever holds."""
    task: Task
    """The task at hand, once there was a reset."""

    def __init__(
        self, split: str = "train", level: str | None = None, render_mode: str | None = None
    ) -> None:
        self.split = _one_of("split", split, self.splits)
        self.level = level or next(iter(self.levels), None)
        if level is not None:
            _one_of("level", level, self.levels)
        if render_mode is not None:
            _one_of("render mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.observation_space, self.action_space = text_spaces()
        self._messages: list[dict[str, Any]] = []
        self._turns = self._results = 0
        self._over, self._ready = True, False

    @property
    def tools(self) -> dict[str, Tool]:
        """The tools by name."""
        return {}

    @abstractmethod
    def _new_task(self) -> Task:
        """Draw a task from `self.np_random`."""

    @abstractmethod
    def _choices(self) -> tuple[str, ...]:
        """Return the admissible messages at this point."""

    @abstractmethod
    def _judge(self, answer: str) -> bool | str:
        """Tell whether the answer solves the task, or what the world says to it and plays on.

        Raises:
            ToolTimeout: the answer is a program, say, and takes too long: it is wrong.
            Exception: anything else is a failure of the machinery.
        """

    @abstractmethod
    def solution(self) -> str:
        """Return the next message of a dialogue that solves the task."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a task and return its question."""
        if seed is not None:
            super().reset(seed=seed)
        if not self._ready:
            self._get_ready()
        task = self.task = self._new_task()
        question = sayable(task.question)
        self._messages = [self._rules, {"role": "user", "content": question}]
        self._turns = self._results = 0
        self._over = False
        return question, self._info()

    def step(self, action: str) -> Step:
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
        speech = self._speech
        said, parsed, arguments = speech.heard.get(action) or speech.hear(action)
        self._turns += 1
        message: dict[str, Any] = {"role": "assistant", "content": said}
        self._messages.append(message)
        if isinstance(parsed, tuple):
            return self._answered(parsed)
        if isinstance(parsed, ToolCall):
            function = {"name": parsed.tool.name, "arguments": _own(arguments)}
            message["tool_calls"] = [{"type": "function", "function": function}]
            return self._called(parsed.tool, _own(parsed.arguments))
        expected = f"Not understood: {parsed.reason}. {self.instructions}"
        return self._said({"role": "user", "content": expected}, None, "format", FORMAT_REWARD)

    def render(self) -> str | None:
        """Return the dialogue so far, a message a paragraph."""
        if self.render_mode != "ansi":
            return None
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self._messages)

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of the episode, generator included; it can be pickled."""
        return {
            "made_as": self._made_as,
            "task": copy.deepcopy(getattr(self, "task", None)),
            "messages": copy.deepcopy(self._messages),
            "counts": (self._turns, self._results, self._over),
            "generator": copy.deepcopy(self.np_random),
            "seed": self._np_random_seed,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot, which may be of another instance and is left as it is.

        Raises:
            UserError: it is of another environment, split or level.
        """
        if state["made_as"] != self._made_as:
            raise UserError(f"the state is of {state['made_as']}, and this is {self._made_as}")
        state = copy.deepcopy(state)
        if not self._ready:
            self._get_ready()
        self.task, self._messages = state["task"], state["messages"]
        self._turns, self._results, self._over = state["counts"]
        self._np_random, self._np_random_seed = state["generator"], state["seed"]

    @property
    def _made_as(self) -> tuple[str, str, str | None]:
        return type(self).__name__, self.split, self.level

    def _draw(self, count: int) -> int:
        """Draw a number from 0 to count - 1, many times faster than `integers` does."""
        generator = self._np_random or self.np_random  # which is a property, and slower
        return int(generator.random() * count)

    def _sample(self, things: Sequence[T], count: int) -> list[T]:
        """Draw as many different things, all of them in their order if that is all."""
        if count >= len(things):
            return list(things)
        picked: dict[int, None] = {}
        while len(picked) < count:
            picked[self._draw(len(things))] = None
        return [things[i] for i in picked]

    def _answered(self, parsed: tuple[str, str]) -> Step:
        failure = None
        try:
            verdict = self._judge(parsed[1])
        except ToolTimeout:  # what was answered, a program for instance, takes too long
            verdict, failure = False, "timeout"
        except Exception as error:
            return self._out_of_order(parsed, error)
        if isinstance(verdict, str):
            return self._said({"role": "user", "content": verdict}, parsed)
        self._over = True
        info = self._info(parsed, failure, verdict)
        return "", SUCCESS_REWARD if verdict else 0.0, True, False, info

    def _called(self, tool: Tool, arguments: dict[str, Any]) -> Step:
        parsed = (tool.name, arguments)
        try:
            result, failure = tool.call(arguments), None
        except ToolError as error:
            result, failure = f"error: {error}", error.failure
        except Exception as error:
            return self._out_of_order(parsed, error)
        self._results += failure is None
        message = {"role": "tool", "name": tool.name, "content": result}
        return self._said(message, parsed, failure)

    def _out_of_order(self, parsed: ParsedAction, error: Exception) -> Step:
        """Cut the episode off and mark it: it is not the agent's doing, whatever it was."""
        self._over = True
        info = self._info(parsed, "infra") | {"reward_valid": False}
        said = self._speech.tell(f"the tool is out of order: {error!r}")
        return said, 0.0, False, True, info

    def _said(
        self,
        message: dict[str, str],
        parsed: ParsedAction | None,
        failure: str | None = None,
        reward: float = 0.0,
    ) -> Step:
        speech, told = self._speech, message["content"]
        told = message["content"] = speech.told.get(told) or speech.tell(told)
        self._messages.append(message)
        over = self._over = self._turns >= self.max_turns
        return told, reward, over, False, self._info(parsed, failure)

    def _info(
        self,
        parsed: ParsedAction | None = None,
        failure: str | None = None,
        success: bool = False,
    ) -> dict[str, Any]:
        task = self.task
        info = {
            "messages": [*self._messages],
            "kind": task.kind,
            "tools": [*self._schemas],
            "choices": () if self._over else self._choices(),
            "parsed_action": parsed,
            "success": success,
            "failure": failure,
            "reward_valid": True,
        }
        return info | task.facts if task.facts else info

    def _get_ready(self) -> None:
        """Read what does not change any more from the tools and the rules.

        These are attributes, and no cached properties: once the dictionary of an instance was
        asked for, as those do, every access to any of its attributes takes four times as long.
        """
        self._speech = speech_with(self.tools)
        self._schemas = [copy.deepcopy(tool.schema) for tool in self.tools.values()]
        rules = f"{self.instructions} You may send {self.max_turns} messages."
        self._rules = {"role": "system", "content": rules}
        self._ready = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_speech"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if self._ready:
            self._speech = speech_with(self.tools)


def _own(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of arguments: what is remembered of a message is for all who say it."""
    if any(isinstance(value, dict | list) for value in arguments.values()):
        return copy.deepcopy(arguments)
    return arguments.copy()


def _one_of(what: str, name: str, names: "tuple[str, ...] | list[str]") -> str:
    if name not in names:
        known = f"the {what}s are: {', '.join(names)}" if names else f"it has no {what}s"
        raise UserError(f"unknown {what} {name!r}; {known}")
    return name


def text_spaces() -> tuple[spaces.Text, spaces.Text]:
    """Return the spaces of what the world says and of what an agent says."""
    return copy.deepcopy(_HEARD), copy.deepcopy(_SAID)


class _Text(spaces.Text):
    """Texts whose copies share the tables of letters, which are large and never change.

    A vector copies the spaces of its environments once for each of them, and a checkpoint writes
    those of all environments down.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: value for name, value in vars(self).items() if name not in _TABLES}
        return _with_tables, (), own

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = copy.copy(self)
        copied._np_random = copy.deepcopy(self._np_random, memo)
        return copied


def _with_tables() -> _Text:
    """Return a space that has its tables, and is to be told all else."""
    text = _Text.__new__(_Text)
    vars(text).update({name: getattr(_HEARD, name) for name in _TABLES})
    return text


_TABLES = ("_char_set", "_char_list", "_char_index", "_char_str")
_HEARD = _Text(MAX_OBSERVATION_LENGTH, min_length=0, charset=CHARSET)
_SAID = _Text(MAX_ACTION_LENGTH, min_length=0, charset=CHARSET)
