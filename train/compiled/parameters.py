"""One flat array of parameters that torch and the kernels share.

Every `nn.Parameter` of the policy is a view of it, its gradient and Adam's two moments are views
of others, so whatever torch is asked (`predict`, `save`, `state_dict`...) it tells the truth.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .adam import Adam
from .network import Floats
from .structure import NotCompiled, places


class SharedParameters:
    """The parameters of a policy and the state of its optimiser, flat.

    Args:
        parameters: All parameters, float32, on the CPU.
        optimizer: Adam, for these parameters.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        self._parameters, self._optimizer = list(parameters), optimizer
        *self._starts, self._length = places(self._parameters)
        self._flat, self._gradient, self._means, self._squares = (self._zeros() for _ in range(4))
        self._steps = torch.zeros(len(self._parameters))
        moments = zip(self._steps, self._means[1], self._squares[1], strict=True)
        self._states = [
            {"step": step, "exp_avg": mean, "exp_avg_sq": square} for step, mean, square in moments
        ]

    # Arrays are made anew for each use: torch moves memory that it puts where other processes see
    # it (`share_memory_`, a queue, a pipe), and frees what was there.

    @property
    def values(self) -> Floats:
        """All parameters in the order of the policy's, with gaps of zeros, shape (P,)."""
        return self._flat[0].numpy()

    @property
    def adam(self) -> Adam:
        """What belongs to them, each of shape (P,)."""
        return Adam(*(part[0].numpy() for part in (self._gradient, self._means, self._squares)))

    def apart(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the parameters that are elsewhere, each with its view of `values`."""
        pairs = zip(self._parameters, self._flat[1], strict=True)
        return [(p, view) for p, view in pairs if p.data_ptr() != view.data_ptr()]

    def can_link(self) -> bool:
        """Whether `link` leaves the parameters what they are to others."""
        return all(
            p.shape == view.shape
            and p.dtype is view.dtype
            and p.device == view.device
            and not p.untyped_storage().is_shared()
            for p, view in self.apart()
        )

    def link(self) -> None:
        """See to it that torch's parameters are views of `values`, with torch's values.

        Loading and copying replace tensors, so this is called before each use.
        """
        for p, view in self.apart():
            view.copy_(p.data)
            p.data = view

    def link_optimizer(self) -> int:
        """Do the same for Adam's state and the gradients, and return the steps Adam has taken.

        Raises:
            NotCompiled: Adam has taken another number of steps for some parameters.
        """
        state: Any = self._optimizer.state
        for p, views in zip(self._parameters, self._states, strict=True):
            _link(state[p], views)
        counts = set(self._steps.tolist())
        if len(counts) > 1:
            raise NotCompiled("the optimiser has updated some parameters more often than others")
        for p, slope in zip(self._parameters, self._gradient[1], strict=True):
            if p.grad is not slope:
                p.grad = slope
        return int(counts.pop())

    def count_steps(self, steps: int) -> None:
        """Tell torch how many steps Adam has taken."""
        self._steps.fill_(steps)

    def _zeros(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return a flat tensor and the views of it that have the shapes of the parameters."""
        flat = torch.zeros(self._length)
        return flat, [
            flat[start : start + p.numel()].view_as(p)
            for start, p in zip(self._starts, self._parameters, strict=True)
        ]


def _link(state: dict[str, Any], views: dict[str, torch.Tensor]) -> None:
    """Put views in the place of a parameter's tensors, with what these hold, 0 if there are none.

    Views that stand there already are left.
    """
    for name, view in views.items():
        held = state.get(name)
        if held is view:
            continue
        if held is None:
            view.zero_()
        elif held.data_ptr() != view.data_ptr():
            view.copy_(held)
        state[name] = view
