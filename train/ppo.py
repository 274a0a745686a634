"""Stable-baselines3's PPO, compiled.

    from palaestra.train.ppo import PPO

    PPO("MlpPolicy", envs).learn(100_000)

Idea: stock SB3 spends most of its time in thousands of small calls of torch. Here an epoch of
the update is one compiled call, and so is a whole rollout where a kernel steps the environments
(`palaestra.train.kernel_vec_env`); torch still holds the parameters, which it shares. Where the
network has to run in torch, on the CPU or a GPU, the update calls little else
(`palaestra.train.torch_learner`).
"""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import ppo
from stable_baselines3.common import buffers
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch.optim import Optimizer

from ..errors import UserError
from .admissible import asker, choose
from .buffers import DictRolloutBuffer, RolloutBuffer
from .compiled.callbacks import count_steps, watches_steps
from .compiled.learner import Learner
from .compiled.rollout import Now, Record, World
from .compiled.structure import NotCompiled
from .compiled.transitions import check, check_choices, inputs_of, pack
from .compiled.update import CLIPPED, ENTROPY, KL, LOSS, POLICY, VALUE, Settings
from .kernel_vec_env import KernelVecEnv
from .masked_buffers import MaskableRolloutBuffer
from .torch_learner import TorchLearner

_COUNTING = ppo.PPO._update_info_buffer
_STEPPING = frozenset({"step", "step_async", "step_wait"})
"""What is called at each step, and not in a rollout that is one call."""


