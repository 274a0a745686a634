"""Synthesis: write the function that is described; hidden tests tell whether it is right."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from .plans import Plan, PlannedEnv, PlannedTask
from .questions.program_loops import LOOPS
from .questions.program_steps import COMPOSITIONS, EXPRESSIONS
from .questions.programs import Input, Program, Shape
from .tools import Tool, ToolError, ToolTimeout
from .tools.python import python_tool, sandbox

_SHAPES: dict[str, tuple[Shape, ...]] = {
    "expression": EXPRESSIONS,
    "composition": COMPOSITIONS,
    "loop": LOOPS,
}
_KINDS = {level: tuple(dict.fromkeys(s.kind for s in shapes)) for level, shapes in _SHAPES.items()}
_EXAMPLES, _TESTS = 3, 10
_ALTERNATIVES = 6
"""Options for each slot, among which the siblings choose."""
_TRIES = 200


@dataclass
class SynthesisTask(PlannedTask):
    """A function to write, and what it is tested with."""

    tests: tuple[tuple[Any, Any], ...] = ()
    """Inputs and the outputs that belong to them; the agent sees neither."""


class Synthesis(PlannedEnv):
    """Write a function that is described in words; it is right if it passes hidden tests.

    ## Description
    "Write f(x), where x is a list of integers. Do this in turn, each to the result before: (1)
    keep the even numbers; (2) add 3 to every number; (3) take the sum. Return the result.": put
    it into Python, try it, and answer with it. Three examples come with it. The answer is run
    on ten hidden inputs in the sandbox, and its results are compared outside. `expression`, the
    first level, has three steps on an integer; `composition` three on a list or a string; `loop`
    a loop with a condition over a list, over a string, or until a number is small. There are
    over 70,000 functions a level. The split that one belongs to is told by a hash of its
    outputs on fixed inputs, so the splits share none, however it is written.

    ## Action Space
    `Text`: a message with one call, `<python>...</python>`, which shows what a program prints
    and the value of its last expression (or JSON in `<tool_call>`), or with the answer,
    `<answer>def f(x): ...</answer>`.

    ## Observation Space
    `Text`: the question, then what the program says. `info["python"]` is what runs it.

    ## Rewards
    1 for a function that passes all tests, 0 otherwise, -0.1 for a message that holds neither a
    call nor an answer.

    ## Episode End
    Terminated by an answer, or after 4 messages; truncated when the sandbox fails, with
    `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`, every level: random choices 0.12 (one in eight), oracle 1. On `expression`,
    PPO through `AsChoices` and MiniLM 0.36 (0.29 to 0.43; 6,144 steps, one training seed, 200
    episodes); SmolLM2-135M-Instruct, 4 shots and messages of at most 48 tokens, greedy 0.00 (none
    of 200), with 1.1 messages an episode that hold no call and no answer; sampled at temperature
    1 0.00 (none of 200), with 2.8 such messages.

    ## Version History
    v0: first version.

    Args:
        split: Which tasks are drawn: one of `splits`, which share none.
        level: How hard they are: one of `levels`, the first by default.
        render_mode: `ansi`, or None.
        python: The sandbox: "monty", "bubblewrap", or "auto".

    Raises:
        UserError: there is no such split, level, render mode or sandbox.
    """

    levels: ClassVar[tuple[str, ...]] = tuple(_SHAPES)
    instructions = (
        "Write the function f in plain Python, without imports or classes. You may try a program "
        "with <python>program</python>: it shows what the program prints and the value of its "
        "last expression. Then reply with the whole function, "
        "<answer>def f(x): ...</answer>."
    )
    max_choices = 8
    task: SynthesisTask

    def __init__(
        self,
        split: str = "train",
        level: str | None = None,
        render_mode: str | None = None,
        python: str = "auto",
    ) -> None:
        super().__init__(split, level, render_mode)
        self._sandbox = sandbox(python)
        tool = python_tool(self._sandbox)
        self._tools = {tool.name: tool}
        self._hidden: list[Any] = []
        self._programs: dict[str, Program] = {}

    @property
    def tools(self) -> dict[str, Tool]:
        """The sandbox."""
        return self._tools

    def _new_task(self) -> SynthesisTask:
        task = super()._new_task()
        program, inputs = self._programs[task.plan.answer], self._hidden
        self._hidden, self._programs = [], {}  # no part of the episode, and cannot be pickled
        return SynthesisTask(**vars(task), tests=tuple((x, program(x)) for x in inputs))

    def _siblings(self) -> list[Plan]:
        while True:
            programs = self._similar(self._shape())
            if len(programs) < self.max_choices:
                continue
            given = programs[0].shape.input
            examples, hidden = self._inputs(given, _EXAMPLES), self._inputs(given, _TESTS)
            if len({json.dumps([p(x) for x in hidden]) for p in programs}) == len(programs):
                break
        # Kept until a task has been made of one of them.
        self._hidden, self._programs = hidden, {p.source: p for p in programs}
        return [self._plan(program, examples) for program in programs]

    def _shape(self) -> Shape:
        """Draw a kind of the level, then a shape of the kind."""
        assert self.level is not None
        kinds = _KINDS[self.level]
        kind = kinds[self._draw(len(kinds))]
        shapes = [shape for shape in _SHAPES[self.level] if shape.kind == kind]
        return shapes[self._draw(len(shapes))]

    def _similar(self, shape: Shape) -> list[Program]:
        """Draw programs of the split that share a shape and, by chance, some of their options."""
        pools = [self._sample(pool, _ALTERNATIVES) for pool in shape.pools]
        found: dict[str, Program] = {}
        for _ in range(_TRIES):
            program = Program(shape, tuple(pool[self._draw(len(pool))] for pool in pools))
            if program.split == self.split and not program.is_trivial:
                found.setdefault(program.behaviour, program)
            if len(found) == self.max_choices:
                break
        return list(found.values())

    def _inputs(self, given: Input, count: int) -> list[Any]:
        return [given.draw(self._draw) for _ in range(count)]

    def _plan(self, program: Program, examples: list[Any]) -> Plan:
        shown = ", ".join(f"f({x!r}) = {program(x)!r}" for x in examples)
        return Plan(
            kind=program.shape.kind,
            question=(
                f"Write f(x), where x is {program.shape.input.words}. {program.words} "
                f"Examples: {shown}."
            ),
            calls=(f"<python>{program.source}\n\nf({examples[0]!r})</python>",),
            answer=program.source,
            facts={"python": self._sandbox.name},
        )

    def _judge(self, answer: str) -> bool | str:
        """Run the answer on the hidden inputs, and compare what comes out.

        What is expected never enters the sandbox, so whatever the answer does there, prints or
        redefines, it cannot say what is expected without knowing the function.
        """
        inputs = [x for x, _ in self.task.tests]
        program = (
            # What the answer prints is not asked for, and could leave no room for the results.
            f"_show, print = print, lambda *a, **k: None\n{answer}\n\n"
            f"import json\n_show('\\n' + json.dumps([f(x) for x in {inputs!r}]))"
        )
        try:
            output = self._sandbox.run(program)
        except ToolTimeout:
            raise
        except ToolError:
            return False
        return _is_json(output.rstrip("\n").rpartition("\n")[2], [y for _, y in self.task.tests])


def _is_json(text: str, value: Any) -> bool:
    """Compare as JSON, in which 1, 1.0 and true are three things."""
    try:
        return json.dumps(json.loads(text)) == json.dumps(value)
    except (ValueError, RecursionError):
        return False
