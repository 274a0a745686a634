"""What the environments over a database share: one right answer, fair choices, disjoint splits."""

import re
import sqlite3
from contextlib import closing
from itertools import combinations, permutations

import pytest
from palaestra.envs.capitals import Capitals
from palaestra.envs.elements import Elements
from palaestra.envs.films import Films
from palaestra.envs.questions.sql import DatabaseEnv, Topic, _topics_of, extreme, split_of
from palaestra.envs.scoring import is_same
from palaestra.envs.tools import sql
from palaestra.envs.tools.remembering import Remembered
from palaestra.envs.tools.sql import MAX_CELL, _is_quickly_compiled
from palaestra.errors import UserError

ENVIRONMENTS = (Capitals, Films, Elements)
EVERYWHERE = [(e, level) for e in ENVIRONMENTS for level in e.levels]
DISJOINT = ("train", "validation", "test")
everywhere = pytest.mark.parametrize(
    ("environment", "level"), EVERYWHERE, ids=[f"{e.__name__}-{level}" for e, level in EVERYWHERE]
)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every query be run: what the oracle is told is not what the task was made from."""
    monkeypatch.setattr(sql, "_remembered", Remembered(1))
    monkeypatch.setattr(sql, "_MOST_LETTERS", -1)


def topics_of(environment: type[DatabaseEnv], level: str, split: str) -> tuple[Topic, ...]:
    return _topics_of(environment.topics, level, split)


def identities(topic: Topic) -> set[str]:
    return {topic.identity.format(**subject) for subject in topic.subjects}


@everywhere
@pytest.mark.parametrize("split", Capitals.splits)
def test_the_oracle_solves_a_hundred_tasks(
    environment: type[DatabaseEnv], level: str, split: str
) -> None:
    env = environment(split, level)
    for seed in range(100):
        _, info = env.reset(seed=seed)
        call = env.solution()
        assert call in info["choices"]
        result, _, _, _, info = env.step(call)
        assert info["failure"] is None
        answer = env.solution()
        assert answer == f"<answer>{result}</answer>"
        assert answer in info["choices"]
        assert env.step(answer)[1] == 1.0


@everywhere
def test_eight_calls_then_eight_answers_of_which_one_is_right(
    environment: type[DatabaseEnv], level: str
) -> None:
    env = environment("test", level)
    for seed in range(50):
        _, info = env.reset(seed=seed)
        assert len(set(info["choices"])) == 8
        info = env.step(env.solution())[4]
        answers = [choice[len("<answer>") : -len("</answer>")] for choice in info["choices"]]
        assert len(answers) == 8
        assert not any(is_same(one, other) for one, other in permutations(answers, 2))
        assert sum(env._judge(answer) for answer in answers) == 1


@everywhere
def test_splits_share_no_subject(environment: type[DatabaseEnv], level: str) -> None:
    found = {split: topics_of(environment, level, split) for split in DISJOINT}
    for one, other in combinations(DISJOINT, 2):
        for own, others in zip(found[one], found[other], strict=True):
            assert identities(own)
            assert not identities(own) & identities(others)


def test_a_subject_has_the_same_split_at_every_level() -> None:
    for country in ("France", "Kenya", "Peru"):
        holders = {
            split
            for level in Capitals.levels
            for split in DISJOINT
            if country in {s.get("name") for s in topics_of(Capitals, level, split)[0].subjects}
        }
        assert holders == {split_of(country)}


@everywhere
def test_choices_ask_about_subjects_of_their_split_alone(
    environment: type[DatabaseEnv], level: str
) -> None:
    for split in environment.splits:
        own = topics_of(environment, level, "test" if split == "paraphrase" else split)
        allowed = {str(value) for topic in own for s in topic.subjects for value in s.values()}
        env = environment(split, level)
        for seed in range(50):
            for choice in env.reset(seed=seed)[1]["choices"]:
                named = re.findall(r"= '((?:[^']|'')*)'", choice)
                assert {name.replace("''", "'") for name in named} <= allowed


@everywhere
def test_a_wording_belongs_to_one_template_and_one_kind_of_split(
    environment: type[DatabaseEnv], level: str
) -> None:
    """So what is asked can be told from the words, or from what a name stands for."""
    owners: dict[str, list[tuple[str, Topic]]] = {}
    for topic in environment.topics(level):
        for template in topic.templates:
            assert len(template.phrases) == len(template.paraphrases) == 2
            for wording in (*template.phrases, *template.paraphrases):
                owners.setdefault(wording, []).append((template.kind, topic))
    for found in owners.values():
        for (_, one), (_, other) in combinations(found, 2):
            assert one is not other
            assert not identities(one) & identities(other)


@everywhere
def test_every_kind_is_asked_in_every_split(environment: type[DatabaseEnv], level: str) -> None:
    kinds = {template.kind for topic in environment.topics(level) for template in topic.templates}
    for split in environment.splits:
        env = environment(split, level)
        env.reset(seed=0)
        missing = set(kinds)
        for _ in range(2000):
            missing.discard(env.reset()[1]["kind"])
            if not missing:
                break
        assert not missing


@everywhere
def test_a_query_has_one_column_and_is_compiled_at_once(
    environment: type[DatabaseEnv], level: str
) -> None:
    env = environment("test", level)
    with closing(sqlite3.connect(environment.database_path())) as connection:
        for seed in range(100):
            env.reset(seed=seed)
            query = env.solution()[len("<sql>") : -len("</sql>")]
            assert _is_quickly_compiled(query)
            (row,) = connection.execute(query).fetchall()
            assert len(row) == 1
            assert len(str(row[0])) < MAX_CELL


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_agent_can_read_the_schema(environment: type[DatabaseEnv]) -> None:
    """The instructions name every table and column, and so does the database, in full."""
    env = environment()
    env.reset(seed=0)
    said = env.step("<sql>SELECT sql FROM sqlite_master WHERE type = 'table'</sql>")[0]
    with closing(sqlite3.connect(environment.database_path())) as connection:
        written = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")
        assert said == "\n".join(sql for (sql,) in written)
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            assert f"{table}({', '.join(columns)})" in env.instructions


def test_a_tie_shows() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE hills (name, height)")
        connection.executemany("INSERT INTO hills VALUES (?, ?)", [("a", 3), ("b", 7), ("c", 7)])
        highest = extreme("name", "max", "height", "hills WHERE height < 10")
        assert connection.execute(highest).fetchall() == [("b",), ("c",)]
        lowest = extreme("name", "min", "height", "hills WHERE height < 10")
        assert connection.execute(lowest).fetchall() == [("a",)]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UserError, match="lookup, join, aggregate"):
        Capitals(level="riddle")
