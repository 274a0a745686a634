"""Many copies of one environment at once: for worlds that are fast, that wait, or that compute.

`make_vec` makes a `Vector`, which is a `gymnasium.vector.VectorEnv` and plays byte for byte the
same episodes in every mode, and the same as its members would alone. What it adds to
Gymnasium's vector environments:

- groups of members that play the same tasks, as GRPO wants them (`group_size`);
- `send` and `recv`, so that nobody waits for the slowest tool;
- the death of a process is a failure of the machinery (`info["failure"] == "infra"`), not of
  the agent, and not of the training;
- infos that no merging changes, and final observations and infos that survive autoreset.
"""

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ...errors import UserError
from .. import views
from .batch import Batch, Batches, batch_infos
from .jobs import Jobs
from .members import Info, Maker, Outcome, assign, call, frozen, render, thawed
from .mode import Mode, available_cpus, choose, measure, workers
from .processes import Processes
from .sealed import MaybeSealed, opened
from .seeds import EpisodeSeeds
from .workers import Backend, Caller, Threads


def make_vec(
    env_id: str,
    num_envs: int,
    mode: Mode | Literal["auto"] = "auto",
    view: views.View = "native",
    *,
    split: str | None = None,
    group_size: int = 1,
    autoreset: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    num_workers: int | None = None,
    **kwargs: Any,
) -> "Vector":
    """Make a vector of a registered environment.

    Args:
        env_id: A Gymnasium id, `palaestra/Capitals-v0` or `module:id`.
        num_envs: Number of members.
        mode: `sync`, `threads`, `processes`, or `auto`: what suits the steps of a trial
            environment (`mode.choose`). The attribute `mode` tells which it became.
        view: `native` as it is, `array` for SB3, `text` for a language model, `dialogue` and
            `choices` for one that SB3 trains.
        split: Which tasks are drawn, where the environment has splits; None for its default.
        group_size: Members that play the same tasks (`seeds.EpisodeSeeds`).
        autoreset: As in Gymnasium: NEXT_STEP, SAME_STEP or DISABLED.
        num_workers: Threads or processes; None for what suits the steps of a trial environment
            (`mode.workers`): one a CPU if they are worth it, else fewer.
        kwargs: For the environment.

    Raises:
        UserError: no such environment, mode, split or view, or the groups do not fit.
    """
    spec = views.find_spec(env_id)
    # Gymnasium's passive checker is for the one who writes an environment, not for n copies.
    kwargs = {"disable_env_checker": True} | kwargs
    maker = partial(_make, spec, view, split, kwargs)
    if mode == "auto":
        mode, chosen = choose(measure(maker), num_envs)
        num_workers = num_workers or chosen
    elif mode in ("threads", "processes") and num_workers is None:
        num_workers = workers(mode, measure(maker), num_envs)
    vector = Vector(
        [maker] * num_envs,
        mode,
        group_size=group_size,
        autoreset=autoreset,
        num_workers=num_workers,
    )
    vector.spec = copy.deepcopy(spec)
    vector.spec.kwargs |= kwargs | ({} if split is None else {"split": split})
    return vector


