"""Muon, an optimiser for matrices: steps whose directions all weigh about the same."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import overload

import torch

_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-7
_SMALL = 2**15
"""Weights of a matrix; of larger ones, copies of all at once would take much memory."""


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` that computes in float32.

    Torch's rounds to bfloat16: on a CPU without instructions for it, that takes ten to thirty
    times as long, the more so the larger the matrices.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with
    the rates of Liu et al., "Muon is scalable for LLM training" (2025), which are those of AdamW.

    Args:
        params: Matrices.
        lr: Learning rate, one that AdamW would have.
        weight_decay: The share of a matrix, times `lr`, that a step takes away.
    """

    def __init__(self, params: Iterable[torch.Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    # Small ones of a shape at once, for their products take less than a call.
                    alone = 0 if matrix.numel() < _SMALL else id(matrix)
                    alike[matrix.shape, matrix.dtype, matrix.device, alone].append(matrix)
            for matrices in alike.values():
                directions = orthogonalized(torch.stack([self._moved(m) for m in matrices]))
                size = 0.2 * math.sqrt(max(matrices[0].shape)) * group["lr"]
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction.to(matrix.dtype), alpha=-size)
        return loss

    def _moved(self, matrix: torch.Tensor) -> torch.Tensor:
        """Take a matrix's gradient into its momentum, and return where that now points."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        moved = state["momentum"].lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(moved, _MOMENTUM)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices whose singular values are all near 1, in float32.

    The singular vectors remain. The values, divided by the matrix's norm, each go five times
    through the same odd polynomial, which drives those above 0.002 to between 0.68 and 1.21.

    Args:
        matrices: Shape (N, R, C).
    """
    wide = matrices.float()
    is_tall = wide.shape[1] > wide.shape[2]
    if is_tall:
        wide = wide.mT
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=_LEAST_NORM)
    first, third, fifth = _QUINTIC
    for _ in range(_ITERATIONS):
        squares = wide @ wide.mT
        factor = torch.baddbmm(squares, squares, squares, beta=third, alpha=fifth)
        wide = torch.baddbmm(wide, factor, wide, beta=first)
    return wide.mT if is_tall else wide
