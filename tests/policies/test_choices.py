"""The policy over choices: it reads them, wherever they stand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from palaestra.envs import views
from palaestra.policies.choices import ChoicePolicy, ChoiceScorer
from palaestra.policies.minilm import EMBEDDING
from stable_baselines3 import PPO

ENV = "palaestra/Calculator-v0"
K = 6


@pytest.fixture(scope="module")
def model() -> PPO:
    env = views.make(ENV, "array")
    return PPO(ChoicePolicy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")


@pytest.fixture(scope="module")
def observations() -> list[dict[str, Any]]:
    """Return two observations of new tasks and two of what a call was answered."""
    with views.make(ENV, "array") as env:
        new = [env.reset(seed=seed)[0] for seed in range(2)]
        called = []
        for seed in range(2, 4):
            _, info = env.reset(seed=seed)
            called.append(env.step(info["choices"].index(env.unwrapped.solution()))[0])
    return new + called


def tensors(model: PPO, observations: list[dict[str, Any]]) -> Any:
    batch = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return model.policy.obs_to_tensor(batch)[0]


def probabilities(model: PPO, observations: list[dict[str, Any]]) -> np.ndarray:
    with torch.no_grad():
        found = model.policy.get_distribution(tensors(model, observations)).distribution.probs
    return found.numpy()


def test_permuted_choices_permute_the_probabilities(
    model: PPO, observations: list[dict[str, Any]]
) -> None:
    order = np.random.default_rng(0).permutation(K)
    moved = [{**o, "choices": o["choices"][order], "mask": o["mask"][order]} for o in observations]
    before, after = probabilities(model, observations), probabilities(model, moved)
    np.testing.assert_allclose(after, before[:, order], atol=1e-6)
    assert before.std() > 1e-4  # they do differ, so the order means something


def test_the_value_does_not_depend_on_the_order_of_the_choices(
    model: PPO, observations: list[dict[str, Any]]
) -> None:
    moved = [{**o, "choices": o["choices"][::-1].copy()} for o in observations]
    with torch.no_grad():
        before = model.policy.predict_values(tensors(model, observations))
        after = model.policy.predict_values(tensors(model, moved))
    assert torch.equal(before, after)


def test_padded_choices_are_never_taken(model: PPO, observations: list[dict[str, Any]]) -> None:
    shorter = [{**o, "mask": np.array([1, 1, 0, 1, 0, 0], np.int8)} for o in observations]
    found = probabilities(model, shorter)
    assert (found[:, [2, 4, 5]] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    entropy = model.policy.get_distribution(tensors(model, shorter)).entropy()
    assert torch.isfinite(entropy).all()
    assert (entropy > 0).all()


def test_an_observation_without_choices_has_finite_values(
    model: PPO, observations: list[dict[str, Any]]
) -> None:
    with views.make(ENV, "array") as env:
        _, info = env.reset(seed=0)
        while info["choices"]:
            last, _, _, _, info = env.step(0)
    assert not last["mask"].any()
    batch = tensors(model, [last, *observations])
    actions, values, log_probs = model.policy(batch)
    _, evaluated, entropy = model.policy.evaluate_actions(batch, actions)
    for found in (values, log_probs, evaluated, entropy):
        assert torch.isfinite(found).all()


def test_gradients_reach_every_parameter(model: PPO, observations: list[dict[str, Any]]) -> None:
    model.policy.zero_grad()
    batch = tensors(model, observations)
    values, log_probs, entropy = model.policy.evaluate_actions(batch, torch.tensor([0, 1, 2, 3]))
    (values.sum() + log_probs.sum() + entropy.sum()).backward()
    for name, parameter in model.policy.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias that is added to every logit alike moves no probability.
        if name != "mlp_extractor.score.bias":
            assert parameter.grad.abs().sum() > 0, name


def test_the_optimiser_holds_every_parameter_once(model: PPO) -> None:
    held = [id(p) for group in model.policy.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.policy.parameters())


def test_an_untrained_policy_reports_what_resembles_what_it_was_told() -> None:
    scorer = ChoiceScorer(choices=2, width=8, resemblance=8.0)
    torch.nn.init.zeros_(scorer.score.weight)
    told = torch.nn.functional.normalize(torch.randn(1, EMBEDDING), dim=1)
    other = torch.nn.functional.normalize(torch.randn(1, EMBEDDING), dim=1)
    logits, _ = scorer(torch.cat([other, told, told, other, torch.ones(1, 2)], dim=1))
    difference = logits[0, 0] - logits[0, 1]
    torch.testing.assert_close(difference, 8 * (1 - (told @ other.T)[0, 0]), atol=1e-4, rtol=0)


def test_a_choice_is_scored_by_one_network_that_reads_five_parts_side_by_side() -> None:
    torch.manual_seed(0)
    scorer = ChoiceScorer(choices=3, width=8, resemblance=2.0)
    task, reply, *choices = torch.nn.functional.normalize(torch.randn(5, 4, EMBEDDING), dim=-1)
    logits, _ = scorer(torch.cat([task, reply, *choices, torch.ones(4, 3)], dim=1))
    for k, choice in enumerate(choices):
        parts = torch.cat([task, reply, choice, task * choice, reply * choice], dim=1)
        expected = scorer.score(scorer.actor(parts * EMBEDDING**0.5)).squeeze(1)
        expected = expected + scorer.resemblance * (reply * choice).sum(1)
        torch.testing.assert_close(logits[:, k], expected)


def test_training_changes_what_is_saved_and_loading_brings_it_back(
    observations: list[dict[str, Any]], tmp_path: Path
) -> None:
    env = views.make(ENV, "array")
    arguments = {"width": 32, "resemblance": 2.0}
    model = PPO(
        ChoicePolicy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu",
        policy_kwargs=arguments,
    )  # fmt: skip
    before = probabilities(model, observations)
    model.learn(16)
    after = probabilities(model, observations)
    assert not np.array_equal(before, after)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    assert np.array_equal(probabilities(loaded, observations), after)
    assert loaded.policy._width == 32
    batch = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    expected, _ = model.predict(batch, deterministic=True)
    assert np.array_equal(loaded.predict(batch, deterministic=True)[0], expected)


def test_the_policy_saves_and_loads_by_itself(model: PPO, tmp_path: Path) -> None:
    model.policy.save(tmp_path / "policy")
    loaded = ChoicePolicy.load(tmp_path / "policy", device="cpu")
    for mine, theirs in zip(model.policy.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, theirs)