class Vector(VectorEnv[Any, Any, NDArray[Any]]):
    """A vector of any Gymnasium environments with equal spaces.

    Texts come as a tuple of strings, arrays stacked, infos as `infos.Infos` says.
    An exception of an environment is raised here, after everything has been closed. A process
    that dies costs the episodes of its members: they are truncated with reward 0, the last
    observation and `{"failure": "infra", "reward_valid": False}` as info, and their next
    episodes, from seeds that follow from the old ones, are played in a new process.

    Args:
        makers: Make the members.
        mode: Where they live.
        group_size: Members that play the same tasks.
        autoreset: What follows on the end of an episode.
        num_workers: Threads or processes, among which the members are divided; None for one a
            CPU.

    Raises:
        UserError: no such mode, or the groups do not fit.
    """

    def __init__(
        self,
        makers: Sequence[Maker],
        mode: Mode = "sync",
        *,
        group_size: int = 1,
        autoreset: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_workers: int | None = None,
    ) -> None:
        n = self.num_envs = len(makers)
        seeds = EpisodeSeeds(n, group_size)
        self.mode, self.group_size, self._num_workers = mode, group_size, num_workers
        self.autoreset_mode = AutoresetMode(autoreset)
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        backend = _backend(makers, mode, same_step, num_workers)
        self._finalizer = weakref.finalize(self, backend.close, 1.0)
        self._jobs = Jobs(backend, seeds, self.autoreset_mode)
        facts = backend.facts
        self.metadata = {**facts.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = facts.render_mode
        self.single_observation_space = facts.observation_space
        self.single_action_space = facts.action_space
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self.batches = Batches(self.single_observation_space, self.action_space)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Info]:
        """Begin new episodes, in all members or in those of `options["reset_mask"]`.

        Args:
            seed: Member i begins with `seed + i`, or with entry i of a list; groups as
                `seeds.EpisodeSeeds` says. None goes on.
            options: For the environments.

        Returns:
            The observations of all members, and the infos of those that were reset.

        Raises:
            ValueError: the mask or the list of seeds does not fit.
        """
        options = None if options is None else dict(options)
        indices = self._masked(None if options is None else options.pop("reset_mask", None))
        outcomes = dict(zip(indices, self._reset(seed, options, indices), strict=True))
        infos = [outcomes[i][4] if i in outcomes else {} for i in range(self.num_envs)]
        return self.batches.observations(self._jobs.seen), batch_infos(infos)

    def reset_members(
        self,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | Sequence[dict[str, Any] | None] | None = None,
        indices: Sequence[int] | None = None,
    ) -> Sequence[Outcome]:
        """Begin new episodes and return what each member returned, without a batch of it.

        Args:
            seed: As for `reset`.
            options: For all environments, or a list with an entry for each that is reset.
            indices: The members; None for all.
        """
        return opened(self._reset(seed, options, indices))

    def _reset(
        self,
        seed: int | Sequence[int | None] | None,
        options: dict[str, Any] | Sequence[dict[str, Any] | None] | None,
        indices: Sequence[int] | None,
    ) -> Sequence[MaybeSealed]:
        indices = range(self.num_envs) if indices is None else indices
        if options is None or isinstance(options, dict):
            options = [options] * len(indices)
        return self._jobs.reset(indices, seed, options)

    def step(self, actions: Any) -> Batch:
        """Take an action in every member.

        Args:
            actions: A batch of actions; for text environments a list of messages.

        Returns:
            Observations, rewards (float64), terminations, truncations and infos. With SAME_STEP
            `final_obs` and `final_info` hold what ended episodes had to say.

        Raises:
            ResetNeeded: `reset` was never called, or an episode is over under DISABLED.
        """
        return self.batches.outcomes(self._step(actions))

    def step_members(self, actions: Any, indices: Sequence[int] | None = None) -> Sequence[Outcome]:
        """Take actions in members and return what each returned, without a batch of it.

        Args:
            actions: A batch of actions.
            indices: The members that take them; None for all.
        """
        return opened(self._step(actions, indices))

    def _step(self, actions: Any, indices: Sequence[int] | None = None) -> Sequence[MaybeSealed]:
        count = self.num_envs if indices is None else len(indices)
        return self._jobs.step(self.batches.actions(actions, count), indices)

    def send(self, actions: Any, indices: Sequence[int] | None = None) -> None:
        """Begin steps, and return without waiting for them.

        Args:
            actions: A batch of actions.
            indices: The members that take them; None for all.

        Raises:
            AlreadyPendingCallError: a step of one of them has not been received.
        """
        indices = range(self.num_envs) if indices is None else [int(i) for i in indices]
        self._jobs.send(indices, self.batches.actions(actions, len(indices)))

    def recv(
        self, min_count: int = 1, timeout: float | None = None
    ) -> tuple[NDArray[np.int64], Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Wait for some of the steps that were sent and return those that are done.

        Args:
            min_count: How many to wait for; at least one, at most as many as were sent.
            timeout: Seconds to wait; after them what is there is returned, be it nothing. In
                sync mode, which takes the steps here and in order, it has no effect.

        Returns:
            Numbers of the members, in the order in which they came, and what `step` returns,
            for these members only.

        Raises:
            NoAsyncCallError: nothing was sent.
        """
        if not self._jobs.pending:
            raise NoAsyncCallError("send() before recv()", "send")
        ready = self._jobs.receive(min_count, timeout)
        return np.array([*ready], np.int64), *self.batches.outcomes([*ready.values()])

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every member, or read an attribute."""
        return self.call_some(range(self.num_envs), name, *args, **kwargs)

    def call_some(
        self, indices: Iterable[int], name: str, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Call a method of some members, such as `set_state`, or read an attribute.

        A member whose state is set plays on in it, also when its last episode was over.
        """
        if name in ("reset", "step", "close"):
            raise ValueError(f"use {name}() itself, so that the vector knows of it")
        indices = list(indices)
        results = self.apply(partial(call, name=name, args=args, kwargs=kwargs), indices)
        if name == "set_state":
            self._jobs.play_on(indices)
        return results

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every member."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every member: a list has a value for each.

        Raises:
            ValueError: a list has another length.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{len(values)} values were given for {self.num_envs} environments")
        assigned = [partial(assign, name=name, value=value) for value in values]
        self._jobs.apply(range(self.num_envs), assigned)

    def render(self) -> tuple[Any, ...]:
        """Return what every member renders."""
        return self.apply(render)

    def apply(
        self,
        function: Callable[[gymnasium.Env[Any, Any]], Any],
        indices: Sequence[int] | None = None,
    ) -> tuple[Any, ...]:
        """Return what a function of an environment returns for some members, or for all.

        Raises:
            ChildProcessError: the process of one died, and it has not been reset since.
        """
        indices = range(self.num_envs) if indices is None else indices
        return tuple(self._jobs.apply(indices, [function] * len(indices)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the members as they are, and what is known of them; a copy goes on from there.

        Raises:
            AlreadyPendingCallError: a step has not been received.
            ChildProcessError: the process of a member died, and it has not been reset since.
        """
        makers = [partial(thawed, raw) for raw in self.apply(frozen)]
        settings = self.mode, self.group_size, self.autoreset_mode, self._num_workers
        return _unpickled, (makers, settings, self._jobs.get_state(), self.spec)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the members; in processes, copies of them."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seeds that the members were last reset with."""
        return self.get_attr("np_random_seed")

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end all threads and processes.

        A thread is waited for until its step is done; a process that is busy after a second is
        killed, with all that it started.
        """
        self._finalizer.detach()
        self._jobs.close()

    @property
    def closed(self) -> bool:
        """Whether everything has been closed, here or because an environment raised."""
        return self._jobs.closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self._jobs.closed = value

    def _masked(self, mask_N: Any) -> Sequence[int]:
        """Return the numbers of the members that a mask means."""
        if mask_N is None:
            return range(self.num_envs)
        if not isinstance(mask_N, np.ndarray) or mask_N.dtype != np.bool_:
            raise TypeError(f"reset_mask must be an array of booleans, not {mask_N!r}")
        if mask_N.shape != (self.num_envs,) or not mask_N.any():
            raise ValueError(f"reset_mask must name some of {self.num_envs} members: {mask_N}")
        return [int(i) for i in np.flatnonzero(mask_N)]


def _backend(
    makers: Sequence[Maker], mode: Mode, same_step: bool, num_workers: int | None
) -> Backend:
    match mode:
        case "sync":
            return Caller(makers, same_step)
        case "threads":
            return Threads(makers, same_step, num_workers or available_cpus())
        case "processes":
            return Processes(makers, same_step, num_workers or available_cpus())
    raise UserError(f"unknown mode {mode!r}; the modes are: auto, sync, threads, processes")


def _unpickled(
    makers: Sequence[Maker], settings: tuple[Any, ...], state: dict[str, Any], spec: EnvSpec | None
) -> Vector:
    mode, group_size, autoreset, num_workers = settings
    vector = Vector(
        makers, mode, group_size=group_size, autoreset=autoreset, num_workers=num_workers
    )
    vector.spec = spec
    vector._jobs.set_state(state)
    return vector


def _make(
    spec: EnvSpec, view: views.View, split: str | None, kwargs: dict[str, Any]
) -> gymnasium.Env[Any, Any]:
    # The process of a worker knows what `palaestra.envs` registers, but not what the caller did.
    gymnasium.registry.setdefault(spec.id, spec)
    return views.make(spec.id, view, split=split, **kwargs)
