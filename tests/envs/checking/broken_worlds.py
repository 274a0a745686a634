"""A small world of words in which nothing is wrong, and others with one fault each."""

import copy
import hashlib
import itertools
import random
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from palaestra.envs.text import text_spaces
from palaestra.envs.tools.remembering import Remembered

WORDS = ["".join(letters) for letters in itertools.product("bdk", "aeiou", "lmn", "aeiou", "st")]


def split_of(word: str) -> str:
    return "test" if hashlib.sha256(word.encode()).digest()[0] % 3 == 0 else "train"


class Mirror(gymnasium.Env[str, str]):
    """Read a word backwards: three guesses, the first of which ends the episode."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    max_choices = 8
    max_turns = 3

    def __init__(self, split: str = "train", render_mode: str | None = None) -> None:
        self.split, self.render_mode = split, render_mode
        self.observation_space, self.action_space = text_spaces()
        self.over = True

    def pool(self) -> list[str]:
        return [word for word in WORDS if split_of(word) == self.split]

    def draw(self) -> None:
        self.words = [str(word) for word in self.np_random.choice(self.pool(), 8, replace=False)]
        self.secret = self.words[self.np_random.integers(8)]

    def question(self) -> str:
        return f"Read backwards: {self.secret[::-1]}"

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.draw()
        self.turns, self.over = 0, False
        self.messages = [{"role": "user", "content": self.question()}]
        return self.question(), self.info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.over:
            raise gymnasium.error.ResetNeeded("call reset()")
        self.turns += 1
        if action not in self.words:
            self.over = self.turns >= self.max_turns
            self.messages.append({"role": "user", "content": "Say one of the words."})
            return "Say one of the words.", -0.1, self.over, False, self.info(failure="format")
        self.over = True
        right = action == self.secret
        return "", float(right), True, False, self.info(("answer", action), success=right)

    def info(
        self, parsed: Any = None, *, success: bool = False, failure: str | None = None
    ) -> dict[str, Any]:
        return {
            "messages": list(self.messages),
            "kind": "word",
            "tools": [],
            "choices": [] if self.over else self.choices(),
            "parsed_action": parsed,
            "success": success,
            "failure": failure,
            "reward_valid": True,
        }

    def choices(self) -> list[str]:
        return list(self.words)

    def solution(self) -> str:
        return self.secret

    def render(self) -> str:
        return self.question()

    def get_state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                name: vars(self).get(name)
                for name in ("words", "secret", "turns", "over", "messages")
            }
            | {"generator": self.np_random}
        )

    def set_state(self, state: dict[str, Any]) -> None:
        state = copy.deepcopy(state)
        self.np_random = state.pop("generator")
        vars(self).update(state)


class DrawsTheSolutionFirst(Mirror):
    """No fault: but who draws from the same stream as this world is always right."""

    def draw(self) -> None:
        at = self.np_random.integers(8)
        super().draw()
        self.secret = self.words[at]


class Unmakeable(Mirror):
    def __init__(self, **_: Any) -> None:
        raise RuntimeError("no such file")


class OutsideOfItsSpace(Mirror):
    def question(self) -> str:
        return "ж"


class ShowsNothing(Mirror):
    def render(self) -> str:
        return ""


class Remembers(Mirror):
    episodes = 0

    def question(self) -> str:
        return f"{super().question()} ({self.episodes})"

    def draw(self) -> None:
        self.episodes += 1
        super().draw()


class OrderOfASet(Mirror):
    def choices(self) -> list[str]:
        return list(set(self.words))


class SharedByItsClass(Mirror):
    now: ClassVar[list[str]] = []

    def draw(self) -> None:
        super().draw()
        type(self).now = [self.secret]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.secret = self.now[0]
        return super().step(action)


class ReadsRandom(Mirror):
    def draw(self) -> None:
        super().draw()
        random.shuffle(self.words)


class SeedsNumPy(Mirror):
    def draw(self) -> None:
        super().draw()
        np.random.seed(0)  # noqa: NPY002


class SeedIgnored(Mirror):
    def draw(self) -> None:
        self.np_random = np.random.default_rng(0)
        super().draw()


class Repeats(Mirror):
    last: int | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self.last = self.last if seed is None else seed
        return super().reset(seed=self.last)


class SharedTasks(Mirror):
    def pool(self) -> list[str]:
        return WORDS


class RareSharedTask(Mirror):
    def pool(self) -> list[str]:
        return [*super().pool(), next(word for word in WORDS if split_of(word) != self.split)]


class Outcome(Mirror):
    """Change what a step returns."""

    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return reward, ended, False

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = super().step(action)
        return observation, *self.outcome(reward, terminated, info), info


class NotANumber(Outcome):
    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return (float("nan") if info["success"] else reward), ended, False


class FiveForSuccess(Outcome):
    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return 5 * reward, ended, False


class RewardsFailure(Outcome):
    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return (1.0 if ended else reward), ended, False


class EndsTwice(Outcome):
    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return reward, ended, ended


class EndsByANumber(Outcome):
    def outcome(self, reward: float, ended: bool, info: dict[str, Any]) -> tuple[Any, Any, Any]:
        return reward, int(ended), False


class GoesBeyond(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.over = False
        return super().step(action)


class Information(Mirror):
    """Change what `info` holds."""

    changes: ClassVar[dict[str, Any]] = {}

    def info(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().info(*args, **kwargs) | self.changes


class WithoutAKey(Mirror):
    def info(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        full = super().info(*args, **kwargs)
        del full["reward_valid"]
        return full


class WordForSuccess(Information):
    changes: ClassVar[dict[str, Any]] = {"success": "no"}


class UnknownFailure(Information):
    changes: ClassVar[dict[str, Any]] = {"failure": "oops"}


class InvalidReward(Information):
    changes: ClassVar[dict[str, Any]] = {"reward_valid": False}


class StrangeMessages(Information):
    changes: ClassVar[dict[str, Any]] = {"messages": [{"role": "oracle", "content": "x"}]}


class NoJSON(Information):
    changes: ClassVar[dict[str, Any]] = {"tools": [{"name": b"x"}]}


class SameTwice(Mirror):
    def choices(self) -> list[str]:
        return [*self.words[:7], self.words[0]]


class TooManyChoices(Mirror):
    max_choices = 7


class NoChoices(Mirror):
    def choices(self) -> list[str]:
        return []


class UnsayableChoice(Mirror):
    def choices(self) -> list[str]:
        return [*self.words[:7], "жук"]


class ForgetsItsGenerator(Mirror):
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state | {"generator": self.np_random})


class ForgetsItsTurns(Mirror):
    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"turns": 0}


class LendsItsState(Mirror):
    def get_state(self) -> dict[str, Any]:
        return {**vars(self), "generator": self.np_random}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.np_random = state["generator"]


class KeepsAHandle(Mirror):
    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"handle": lambda: None}


class WrongOracle(Mirror):
    def solution(self) -> str:
        return self.words[0]


class SecretOracle(Mirror):
    def choices(self) -> list[str]:
        return [word for word in self.words if word != self.secret]


class ThreeChoices(Mirror):
    def choices(self) -> list[str]:
        others = [word for word in self.words if word != self.secret]
        return sorted([self.secret, *others[:2]])


class SenselessChoices(Mirror):
    def choices(self) -> list[str]:
        return [*self.words[:7], "nonsense"]


class SolutionFirst(Mirror):
    def choices(self) -> list[str]:
        return sorted(self.words, key=lambda word: word != self.secret)


class SolutionNeverFirst(Mirror):
    def choices(self) -> list[str]:
        first = next(word for word in self.words if word != self.secret)
        return [first, *(word for word in self.words if word != first)]


class LongestIsRight(Mirror):
    def draw(self) -> None:
        super().draw()
        at = self.words.index(self.secret)
        self.secret = self.words[at] = f"{self.secret}s"


class DistractorsAreNear(Mirror):
    """Each distractor has a part of the solution, which is thus the most alike."""

    def draw(self) -> None:
        super().draw()
        parts = list(self.secret[:2])
        self.secret = f"{parts[0]}-{parts[1]}"
        others = [f"{parts[0]}-{n}" for n in range(4)] + [f"{n}-{parts[1]}" for n in range(3)]
        self.words = [str(w) for w in self.np_random.permutation([self.secret, *others])]


class RaisesAtNothing(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        _ = action[0]
        return super().step(action)


class RaisesAtSurrogates(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        action.encode()
        return super().step(action)


class Sleeps(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        try:
            time.sleep(60 * (action == "<s>"))
        except Exception:
            return super().step("interrupted")
        return super().step(action)


class SlowAtFirst(Mirror):
    remembered = Remembered[bool](4)  # by the process, and not by the instance

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "<s>" and not self.remembered.get(action):
            time.sleep(0.6)
            self.remembered.keep(action, True)
        return super().step(action)


class Computes(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "9**9**9":
            eval(action)  # noqa: S307
        return super().step(action)


class Repeating(Mirror):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        _, *outcome, info = super().step(action)
        return f"You said {action}", *outcome, info


class OutOfOrder(Mirror):
    def info(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        full = super().info(*args, **kwargs)
        broken = full["failure"] == "format"
        return full | ({"failure": "infra", "reward_valid": False} if broken else {})


class Plain(gymnasium.Env[np.ndarray, int]):
    """An environment of arrays, in which nothing is wrong."""

    observation_space = spaces.Box(0, 1, (2,), np.float64)
    action_space = spaces.Discrete(2)
    reward: Any = 1.0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.random(2), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.np_random.random(2), self.reward, bool(self.np_random.random() < 0.2), False, {}


class PlainDraws(Plain):
    """No fault: the right one of eight actions is the first thing that is drawn."""

    action_space = spaces.Discrete(8)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.right = self.np_random.integers(8)
        return self.np_random.random(2), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.np_random.random(2), 0.0, True, False, {"success": bool(action == self.right)}


class PlainInfinity(Plain):
    reward = float("inf")


def register_all() -> None:
    for kind in list(globals().values()):
        if isinstance(kind, type) and issubclass(kind, Mirror | Plain):
            gymnasium.register(
                id=f"broken/{kind.__name__}-v0", entry_point=kind, disable_env_checker=True
            )


register_all()
