"""Masks of actions and of tokens travel with their transitions."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from palaestra.errors import UserError
from palaestra.train.masked_buffers import (
    MaskableDictRolloutBuffer,
    MaskableRolloutBuffer,
    TokenDictRolloutBuffer,
    TokenRolloutBuffer,
    through_stop,
)

T, N, L, STOP = 6, 2, 5, 3
BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
DICT = spaces.Dict(a=BOX, b=BOX)
TOKENS = spaces.MultiDiscrete([9] * L)


def fill(buffer: Any, action: Any, **given: Any) -> None:
    """Add steps of which each transition's value is its number; `given` has a step first."""
    for t in range(T):
        obs: Any = np.zeros((N, 3))
        if isinstance(buffer.observation_space, spaces.Dict):
            obs = {"a": obs, "b": obs}
        rest = np.zeros(N), np.zeros(N, bool), torch.arange(N) + t * N
        extra = {key: value[t] for key, value in given.items()}
        buffer.add(obs, action[t], *rest, **({"log_prob": torch.zeros(N)} | extra))
    buffer.compute_returns_and_advantage(torch.zeros(N), np.zeros(N, bool))


def epoch(buffer: Any) -> dict[str, Any]:
    """Return an epoch in the order in which it was stored."""
    batches = list(buffer.get(5))
    order = torch.cat([batch.old_values for batch in batches]).argsort()
    parts: dict[str, Any] = {}
    for name in batches[0]._fields:
        if name != "observations" and getattr(batches[0], name) is not None:
            parts[name] = torch.cat([getattr(batch, name) for batch in batches])[order].numpy()
    return parts


# Actions


@pytest.mark.parametrize(
    ("kind", "seen"), [(MaskableRolloutBuffer, BOX), (MaskableDictRolloutBuffer, DICT)]
)
@pytest.mark.parametrize(
    ("space", "count"),
    [
        (spaces.Discrete(4), 4),
        (spaces.MultiDiscrete([2, 3]), 5),
        (spaces.MultiBinary(3), 6),
    ],
)
def test_masks_of_actions_come_with_them(kind: Any, seen: Any, space: Any, count: int) -> None:
    buffer = kind(T, seen, space, "cpu", n_envs=N)
    masks = np.random.default_rng(0).random((T, N, count)) < 0.5
    actions = np.zeros((T, N, *space.shape), space.dtype)
    for _ in range(2):
        buffer.reset()
        fill(buffer, actions, action_masks=masks)
        found = epoch(buffer)["action_masks"]
        assert found.dtype == np.float32
        assert np.array_equal(found, masks.reshape(T * N, count))


def test_without_a_mask_every_action_is_admissible() -> None:
    buffer = MaskableRolloutBuffer(T, BOX, spaces.Discrete(4), "cpu", n_envs=N)
    masks = np.zeros((T, N, 4))
    fill(buffer, np.zeros((T, N), int), action_masks=masks)
    assert not epoch(buffer)["action_masks"].any()
    buffer.reset()
    fill(buffer, np.zeros((T, N), int))
    assert epoch(buffer)["action_masks"].all()


def test_masks_that_do_not_fit_are_refused() -> None:
    buffer = MaskableRolloutBuffer(T, BOX, spaces.Discrete(4), "cpu", n_envs=N)
    with pytest.raises(UserError, match=r"the action mask has shape \(2, 3\), where \(2, 4\)"):
        fill(buffer, np.zeros((T, N), int), action_masks=np.ones((T, N, 3)))
    with pytest.raises(UserError, match="where there is a list of them, not in Box"):
        MaskableRolloutBuffer(T, BOX, BOX, "cpu", n_envs=N)


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        (np.ones((3, N)), "shape"),
        (np.ones(3 * N), "shape"),
        (np.ones(3), "shape"),
        (np.full((N, 3), np.nan), "0 where"),
        (np.full((N, 3), -1e9), "0 where"),
    ],
)
def test_what_are_no_masks_are_not_taken_for_some(masks: Any, why: str) -> None:
    buffer = MaskableRolloutBuffer(T, BOX, spaces.Discrete(3), "cpu", n_envs=N)
    with pytest.raises(UserError, match=why):
        buffer.admit(masks)


