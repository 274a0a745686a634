"""Tasks that a plan solves: ask the tools the right things, then say what they found."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from .scoring import is_same
from .text import Task, TextEnv


class Plan(NamedTuple):
    """One of the tasks that could have been set, with its solution."""

    kind: str
    """What is asked for."""
    question: str
    """The question in words."""
    calls: tuple[str, ...]
    """The messages that ask the tools, in order."""
    answer: str
    """What is then right to answer."""
    facts: dict[str, Any] = {}  # noqa: RUF012
    """What `info` tells beside the contract, gold passages for instance."""


_NOTHING = Plan("", "", (), "")


@dataclass
class PlannedTask(Task):
    """A plan that became the task, and the messages of all of its siblings."""

    plan: Plan = _NOTHING
    stages: tuple[tuple[str, ...], ...] = ()
    """Choices at first, after one result, and so on; the last are the answers."""


class PlannedEnv(TextEnv):
    """A question, some calls, an answer; the choices are the solutions of sibling tasks.

    A task is one plan, drawn uniformly from a set of siblings that share their subject matter.
    The choices are first the first calls of the whole set, after a result the second calls, and
    at last the answers, each in an order drawn from the seed. So each answer is somebody's right
    one, and who sees the choices without the dialogue does no better than chance.
    """

    task: PlannedTask

    @abstractmethod
    def _siblings(self) -> list[Plan]:
        """Draw up to `max_choices` plans with as many calls each and with distinct answers.

        Any of them may become the task; nothing in the set may depend on which.
        """

    def _new_task(self) -> PlannedTask:
        siblings = self._siblings()
        return self._set(siblings[self._draw(len(siblings))], siblings)

    def _set(self, plan: Plan, siblings: list[Plan]) -> PlannedTask:
        """Return the task of a plan that was drawn from its siblings."""
        stages = (
            *(self._shuffled(s.calls[stage] for s in siblings) for stage in range(len(plan.calls))),
            self._shuffled(_answer(s) for s in siblings),
        )
        return PlannedTask(plan.question, plan.kind, dict(plan.facts), plan, stages)

    def _choices(self) -> tuple[str, ...]:
        return self.task.stages[self._stage]

    def _judge(self, answer: str) -> bool | str:
        return is_same(answer, self.task.plan.answer)

    def solution(self) -> str:
        """Return the next call of the plan, or its answer after the last."""
        plan = self.task.plan
        return plan.calls[self._stage] if self._stage < len(plan.calls) else _answer(plan)

    @property
    def _stage(self) -> int:
        return min(self._results, len(self.task.stages) - 1)

    def _shuffled(self, messages: Any) -> tuple[str, ...]:
        """Return the distinct messages in an order drawn from the seed."""
        distinct = list(dict.fromkeys(messages))
        keys = dict(zip(distinct, self._uniforms(len(distinct)), strict=True))
        return tuple(sorted(distinct, key=keys.__getitem__))

    def _uniforms(self, count: int) -> list[float]:
        """Draw numbers from 0 to 1."""
        drawn: list[float] = self.np_random.random(count).tolist()
        return drawn


def _answer(plan: Plan) -> str:
    return f"<answer>{plan.answer}</answer>"
