"""Planned tasks: choices that give nothing away."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from palaestra.envs.views import make
from scipy import stats

TASKS = ("palaestra/Calculator-v0", "palaestra/Capitals-v0")
LEARNED, HELD_OUT = 3000, 1500
TURNS = ("call", "answer")


@dataclass(frozen=True)
class Seen:
    """One turn of one episode, as a policy without the dialogue sees it."""

    choices: tuple[str, ...]
    right: int


@cache
def episodes(env_id: str) -> dict[str, list[Seen]]:
    """Return both turns of many episodes of the training split."""
    env = make(env_id, split="train")
    seen: dict[str, list[Seen]] = {turn: [] for turn in TURNS}
    for i in range(LEARNED + HELD_OUT):
        _, info = env.reset(seed=11 if i == 0 else None)
        for turn in TURNS:
            message = env.unwrapped.solution()
            choices = info["choices"]
            seen[turn].append(Seen(tuple(choices), choices.index(message)))
            info = env.step(message)[4]
    return seen


def number_of(text: str) -> float:
    digits = re.findall(r"-?\d+(?:\.\d+)?", text)
    return float(digits[0]) if digits else np.nan


def kind_of(choice: str) -> str:
    """Return what sort of message a choice is: its operation or column, or its sort of answer."""
    if found := re.search(r"\d ([-+*%]) (\d+)", choice):
        larger_first = number_of(choice) > float(found[2])
        return f"{found[1]} {'larger' if larger_first else 'smaller'} first"
    if found := re.search(r"SELECT (\w+) FROM (\w+)", choice):
        return f"{found[2]}.{found[1]}"
    value = number_of(choice)
    return "words" if np.isnan(value) else f"number, {'-' if value < 0 else '+'}"


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("env_id", TASKS)
def test_the_right_choice_stands_anywhere(env_id: str, turn: str) -> None:
    seen = episodes(env_id)[turn]
    counts = np.bincount([s.right for s in seen], minlength=len(seen[0].choices))
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("env_id", TASKS)
def test_the_right_choice_is_of_any_kind(env_id: str, turn: str) -> None:
    """Each kind is right as often as chance has it, given how many choices are of it."""
    right: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for seen in episodes(env_id)[turn]:
        right[kind_of(seen.choices[seen.right])] += 1
        for choice in seen.choices:
            expected[kind_of(choice)] += 1 / len(seen.choices)
    assert len(expected) > 1
    kinds = sorted(expected)
    test = stats.chisquare([right[k] for k in kinds], [expected[k] for k in kinds])
    assert test.pvalue > 0.001


@pytest.mark.parametrize("env_id", TASKS)
def test_no_two_choices_are_the_same(env_id: str) -> None:
    for turn in TURNS:
        assert all(len(set(s.choices)) == len(s.choices) for s in episodes(env_id)[turn])


def features(seen: list[Seen]) -> NDArray[np.float64]:
    """Return position, kind, rank, length and hashed trigrams of each choice, (E, K, F)."""
    kinds = sorted({kind_of(choice) for s in seen for choice in s.choices})
    count = len(seen[0].choices)
    buckets = 128
    table = np.zeros((len(seen), count, 3 * count + len(kinds) + buckets))
    for row, s in zip(table, seen, strict=True):
        by_number = np.argsort(np.argsort([number_of(choice) for choice in s.choices]))
        by_length = np.argsort(np.argsort([len(choice) for choice in s.choices], kind="stable"))
        for k, choice in enumerate(s.choices):
            row[k, k] = 1
            row[k, count + by_number[k]] = 1
            row[k, 2 * count + by_length[k]] = 1
            row[k, 3 * count + kinds.index(kind_of(choice))] = 1
            for start in range(len(choice) - 2):
                trigram = choice[start : start + 3].encode()
                row[k, 3 * count + len(kinds) + crc32(trigram) % buckets] += 1
    return table / (table.std(axis=(0, 1)) + 1e-9)


def held_out_successes(seen: list[Seen]) -> int:
    """Train a softmax regression (Adam) on most episodes and count its hits on the others."""
    x_E_K_F = features(seen)
    right_E = np.array([s.right for s in seen])
    target_E_K = np.eye(x_E_K_F.shape[1])[right_E]
    x, target = x_E_K_F[:LEARNED], target_E_K[:LEARNED]
    weights, mean, square = np.zeros((3, x.shape[2]))
    for step in range(1, 101):
        logits = x @ weights
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        slope = np.tensordot(chances - target, x, axes=2) / len(x) + 1e-3 * weights
        mean = 0.9 * mean + 0.1 * slope
        square = 0.99 * square + 0.01 * slope**2
        weights -= 0.03 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return int(np.sum((x_E_K_F[LEARNED:] @ weights).argmax(axis=1) == right_E[LEARNED:]))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("env_id", TASKS)
def test_who_sees_the_choices_alone_does_no_better_than_chance(env_id: str, turn: str) -> None:
    seen = episodes(env_id)[turn]
    hits = held_out_successes(seen)
    interval = stats.binomtest(hits, HELD_OUT).proportion_ci(0.999)
    assert interval.low <= 1 / len(seen[0].choices) <= interval.high


def test_the_learner_would_find_a_leak() -> None:
    """One right choice in four is made the longest: the learner must notice."""
    leaky = []
    for i, s in enumerate(episodes(TASKS[0])["call"]):
        longest = int(np.argmax([len(choice) for choice in s.choices]))
        leaky.append(Seen(s.choices, longest if i % 4 == 0 else s.right))
    interval = stats.binomtest(held_out_successes(leaky), HELD_OUT).proportion_ci(0.999)
    assert interval.low > 1 / len(leaky[0].choices)
