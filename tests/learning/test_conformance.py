"""What holds for every environment of words, looked at for as long as it takes to be sure."""

from functools import cache

import gymnasium
import palaestra.envs  # noqa: F401
import pytest
from palaestra.envs.checking import run
from palaestra.envs.checking.fairness import MAX_RANDOM, random_success
from palaestra.envs.checking.subject import Subject
from palaestra.envs.questions.reasoning_names import SLOW
from palaestra.envs.views import find_spec, splits_of

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]

FAMILY = "palaestra/Reasoning-"
"""A hundred generators and levels of one class: the Python tool changes none of their tasks, and
what they do with a message is the same but for a scorer, so that fewer messages do for each."""
ONE_SPLIT = (FAMILY, "palaestra/BabyAI-")
"""Families in which a hash decides to which split a task belongs, so that one stands for all."""
SPLITS = {
    env_id: splits[:1] if env_id.startswith(ONE_SPLIT) else splits
    for env_id in sorted(gymnasium.registry)
    if env_id.startswith("palaestra/")
    and (splits := splits_of(find_spec(env_id)))
    and not (env_id.startswith(FAMILY) and env_id.endswith("-python-v0"))
}
MANY = next(env_id for env_id in SPLITS if env_id.startswith(FAMILY))
"""The one of the family that is sent as many messages as everybody else."""
each_case = pytest.mark.parametrize(
    ("env_id", "split"), [(env_id, split) for env_id in SPLITS for split in SPLITS[env_id]]
)


@cache
def subject(env_id: str, split: str) -> Subject:
    slow = {f"{FAMILY}{name}-v0" for name in SLOW}
    episodes = 200 if env_id in slow else 500
    messages = 1_000 if env_id.startswith(FAMILY) and env_id != MANY else 10_000
    return Subject(env_id, split, 10_000, episodes, hostile=messages, most_steps=1_000_000)


@each_case
def test_the_oracle_solves_each_of_many_tasks_and_choices_tell_nothing(
    env_id: str, split: str
) -> None:
    """One test, so that the oracle plays once."""
    result = run("oracle", subject(env_id, split))
    assert not result.finding
    assert not result.skipped
    assert len(subject(env_id, split).dialogues) == subject(env_id, split).episodes
    assert not run("choices tell", subject(env_id, split)).finding


@each_case
def test_random_choices_solve_few_of_many_tasks(env_id: str, split: str) -> None:
    solved, played = random_success(subject(env_id, split))
    assert played == subject(env_id, split).episodes
    assert solved < MAX_RANDOM * played


@pytest.mark.parametrize("env_id", SPLITS)
def test_thousands_of_hostile_messages(env_id: str) -> None:
    result = run("hostile messages", subject(env_id, SPLITS[env_id][0]))
    assert not result.finding
    assert not result.skipped
