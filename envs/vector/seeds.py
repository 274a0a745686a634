"""Which seed each episode of each member of a vector begins with."""

from collections.abc import Sequence

import numpy as np

from ...errors import UserError


def episode_seed(seed: int, group: int, episode: int) -> int:
    """Return the seed of an episode of a group, below 2^32 as every generator takes it."""
    return int(np.random.SeedSequence([seed, group, episode]).generate_state(1)[0])


class EpisodeSeeds:
    """The seeds of the members' episodes, whatever the members do in them.

    Without groups they are Gymnasium's: member i begins with `seed + i` and goes on drawing
    from its own generator. In groups of k, members g*k to g*k + k-1 play the same task: episode
    n of group g begins with `episode_seed(seed, g, n)`, for each member when it gets there.

    Args:
        num_envs: Number of members.
        group_size: Members that play the same tasks, k.

    Raises:
        UserError: the members cannot be divided into such groups.
    """

    def __init__(self, num_envs: int, group_size: int) -> None:
        if num_envs < 1 or group_size < 1 or num_envs % group_size:
            raise UserError(
                f"{num_envs} environments cannot be divided into groups of {group_size}"
            )
        self.count, self._group_size = num_envs, group_size
        self._base: list[int | None] = [None] * num_envs
        self._episode = [-1] * num_envs
        self.upcoming: list[int | None] = [None] * num_envs
        """What the next episode of each member begins with; None goes on drawing."""

    def reset(
        self, indices: Sequence[int], seed: int | Sequence[int | None] | None
    ) -> list[int | None]:
        """Return the seeds of a reset of some members.

        Args:
            indices: The members.
            seed: Begins anew with the first episode; None goes on with the next one, which for
                a group that is reset as a whole is the one after that of its furthest member.
                Of a list, which has an entry for every member of the vector, member i's first
                episode begins with entry i itself.

        Raises:
            UserError: a list has another length, or two seeds for one group.
        """
        if seed is None:
            return self._go_on(indices)
        if isinstance(seed, int | np.integer):
            k = self._group_size
            bases = [int(seed) + (i if k == 1 else 0) for i in range(self.count)]
            seeds: list[int | None] = [
                base if k == 1 else episode_seed(base, i // k, 0) for i, base in enumerate(bases)
            ]
        else:
            seeds = self._listed(seed)
            bases = seeds  # type: ignore[assignment]
        for i in indices:
            if seeds[i] is not None:
                self._base[i], self._episode[i] = bases[i], -1
                self.upcoming[i] = seeds[i]
        return self._go_on(indices)

    def take(self, index: int) -> int | None:
        """Return the seed of a member's next episode, which begins now."""
        seed = self.upcoming[index]
        self._episode[index] += 1
        self.upcoming[index] = None if self._group_size == 1 else self._of_next(index)
        return seed

    def recover(self, index: int) -> None:
        """Give a member, whose generator is lost, a seed for its next episode."""
        if self.upcoming[index] is None and self._base[index] is not None:
            self.upcoming[index] = self._of_next(index)

    def again(self, index: int) -> int | None:
        """Return a seed for the episode that a member, whose generator is lost, was to begin."""
        self._episode[index] -= 1
        self.recover(index)
        return self.take(index)

    def _go_on(self, indices: Sequence[int]) -> list[int | None]:
        if self._group_size > 1:
            self._draw_missing(indices)
            self._line_up(set(indices))
        return [self.take(i) for i in indices]

    def _draw_missing(self, indices: Sequence[int]) -> None:
        """Give members that were never seeded one base."""
        if any(self._base[i] is None for i in indices):
            base = int(np.random.SeedSequence().generate_state(1)[0])
            for i in range(self.count):
                if self._base[i] is None:
                    self._base[i] = base
                    self.upcoming[i] = self._of_next(i)

    def _line_up(self, indices: set[int]) -> None:
        """Bring the members of groups that are reset as a whole to the same episode."""
        k = self._group_size
        for g in {i // k for i in indices}:
            members = range(g * k, g * k + k)
            last = max(self._episode[i] for i in members)
            if indices.issuperset(members) and any(self._episode[i] != last for i in members):
                for i in members:
                    self._episode[i] = last
                    self.upcoming[i] = self._of_next(i)

    def _of_next(self, index: int) -> int:
        base = self._base[index]
        assert base is not None
        return episode_seed(base, index // self._group_size, self._episode[index] + 1)

    def _listed(self, seed: Sequence[int | None]) -> list[int | None]:
        seeds = [None if s is None else int(s) for s in seed]
        if len(seeds) != self.count:
            raise UserError(f"{len(seeds)} seeds were given for {self.count} environments")
        k = self._group_size
        for i, s in enumerate(seeds):
            if s != seeds[i - i % k]:
                raise UserError(f"members {i - i % k} and {i} of one group have different seeds")
        return seeds
