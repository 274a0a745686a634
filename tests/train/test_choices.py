"""The compiled actor of `ChoicePolicy` is torch's, and what is none is left to torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from palaestra.policies.choices import ChoiceScorer
from palaestra.policies.minilm import EMBEDDING
from palaestra.train.choices import scorer
from palaestra.train.compiled.products import IS_FAST
from torch import nn

pytestmark = pytest.mark.skipif(not IS_FAST, reason="left to torch on such a core")


def network(choices: int = 5, width: int = 64) -> ChoiceScorer:
    torch.manual_seed(0)
    made = ChoiceScorer(choices, width, 3.0)
    nn.init.normal_(made.score.weight)
    return made


def texts(rows: int, choices: int = 5) -> torch.Tensor:
    """Return features of rows, some of which have fewer choices than others."""
    seen = nn.functional.normalize(torch.randn(rows, 2 + choices, EMBEDDING), dim=2)
    mask = torch.rand(rows, choices) < 0.8
    return torch.cat([seen.flatten(1), mask.float()], dim=1)


def compare(made: ChoiceScorer, seen: torch.Tensor, rows_B: torch.Tensor) -> None:
    """See whether latents and gradients are those that torch finds with twice the digits."""
    score = scorer(made, seen)
    assert score is not None
    found = score(rows_B)
    slopes = [torch.rand(latent.shape) for latent in found]  # which do not cancel each other
    parameters = [p for p in made.parameters() if p.dim()]  # in a scalar's, terms cancel each other
    gradients = torch.autograd.grad(found, parameters, slopes)
    made.double()
    expected = made(seen[rows_B].double())
    exact = torch.autograd.grad(expected, parameters, [slope.double() for slope in slopes])
    made.float()
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), its, rtol=1e-5, atol=1e-5)
    for mine, its in zip(gradients, exact, strict=True):
        assert mine.shape == its.shape
        assert (mine - its).norm() <= 2e-6 * its.norm() + 1e-12


@pytest.mark.usefixtures("threads")
@given(
    choices=st.integers(1, 30), rows=st.integers(1, 60), width=st.sampled_from([32, 64, 128]),
)  # fmt: skip
def test_latents_and_gradients_are_those_of_torch(choices: int, rows: int, width: int) -> None:
    seen = texts(40, choices)
    compare(network(choices, width), seen, torch.randint(0, 40, (rows,)))


def test_what_one_thread_began_others_do_not_end(threads: int) -> None:
    made, seen, rows_B = network(), texts(50), torch.arange(50)
    score = scorer(made, seen)
    assert score is not None
    parameters = list(made.actor.parameters())
    alone = torch.autograd.grad(score(rows_B)[0].sum(), parameters)
    found, _ = score(rows_B)
    torch.set_num_threads(4 - threads)
    for mine, its in zip(torch.autograd.grad(found.sum(), parameters), alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


def test_a_weight_that_is_no_number_is_not_hidden() -> None:
    made = network()
    with torch.no_grad():
        made.actor[0].bias[0] = torch.nan
    score = scorer(made, texts(4).index_fill(1, torch.arange(7 * EMBEDDING, 7 * EMBEDDING + 5), 1))
    assert score is not None
    assert score(torch.arange(4))[0].isnan().all()


def test_a_layer_may_be_frozen() -> None:
    made, seen, rows_B = network(), texts(4), torch.arange(4)
    made.actor[2].requires_grad_(requires_grad=False)
    score = scorer(made, seen)
    assert score is not None
    score(rows_B)[0].sum().backward()
    found = [p.grad for p in made.actor.parameters()]
    made.zero_grad()
    made(seen)[0].sum().backward()
    assert found[2:] == [None, None]
    for mine, p in zip(found[:2], made.actor[0].parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=1e-4, atol=1e-4)


def test_what_is_replaced_between_two_minibatches_is_learned_of() -> None:
    made, seen, rows_B = network(), texts(8), torch.arange(8)
    score = scorer(made, seen)
    assert score is not None
    transpose(made.actor[2].weight)
    made.actor[0].bias = nn.Parameter(torch.ones(64))
    mine = torch.autograd.grad(score(rows_B)[0].sum(), list(made.actor.parameters()))
    its = torch.autograd.grad(made(seen)[0].sum(), list(made.actor.parameters()))
    for ours, theirs in zip(mine, its, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_has_changed_since_is_an_error_as_in_torch() -> None:
    made = network()
    score = scorer(made, texts(8))
    assert score is not None
    found, _ = score(torch.arange(8))
    with torch.no_grad():
        made.actor[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.sum().backward()


def test_the_way_back_may_be_gone_twice() -> None:
    made = network()
    score = scorer(made, texts(8))
    assert score is not None
    found, parameters = score(torch.arange(8))[0].sum(), list(made.actor.parameters())
    first = torch.autograd.grad(found, parameters, retain_graph=True)
    for mine, again in zip(first, torch.autograd.grad(found, parameters), strict=True):
        assert torch.equal(mine, again)


def test_features_and_gradients_may_lie_in_any_way() -> None:
    made, seen, rows_B = network(), texts(8), torch.arange(8)
    parameters = list(made.actor.parameters())
    slopes = torch.randn(8, 5)
    found = []
    for features, slope in [(seen, slopes), (seen.T.contiguous().T, slopes.T.contiguous().T)]:
        score = scorer(made, features)
        assert score is not None
        found.append(torch.autograd.grad(score(rows_B)[0], parameters, slope))
    for mine, its in zip(*found, strict=True):
        assert torch.equal(mine, its)


def test_the_critic_may_be_any() -> None:
    made, seen, rows_B = network(), texts(8), torch.arange(8)
    made.critic = nn.Sequential(nn.Linear(2 * EMBEDDING, 7), nn.ReLU())
    score = scorer(made, seen)
    assert score is not None
    torch.testing.assert_close(score(rows_B)[1], made(seen)[1])


class Derived(ChoiceScorer):
    """May do anything."""


class OwnLinear(nn.Linear):
    """May do anything."""


def transpose(weight: nn.Parameter) -> None:
    """Let a weight lie otherwise in memory."""
    weight.data = weight.data.T.contiguous().T


CHANGES: dict[str, Callable[[ChoiceScorer], Any]] = {
    "transposed": lambda made: transpose(made.actor[2].weight),
    "no bias": lambda made: made.actor.__setitem__(2, nn.Linear(64, 64, bias=False)),
    "other features": lambda made: made.actor.__setitem__(0, nn.Linear(5, 64)),
    "another width": lambda made: made.actor.__setitem__(2, nn.Linear(64, 32)),
    "activation": lambda made: made.actor.__setitem__(1, nn.ReLU()),
    "one more layer": lambda made: made.actor.append(nn.Linear(64, 64)),
    "derived layer": lambda made: made.actor.__setitem__(2, OwnLinear(64, 64)),
    "derived score": lambda made: setattr(made, "score", OwnLinear(64, 1)),
    "twice the digits": lambda made: made.double(),
    "parametrised": lambda made: nn.utils.parametrizations.weight_norm(made.actor[0]),
    "hook": lambda made: made.actor[1].register_forward_hook(lambda *_: None),
    "forward": lambda made: setattr(made, "forward_actor", lambda seen: seen[:, :5]),
    "split": lambda made: setattr(made, "split", made.split),
    "logits": lambda made: setattr(made, "logits", made.logits),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_left_to_torch(change: str) -> None:
    made = network()
    assert scorer(made, texts(2)) is not None
    CHANGES[change](made)
    assert scorer(made, texts(2)) is None


def test_what_is_to_be_cast_is_left_to_torch() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert scorer(network(), texts(2)) is None


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "derived": lambda: Derived(5, 64, 3.0),
    "of another class": nn.Identity,
    "few units": lambda: network(width=40),
    "no unit": lambda: network(width=0),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_another_network_is_left_to_torch(other: str) -> None:
    assert scorer(OTHERS[other](), texts(2)) is None


def test_features_of_twice_the_digits_are_left_to_torch() -> None:
    assert scorer(network(), texts(2).double()) is None
