"""Products with weights that are laid out anew against plain ones."""

import copy

import pytest
import torch
from palaestra.policies.packed import PackedLinear, pack
from torch import nn


@pytest.fixture
def layers() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(256, 192)
    packed = nn.Sequential(copy.deepcopy(plain)).requires_grad_(False)
    pack(packed)
    assert isinstance(packed[0], PackedLinear)
    return plain, packed[0]


@pytest.mark.parametrize("rows", [1, 8, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_same(rows: int, bias: bool) -> None:
    torch.manual_seed(1)
    plain = nn.Linear(256, 192, bias=bias)
    packed = nn.Sequential(copy.deepcopy(plain)).requires_grad_(False)
    pack(packed)
    x = torch.randn(rows, 3, 256)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), plain(x))


def test_what_was_loaded_is_laid_out_anew(layers: tuple[nn.Linear, nn.Linear]) -> None:
    plain, packed = layers
    x = torch.randn(5, 256)
    with torch.no_grad():
        packed(x)
        for layer in layers:
            layer.weight.mul_(2)
            layer.bias.add_(1)
        torch.testing.assert_close(packed(x), plain(x))


def test_an_optimiser_is_noticed(layers: tuple[nn.Linear, nn.Linear]) -> None:
    plain, packed = layers
    x = torch.randn(5, 256)
    packed.requires_grad_(True)
    for fused in (False, True):
        for layer in layers:
            with torch.no_grad():
                layer(x)
            optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)
            layer(x).square().mean().backward()
            optimizer.step()
            layer.zero_grad()
        with torch.no_grad():
            torch.testing.assert_close(packed(x), plain(x), atol=1e-4, rtol=1e-4)


def test_gradients_pass_through_frozen_weights(layers: tuple[nn.Linear, nn.Linear]) -> None:
    found = []
    for layer in layers:
        layer.requires_grad_(False)
        x = torch.linspace(-1, 1, 512).reshape(2, 256).requires_grad_()
        layer(x).pow(2).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1])


def test_trained_weights_have_their_gradient(layers: tuple[nn.Linear, nn.Linear]) -> None:
    x = torch.linspace(-1, 1, 512).reshape(2, 256)
    for layer in layers:
        layer.requires_grad_(True)
        layer(x).pow(2).sum().backward()
    torch.testing.assert_close(layers[0].weight.grad, layers[1].weight.grad)


def test_what_cannot_be_laid_out_is_left_alone(layers: tuple[nn.Linear, nn.Linear]) -> None:
    small = nn.Sequential(nn.Linear(8, 8))
    pack(small)
    assert type(small[0]) is nn.Linear
    half = layers[1].bfloat16()
    with torch.no_grad():
        assert half(torch.ones(1, 256, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_copy_is_whole(layers: tuple[nn.Linear, nn.Linear]) -> None:
    x = torch.randn(2, 256)
    with torch.no_grad():
        layers[1](x)
        again = copy.deepcopy(layers[1])
        torch.testing.assert_close(again(x), layers[0](x))
