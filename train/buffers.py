"""Rollout buffers for unchanged stable-baselines3, compiled, and strict about what they hold.

    PPO("MlpPolicy", envs, rollout_buffer_class=RolloutBuffer)

Advantages are SB3's to the last bit and samples have its fields, shapes and dtypes; only the
order of the minibatches comes from another shuffle, seeded by the same global generator.
"""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

from collections.abc import Generator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common import buffers
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples, RolloutBufferSamples

from ..errors import UserError
from .advantages import estimate_advantages
from .minibatches import Minibatches, is_narrow, shuffled
from .storing import check_finite, on_host, reshaped, row, store

_NAMES = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "episode_starts": "episode start",
    "values": "value",
    "log_probs": "log-probability",
    "advantages": "advantage",
    "returns": "return",
    "action_masks": "action mask",
    "token_masks": "token mask",
    "token_log_probs": "log-probability",
}
"""What the arrays hold, as messages say it."""


class RolloutBuffer(buffers.RolloutBuffer):
    """SB3's `RolloutBuffer` in compiled code, without the transitions that the machinery spoilt.

    The arrays (`observations`, `rewards`, `values`...) are SB3's, of shape (T, N, ...); the
    first `get` of a rollout flattens them, leaves out what is invalid and packs them, so what is
    written into them afterwards is not seen. Samples may be kept: memory is used again only
    once nobody holds them. `gamma` and `gae_lambda` are taken as Python's numbers, with which SB3
    computes in float32.

    For the advantages an invalid transition is a cut-off: its return is its own value, so the
    steps before it bootstrap on the value of the state in which the machinery failed. At least
    one transition of a rollout must be valid.

    Raises:
        UserError: from whatever finds it, for a wrong shape or dtype, for what is not finite
            (environment and step are named) and for methods called out of order.
    """

    valid_T_N: NDArray[np.bool_]
    """Whether transition t of environment n is one to learn from, shape (T, N)."""
    spoilt_T_N: NDArray[np.bool_]
    """Whether somebody has marked it as one that is not, shape (T, N)."""

    fields: tuple[str, ...] = (
        "observations", "actions", "values", "log_probs", "advantages", "returns",
    )  # fmt: skip
    """The arrays that go into a sample, in its order."""
    sample_class: ClassVar[Any] = RolloutBufferSamples
    """The named tuple that `get` yields."""
    _made: tuple[NDArray[np.float32], ...] = ()
    """Rewards, values, episode starts, advantages and returns, as `reset` made them."""
    _rollouts = 0
    _minibatches: Minibatches[Any] | None = None

    def reset(self) -> None:
        """Forget the rollout; the next is valid as far as nobody says otherwise."""
        super().reset()
        self.advantages.fill(np.nan)  # so that nobody learns from those that were not computed
        self.valid_T_N = np.ones((self.buffer_size, self.n_envs), bool)
        self.spoilt_T_N = np.zeros_like(self.valid_T_N)
        self._made = (
            self.rewards, self.values, self.episode_starts, self.advantages, self.returns,
        )  # fmt: skip
        self._rollouts += 1
        self._loaded = False
        self._store_wide_by_environment()

    def mark(self, valid_N: NDArray[np.bool_]) -> None:
        """Say which of the transitions that are added next are valid, shape (N,)."""
        self._check_room()
        store(self.valid_T_N[self.pos], valid_N, "validity")
        self.spoilt_T_N[self.pos] = ~self.valid_T_N[self.pos]

    def add(
        self,
        obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        episode_start: NDArray[Any],
        value: torch.Tensor,
        log_prob: torch.Tensor,
    ) -> None:
        """Store step t of all N environments.

        Args:
            obs: Observations before the step, shape (N, ...), or a dictionary of such.
            action: Actions, shape (N, A) or (N,).
            reward: Rewards, shape (N,).
            episode_start: Whether the observations are the first of an episode, shape (N,).
            value: Values of the observations, shape (N,) or (N, 1).
            log_prob: Log-probabilities of the actions, shape (N,).
        """
        self._check_room()
        self._store_observations(obs)
        actions_N_A = self.actions[self.pos]
        store(actions_N_A, reshaped(action, actions_N_A), "action")
        store(self.rewards[self.pos], reward, "reward")
        store(self.episode_starts[self.pos], episode_start, "episode start")
        values_N, log_probs_N = self.values[self.pos], self.log_probs[self.pos]
        store(values_N, reshaped(on_host(value), values_N), "value")
        store(log_probs_N, reshaped(on_host(log_prob), log_probs_N), "log-probability")
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(
        self, last_values: torch.Tensor, dones: NDArray[np.bool_]
    ) -> None:
        """Compute GAE(lambda) and its returns (Schulman et al., 2016), cut at invalid steps.

        Args:
            last_values: Values of the states after the last step, shape (N,) or (N, 1).
            dones: Whether that step ended an episode, shape (N,).
        """
        self._check_full()
        if self.generator_ready:
            raise UserError("the advantages of a rollout that is being learned from: reset() first")
        rewards_T_N, values_T_N, starts_T_N, advantages_T_N, returns_T_N = self._made
        if not (
            self.rewards is rewards_T_N
            and self.values is values_T_N
            and self.episode_starts is starts_T_N
        ):
            self._take_over()
        self.advantages, self.returns = advantages_T_N, returns_T_N
        last_values_N = row(on_host(last_values), self.n_envs, "last value")
        dones_N = row(dones, self.n_envs, "done")
        # An invalid step is an episode of one step whose reward is the value that was expected
        # of it: then the recursion finds an advantage of exactly 0 and carries nothing across.
        if np.count_nonzero(self.valid_T_N) < self.valid_T_N.size:
            invalid_T_N = ~self.valid_T_N
            rewards_T_N[invalid_T_N] = values_T_N[invalid_T_N]
            starts_T_N[1:][invalid_T_N[:-1]] = 1.0
            dones_N[invalid_T_N[-1]] = 1.0
        finite = estimate_advantages(
            rewards_T_N, values_T_N, starts_T_N, last_values_N, dones_N,
            float(self.gamma), float(self.gae_lambda), advantages_T_N, returns_T_N,
        )  # fmt: skip
        if not finite:
            self._name_what_is_not_finite(last_values_N)

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Yield the valid transitions in random minibatches, as SB3 does.

        Args:
            batch_size: Transitions in each, except for the last; None for all in one.
        """
        self._check_full()
        if not self._loaded:
            self._load()
        assert self._minibatches is not None
        count, rollout = len(self.returns), self._rollouts
        size = count if batch_size is None else int(batch_size)
        if size < 1:
            raise UserError(f"a minibatch needs at least 1 transition, not {size}")
        # SB3 seeds this generator (`set_random_seed`), and checkpoints hold its state.
        seed = int(np.random.random() * 2**53)  # noqa: NPY002
        for sample in self._minibatches.epoch(size, shuffled(count, seed)):
            if self._rollouts != rollout:
                raise UserError("the rollout buffer was reset while its minibatches were read")
            yield sample

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the memory of minibatches, which is made again."""
        return self.__dict__ | {"_minibatches": None, "_loaded": False}

    # What differs where observations are dictionaries

    def _observation_parts(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of observations by the words that name them."""
        return {"observation": self.observations}

    def _replace_observations(self, parts: dict[str, NDArray[Any]]) -> None:
        (self.observations,) = parts.values()

    def _store_observations(self, obs: Any) -> None:
        observations_N = self.observations[self.pos]
        if isinstance(self.observation_space, spaces.Discrete):
            obs = reshaped(obs, observations_N)
        store(observations_N, obs, "observation")

    def _sample(self, tensors: Sequence[torch.Tensor]) -> Any:
        return self.sample_class(*tensors)

    # Below here nothing differs

    def _store_wide_by_environment(self) -> None:
        """Lay out what is not packed in the order of minibatches, so flattening copies nothing."""
        parts = self._observation_parts()
        for name, part_T_N in parts.items():
            if not is_narrow(part_T_N[0, 0]):
                steps, envs, *shape = part_T_N.shape
                parts[name] = np.zeros((envs, steps, *shape), part_T_N.dtype).swapaxes(0, 1)
        self._replace_observations(parts)

    def _load(self) -> None:
        """Line the transitions up, environment by environment, without the invalid ones."""
        if not self.generator_ready:
            self._check_finite()
            self._flatten()
            self.generator_ready = True
        if self._minibatches is None:
            immutable = not isinstance(self.observation_space, spaces.Dict)
            self._minibatches = Minibatches(self._sample, self.device, immutable)
        self._minibatches.load([*self._observation_parts().values(), *self._numbers()])
        self._loaded = True

    def _numbers(self) -> list[NDArray[Any]]:
        """Return what a sample holds besides observations, flat and in the dtypes of SB3."""
        first, *scalars = (getattr(self, name) for name in self.fields[1:6])
        extras = [getattr(self, name) for name in self.fields[6:]]
        return [first.astype(np.float32, copy=False), *(s.ravel() for s in scalars), *extras]

    def _flatten(self) -> None:
        valid_NT = self.valid_T_N.T.ravel()
        everything = bool(valid_NT.all())
        if not valid_NT.any():
            raise UserError("no transition of the rollout is valid: there is nothing to learn from")

        def flat(array: NDArray[Any]) -> NDArray[Any]:
            lined_up = self.swap_and_flatten(array)
            return lined_up if everything else lined_up[valid_NT]

        parts = self._observation_parts()
        self._replace_observations({name: flat(part) for name, part in parts.items()})
        for name in self.fields[1:]:
            setattr(self, name, flat(getattr(self, name)))

    def _take_over(self) -> None:
        """Put what somebody has put in the place of an array into it: kernels look at no bounds."""
        names = ("rewards", "values", "episode_starts")
        found = [np.array(getattr(self, name)) for name in names]  # which may be each other
        for name, made_T_N, array in zip(names, self._made, found, strict=False):
            store(made_T_N, array, _NAMES[name])
            setattr(self, name, made_T_N)

    def _check_room(self) -> None:
        if self.full:
            raise UserError(
                f"the rollout buffer is full ({self.buffer_size} steps): reset() before adding"
            )

    def _check_full(self) -> None:
        if not self.full:
            raise UserError(
                f"the rollout buffer holds {self.pos} of {self.buffer_size} steps since its last "
                "reset(): fill it first"
            )

    def _check_finite(self) -> None:
        if np.isnan(self.advantages).all():
            raise UserError("there are no advantages: call compute_returns_and_advantage first")
        for name, array in self._observation_parts().items():
            check_finite(name, array, self.valid_T_N)
        for name in self.fields[1:]:
            check_finite(_NAMES[name], getattr(self, name), self.valid_T_N)

    def _name_what_is_not_finite(self, last_values_N: NDArray[np.float32]) -> None:
        # An observation spoils the value, so it is looked at first.
        for name, array in self._observation_parts().items():
            check_finite(name, array, self.valid_T_N)
        check_finite("value", self.values, self.valid_T_N)
        check_finite("reward", self.rewards, self.valid_T_N)
        for n in np.flatnonzero(~np.isfinite(last_values_N)):
            value = last_values_N[n]
            raise UserError(f"the value of environment {n} after the last step is {value}")
        check_finite("advantage", self.advantages, self.valid_T_N)


class DictRolloutBuffer(RolloutBuffer, buffers.DictRolloutBuffer):
    """`RolloutBuffer` for observations that are dictionaries, as SB3's `DictRolloutBuffer`."""

    observations: dict[str, NDArray[Any]]
    sample_class: ClassVar[Any] = DictRolloutBufferSamples

    def _observation_parts(self) -> dict[str, NDArray[Any]]:
        return {f"observation {key!r}": part for key, part in self.observations.items()}

    def _replace_observations(self, parts: dict[str, NDArray[Any]]) -> None:
        self.observations = dict(zip(self.observations, parts.values(), strict=True))

    def _store_observations(self, obs: Any) -> None:
        for key, part in self.observations.items():
            if key not in obs:
                raise UserError(f"the observations have no {key!r}, only {sorted(obs)}")
            observations_N, found = part[self.pos], obs[key]
            if isinstance(self.observation_space[key], spaces.Discrete):
                found = reshaped(found, observations_N)
            store(observations_N, found, f"observation {key!r}")

    def _sample(self, tensors: Sequence[torch.Tensor]) -> Any:
        keys = list(self.observations)
        observations = dict(zip(keys, tensors[: len(keys)], strict=True))
        return self.sample_class(observations, *tensors[len(keys) :])
