"""What holds for every environment of words, looked at for as long as it takes to be sure."""

from functools import cache

import gymnasium
import palaestra.envs  # noqa: F401
import pytest
from palaestra.envs.checking import run
from palaestra.envs.checking.fairness import MAX_RANDOM, random_success
from palaestra.envs.checking.subject import Subject
from palaestra.envs.views import find_spec, splits_of

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]

FAMILY = "palaestra/Reasoning-"
"""Sixty-six generators: their Python tool changes no task, and one split stands for all."""
SPLITS = {
    env_id: splits[-1:] if env_id.startswith(FAMILY) else splits
    for env_id in sorted(gymnasium.registry)
    if env_id.startswith("palaestra/")
    and (splits := splits_of(find_spec(env_id)))
    and not (env_id.startswith(FAMILY) and env_id.endswith("-python-v0"))
}
each_case = pytest.mark.parametrize(
    ("env_id", "split"), [(env_id, split) for env_id in SPLITS for split in SPLITS[env_id]]
)


@cache
def subject(env_id: str, split: str) -> Subject:
    return Subject(env_id, split, seed=10_000, episodes=500, hostile=10_000, most_steps=1_000_000)


@each_case
def test_the_oracle_solves_each_of_500_tasks(env_id: str, split: str) -> None:
    result = run("oracle", subject(env_id, split))
    assert not result.finding
    assert not result.skipped
    assert len(subject(env_id, split).dialogues) == 500


@each_case
def test_random_choices_solve_few_of_500_tasks(env_id: str, split: str) -> None:
    solved, played = random_success(subject(env_id, split))
    assert played == 500
    assert solved < MAX_RANDOM * played


@each_case
def test_choices_tell_nothing_of_500_tasks(env_id: str, split: str) -> None:
    assert not run("choices tell", subject(env_id, split)).finding


@pytest.mark.parametrize("env_id", SPLITS)
def test_ten_thousand_hostile_messages(env_id: str) -> None:
    result = run("hostile messages", subject(env_id, SPLITS[env_id][0]))
    assert not result.finding
    assert not result.skipped
