"""Reasoning: tasks of reasoning-gym's generators, with and without a Python tool."""

from typing import Any, ClassVar

from ..errors import UserError
from .parsing import Answer, parse
from .plans import Plan, PlannedEnv
from .questions.generators import Generator, Item, split_of
from .questions.reasoning_names import HARD, NAMES
from .scoring import folded
from .speech import CHARSET, MAX_ACTION_LENGTH, MAX_OBSERVATION_LENGTH
from .tools import Tool
from .tools.python import python_tool, sandbox

_WITH_PYTHON = "Before that you may run Python: <python>code</python> shows what the code prints."
_MAX_DRAWS = 2000
"""Items that are drawn for one task before the generator counts as exhausted."""


class Reasoning(PlannedEnv):
    """Solve tasks of one of reasoning-gym's generators, or of all of them.

    ## Description
    A family of environments, `palaestra/Reasoning-<name>-v0`, one for each generator of
    reasoning-gym that has a task with one checkable answer: sums, puzzles, strings, grids,
    graphs, codes. `palaestra/Reasoning-<name>-python-v0` adds a tool that runs Python.
    `palaestra/Reasoning-v0` draws a generator for each task, all of them equally often. The
    splits share no question: a hash of its text puts half of them into `train` and a quarter
    each into `validation` and `test`. The tasks are those of the version of reasoning-gym that
    is installed, at its default difficulty. 41 generators have a further level,
    `palaestra/Reasoning-<name>-hard-v0`, and `palaestra/Reasoning-<name>-hard-python-v0`: their
    own curriculum, raised until its attributes (how many numbers, how long words, how big a grid)
    are nowhere easier than by default and somewhere clearly harder.

    Source: Stojanovski et al., "Reasoning Gym: Reasoning Environments for Reinforcement Learning
    with Verifiable Rewards" (2025).

    ## Action Space
    `Text`: a message with the answer, `<answer>42</answer>`; with Python also with a call.

    ## Observation Space
    `Text`: the question, then what Python prints.

    ## Rewards
    1 for an answer that reasoning-gym's own scorer gives full marks (five generators, whose
    scorers run or misread answers, are compared with the reference instead), 0 for any other,
    -0.1 for a message that holds none.

    ## Episode End
    Terminated by an answer, or after 4 messages; with Python after 8.

    ## Reference Scores
    Success on `test`, at either level: random choices 0.12 (one in eight), oracle 1. On the
    mixture of all generators (`palaestra/Reasoning-v0`) PPO through `AsChoices` and MiniLM 0.17
    (0.12 to 0.23; 6,144 steps, one training seed, 200 episodes), where random choices took 0.15
    (0.11 to 0.20) of the same tasks; SmolLM2-135M-Instruct, 4 shots and messages of at most 48
    tokens, greedy 0.00 (none of 200), with 3.0 messages an episode that hold no answer; sampled
    at temperature 1 0.00 (none of 200), with 3.5 of them.

    ## Version History
    v0: first version.

    Args:
        name: The generator: one of `reasoning_names.NAMES`; None draws one for each task.
        python: A tool that runs Python in this sandbox, `monty`, `bubblewrap` or `auto`, told as
            `info["python"]`; None for no such tool.
        split: Which tasks are drawn: one of `splits`, which share none.
        level: `standard`, or `hard` where the generator is in `reasoning_names.HARD`; without a
            name, that draws only from these.
        render_mode: `ansi`, or None.

    Raises:
        UserError: there is no such generator, split, level or render mode, or no reasoning-gym.
    """

    instructions = (
        "Solve the task. Where it shows the form of an answer, keep to it exactly. Reply with "
        "<answer>result</answer>."
    )
    levels: ClassVar[tuple[str, ...]] = ("standard", "hard")
    max_choices = 8

    def __init__(
        self,
        name: str | None = None,
        python: str | None = None,
        split: str = "train",
        level: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(split, level, render_mode)
        self.names = (name,) if name else tuple(HARD if self.level == "hard" else NAMES)
        """The generators that set the tasks."""
        self._generators: dict[str, Generator] = {}
        if name:
            self._generator(name)  # tells now what is wrong with it
        self._tools: dict[str, Tool] = {}
        self._facts: dict[str, Any] = {}
        if python is not None:
            place = sandbox(python)
            tool = python_tool(place)
            self._tools, self._facts = {tool.name: tool}, {"python": place.name}
            self.instructions = f"{self.instructions} {_WITH_PYTHON}"
            self.max_turns = 8

    @property
    def tools(self) -> dict[str, Tool]:
        """Python, or nothing."""
        return self._tools

    @property
    def _made_as(self) -> tuple[str, str, str | None]:
        kind, split, level = super()._made_as
        names = f"-{self.names[0]}" if len(self.names) == 1 else ""
        return f"{kind}{names}{'-python' if self._tools else ''}", split, level

    def _siblings(self) -> list[Plan]:
        """Draw items of the split until as many exclude each other's answers."""
        last = len(self.names) - 1
        generator = self._generator(self.names[self._draw(last + 1) if last else 0])
        chosen: list[tuple[Plan, Item]] = []
        for _ in range(_MAX_DRAWS):
            seed = self._draw(2**53)
            item = generator.item(seed)
            plan = self._plan(generator, item, seed)
            if plan and not any(_is_shared(generator, plan, item, *other) for other in chosen):
                chosen.append((plan, item))
            if len(chosen) == self.max_choices:
                return [plan for plan, _ in chosen]
        raise UserError(
            f"reasoning-gym's {generator.name} has fewer than {self.max_choices} different "
            f"answers among {_MAX_DRAWS} items of the split {self.split}"
        )

    def _plan(self, generator: Generator, item: Item, seed: int) -> Plan | None:
        """Return the plan that solves an item, None if it is of no use here.

        That is one of another split, one that cannot be said or answered in a message, and one
        whose own answer the scorer refuses.
        """
        question = str(item["question"]).strip()
        answer = str(item["answer"]).strip()
        message = f"<answer>{answer}</answer>"
        usable = (
            answer
            and split_of(question) == self.split
            and len(question) <= MAX_OBSERVATION_LENGTH
            and len(message) <= MAX_ACTION_LENGTH
            and CHARSET.issuperset(question + answer)
            and parse(message, {}) == Answer(answer)
            and generator.solves(answer, item)
        )
        if not usable:
            return None
        return Plan(generator.name, question, (), answer, {**self._facts, "item_seed": seed})

    def _judge(self, answer: str) -> bool | str:
        generator = self._generator(self.task.plan.kind)
        return generator.solves(answer, generator.item(self.task.facts["item_seed"]))

    def _generator(self, name: str) -> Generator:
        if name not in self._generators:
            self._generators[name] = Generator(name, self.level)
        return self._generators[name]


def _is_shared(generator: Generator, plan: Plan, item: Item, other: Plan, other_item: Item) -> bool:
    """Tell whether one answer serves two items, so that both would be right choices."""
    return (
        folded(plan.answer) == folded(other.answer)
        or generator.solves(plan.answer, other_item)
        or generator.solves(other.answer, item)
    )
