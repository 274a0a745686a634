"""Compiled layers are torch's, and what is no plain NatureCNN is left to torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import assume, given
from hypothesis import strategies as st
from palaestra.train import images
from palaestra.train.compiled.products import IS_FAST
from palaestra.train.images import convolver
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn
from torch.nn.utils import prune

pytestmark = pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")
SPACE = spaces.Box(0, 255, (3, 36, 36), np.uint8)


def pictures(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8)


def network(*layers: nn.Module, space: spaces.Box = SPACE, features: int = 4) -> NatureCNN:
    """Return a NatureCNN, of other layers if some are given."""
    torch.manual_seed(0)
    made = NatureCNN(space, features_dim=features)
    if layers:
        made.cnn, made.linear = nn.Sequential(*layers), nn.Sequential()
    return made


def compare(made: NatureCNN, seen: torch.Tensor, rows_B: torch.Tensor) -> None:
    """See whether features and gradients are those that torch finds with twice the digits."""
    scale = scale_of(seen)
    read = convolver(made, seen, scale)
    assert read is not None
    found = read(rows_B)
    slopes = torch.randn(found.shape)
    parameters = list(made.parameters())
    gradients = torch.autograd.grad(found, parameters, slopes)
    made.double()
    expected = made(seen[rows_B].double() * scale)
    exact = torch.autograd.grad(expected, parameters, slopes.double())
    made.float()
    for mine, its in zip((found, *gradients), (expected, *exact), strict=True):
        assert mine.shape == its.shape
        assert (mine - its).norm() <= 2e-6 * its.norm() + 1e-12


def compare_learned(made: NatureCNN, seen: torch.Tensor) -> list[torch.Tensor | None]:
    """See whether gradients of parameters are torch's, also where there are none; return them."""
    read = convolver(made, seen, 1 / 255)
    assert read is not None
    read(torch.arange(len(seen))).sum().backward()
    found = [p.grad for p in made.parameters()]
    made.zero_grad()
    made(seen / 255).sum().backward()
    for mine, p in zip(found, made.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=1e-4, atol=1e-5)
    return found


def scale_of(seen: torch.Tensor) -> float:
    return 1 / 255 if seen.dtype is torch.uint8 else 1.0


def is_chance(made: NatureCNN, seen: torch.Tensor) -> bool:
    """Tell whether the slope of a relu depends on how what it is given was rounded."""
    made.double()
    image, found = seen.double() * scale_of(seen), False
    for module in made.cnn:
        image = module(image)
        if type(module) is nn.Conv2d:
            found |= bool(((image != 0) & (image.abs() < 1e-5 * image.abs().mean())).any())
    made.float()
    return found


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [(3, 36, 36), (1, 40, 52), (4, 84, 84)])
def test_natures_network_is_what_it_is_in_torch(shape: tuple[int, int, int]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    compare(network(space=space), pictures(30, *shape), torch.randperm(30)[:25])


@pytest.fixture
def large() -> NatureCNN:
    """Return a NatureCNN with a dense layer that is compiled."""
    return network(space=spaces.Box(0, 255, (4, 84, 84), np.uint8), features=100)


@pytest.mark.parametrize("count", [32, 64, 96, 33])
def test_a_large_dense_layer_is_what_it_is_in_torch(
    large: NatureCNN, count: int, counted: Callable[[Any], list[int]], threads: int
) -> None:
    counts = counted(images.dense)
    compare(large, pictures(40, 4, 84, 84), torch.randint(0, 40, (count,)))
    assert len(counts) == (0 if count == 33 else min(threads, count // 32))


@pytest.mark.parametrize("frozen", ["weight", "bias", "cnn"])
def test_a_large_dense_layer_may_be_frozen(large: NatureCNN, frozen: str) -> None:
    part = large.cnn if frozen == "cnn" else getattr(large.linear[0], frozen)
    part.requires_grad_(requires_grad=False)
    found = compare_learned(large, pictures(32, 4, 84, 84))
    are_learned = [p.requires_grad for p in large.parameters()]
    assert [gradient is not None for gradient in found] == are_learned


def listened() -> nn.Module:
    layers = nn.Sequential(nn.Linear(3136, 100), nn.ReLU())
    layers[0].register_forward_hook(lambda *_: None)
    return layers


DENSE: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Sequential,
    "compiled": lambda: nn.Sequential(nn.Linear(3136, 100)),
    "small": lambda: nn.Sequential(nn.Linear(3136, 10)),
    "hook": listened,
    "no bias": lambda: nn.Sequential(nn.Linear(3136, 100, bias=False), nn.ReLU()),
    "normalised": lambda: nn.Sequential(nn.LayerNorm(3136), nn.Linear(3136, 100)),
    "parametrised": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3136, 100)), nn.ReLU()
    ),
    "no sequence": lambda: nn.Linear(3136, 100),
}


