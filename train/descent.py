"""Clipping and steps of an optimiser, in fewer and faster calls than torch makes by itself."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..envs.direct import is_compiled
from .compiled.adam import GRADIENT, take_steps
from .compiled.structure import OTHER_STEPS, watched

_MANY = 2**22
"""Parameters from which on a step waits for memory, which torch's threads share."""
_TOLD = ("foreach", "capturable", "differentiable")
"""Options of torch's Adam that say how it is computed."""


class _Places(NamedTuple):
    """Where some parameters and what Adam knows of them lie in memory."""

    known: list[tuple[int, int, int]]
    """Which parameter, its address, and how many numbers it has."""
    tensors: list[torch.Tensor]
    """What lies at the addresses."""
    table_P_6: NDArray[np.int64]
    rates_P_5: NDArray[np.float64]


class Descent:
    """Clip gradients together and take an optimiser's steps, as torch does.

    Where that is Adam on the CPU, it is compiled code: torch makes a dozen calls for each
    parameter, which for small ones takes as long as the network, and reads large ones twice as
    often.

    Args:
        optimizer: Takes the steps. Nobody else changes it or its state in between.
        parameters: Whose gradients are clipped.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._optimizer, self._parameters = optimizer, list(parameters)
        self._on_cpu = all(p.device.type == "cpu" for p in self._parameters)
        self._groups = _groups_of(optimizer, self._parameters)
        self._places: _Places | None = None
        self._begun: list[nn.Parameter] = []

    def clear(self) -> None:
        """Forget gradients."""
        if self._groups is None:
            self._optimizer.zero_grad()
        else:  # without asking who listens
            for p in self._parameters:
                p.grad = None

    def step(self, most: float) -> Any:
        """Shorten the gradient to a norm and take a step.

        Returns:
            The norm that the gradient had: on the CPU a float, and if it is not finite no step is
            taken; elsewhere a tensor that is not looked at.
        """
        learned = [p for p in self._parameters if p.grad is not None]
        gradients = [_laid_as(p) for p in learned]
        places = self._places_of(learned, gradients)
        if places is None:
            norm = self._step_in_torch(most)
        else:
            norm = self._step_compiled(places, gradients, most)
        # So that who remembers what was made of a parameter sees that it is another one.
        torch.autograd.graph.increment_version(learned)
        return norm

    def _step_in_torch(self, most: float) -> Any:
        norm = nn.utils.clip_grad_norm_(self._parameters, most)
        if not self._on_cpu:
            self._optimizer.step()
            return norm
        if math.isfinite(norm):
            self._optimizer.step()
        return float(norm)

    def _step_compiled(self, places: _Places, gradients: list[Any], most: float) -> float:
        places.table_P_6[:, GRADIENT] = [gradient.data_ptr() for gradient in gradients]
        norm: float = take_steps(places.table_P_6, places.rates_P_5, most)
        if not math.isfinite(norm):  # no memory of steps is left where torch leaves none
            for p in self._begun:
                del self._optimizer.state[p]
            self._places = None
        self._begun.clear()
        return norm

    def _places_of(self, learned: list[nn.Parameter], gradients: list[Any]) -> _Places | None:
        """Return where what a compiled step takes lies; None if it takes none like these."""
        if self._groups is None or not all(map(_are_plain, learned, gradients)):
            return None
        known = [(id(p), p.data_ptr(), p.numel()) for p in learned]
        if self._places is None or self._places.known != known:
            self._places = self._find(learned, self._groups, known)
        return self._places

    def _find(
        self,
        learned: list[nn.Parameter],
        groups: dict[nn.Parameter, dict[str, Any]],
        known: list[tuple[int, int, int]],
    ) -> _Places | None:
        found, table, rates = [], [], []
        for p in learned:
            state, group = self._optimizer.state[p], groups[p]
            if not state:
                self._begun.append(p)
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            tensors = [p.detach(), *(state[name] for name in ("exp_avg", "exp_avg_sq", "step"))]
            if any(tensor.shape != p.shape for tensor in tensors[:-1]):
                return None
            values, *others = (tensor.data_ptr() for tensor in tensors)
            found += tensors
            table.append([values, 0, *others, p.numel()])
            rates.append([group["lr"], *group["betas"], group["eps"], group["weight_decay"]])
        table_P_6 = np.array(table, np.int64).reshape(-1, 6)
        return _Places(known, found, table_P_6, np.array(rates, np.float64).reshape(-1, 5))


@contextmanager
def fused(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let Adam take a step in one call where it would do so only if told.

    On a GPU torch already does, and would want its count of steps to be there.
    """
    groups: list[dict[str, Any]] = []
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        groups = [g for g in optimizer.param_groups if _can_be_fused(g, optimizer.state)]
    for group in groups:
        group["fused"] = True
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = None


def _groups_of(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> dict[nn.Parameter, dict[str, Any]] | None:
    """Return the group of each parameter; None if the steps are none that are compiled."""
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    plain = (
        is_compiled(take_steps)
        and type(optimizer) is torch.optim.Adam
        and not watched(optimizer)
        and groups.keys() == set(parameters)
        and sum(p.numel() for p in parameters) < _MANY
        and all(_can_be_fused(g, optimizer.state) for g in optimizer.param_groups)
    )
    if not plain:
        return None
    other = any(
        any(group.get(option) for option in OTHER_STEPS)
        or any(isinstance(rate, torch.Tensor) for rate in (group["lr"], *group["betas"]))
        for group in optimizer.param_groups
    )
    tensors = [t for p in parameters for t in (p, *optimizer.state.get(p, {}).values())]
    return None if other or any(t.dtype is not torch.float32 for t in tensors) else groups


def _can_be_fused(group: dict[str, Any], state: Any) -> bool:
    """Tell whether code that reads numbers as they lie in memory is right."""
    told = any(group.get(option) for option in _TOLD)
    plain = all(
        isinstance(tensor, torch.Tensor)
        and tensor.shape == (() if name == "step" else p.shape)
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and tensor.is_contiguous()
        for p in group["params"]
        for name, tensor in {"": p, **state.get(p, {})}.items()
    )
    return group.get("fused") is None and plain and not told


def _are_plain(p: nn.Parameter, gradient: torch.Tensor) -> bool:
    """Tell whether code that reads numbers as they lie in memory is right here, too."""
    return (
        p.is_contiguous()
        and gradient.layout is torch.strided
        and gradient.shape == p.shape
        and p.dtype is gradient.dtype is torch.float32
    )


def _laid_as(p: nn.Parameter) -> Any:
    """Let a gradient lie in memory as its parameter does, if a hook has changed it; return it."""
    gradient: Any = p.grad
    if gradient.layout is torch.strided and p.is_contiguous() and not gradient.is_contiguous():
        p.grad = gradient = gradient.contiguous()
    return gradient
