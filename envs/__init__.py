"""What an agent lives in: environments, their two views and their tools.

`import palaestra.envs` registers every environment with Gymnasium. The entry points are
strings, so neither torch nor Numba is imported before an environment is made.
"""

from itertools import product
from typing import Any

from gymnasium import register

from .questions.reasoning_names import HARD, NAMES

# A text environment checks itself what Gymnasium's wrappers would check.
_DIALOGUE: dict[str, Any] = {
    "reward_threshold": 0.95,
    "disable_env_checker": True,
    "order_enforce": False,
}


def _worlds(name: str, module: str, *further_levels: str) -> None:
    """Register a text environment, and each level of difficulty above the first."""
    for level in ("", *further_levels):
        register(
            id=f"palaestra/{name}-{level}-v0" if level else f"palaestra/{name}-v0",
            entry_point=f"{__name__}.{module}:{name}",
            kwargs={"level": level} if level else {},
            **_DIALOGUE,
        )


for _id, _module, _steps, _threshold in (
    ("Acrobot-v1", "acrobot", 500, -100.0),
    ("CartPole-v1", "cartpole", 500, 475.0),
    ("MountainCar-v0", "mountain_car", 200, -110.0),
    ("MountainCarContinuous-v0", "mountain_car_continuous", 999, 90.0),
    ("Pendulum-v1", "pendulum", 200, None),
):
    _class = _id.partition("-")[0]
    register(
        id=f"palaestra/{_id}",
        entry_point=f"{__name__}.{_module}:{_class}",
        vector_entry_point=f"{__name__}.{_module}:{_class}Vector",
        max_episode_steps=_steps,
        reward_threshold=_threshold,
    )
_worlds("Almanac", "almanac", "multi-hop", "comparison")
_worlds("Calculator", "calculator", "two-step", "three-step")
_worlds("Capitals", "capitals", "join", "aggregate")
_worlds("Elements", "elements", "join", "aggregate")
_worlds("Factbook", "factbook", "multi-hop", "comparison")
_worlds("Films", "films", "join", "aggregate")
_worlds("GuessNumber", "guess_number", "wide", "vast")
_worlds("Hangman", "hangman", "seven-misses", "five-misses")
_worlds("Synthesis", "synthesis", "composition", "loop")
for _name in (None, *NAMES):
    _levels = (None,) if _name and _name not in HARD else (None, "hard")
    for _level, _python in product(_levels, (None, "auto")):
        _parts = ("Reasoning", _name, _level, _python and "python", "v0")
        register(
            id=f"palaestra/{'-'.join(part for part in _parts if part)}",
            entry_point=f"{__name__}.reasoning:Reasoning",
            kwargs={"name": _name, "python": _python, "level": _level},
            **_DIALOGUE,
        )
for _level in (
    "GoToObj", "GoToLocal", "PickupLoc", "OpenDoor", "OpenDoorsOrder", "UnlockLocal",
    "PutNextLocal", "BlockedUnlockPickup", "KeyCorridor",
):  # fmt: skip
    register(
        id=f"palaestra/BabyAI-{_level}-v0",
        entry_point=f"{__name__}.babyai:BabyAI",
        kwargs={"level": _level},
        reward_threshold=0.05,
    )
