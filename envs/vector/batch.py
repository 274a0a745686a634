"""Make one batch of what the members of a vector returned, and single actions of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from .infos import Infos
from .members import Info
from .sealed import MaybeSealed, SealedInfo

Batch = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]
"""Observations, rewards, terminations, truncations and infos of some members, in order."""

_FLOAT, _BOOL = np.dtype(np.float64), np.dtype(np.bool_)
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Batches:
    """Batch what members return, as Gymnasium's vector environments do.

    Args:
        observation_space: Of a single member.
        action_space: Of the vector.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observations = _observer(observation_space)
        self._actions = action_space
        # A tuple of messages, one a member, needs no iterator of Gymnasium's.
        self._plain = isinstance(action_space, (*_ARRAYS, spaces.Tuple)) and not (
            isinstance(action_space, spaces.Tuple)
            and any(isinstance(s, (*_ARRAYS, spaces.Tuple, spaces.Dict)) for s in action_space)
        )

    def actions(self, actions: Any, count: int) -> list[Any]:
        """Return the actions of single members.

        Raises:
            TypeError: a string was given, which would be taken apart into letters.
            ValueError: there are not as many as members.
        """
        if isinstance(actions, str):
            raise TypeError("give a list of messages, one a member, not one string")
        single = list(actions if self._plain else iterate(self._actions, actions))
        if len(single) != count:
            raise ValueError(f"{len(single)} actions were given for {count} environments")
        return single

    def outcomes(self, outcomes: Sequence[MaybeSealed]) -> Batch:
        """Batch outcomes; `final_obs` and `final_info` tell how episodes ended that were reset."""
        if not outcomes:
            none_N = np.zeros(0, np.bool_)
            return self.observations([]), np.zeros(0), none_N, none_N.copy(), {}
        observations, rewards, terminations, truncations, infos, finals = zip(
            *outcomes, strict=True
        )
        return (
            self.observations(observations),
            np.array(rewards, _FLOAT),
            np.array(terminations, _BOOL),
            np.array(truncations, _BOOL),
            Infos(infos, finals) if any(finals) else Infos(infos),
        )


def batch_infos(infos: Sequence[Info | SealedInfo]) -> Info:
    """Batch the infos of N members as Gymnasium does, but change no value: see `Infos`."""
    return Infos(infos)


def _observer(space: spaces.Space[Any]) -> Callable[[Sequence[Any]], Any]:
    if not isinstance(space, (*_ARRAYS, spaces.Tuple, spaces.Dict)):
        return tuple

    def observe(items: Sequence[Any]) -> Any:
        if not items:  # an empty batch has the shape and type of a batch
            return create_empty_array(space, n=0, fn=np.zeros)
        out: Any = create_empty_array(space, n=len(items), fn=np.empty)
        return concatenate(space, items, out)

    return observe
