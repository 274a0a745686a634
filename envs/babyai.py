"""BabyAI: missions in a small grid world, said in a language made for them."""

import copy
import hashlib
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ..errors import UserError
from .babyai_words import OBSERVATION_SIZE, describe, encode

LEVELS: dict[str, tuple[str, dict[str, Any], int]] = {
    # Name: (class in minigrid.envs.babyai, its arguments, turns), easiest first.
    "GoToObj": ("GoToObj", {}, 32),
    "GoToLocal": ("GoToLocal", {}, 30),
    "PickupLoc": ("PickupLoc", {}, 40),
    "OpenDoor": ("OpenDoor", {}, 48),
    "OpenDoorsOrder": ("OpenDoorsOrder", {"num_doors": 4}, 64),
    "UnlockLocal": ("UnlockLocal", {}, 64),
    "PutNextLocal": ("PutNextLocal", {}, 64),
    "BlockedUnlockPickup": ("BlockedUnlockPickup", {}, 96),
    "KeyCorridor": ("KeyCorridor", {"room_size": 3, "num_rows": 3}, 256),
}


class BabyAI(gymnasium.Env[NDArray[np.float32], np.integer[Any]]):
    """Do what a mission in plain words asks for, in a grid of rooms, doors and things.

    ## Description
    "put the red ball next to the blue box": turn, walk, pick up, drop and open in rooms of
    which only the 7 by 7 cells ahead are seen, and not through walls and closed doors. The
    worlds, missions and rules are minigrid's (Chevalier-Boisvert et al., "BabyAI: A Platform to
    Study the Sample Efficiency of Grounded Language Learning", 2019); its levels GoToObj,
    GoToLocal, PickupLoc, OpenDoor, OpenDoorsOrder, UnlockLocal, PutNextLocal,
    BlockedUnlockPickup and KeyCorridor have an environment each. The turns are fewer than
    minigrid's where aimless walking would do. A task is the world at the start with its
    mission; the splits share none, because its hash decides to which it belongs: half of all
    tasks are `train`, a quarter each `validation` and `test`. Needs `palaestra[babyai]`.

    ## Action Space
    `Discrete(6)`: 0 turns left, 1 turns right, 2 goes forward, 3 picks up what is ahead, 4
    drops it ahead, 5 toggles what is ahead (a door; a locked one if its key is carried). In
    words: left, right, forward, pickup, drop, toggle.

    ## Observation Space
    `Box(0, 1, (1136,))`, float32. Of each cell that is seen, from the leftmost column to the
    right, farthest first: which of 9 things is there and which of 6 colours it has, one-hot;
    what is carried stands in the agent's own cell, the last of the middle column. Then the
    direction (east, south, west, north), one-hot; each of 12 words of the mission, one-hot over
    33; and the turns left, divided by 256.

    ## Rewards
    At the end of the mission 1 - 0.9 * (share of the turns that were used), as in minigrid, so
    0.1 or more; 0 for everything else. Any return of 0.05 or more means success.

    ## Episode End
    Terminated by success, or after the last turn: a rule of the task, of which the observation
    tells how near it is. Never truncated.

    ## Reference Scores
    Success on `test`, oracle (minigrid's bot) 1 on every level; random GoToObj 0.15, GoToLocal
    0.16, PickupLoc 0.10, OpenDoor 0.05, OpenDoorsOrder 0.03 (500 episodes each), UnlockLocal,
    PutNextLocal and BlockedUnlockPickup 0 (300 each), KeyCorridor 0.01 (150). Mean return of
    the oracle, in this order: 0.86, 0.84, 0.87, 0.86, 0.85, 0.80, 0.83, 0.68, 0.78. PPO on the
    arrays, GoToObj, 0.99 (0.98 to 1.00; 184,320 steps, one training seed, 200 episodes). In
    words, GoToObj, SmolLM2-135M-Instruct, 1 shot, greedy 0.00 (none of 200 episodes), and sampled
    at temperature 1 0.00 (none of 200), with 2.6 messages an episode that are no move.

    ## Version History
    v0: first version.

    Args:
        level: A name of `levels`.
        split: Which tasks are drawn.
        render_mode: As minigrid has it, `human` or `rgb_array`.

    Raises:
        UserError: minigrid is not installed, or there is no such level, split or render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    levels: ClassVar[tuple[str, ...]] = tuple(LEVELS)
    instructions = (
        "You stand in a grid of rooms and have a mission. Each turn you see what is ahead and "
        "make one move: turn left or right, go forward, pickup what is one step ahead, drop it "
        "there, or toggle a door that is one step ahead. A locked door needs a key of its colour."
    )
    """What a player who reads is told first (`AsText`)."""
    action_words = ("left", "right", "forward", "pickup", "drop", "toggle")
    """The name of each action."""
    _bot: Any
    _taken: list[int]
    _advice: int | None

    def __init__(
        self, level: str = "GoToObj", split: str = "train", render_mode: str | None = None
    ) -> None:
        for what, name, known in (
            ("level", level, self.levels),
            ("split", split, self.splits),
            ("render mode", render_mode, (None, *self.metadata["render_modes"])),
        ):
            if name not in known:
                raise UserError(f"unknown {what} {name!r}; there are: {', '.join(map(str, known))}")
        self.level, self.split, self.render_mode = level, split, render_mode
        self.action_space = spaces.Discrete(len(self.action_words))
        self.observation_space = spaces.Box(0.0, 1.0, (OBSERVATION_SIZE,), np.float32)
        self._world = _world(level, render_mode)
        self._world._gen_grid = self._draw_world
        self._over = True
        self._forget_bot()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw worlds until one belongs to the split."""
        super().reset(seed=seed)
        self._world.np_random = self.np_random
        self._world.render_mode = None  # only the last one is shown
        while True:
            seen, _ = self._world.reset()
            if split_of(self._world) == self.split:
                break
        self._world.render_mode = self.render_mode
        self._over = False
        self._forget_bot()
        if self.render_mode == "human":
            self.render()
        return self._observe(seen), {}

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Make a move.

        Raises:
            ValueError: there is no such action.
            gymnasium.error.ResetNeeded: the episode is over, or never began.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r} is not in {self.action_space}")
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset()")
        seen, reward, terminated, late, _ = self._world.step(int(action))
        self._over = bool(terminated or late)
        self._taken.append(int(action))
        self._advice = None
        return self._observe(seen), float(reward), self._over, False, {}

    def render(self) -> Any:
        """Return minigrid's picture of the world, or show it."""
        return self._world.render()

    def close(self) -> None:
        """Close the window."""
        self._world.close()

    def describe(self, observation: NDArray[np.float32]) -> str:
        """Say everything that an observation holds in words."""
        return describe(observation)

    def solution(self) -> int:
        """Return the move of minigrid's own bot.

        A bot that was not asked at each turn starts to explore anew. Where it knows no way on,
        because the box that it needs was opened, it turns left.
        """
        if self._advice is None:
            self._advice = self._advise()
        return self._advice

    def get_state(self) -> dict[str, Any]:
        """Return a snapshot of the episode, generator included; it can be pickled."""
        state = {
            "made_as": (self.level, self.split),
            "world": {k: v for k, v in vars(self._world).items() if k not in _NO_STATE},
            "bot": (self._bot, self._taken, self._advice),
            "over": self._over,
            "seed": self._np_random_seed,
        }
        return copy.deepcopy(state, {id(self._world): _THE_WORLD})

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot, which may be of another instance and is left as it is.

        Raises:
            UserError: it is of another level or split.
        """
        if state["made_as"] != (self.level, self.split):
            raise UserError(f"the state is of {state['made_as']}, not {(self.level, self.split)}")
        state = copy.deepcopy(state, {id(_THE_WORLD): self._world})
        vars(self._world).update(state["world"])
        self._bot, self._taken, self._advice = state["bot"]
        self._np_random, self._np_random_seed = self._world.np_random, state["seed"]
        self._over = state["over"]

    def _forget_bot(self) -> None:
        self._bot, self._taken, self._advice = None, [], None

    def _advise(self) -> int:
        if self._bot is None or len(self._taken) > 1:
            self._forget_bot()
            self._bot = _bot(self._world)
        last = self._taken.pop() if self._taken else None
        try:
            move = int(self._bot.replan(last))
        except Exception:  # its plans can fail in any way after moves that were not its own
            self._forget_bot()
            return 0
        return move if move < len(self.action_words) else 0

    def _draw_world(self, width: int, height: int) -> None:
        """Do what `_gen_grid` of minigrid's levels does, without its printing."""
        from minigrid.core.roomgrid import RoomGrid
        from minigrid.envs.babyai.core.roomgrid_level import RejectSampling

        world = self._world
        while True:
            try:
                RoomGrid._gen_grid(world, width, height)  # type: ignore[no-untyped-call]
                world.gen_mission()
                world.validate_instrs(world.instrs)
            except (RecursionError, RejectSampling):
                continue
            world.surface = world.mission = world.instrs.surface(world)
            return

    def _observe(self, seen: dict[str, Any]) -> NDArray[np.float32]:
        return encode(seen, self._world.max_steps - self._world.step_count)