class PPO(ppo.PPO):
    """SB3's `PPO`: the same arguments, methods, callbacks, logs and files.

    Policies of dense layers (`MlpPolicy`, tanh or relu, any width and depth) with `Discrete`,
    `MultiDiscrete` or `Box` actions act and learn with Adam in compiled code. All other policies
    run in torch, and a warning says once why; only rollout buffers that make minibatches in a
    way of their own are left to SB3's update.

    With `rollout_buffer_class=MaskableRolloutBuffer` (`palaestra.train.masked_buffers`), actions
    are drawn from those that the environments' method `action_masks` admits, and learned of as
    sb3-contrib's MaskablePPO learns; `predict` takes masks, too. Policies that run in torch do not.

    `device="auto"` means the CPU for `MlpPolicy`, where SB3 would take a GPU if there is one.

    Random numbers begin with NumPy's global generator, which `seed` seeds: the same seed gives
    the same weights, other ones than SB3's. Without a `rollout_buffer_class`, it is
    `palaestra.train.buffers.RolloutBuffer`.

    Raises:
        UserError: from `learn`, if an observation, a reward or a gradient is not finite.
    """

    has_critic: ClassVar[bool] = True
    """Whether values are learned, and told of."""
    _learner: Learner | None = None
    _told: frozenset[str] = frozenset()

    @wraps(ppo.PPO.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = signature(ppo.PPO.__init__).bind(self, *args, **kwargs)
        dense = given.arguments["policy"] in ("MlpPolicy", ActorCriticPolicy)
        if dense and given.arguments.get("device", "auto") == "auto":
            given.arguments["device"] = "cpu"
        super().__init__(*given.args[1:], **given.kwargs)

    def _setup_model(self) -> None:
        chosen = self.rollout_buffer_class
        if chosen is None:
            reads = isinstance(self.observation_space, spaces.Dict)
            self.rollout_buffer_class = DictRolloutBuffer if reads else RolloutBuffer
        with _without_dynamo():
            super()._setup_model()
        self.rollout_buffer_class = chosen  # so that files name no class that SB3 does not have

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: buffers.RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Play, as SB3 does; in one call where a kernel steps and no callback watches.

        Policies with `continuous_batching` play as `palaestra.train.continuous` says.
        """
        learner = self._compiled()
        admissible = None
        if isinstance(rollout_buffer, MaskableRolloutBuffer):
            admissible = asker(env, rollout_buffer, lambda: self._last_obs)
        if learner is None:
            if getattr(self.policy, "continuous_batching", False):
                from .continuous import collect_continuously  # which loads transformers
                from .token_vec_env import TokenVecEnv

                if isinstance(env, TokenVecEnv):
                    return collect_continuously(
                        self, env, callback, rollout_buffer, n_rollout_steps
                    )
                kind = type(env).__name__
                self._say(f"messages are batched turn by turn: {kind} is no TokenVecEnv")
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        is_watched = watches_steps(callback)
        if (
            not is_watched
            and _is_plain(env)
            and _can_write_into(rollout_buffer, n_rollout_steps, env)
            and getattr(self._update_info_buffer, "__func__", None) is _COUNTING
        ):
            return self._play(learner, env, callback, rollout_buffer)
        with learner.acting(admissible, is_watched):
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def train(self) -> None:
        """Update the policy with the rollout buffer, as SB3 does."""
        buffer, policy = self.rollout_buffer, self.policy
        try:
            check(buffer)
        except NotCompiled as reason:
            self._say(f"PPO's update runs stable-baselines3's code, not compiled code: {reason}")
            return super().train()
        learner = self._compiled()
        (learner or policy).set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        settings, transitions, found = self._settings(), None, None
        if learner:
            transitions = pack(buffer, lambda seen: inputs_of(seen, policy))
            check_choices(buffer, transitions)
            try:
                found = learner.update(buffer, transitions, settings, self.n_epochs)
            except NotCompiled as reason:
                self._say_torch(reason)
        if transitions is None or found is None:
            in_torch = TorchLearner(policy, buffer)
            transitions, found = in_torch.transitions, in_torch.update(settings, self.n_epochs)
        epochs, stopped = found
        self._n_updates += len(epochs)
        if stopped and self.verbose >= 1:
            kl = epochs[-1][-1, KL]
            print(f"Early stopping at step {len(epochs) - 1} due to reaching max kl: {kl:.2f}")
        explained = explained_variance(transitions.old_values_M, transitions.returns_M)
        self._log(epochs, float(explained), settings)

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Return actions, as SB3 does; with `action_masks`, shape (N, K), admissible ones."""
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        return choose(self.policy, observation, action_masks, deterministic), state

    @property
    def _entropy_is(self) -> str:
        """The name of what a policy returns as entropies, times -1."""
        return "kl_to_start" if getattr(self.policy, "relative_entropy", False) else "entropy_loss"

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_learner", "_told"]

    def _compiled(self) -> Learner | None:
        """Return what acts and learns compiled, or None after saying why there is nothing.

        Raises:
            UserError: there is nothing, and actions are masked, which torch's policies cannot do.
        """
        try:
            if self._learner is None or not self._learner.fits(self.policy):
                self._learner = None
                self._learner = Learner(self.policy)
            return self._learner
        except NotCompiled as reason:
            self._say_torch(reason)
            if isinstance(self.rollout_buffer, MaskableRolloutBuffer):
                raise UserError(
                    "actions are masked where a policy runs compiled, and this one does not, as a "
                    "warning has said: use an MlpPolicy, or MaskablePPO of sb3-contrib with the "
                    "buffer"
                ) from None
            return None

    def _say_torch(self, reason: NotCompiled) -> None:
        self._say(f"PPO runs the network in torch, not in compiled code: {reason}")

    def _say(self, what: str) -> None:
        """Say something once."""
        if what not in self._told:
            self._told |= {what}
            warnings.warn(what, stacklevel=5)

    def _settings(self) -> Settings:
        adam: dict[str, Any] = {"lr": 0.0, "betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0}
        if type(self.policy.optimizer) is torch.optim.Adam:  # others are asked nothing
            adam = self.policy.optimizer.param_groups[0]
        remaining = self._current_progress_remaining
        clip_vf: Any = self.clip_range_vf
        target = self.target_kl
        return Settings(
            batch_size=int(self.batch_size),
            clip_range=float(self.clip_range(remaining)),  # type: ignore[operator]
            clip_range_vf=np.inf if clip_vf is None else float(clip_vf(remaining)),
            normalize_advantage=bool(self.normalize_advantage),
            ent_coef=float(self.ent_coef),
            vf_coef=float(self.vf_coef),
            max_grad_norm=float(self.max_grad_norm),
            target_kl=np.inf if target is None else float(target),
            learning_rate=float(adam["lr"]),
            beta1=float(adam["betas"][0]),
            beta2=float(adam["betas"][1]),
            eps=float(adam["eps"]),
            weight_decay=float(adam["weight_decay"]),
        )

    def _log(self, epochs: list[NDArray[np.float64]], explained: float, settings: Settings) -> None:
        record, all_B_6 = self.logger.record, np.concatenate(epochs)
        record(f"train/{self._entropy_is}", all_B_6[:, ENTROPY].mean())
        record("train/policy_gradient_loss", all_B_6[:, POLICY].mean())
        if self.has_critic:
            record("train/value_loss", all_B_6[:, VALUE].mean())
            record("train/explained_variance", explained)
        record("train/approx_kl", epochs[-1][:, KL].mean())
        record("train/clip_fraction", all_B_6[:, CLIPPED].mean())
        record("train/loss", float(all_B_6[-1, LOSS]))
        if hasattr(self.policy, "log_std"):
            record("train/std", torch.exp(self.policy.log_std).mean().item())
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", settings.clip_range)
        if self.clip_range_vf is not None:
            record("train/clip_range_vf", settings.clip_range_vf)

    def _play(
        self,
        learner: Learner,
        env: KernelVecEnv,
        callback: BaseCallback,
        rollout_buffer: buffers.RolloutBuffer,
    ) -> bool:
        assert isinstance(self._last_obs, np.ndarray), "No previous observation was provided"
        assert self._last_episode_starts is not None
        assert self.ep_info_buffer is not None
        env.vector.check_begun()
        learner.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        n_steps = rollout_buffer.buffer_size
        changed = self._compiled()  # by the callback, perhaps
        if changed is None:
            begun: Any = _Begun(callback)
            return super().collect_rollouts(env, begun, rollout_buffer, n_steps)
        learner = changed
        window = self.ep_info_buffer.maxlen or n_steps * env.num_envs
        record, world = _record(rollout_buffer, window), _world(env)
        now = Now(
            np.array(self._last_obs, np.float32),
            np.array(self._last_episode_starts, np.bool_),
            np.empty(env.num_envs, np.float32),
        )
        step = env.vector.kernel.step
        ended = learner.play(step, world, record, now, n_steps, float(self.gamma))
        told_T_N = record.values_T_N + record.log_probs_T_N + record.actions_T_N_A.sum(axis=2)
        spoilt_T = ~np.isfinite(told_T_N).all(axis=1)
        if spoilt_T.any():
            seen_N_D = record.observations_T_N_D[spoilt_T.argmax()]
            learner.name_what_is_not_finite(seen_N_D.reshape(env.num_envs, -1))
        rollout_buffer.actions[:] = record.actions_T_N_A
        rollout_buffer.pos, rollout_buffer.full = n_steps, True
        self.num_timesteps += n_steps * env.num_envs
        self.ep_info_buffer.extend(_ended(env, record.ended_E_2, ended))
        self._last_obs = new_obs = now.observations_N_D
        self._last_episode_starts = dones = now.starts_N
        values = torch.from_numpy(now.values_N)[:, None]
        rollout_buffer.compute_returns_and_advantage(values, dones)
        count_steps(callback, n_steps)
        rewards, actions = rollout_buffer.rewards[-1], rollout_buffer.actions[-1]
        callback.update_locals(
            {
                "self": self, "env": env, "callback": callback, "rollout_buffer": rollout_buffer,
                "n_rollout_steps": n_steps, "n_steps": n_steps, "new_obs": new_obs,
                "values": values, "dones": dones, "rewards": rewards, "actions": actions,
            }
        )  # fmt: skip
        callback.on_rollout_end()
        return True


class _Begun:
    """A callback that has been told already that a rollout begins."""

    def __init__(self, callback: BaseCallback) -> None:
        self._callback = callback

    def on_rollout_start(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Let an optimiser be made without `torch._dynamo`: to import that takes most of a start.

    torch imports it for the sake of a compiler that is not at work here.
    """
    decorated: Any = Optimizer.add_param_group
    Optimizer.add_param_group = getattr(decorated, "__wrapped__", decorated)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Optimizer.add_param_group = decorated  # type: ignore[method-assign]


def _is_plain(env: VecEnv) -> TypeGuard[KernelVecEnv]:
    """Whether nothing is done at a step but what a kernel does."""
    return type(env) is KernelVecEnv and _STEPPING.isdisjoint(vars(env))


def _can_write_into(buffer: buffers.RolloutBuffer, steps: int, env: KernelVecEnv) -> bool:
    """Whether a buffer is nothing but its arrays, and these are as a kernel takes them.

    A kernel looks at no bounds. Where a buffer is of other environments, SB3 says so.
    """
    plain = type(buffer) in (RolloutBuffer, buffers.RolloutBuffer) and "add" not in vars(buffer)
    shape = (steps, env.num_envs, *(env.observation_space.shape or ()))
    actions = get_action_dim(env.action_space)
    return (
        plain
        and steps == buffer.buffer_size
        and buffer.observations.shape == shape
        and buffer.actions.shape == (steps, env.num_envs, actions)
        and buffer.observations.flags.c_contiguous
    )


def _record(buffer: buffers.RolloutBuffer, window: int) -> Record:
    return Record(
        buffer.observations,
        np.empty(buffer.actions.shape, np.float32),
        buffer.rewards,
        buffer.episode_starts,
        buffer.values,
        buffer.log_probs,
        np.empty((window, 2)),
    )


def _world(env: KernelVecEnv) -> World:
    vector, space = env.vector, env.action_space
    low_A, high_A = np.array([-np.inf]), np.array([np.inf])
    if isinstance(space, spaces.Box):
        low_A, high_A = space.low, space.high
    return World(
        vector.state_N_S, vector.steps_N, vector.over_N, vector.rng_N_4, vector.settings,
        vector.max_episode_steps, env.episode_returns_N, env.episode_lengths_N,
        low_A.ravel().astype(np.float32), high_A.ravel().astype(np.float32),
    )  # fmt: skip


def _ended(env: KernelVecEnv, ended_E_2: NDArray[np.float64], count: int) -> list[dict[str, Any]]:
    """Return what `Monitor` says of the episodes that ended, those that ended last."""
    passed = round(time.time() - env.began, 6)
    last = np.arange(max(count - len(ended_E_2), 0), count) % len(ended_E_2)
    told = ended_E_2[last].tolist()
    return [{"r": round(total, 6), "l": int(length), "t": passed} for total, length in told]
