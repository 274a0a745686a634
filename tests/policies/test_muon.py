"""Muon: torch's, and what it computes in closed form."""

import pytest
import torch
from palaestra.policies.muon import Muon, orthogonalized

SHAPES = [(8, 8), (8, 24), (24, 8), (1, 5), (5, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_values_change_by_the_polynomial_and_the_vectors_do_not(
    shape: tuple[int, int], scale: float
) -> None:
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values /= values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert values.min() > 0.6
    assert values.max() < 1.3
    found = orthogonalized(torch.stack([torch.zeros_like(matrix), matrix]))[1]
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), left @ values.diag() @ right, rtol=0, atol=1e-4)


def test_what_is_nothing_stays_nothing() -> None:
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_goes_where_torch_goes(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=draw)
    ours, torchs, turned = (torch.nn.Parameter(way * start) for way in (1, 1, -1))
    unused = torch.nn.Parameter(start.clone())
    optimizers = [
        Muon([ours, unused, turned], 0.02, 0.1),
        torch.optim.Muon([torchs], 0.02, 0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    # A rate that changes, as under a schedule.
    for step in range(20):
        gradient = torch.randn(shape, generator=draw)
        turned.grad = -gradient
        for parameter, optimizer in zip((ours, torchs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 20)
            optimizer.step()
    way = (torchs - start).norm()
    assert way > 0.01
    assert (ours - torchs).norm() < 0.03 * way  # torch's rounds to 8 bits, many times
    assert torch.equal(unused, start)
    assert torch.allclose(turned, -ours, rtol=0, atol=1e-6)


def test_it_goes_on_from_what_was_saved() -> None:
    draw = torch.Generator().manual_seed(2)
    gradients = torch.randn(6, 4, 4, generator=draw)
    start = torch.randn(4, 4, generator=draw)

    def follow(parameter: torch.nn.Parameter, optimizer: Muon, all_of: torch.Tensor) -> None:
        for gradient in all_of:
            parameter.grad = gradient
            optimizer.step()

    whole = torch.nn.Parameter(start.clone())
    follow(whole, Muon([whole], 0.1, 0.0), gradients)
    half = torch.nn.Parameter(start.clone())
    before = Muon([half], 0.1, 0.0)
    follow(half, before, gradients[:3])
    after = Muon([half], 0.5, 0.5)
    after.load_state_dict(before.state_dict())
    follow(half, after, gradients[3:])
    assert torch.equal(half, whole)


def test_weights_of_fewer_bits_are_changed_too() -> None:
    matrix = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.bfloat16))
    matrix.grad = torch.eye(4, dtype=torch.bfloat16)
    assert Muon([matrix], 1.0, 0.0).step(lambda: 3.0) == 3.0
    assert (matrix.diagonal() < -0.2).all()