@pytest.mark.parametrize("kind", DENSE)
def test_what_follows_convolutions_may_be_any(
    large: NatureCNN, kind: str, counted: Callable[[Any], list[int]]
) -> None:
    counts, seen = counted(images.dense), pictures(32, 4, 84, 84)
    read = convolver(large, seen, 1 / 255)
    assert read is not None
    large.linear = DENSE[kind]()
    found = read(torch.arange(32))
    torch.testing.assert_close(found, large(seen / 255), rtol=1e-4, atol=1e-5)
    assert len(counts) == (kind == "compiled")
    assert len(read(torch.arange(0))) == 0


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Draw convolutions, and the shape of an image that they leave something of."""
    torch.manual_seed(0)
    channels, side = draw(st.integers(1, 5)), st.integers(1, 5)
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    layers: list[Any] = []
    filters = [draw(st.sampled_from([32, 64])) for _ in range(draw(st.integers(1, 3)))]
    for below, above in zip([channels, *filters], filters, strict=False):
        window, steps = draw(st.tuples(side, side)), draw(st.tuples(side, side))
        if draw(st.booleans()):  # as `winograd` has it
            steps = (step := draw(st.integers(1, 3)), step)
            window = (step * (sides := draw(st.integers(2, 3))), step * sides)
        layers += [nn.Conv2d(below, above, window, steps), nn.ReLU()]
    for layer in layers[-2::-2]:
        height = (height - 1) * layer.stride[0] + layer.kernel_size[0]
        width = (width - 1) * layer.stride[1] + layer.kernel_size[1]
    more = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    return [*layers, nn.Flatten()], (channels, min(height + more[0], 60), min(width + more[1], 60))


@given(stack=stacks(), count=st.integers(1, 20), is_bytes=st.booleans())
def test_windows_and_steps_may_be_any(stack: Any, count: int, is_bytes: bool) -> None:
    layers, shape = stack
    seen = pictures(count, *shape)
    made = network(*layers)
    seen = seen if is_bytes else seen / 255
    try:
        made.cnn(torch.zeros(1, *shape))
    except RuntimeError:  # too small
        assert convolver(made, seen, 1.0) is None
        return
    assume(not is_chance(made, seen))
    compare(made, seen, torch.randint(0, count, (count,)))


@pytest.mark.parametrize("bias", [0.0, 0.3])  # stable-baselines3 begins with zeros
@pytest.mark.parametrize("shape", [(3, 36, 36), (1, 40, 52), (4, 84, 84)])
def test_where_there_is_nothing_to_see_a_relu_passes_no_more_than_a_bias(
    shape: tuple[int, int, int], bias: float
) -> None:
    made = network(space=spaces.Box(0, 255, shape, np.uint8))
    for layer in made.cnn[:-1:2]:
        nn.init.uniform_(layer.bias, -bias, bias)
    seen = torch.zeros(9, *shape, dtype=torch.uint8)
    for picture in seen:
        for top, left in torch.randint(0, 32, (4, 2)).tolist():
            picture[:, top : top + 4, left : left + 2] = 255
    compare(made, seen, torch.arange(9))


def test_a_weight_that_is_no_number_is_not_hidden_by_zeros() -> None:
    made = network()
    with torch.no_grad():
        made.cnn[2].weight[0, 0, 0, 0] = torch.nan
    read = convolver(made, torch.zeros(4, 3, 36, 36, dtype=torch.uint8), 1 / 255)
    assert read is not None
    assert read(torch.arange(4)).isnan().any()


def test_what_one_thread_began_others_do_not_end(threads: int) -> None:
    made, rows_B = network(), torch.arange(25)
    read = convolver(made, pictures(30, 3, 36, 36), 1 / 255)
    assert read is not None
    parameters = list(made.parameters())
    alone = torch.autograd.grad(read(rows_B).sum(), parameters)
    found = read(rows_B)
    torch.set_num_threads(4 - threads)
    for mine, its in zip(torch.autograd.grad(found.sum(), parameters), alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_threads_share_the_images(counted: Callable[[Any], list[int]], threads: int) -> None:
    counts = counted(images)
    read = convolver(network(), pictures(30, 3, 36, 36), 1 / 255)
    assert read is not None
    read(torch.arange(25))
    assert sorted(counts) == ([25] if threads == 1 else [8, 8, 9])


def test_what_was_seen_last_is_not_what_is_learned_of() -> None:
    made, seen = network(), pictures(16, 3, 36, 36)
    read = convolver(made, seen, 1 / 255)
    assert read is not None
    parameters = list(made.parameters())
    first, second = torch.arange(8), torch.arange(8, 16)
    alone = torch.autograd.grad(read(first).sum(), parameters)
    found, _ = read(first), read(second)
    for mine, its in zip(torch.autograd.grad(found.sum(), parameters), alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)


def test_a_weight_that_is_no_number_is_not_hidden() -> None:
    made = network()
    with torch.no_grad():
        made.cnn[2].bias[0] = torch.nan
    read = convolver(made, pictures(4, 3, 36, 36), 1 / 255)
    assert read is not None
    assert read(torch.arange(4)).isnan().all()


def test_a_layer_may_be_frozen() -> None:
    made = network()
    made.cnn[0].requires_grad_(requires_grad=False)
    found = compare_learned(made, pictures(4, 3, 36, 36))
    assert found[:2] == [None, None]


def test_layers_that_are_replaced_between_two_minibatches_are_learned_of() -> None:
    made, seen, rows_B = network(), pictures(4, 3, 36, 36), torch.arange(4)
    read = convolver(made, seen, 1 / 255)
    assert read is not None
    for filters in (64, 40):  # compiled, and not
        made.cnn[2], made.cnn[4] = nn.Conv2d(32, filters, 4, 2), nn.Conv2d(filters, 64, 3)
        torch.testing.assert_close(read(rows_B), made(seen / 255), rtol=1e-4, atol=1e-5)


def tie(made: NatureCNN) -> None:
    made.cnn[0], made.cnn[2], made.cnn[4] = (nn.Conv2d(c, 32, 3) for c in (3, 32, 32))
    made.cnn[4].weight = made.cnn[2].weight
    made.linear = nn.Sequential()


def repeat(made: NatureCNN) -> None:
    twice = nn.Conv2d(32, 32, 3), nn.ReLU()
    made.cnn = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), *twice, *twice, nn.Flatten())
    made.linear = nn.Sequential()


def prune_for_good(made: NatureCNN) -> None:
    prune.l1_unstructured(made.cnn[2], "weight", amount=0.3)
    prune.remove(made.cnn[2], "weight")
    assert [name for name, _ in made.cnn[2].named_parameters()] == ["bias", "weight"]


@pytest.mark.parametrize("change", [tie, repeat, prune_for_good])
def test_parameters_are_those_of_the_layers(change: Callable[[NatureCNN], None]) -> None:
    made = network()
    change(made)
    compare(made, pictures(4, 3, 36, 36), torch.arange(4))


class Derived(NatureCNN):
    """May do anything."""


CHANGES: dict[str, Callable[[NatureCNN], Any]] = {
    "padding": lambda made: _put(made, nn.Conv2d(3, 32, 8, padding=1)),
    "dilation": lambda made: _put(made, nn.Conv2d(3, 32, 4, dilation=2)),
    "no bias": lambda made: _put(made, nn.Conv2d(3, 32, 8, bias=False)),
    "few filters": lambda made: _put(made, nn.Conv2d(3, 24, 8)),
    "other channels": lambda made: _put(made, nn.Conv2d(2, 32, 8)),
    "too large": lambda made: _put(made, nn.Conv2d(3, 32, 40)),
    "groups": lambda made: made.cnn.__setitem__(2, nn.Conv2d(32, 64, 4, 2, groups=2)),
    "twice the digits": lambda made: made.double(),
    "no convolution": lambda made: setattr(made, "cnn", nn.Sequential(nn.Flatten())),
    "activation": lambda made: made.cnn.__setitem__(1, nn.ELU()),
    "no activation": lambda made: made.cnn.__delitem__(1),
    "flatten": lambda made: made.cnn.__setitem__(6, nn.Flatten(2)),
    "derived layer": lambda made: _put(made, type("Own", (nn.Conv2d,), {})(3, 32, 8)),
    "parametrised": lambda made: nn.utils.parametrizations.weight_norm(made.cnn[0]),
    "hook": lambda made: made.cnn[3].register_forward_hook(lambda *_: None),
    "forward": lambda made: setattr(made.cnn, "forward", lambda seen: seen.flatten(1)),
}


def _put(made: NatureCNN, layer: nn.Module) -> None:
    made.cnn[0] = layer


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_left_to_torch(change: str) -> None:
    made = network()
    CHANGES[change](made)
    assert convolver(made, pictures(2, 3, 36, 36), 1 / 255) is None


def test_who_listens_to_all_modules_hears_these() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert convolver(network(), pictures(2, 3, 36, 36), 1 / 255) is None
    finally:
        handle.remove()
    assert convolver(network(), pictures(2, 3, 36, 36), 1 / 255) is not None


def test_what_is_to_be_cast_is_left_to_torch() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert convolver(network(), pictures(2, 3, 36, 36), 1 / 255) is None


def test_what_is_derived_is_left_to_torch() -> None:
    assert convolver(Derived(SPACE), pictures(2, 3, 36, 36), 1 / 255) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.int16])
def test_other_numbers_are_left_to_torch(dtype: torch.dtype) -> None:
    assert convolver(network(), torch.zeros(2, 3, 36, 36, dtype=dtype), 1 / 255) is None