def split_of(world: Any) -> str:
    """Return the split that the task of a freshly reset minigrid world belongs to."""
    start = (*map(int, world.agent_pos), int(world.agent_dir), world.mission)
    task = world.grid.encode().tobytes() + repr(start).encode()
    part = hashlib.sha256(task).digest()[0] % 4
    return ("train", "train", "validation", "test")[part]


def _world(level: str, render_mode: str | None) -> Any:
    try:
        from minigrid.envs import babyai
    except ImportError as error:
        raise UserError("BabyAI needs an extra: pip install 'palaestra[babyai]'") from error
    name, arguments, turns = LEVELS[level]
    return getattr(babyai, name)(**arguments, max_steps=turns, render_mode=render_mode)


def _bot(world: Any) -> Any:
    from minigrid.utils.baby_ai_bot import BabyAIBot

    return BabyAIBot(world)  # type: ignore[no-untyped-call]


class _Place:
    """What stands for the world in a snapshot of it, since its parts know it."""

    def __reduce__(self) -> str:
        return "_THE_WORLD"


_THE_WORLD = _Place()
_NO_STATE = frozenset(
    ("window", "clock", "render_size", "render_mode", "_gen_grid", "action_space",
     "observation_space")
)  # fmt: skip
"""What of a world belongs to the instance, not to the episode."""
