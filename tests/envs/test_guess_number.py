"""GuessNumber: halving always finds it, and the splits share no task."""

import math

import pytest
from palaestra.envs.guess_number import GuessNumber


@pytest.mark.parametrize("level", GuessNumber.levels)
@pytest.mark.parametrize("split", GuessNumber.splits)
def test_halving_finds_every_number_in_time(level: str, split: str) -> None:
    env = GuessNumber(split, level)
    env.reset(seed=0)
    turns = []
    for _ in range(300):
        env.reset()
        success, turn = False, 0
        while not success:
            _, reward, success, _, info = env.step(env.solution())
            turn += 1
            assert (reward, info["success"]) == (float(success), success)
        turns.append(turn)
    assert max(turns) == env.max_turns == math.log2(env.max_choices + 1)


def test_the_world_says_where_the_number_is() -> None:
    env = GuessNumber()
    question, info = env.reset(seed=5)
    lowest, secret = env.task.lowest, env.task.secret
    assert question == f"I think of a whole number from {lowest} to {lowest + 30}. Which is it?"
    assert info["choices"] == tuple(f"<answer>{n}</answer>" for n in range(lowest, lowest + 31))
    assert (
        env.step(f"<answer>{secret - 1}</answer>")[0] == f"The number is higher than {secret - 1}."
    )
    assert (
        env.step(f"<answer> {secret + 1}. </answer>")[0]
        == f"The number is lower than {secret + 1}."
    )
    assert env.step("<answer>x</answer>")[0] == "That is not a whole number."
    assert env.step(f"I say \\boxed{{{secret}}}")[1:3] == (1.0, True)


def test_the_last_guess_ends_it() -> None:
    env = GuessNumber()
    env.reset(seed=5)
    wrong = f"<answer>{env.task.lowest - 1}</answer>"
    steps = [env.step(wrong) for _ in range(5)]
    assert [s[2] for s in steps] == [False] * 4 + [True]
    assert not any(s[3] or s[1] for s in steps)


@pytest.mark.parametrize("guess", ["9" * 4000, "1e9", "٣", "²", "-", "--1", "1_0", "0x10", "nan"])
def test_odd_guesses(guess: str) -> None:
    env = GuessNumber()
    env.reset(seed=5)
    _, reward, terminated, _, info = env.step(f"<answer>{guess}</answer>")
    assert (reward, terminated, info["failure"]) == (0.0, False, None)


def test_splits_share_no_task() -> None:
    drawn = {}
    for split in GuessNumber.splits:
        env = GuessNumber(split)
        env.reset(seed=0)
        drawn[split] = {(env.task.lowest, env.task.secret) for _ in range(3000) if env.reset()}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["validation"] & drawn["test"]
    lowest = {split: {low for low, _ in tasks} for split, tasks in drawn.items()}
    assert len(lowest["test"] & lowest["train"]) > 300  # alike in all but the pair
