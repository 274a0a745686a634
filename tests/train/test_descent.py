"""Steps that are taken compiled are torch's, and those that are not are torch's, too."""

import copy
from typing import Any

import pytest
import torch
from palaestra.train import descent
from palaestra.train.descent import Descent, fused
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

SHAPES = [(64, 5), (64,), (3, 2, 4, 4), (), (1, 64), (700, 33)]
COMPILED: dict[str, dict[str, Any]] = {
    "as SB3 makes it": {"eps": 1e-5},
    "betas": {"betas": (0.5, 0.9)},
    "weight decay": {"weight_decay": 0.1},
}
LEFT: dict[str, Any] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "maximize": lambda p: torch.optim.Adam(p, lr=0.01, maximize=True),
    "told": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "told to fuse": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "a rate that is a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "another optimiser": lambda p: torch.optim.SGD(p, lr=0.01),
    "a part": lambda p: torch.optim.Adam(list(p)[1:], lr=0.01),
}


def made(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Return parameters with gradients."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(2, *shape, generator=generator, dtype=dtype) for shape in SHAPES]
    parameters = [nn.Parameter(values) for values, _ in drawn]
    for p, (_, gradient) in zip(parameters, drawn, strict=True):
        p.grad = gradient
    return parameters


def steps(
    parameters: list[nn.Parameter], optimizer: Any, most: float, ours: bool, count: int
) -> list[float]:
    """Take steps along the same random gradients, and return the norms of these."""
    descending, norms = Descent(optimizer, parameters), []
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        (descending.clear if ours else optimizer.zero_grad)()
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        if ours:
            norms.append(float(descending.step(most)))
        else:
            norms.append(float(nn.utils.clip_grad_norm_(parameters, most)))
            optimizer.step()
    return norms


def same(mine: list[nn.Parameter], my: Any, its: list[nn.Parameter], other: Any) -> None:
    """Compare parameters, gradients and what the optimisers remember."""
    for p, q in zip(mine, its, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6)
    mine_state, its_state = my.state_dict(), other.state_dict()
    assert mine_state["param_groups"] == its_state["param_groups"]
    torch.testing.assert_close(mine_state["state"], its_state["state"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [0.5, 1e9])
@pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
def test_compiled_steps_are_adams(options: dict[str, Any], most: float) -> None:
    mine, its = made(), made()
    my, other = (torch.optim.Adam(p, **({"lr": 0.01} | options)) for p in (mine, its))
    assert Descent(my, mine)._groups is not None
    norms = [steps(p, o, most, ours, 80) for p, o, ours in ((mine, my, True), (its, other, False))]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    same(mine, my, its, other)
    for p, o in ((mine, my), (its, other)):
        steps(p, o, most, False, 3)  # torch goes on from there
    same(mine, my, its, other)


def test_groups_have_rates_of_their_own() -> None:
    mine, its = made(), made()
    my, other = (
        torch.optim.Adam([{"params": p[:2], "lr": 0.1}, {"params": p[2:], "eps": 0.1}], lr=0.01)
        for p in (mine, its)
    )
    assert Descent(my, mine)._groups is not None
    steps(mine, my, 0.5, True, 20)
    steps(its, other, 0.5, False, 20)
    same(mine, my, its, other)


@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
def test_what_is_not_compiled_is_left_to_torch(make: Any) -> None:
    mine, its = made(), made()
    my, other = make(mine), make(its)
    assert Descent(my, mine)._groups is None
    with fused(my):
        steps(mine, my, 0.5, True, 20)
    steps(its, other, 0.5, False, 20)
    same(mine, my, its, other)


def test_where_numba_compiles_nothing_torch_takes_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters = made()
    monkeypatch.setattr(descent, "take_steps", descent.take_steps.py_func)
    assert Descent(torch.optim.Adam(parameters), parameters)._groups is None


def test_what_has_begun_is_not_forgotten_where_a_step_is_not_finite() -> None:
    parameters = made()
    first, second = parameters[:2]
    second.grad = None
    optimizer = torch.optim.Adam(parameters)
    own = Descent(optimizer, parameters)
    own.step(0.5)
    second.grad = torch.full_like(second, torch.nan)
    own.step(0.5)
    assert optimizer.state[first]["step"] == 1
    assert second not in optimizer.state
    for p in parameters:
        p.grad = torch.ones_like(p)
    own.step(0.5)
    assert [float(optimizer.state[p]["step"]) for p in (first, second)] == [2, 1]


def test_what_somebody_has_put_there_is_not_forgotten() -> None:
    parameters = made()
    optimizer = torch.optim.Adam(parameters)
    ones, first = torch.ones_like(parameters[0]), parameters[0]
    optimizer.state[first] = {
        "step": torch.zeros(()),
        "exp_avg": ones,
        "exp_avg_sq": ones.clone(),
    }
    first.grad = torch.full_like(first, torch.nan)
    Descent(optimizer, parameters).step(0.5)
    assert optimizer.state[first]["exp_avg"] is ones


def test_parameters_that_come_to_lie_otherwise_are_left_to_torch() -> None:
    mine, its = made(), made()
    own = Descent(my := torch.optim.Adam(mine), mine)
    other = torch.optim.Adam(its)
    for apart in (1, 2):
        for parameters in (mine, its):
            p = parameters[0]
            p.data = torch.stack([p.detach()] * apart, dim=-1)[..., 0]
            p.grad = torch.full_like(p, 0.1)
        nn.utils.clip_grad_norm_(its, 0.5)
        other.step()
        own.step(0.5)
        same(mine, my, its, other)


def test_gradients_of_more_digits_are_what_they_are_to_torch() -> None:
    parameters = made()
    parameters[0].grad, parameters[0].grad_dtype = None, torch.float64
    parameters[0].grad = torch.ones_like(parameters[0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="dtype"):
        Descent(torch.optim.Adam(parameters), parameters).step(0.5)


def test_parameters_that_lie_upon_each_other_are_two() -> None:
    whole = torch.randn(8)
    found = []
    for _ in range(2):
        memory = whole.clone()
        parameters = [nn.Parameter(memory), nn.Parameter(memory[:3])]
        optimizer = torch.optim.Adam(
            [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 1}]
        )
        own = Descent(optimizer, parameters)
        for turn in range(6):
            p, other = parameters[turn % 2], parameters[1 - turn % 2]
            p.grad, other.grad = torch.ones_like(p), None
            if found:
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
            else:
                own.step(0.5)
        found = [*found, memory]
    torch.testing.assert_close(*found)


def test_more_digits_are_left_to_torch() -> None:
    mine, its = made(dtype=torch.float64), made(dtype=torch.float64)
    my, other = torch.optim.Adam(mine), torch.optim.Adam(its)
    steps(mine, my, 0.5, True, 20)
    steps(its, other, 0.5, False, 20)
    same(mine, my, its, other)


def test_many_parameters_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = made()
    monkeypatch.setattr(descent, "_MANY", sum(p.numel() for p in parameters))
    assert Descent(torch.optim.Adam(parameters), parameters)._groups is None


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_gradient_may_lie_otherwise_than_its_parameter(kind: Any) -> None:
    mine, its = made(), made()
    my, other = kind(mine, lr=0.1, eps=1.0), kind(its, lr=0.1, eps=1.0)
    ours = Descent(my, mine)
    with fused(my):
        ours.step(1e9)
        assert mine[0].grad is not None
        mine[0].grad = mine[0].grad.mT.contiguous().mT
        ours.step(1e9)
    other.step()
    other.step()
    same(mine, my, its, other)


def test_memories_of_another_shape_are_left_to_torch() -> None:
    parameters = made()
    optimizer = torch.optim.Adam(parameters)
    Descent(optimizer, parameters).step(0.5)
    optimizer.state[parameters[0]]["exp_avg"] = torch.zeros(())
    with pytest.raises(RuntimeError, match="shape"):
        Descent(optimizer, parameters).step(0.5)


def test_who_takes_part_in_steps_is_asked() -> None:
    parameters, told = made(), []
    optimizer = torch.optim.Adam(parameters)
    optimizer.register_step_post_hook(lambda *_: told.append("one"))
    all_of_them = register_optimizer_step_post_hook(lambda *_: told.append("all"))
    try:
        Descent(optimizer, parameters).step(0.5)
    finally:
        all_of_them.remove()
    assert set(told) == {"one", "all"}


def test_gradients_are_forgotten_as_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = made()
    before = [p.grad for p in parameters]
    optimizer = torch.optim.Adam(parameters)
    monkeypatch.setattr(optimizer, "zero_grad", lambda *_: None)
    Descent(optimizer, parameters).clear()
    assert all(p.grad is gradient for p, gradient in zip(parameters, before, strict=True))


def test_what_has_no_gradient_stays() -> None:
    parameters = made()
    before, parameters[0].grad = parameters[0].detach().clone(), None
    optimizer = torch.optim.Adam(parameters)
    Descent(optimizer, parameters).step(0.5)
    assert torch.equal(parameters[0], before)
    assert parameters[0] not in optimizer.state
    assert len(optimizer.state) == len(parameters) - 1


@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
def test_no_step_is_taken_along_what_is_not_finite(worst: float) -> None:
    parameters = made()
    before = copy.deepcopy(parameters)
    assert parameters[2].grad is not None
    parameters[2].grad[0, 0, 0, 0] = worst
    optimizer = torch.optim.Adam(parameters)
    assert not float(Descent(optimizer, parameters).step(0.5)) < float("inf")
    assert not optimizer.state
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def test_a_step_is_seen_by_who_counts_versions() -> None:
    parameters = made()
    before = [p._version for p in parameters]
    Descent(torch.optim.Adam(parameters), parameters).step(0.5)
    assert all(p._version > v for p, v in zip(parameters, before, strict=True))


def test_a_parameter_that_moves_is_followed() -> None:
    mine, its = made(), made()
    my, other = torch.optim.Adam(mine), torch.optim.Adam(its)
    ours = Descent(my, mine)
    for _ in range(3):
        ours.step(0.5)
        mine[0].data = mine[0].data.clone()
        nn.utils.clip_grad_norm_(its, 0.5)
        other.step()
    same(mine, my, its, other)
