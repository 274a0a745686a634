"""A policy of stable-baselines3 that acts and learns in compiled code."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from ...errors import UserError
from .network import Floats
from .parameters import SharedParameters
from .rollout import Now, Record, World, act, by_address, collector, evaluate, turn_all, work_size
from .structure import draws_otherwise, has_hooks, listens, modules_of, read, replaced, watched
from .transitions import NO_MASKS, inputs_of, order_of
from .update import DONE, NOT_FINITE, Settings, Transitions, allocate, run_epochs


class Learner:
    """Act with a policy, and update it.

    Args:
        policy: Whose parameters are shared with the kernels.

    Raises:
        NotCompiled: the kernels cannot do what it does.
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy
        self.network = read(policy)
        self._shared = SharedParameters(list(policy.parameters()), policy.optimizer)
        self._optimizer = policy.optimizer
        self._parts = self._read_parts()
        self._still_fits: bool | None = None
        self._is_watched = False
        self._rng: np.random.Generator | None = None
        self._admissible: Callable[[NDArray[Any]], Floats] | None = None

    def fits(self, policy: ActorCriticPolicy) -> bool:
        """Whether a policy is still the one that was read; its tensors may be others."""
        same = policy is self.policy and policy.optimizer is self._optimizer
        return same and self._parts == self._read_parts() and self._shared.can_link()

    def link(self) -> None:
        """Take over what torch has, if somebody has given it other tensors."""
        self._shared.link()

    def set_training_mode(self, mode: bool) -> None:
        """Do what the policy's method does, without `nn.Module`'s slow way to set an attribute."""
        for module in modules_of(self.policy):
            vars(module)["training"] = mode

    @contextmanager
    def acting(
        self,
        admissible: Callable[[NDArray[Any]], Floats] | None = None,
        is_watched: bool = True,
    ) -> Iterator[None]:
        """Let the policy act compiled, where no gradient is asked for.

        Args:
            admissible: Says of observations which choices are, shape (N, K); None if all are.
            is_watched: Whether callbacks look at each step, which may change the policy.
        """
        outer = self._admissible, self._is_watched, self._rng  # of a rollout around this one
        self._admissible, self._is_watched, self._rng = admissible, is_watched, None
        policy, held = self.policy, vars(self.policy)
        does = {"forward": self._act, "predict_values": self._evaluate}
        self._still_fits = None
        before = {name: held[name] for name in does if name in held}
        held |= {name: _Stand(policy, name, what) for name, what in does.items()}
        try:
            yield
        finally:
            self._admissible, self._is_watched, self._rng = outer
            self._still_fits = None
            for name in does:
                held.pop(name, None)
            held |= before

    def play(
        self, step: Any, world: World, record: Record, now: Now, steps: int, gamma: float
    ) -> int:
        """Play so many steps of a kernel's environments, and return the episodes that ended.

        The numbers that are drawn are those which `acting` draws, in the same order.
        """
        self.link()
        draws_T_N_A = self._draw(self._generator(), steps, len(now.starts_N))
        ended: int = collector()(
            by_address(step),
            self.network,
            self._shared.values,
            draws_T_N_A,
            world,
            record,
            now,
            gamma,
        )
        return ended

    def update(
        self,
        buffer: RolloutBuffer,
        transitions: Transitions,
        settings: Settings,
        epochs: int,
    ) -> tuple[list[NDArray[np.float64]], bool]:
        """Learn from transitions for some epochs.

        Returns:
            The statistics of each epoch's minibatches, shape (B, 6), and whether the last one
            stopped early.

        Raises:
            NotCompiled: Adam has taken another number of steps for some parameters.
            UserError: a gradient is not finite.
        """
        self.link()
        steps, ending = self._shared.link_optimizer(), DONE
        count, values = len(transitions.returns_M), self._shared.values
        # No more is drawn than is used: what stops early gets the order of each epoch by itself.
        at_once = epochs if settings.target_kl == np.inf else 1
        work = allocate(self.network, min(settings.batch_size, count), len(values))
        statistics: list[NDArray[np.float64]] = []
        try:
            while len(statistics) < epochs and ending == DONE:
                found_E_B_6 = np.empty((at_once, -(-count // settings.batch_size), 6))
                orders_E_M = np.stack([order_of(buffer, count) for _ in range(at_once)])
                steps, seen, ending = run_epochs(
                    self.network, values, self._shared.adam, steps, transitions,
                    orders_E_M, settings, found_E_B_6, work,
                )  # fmt: skip
                statistics += [*found_E_B_6[:-1], found_E_B_6[-1, :seen]]
        finally:
            self._shared.count_steps(steps)
        if ending == NOT_FINITE:
            raise UserError(
                "the gradient is not finite: the learning rate is too high, or observations or "
                "rewards are too large; the parameters are those before it"
            )
        return statistics, ending != DONE

    def _act(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
        if deterministic or not self._acts():
            if self._admissible and not deterministic and not torch.is_grad_enabled():
                raise UserError(
                    "somebody has changed the policy in a rollout so that it cannot act compiled, "
                    "and its actions cannot be masked: change it between two trainings"
                )
            return type(self.policy).forward(self.policy, obs, deterministic)
        inputs_N_D = inputs_of(obs.numpy(), self.policy)
        count, values = len(inputs_N_D), self._shared.values
        if self._rng is None:
            self._rng = self._generator()
        draws_N_A = self._draw(self._rng, 1, count)[0]
        actions_N_A = np.empty(draws_N_A.shape, np.float32)
        values_N, log_probs_N = np.empty((2, count), np.float32)
        masks_N_K = self._admissible(obs.numpy()) if self._admissible else NO_MASKS
        act(
            self.network, values, turn_all(self.network, values), inputs_N_D, masks_N_K, draws_N_A,
            self._work(count), actions_N_A, values_N, log_probs_N,
        )  # fmt: skip
        if not np.isfinite(values_N + log_probs_N).all():
            self.name_what_is_not_finite(inputs_N_D)
        discrete = self.network.log_std < 0
        chosen = actions_N_A.astype(np.int64) if discrete else actions_N_A
        actions = torch.from_numpy(chosen.reshape(-1, *(self.policy.action_space.shape or ())))
        return actions, torch.from_numpy(values_N)[:, None], torch.from_numpy(log_probs_N)

    def _evaluate(self, obs: torch.Tensor) -> Any:
        if not self._acts():
            return type(self.policy).predict_values(self.policy, obs)
        inputs_N_D = inputs_of(obs.numpy(), self.policy)
        values_N = np.empty(len(inputs_N_D), np.float32)
        turned, work = turn_all(self.network, self._shared.values), self._work(len(inputs_N_D))
        evaluate(self.network, self._shared.values, turned, inputs_N_D, work, values_N)
        if not np.isfinite(values_N).all():
            self.name_what_is_not_finite(inputs_N_D)
        return torch.from_numpy(values_N)[:, None]

    def _acts(self) -> bool:
        """Whether the policy, with what callbacks have made of it, can act compiled."""
        if torch.is_grad_enabled():
            return False
        if self._still_fits is None or self._is_watched:  # which takes as long as to act
            self._still_fits = self.fits(self.policy)
        if self._still_fits and self._shared.apart():
            self._still_fits = self._shared.can_link()
            if self._still_fits:
                self.link()
        return self._still_fits

    def _work(self, rows: int) -> Floats:
        return np.empty(work_size(self.network, rows), np.float32)

    def _generator(self) -> np.random.Generator:
        """Return a generator for a rollout, which NumPy's global one begins.

        SB3 seeds the global one, and checkpoints hold it, so this is not asked for before a rollout
        has begun. Where environments seed it in their `reset`, it draws the same again and again;
        so the parameters, which an update changes, have a part in the beginning.
        """
        drawn = int(np.random.random() * 2**53)  # noqa: NPY002 - the global one is what is meant
        learned = self._shared.values.sum(dtype=np.float64).view(np.uint64)
        return np.random.default_rng([drawn, int(learned)])

    def _draw(self, rng: np.random.Generator, steps: int, count: int) -> Floats:
        if self.network.log_std >= 0:
            size = self.policy.action_space.shape or ()
            draws = rng.standard_normal((steps, count, int(np.prod(size))))
        else:
            draws = rng.random((steps, count, len(self.network.choices_A)))
        return draws.astype(np.float32)

    def name_what_is_not_finite(self, inputs_N_D: Floats) -> None:
        """Say why values or log-probabilities of observations are not finite.

        Raises:
            UserError: an observation is not, or the policy is not.
        """
        for n in np.flatnonzero(~np.isfinite(inputs_N_D).all(axis=1)):
            raise UserError(f"the observation of environment {n} is {inputs_N_D[n]}")
        raise UserError("the policy's parameters or its outputs are not finite: training diverged")

    def _read_parts(self) -> list[Any]:
        """Return what tells whether the policy has been taken apart, or is to be used otherwise."""
        found = modules_of(self.policy)
        modules = [(id(m), has_hooks(m), replaced(m)) for m in found]
        parameters = [
            (id(p), p.dtype, p.requires_grad, listens(p))
            for m in found
            for p in m._parameters.values()
            if p is not None
        ]
        groups = [
            {k: v for k, v in group.items() if k not in ("params", "lr")}
            for group in self._optimizer.param_groups
        ]
        return [
            modules,
            parameters,
            groups,
            type(self.policy.action_dist),
            draws_otherwise(self.policy),
            watched(self._optimizer),
        ]


class _Stand:
    """Stand in a policy for one of its methods; a copy of the policy gets the method itself."""

    stands_in = True

    def __init__(self, policy: ActorCriticPolicy, name: str, does: Callable[..., Any]) -> None:
        self._policy, self._name, self._does = policy, name, does

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._does(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _method(copy.deepcopy(self._policy, memo), self._name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _method, (self._policy, self._name)


def _method(policy: ActorCriticPolicy, name: str) -> Any:
    return MethodType(getattr(type(policy), name), policy)