def test_counts_are_masks_too() -> None:
    buffer = MaskableRolloutBuffer(T, BOX, spaces.Discrete(3), "cpu", n_envs=N)
    assert buffer.admit(np.array([[0, 1, 2], [255, 0, 1]])).tolist() == [[0, 1, 1], [1, 0, 1]]


def test_masks_of_what_is_invalid_go_with_it() -> None:
    buffer = MaskableRolloutBuffer(T, BOX, spaces.Discrete(4), "cpu", n_envs=N)
    masks = np.random.default_rng(0).random((T, N, 4)) < 0.5
    fill(buffer, np.zeros((T, N), int), action_masks=masks)
    buffer.valid_T_N[2, 1] = False
    assert np.array_equal(epoch(buffer)["action_masks"], np.delete(masks.reshape(-1, 4), 5, 0))


# Tokens


def test_the_agent_ends_with_the_first_stop_token() -> None:
    tokens = np.array([[1, 3, 0, 3, 0], [3, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 3]])
    expected = [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1] * 5, [1] * 5]
    assert through_stop(tokens, STOP).tolist() == np.array(expected, bool).tolist()
    assert through_stop(tokens, None).all()


@pytest.mark.parametrize("kind", [TokenRolloutBuffer, TokenDictRolloutBuffer])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("per_token", [False, True])
def test_tokens_come_with_their_masks(kind: Any, told: bool, per_token: bool) -> None:
    seen = BOX if kind is TokenRolloutBuffer else DICT
    buffer = kind(T, seen, TOKENS, "cpu", n_envs=N, stop_id=STOP, per_token=per_token)
    rng = np.random.default_rng(1)
    tokens, masks = rng.integers(0, 9, (T, N, L)), rng.random((T, N, L)) < 0.5
    given: dict[str, Any] = {"token_masks": masks} if told else {}
    if not told:
        masks = np.array([through_stop(row, STOP) for row in tokens])
    log_probs = rng.normal(size=(T, N, L) if per_token else (T, N)).astype("f4")
    if per_token:
        log_probs[~masks] = -np.inf  # whatever a policy says of padding
    fill(buffer, tokens, log_prob=torch.from_numpy(log_probs), **given)
    found = epoch(buffer)
    assert found["token_masks"].dtype == bool
    assert np.array_equal(found["token_masks"], masks.reshape(-1, L))
    assert np.array_equal(found["actions"], tokens.reshape(-1, L))
    if per_token:
        expected = np.where(masks, log_probs, 0.0).reshape(-1, L)
        assert np.array_equal(found["old_token_log_probs"], expected)
        assert np.allclose(found["old_log_prob"], expected.sum(1))
    else:
        assert "old_token_log_probs" not in found
        assert np.array_equal(found["old_log_prob"], log_probs.ravel())


def test_mistakes_with_tokens_are_named() -> None:
    def make(space: Any = TOKENS, **options: Any) -> TokenRolloutBuffer:
        return TokenRolloutBuffer(T, BOX, space, "cpu", n_envs=N, **options)

    tokens = np.zeros((T, N, L), int)
    with pytest.raises(UserError, match=r"the log-probability has shape \(2, 5\), where \(2,\)"):
        fill(make(), tokens, log_prob=torch.zeros(T, N, L))
    with pytest.raises(UserError, match=r"the log-probability has shape \(2,\), where \(2, 5\)"):
        fill(make(per_token=True), tokens)
    with pytest.raises(UserError, match=r"the token mask has shape \(2, 4\), where \(2, 5\)"):
        fill(make(), tokens, token_masks=np.ones((T, N, 4), bool))
    log_probs = torch.zeros(T, N, L)
    log_probs[4, 1, 2] = np.nan
    buffer = make(per_token=True)
    fill(buffer, tokens, log_prob=log_probs)
    with pytest.raises(UserError, match="the log-probability of environment 1 at step 4 is nan"):
        next(buffer.get())
    with pytest.raises(UserError, match="are a MultiDiscrete, not Box"):
        make(BOX)
    with pytest.raises(UserError, match="hold 16777216 tokens at most"):
        make(spaces.MultiDiscrete([2**25]))
