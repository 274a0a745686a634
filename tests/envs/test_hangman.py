"""Hangman: real words, letters that count, misses that lose."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.envs.hangman import Hangman

LIMITS = {"ten-misses": 10, "seven-misses": 7, "five-misses": 5}


def game(word: str, level: str = "ten-misses") -> Hangman:
    env = Hangman(level=level)
    env.reset(seed=0)
    env.task.word = word
    return env


def say(env: Hangman, guess: str) -> tuple[str, float, bool]:
    return env.step(f"<answer>{guess}</answer>")[:3]


def test_a_game_that_is_won() -> None:
    env = game("banana")
    assert say(env, "a") == ("The word is _ a _ a _ a (10 misses left).", 0.0, False)
    assert say(env, "E") == ("The word is _ a _ a _ a (9 misses left). It has no e.", 0.0, False)
    assert say(env, "a")[0] == "The word is _ a _ a _ a (8 misses left). It has no e."
    assert say(env, "cabana")[0] == "The word is _ a _ a _ a (7 misses left). It has no e."
    assert say(env, "b")[0] == "The word is b a _ a _ a (7 misses left). It has no e."
    assert say(env, "n") == ("", 1.0, True)


@pytest.mark.parametrize("level", Hangman.levels)
def test_the_last_miss_loses(level: str) -> None:
    env = game("banana", level)
    for _ in range(LIMITS[level] - 1):
        assert say(env, "z")[1:] == (0.0, False)
    assert say(env, "z") == ("", 0.0, True)


def test_the_whole_word_wins_at_once() -> None:
    assert say(game("banana"), " Banana. ") == ("", 1.0, True)


def test_a_letter_that_was_said_is_no_choice() -> None:
    env = game("banana")
    say(env, "a")
    info = env.step("<answer>z</answer>")[4]
    assert len(info["choices"]) == 24
    assert not {"<answer>a</answer>", "<answer>z</answer>"} & set(info["choices"])


@given(st.lists(st.text(max_size=8), max_size=24))
def test_the_world_never_shows_what_was_not_found(guesses: list[str]) -> None:
    env = game("banana")
    for guess in guesses:
        said, reward, over = say(env, guess)
        if over:
            break
        shown = said.partition(" is ")[2].partition(" (")[0].split()
        assert [c in ("_", w) for c, w in zip(shown, "banana", strict=True)] == [True] * 6
        assert {c for c in shown if c != "_"} <= {
            re.sub(r"[\s.]", "", g).casefold() for g in guesses
        }
        assert reward == 0.0


def test_the_words_are_words_and_no_split_has_those_of_another() -> None:
    words = {split: set(Hangman(split)._words) for split in Hangman.splits}
    assert {"governor", "seven"} <= words["test"]
    assert all(w.isascii() and w.islower() and 5 <= len(w) <= 9 for s in words.values() for w in s)
    assert min(map(len, words.values())) > 150
    assert not words["train"] & words["test"]
    assert not (words["train"] | words["test"]) & words["validation"]
