"""What the members of a vector are doing: their jobs, from an action to its outcome."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode

from .members import APPLY, RESET, STEP, Info, Job, Members, Raised
from .processes import LOST
from .sealed import MaybeSealed
from .seeds import EpisodeSeeds
from .workers import Backend, Caller, Results

_STANDING = ("seen", "_over", "_started", "_seeds")
"""What `Jobs` knows of episodes beside the jobs under way."""


class Jobs:
    """Give members their jobs and keep account of their episodes.

    An exception, of an environment or of ours, closes the backend before it is raised.

    Args:
        backend: Does the jobs.
        seeds: Of the members' episodes.
        autoreset: What follows on the end of an episode.
    """

    def __init__(self, backend: Backend, seeds: EpisodeSeeds, autoreset: AutoresetMode) -> None:
        self._backend, self._seeds, self._autoreset = backend, seeds, autoreset
        self._in_place = backend.members if isinstance(backend, Caller) else None
        self.closed = False
        n = self._count = seeds.count
        self.seen: list[Any] = [None] * n
        """The last observation of each member."""
        self._over = [False] * n
        self._started = False
        self._flying: dict[int, Job] = {}
        self._ready: dict[int, Any] = {}
        self._owed: dict[int, tuple[Any, Info]] = {}

    @property
    def pending(self) -> int:
        """Number of members whose jobs have been begun and not been received."""
        return len(self._flying) + len(self._ready)

    def reset(
        self,
        indices: Sequence[int],
        seed: int | Sequence[int | None] | None,
        options: Sequence[dict[str, Any] | None],
    ) -> Sequence[MaybeSealed]:
        """Begin new episodes of some members."""
        self._check(indices)
        if not self._started and len(indices) < self._count:
            raise ResetNeeded("the first reset is for all members")
        for i in self._backend.lost.intersection(indices):
            self._seeds.recover(i)
        seeds = self._seeds.reset(indices, seed)
        self._started = True
        return self._run(
            [(i, RESET, o, s) for i, o, s in zip(indices, options, seeds, strict=True)]
        )

    def step(
        self, actions: Sequence[Any], indices: Sequence[int] | None = None
    ) -> Sequence[MaybeSealed]:
        """Take an action in every member, or in some, and wait for all."""
        if self._flying or self._ready:
            raise AlreadyPendingCallError("recv() what was sent before step()", "send")
        if indices is not None:
            self._check(indices)
            return self._run(self._jobs(indices, actions))
        if self._in_place is None or self.closed or not self._started or any(self._over):
            return self._run(self._jobs(range(self._count), actions))
        return self._step_in_place(self._in_place, actions)

    def send(self, indices: Sequence[int], actions: Sequence[Any]) -> None:
        """Begin a step of some members."""
        self._check(indices)
        self._dispatch(self._jobs(indices, actions))

    def receive(self, count: int, timeout: float | None) -> dict[int, MaybeSealed]:
        """Wait for steps that were sent, and return the outcomes of all that are done."""
        self._check(())
        count = min(max(count, 1), self.pending)
        until = None if timeout is None else time.monotonic() + timeout
        while len(self._ready) < count:
            left = None if until is None else max(until - time.monotonic(), 0)
            if not self._settle(left) and left == 0:
                break
        ready, self._ready = self._ready, {}
        return ready

    def apply(
        self,
        indices: Sequence[int],
        functions: Sequence[Callable[[gymnasium.Env[Any, Any]], Any]],
    ) -> list[Any]:
        """Return what functions return for the environments of some members."""
        self._check(indices)
        results = self._run(
            [(i, APPLY, function, None) for i, function in zip(indices, functions, strict=True)]
        )
        for i, result in zip(indices, results, strict=True):
            if result is LOST:
                raise ChildProcessError(f"the process of member {i} died: reset it first")
            if isinstance(result, Raised):
                raise result.error
        return results

    def play_on(self, indices: Sequence[int]) -> None:
        """Take the episodes of some members for going on, as their states were set."""
        for i in indices:
            self._over[i] = False

    def get_state(self) -> dict[str, Any]:
        """Return where the episodes stand, of members that have nothing to do."""
        return {name: vars(self)[name] for name in _STANDING}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state)

    def close(self, patience: float | None = None) -> None:
        """End everything."""
        self.closed = True
        self._backend.close(patience)

    def _jobs(self, indices: Sequence[int], actions: Sequence[Any]) -> list[Job]:
        if self.closed:
            raise ClosedEnvironmentError("the vector has been closed")
        if not self._started:
            raise ResetNeeded("call reset() before the first step")
        over, upcoming = self._over, self._seeds.upcoming
        return [
            self._next_episode(i) if over[i] else (i, STEP, action, upcoming[i])
            for i, action in zip(indices, actions, strict=True)
        ]

    def _next_episode(self, index: int) -> Job:
        if self._autoreset is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"the episode of member {index} is over: reset(options={{'reset_mask': mask}})"
            )
        if index in self._backend.lost:
            self._seeds.recover(index)
        return index, RESET, None, self._seeds.take(index)

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        """Do jobs and return their outcomes, in order."""
        if self._in_place is None:
            self._dispatch(jobs)
            wanted = {job[0] for job in jobs}
            while not wanted <= self._ready.keys():
                self._settle(None)
            return [self._ready.pop(job[0]) for job in jobs]
        do = self._in_place.do
        with self._closed_by_errors():
            outcomes = [do(*job) for job in jobs]
        if jobs and jobs[0][1] != APPLY:
            self._note([(job[0], outcome) for job, outcome in zip(jobs, outcomes, strict=True)])
        return outcomes

    def _step_in_place(self, members: Members, actions: Sequence[Any]) -> Sequence[MaybeSealed]:
        """Take a step of all members, of which none is over, without a job for each."""
        try:  # a context manager takes as long as half a step
            outcomes = members.step(actions, self._seeds.upcoming)
        except Exception:
            self.close()
            raise
        self.seen = [outcome[0] for outcome in outcomes]
        if self._autoreset is AutoresetMode.SAME_STEP:
            for i, outcome in enumerate(outcomes):
                if outcome[5]:
                    self._seeds.take(i)
        else:
            self._over = [bool(outcome[2] or outcome[3]) for outcome in outcomes]
        return outcomes

    @contextmanager
    def _closed_by_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.close()
            raise

    def _dispatch(self, jobs: Sequence[Job]) -> None:
        self._flying.update((job[0], job) for job in jobs)
        with self._closed_by_errors():
            self._backend.send(jobs)

    def _settle(self, timeout: float | None) -> bool:
        """Take in outcomes that have come, and tell whether any had."""
        with self._closed_by_errors():
            results = self._backend.receive(timeout)
        flying, played = self._flying, []
        for index, outcome in results:
            job = flying.pop(index)
            if job[1] == APPLY:
                self._ready[index] = outcome
            elif outcome is LOST:
                self._replace(index, job)
            else:
                played.append((index, outcome))
        self._take_in(played)
        return bool(results)

    def _take_in(self, played: Results) -> None:
        self._ready.update(played)
        self._note(played)
        for index in [i for i, _ in played if i in self._owed] if self._owed else ():
            # This is the reset that was part of a step whose process died.
            observation, _, _, _, info, _ = self._ready[index]
            self._ready[index] = observation, 0.0, False, True, info, self._owed.pop(index)

    def _note(self, played: Results) -> None:
        seen, over = self.seen, self._over
        for i, outcome in played:
            seen[i], _, terminated, truncated, _, final = outcome
            if final is None:
                over[i] = bool(terminated or truncated)
            else:  # the member was reset in the same step
                over[i] = False
                self._seeds.take(i)

    def _replace(self, index: int, job: Job) -> None:
        """Do what is to be done instead of a job whose process died."""
        if job[1] == RESET:
            seed = self._seeds.again(index) if job[3] is None else job[3]
            self._dispatch([(index, RESET, job[2], seed)])
            return
        self._seeds.recover(index)
        info = {"failure": "infra", "reward_valid": False}
        if self._autoreset is AutoresetMode.SAME_STEP:
            self._owed[index] = self.seen[index], info
            self._dispatch([(index, RESET, None, self._seeds.take(index))])
        else:
            self._take_in([(index, (self.seen[index], 0.0, False, True, info, None))])

    def _check(self, indices: Sequence[int]) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the vector has been closed")
        for i in indices:
            if not 0 <= i < self._count:
                raise ValueError(f"there is no member {i}: they are 0 to {self._count - 1}")
            if i in self._flying or i in self._ready:
                raise AlreadyPendingCallError(f"recv() the step of member {i} first", "send")
        if len(set(indices)) < len(indices):
            raise ValueError(f"a member is named twice: {list(indices)}")
