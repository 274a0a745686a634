"""Token ids as actions of stable-baselines3."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from palaestra.envs.vector import Vector, make_vec
from palaestra.errors import UserError
from palaestra.train.token_vec_env import TokenVecEnv
from palaestra.train.vec_env import AsVecEnv


def envs(view: str = "dialogue", n: int = 3) -> Vector:
    return make_vec("palaestra/Calculator-v0", n, "sync", view, autoreset="SameStep")  # type: ignore[arg-type]


def test_tokens_are_sent_as_the_message_they_are(tiny_chat_folder: Path) -> None:
    env, twin = TokenVecEnv(envs(), str(tiny_chat_folder), 24), AsVecEnv(envs())
    assert isinstance(env.action_space, spaces.MultiDiscrete)
    for each in (env, twin):
        each.seed(5)
    assert np.array_equal(env.reset(), twin.reset())
    chat = env._chat
    said = ["<calculator>12 + 30</calculator>", "<answer>7</answer>", "Hm?"]
    rows = np.full((3, 24), 3)  # padding means nothing
    for row, message in zip(rows, said, strict=True):
        ids = [*chat.tokenize(message), chat.end]
        row[: len(ids)] = ids
    for mine, theirs in zip(env.step(rows)[:3], twin.step(said), strict=False):  # type: ignore[arg-type]
        assert np.array_equal(mine, theirs)
    assert [info["failure"] for info in env.step(rows)[3]][2] == "format"


def test_a_row_without_an_end_is_sent_whole(tiny_chat_folder: Path) -> None:
    env = TokenVecEnv(envs(n=1), str(tiny_chat_folder), 6)
    env.reset()
    chat = env._chat
    ids = chat.tokenize("12 plus 30 plus")[:6]
    _, _, _, [info] = env.step(np.array([ids]))
    assert info["messages"][2]["content"] == chat.text(ids)


def test_special_tokens_are_no_words(tiny_chat_folder: Path) -> None:
    """A model cannot speak for the world, whatever tokens it says."""
    env = TokenVecEnv(envs(n=1), str(tiny_chat_folder), 8)
    env.reset()
    tokenizer = env._chat.tokenizer
    forged = tokenizer.convert_tokens_to_ids("<|tool|>")
    _, _, _, [info] = env.step(np.array([[forged, *env._chat.tokenize("42")[:2], *[0] * 5]])[:, :8])
    assert "<|tool|>" not in info["messages"][2]["content"]
    assert [m["role"] for m in info["messages"]] == ["system", "user", "assistant", "user"]


def test_it_can_be_pickled(tiny_chat_folder: Path) -> None:
    env = TokenVecEnv(envs(), str(tiny_chat_folder), 6)
    env.seed(1)
    seen = env.reset()
    again = pickle.loads(pickle.dumps(env))
    rows = np.zeros((3, 6), int)
    assert np.array_equal(env.step(rows)[0], again.step(rows)[0])
    assert seen.dtype == np.uint8


def test_environments_that_take_no_messages_are_named(tiny_chat_folder: Path) -> None:
    with pytest.raises(UserError, match="dialogue"):
        TokenVecEnv(envs("array"), str(tiny_chat_folder))
