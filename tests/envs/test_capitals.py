"""Capitals: true facts, and splits that share no subject."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from palaestra.envs.capitals import Capitals, _build, _subjects, database_path

DISJOINT = ("train", "validation", "test")


def draws(split: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    env = Capitals(split)
    for i in range(count):
        yield env.reset(seed=0 if i == 0 else None)


def subjects_in(info: dict[str, Any]) -> set[str]:
    """Return the names in the WHERE clauses of the choices."""
    found = (re.search(r"WHERE name = '(.+)'</sql>$", choice) for choice in info["choices"])
    return {match[1].replace("''", "'") for match in found}


@pytest.fixture(scope="module")
def asked() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    return {split: list(draws(split, 2000)) for split in Capitals.splits}


def test_the_question_of_the_documentation() -> None:
    names = {split: {row["name"] for row in _subjects(split)["countries"]} for split in DISJOINT}
    split = next(split for split in DISJOINT if "France" in names[split])
    env = Capitals(split)
    question, _ = env.reset(seed=0)
    for _ in range(100_000):
        if question == "What is the capital of France?":
            break
        question, _ = env.reset()
    assert question == "What is the capital of France?"
    assert env.step("<sql>SELECT capital FROM countries WHERE name = 'France'</sql>")[0] == "Paris"
    assert env.step("<answer>Paris</answer>")[1] == 1.0


@pytest.mark.parametrize("table", ["countries", "cities"])
def test_splits_share_no_subject(table: str) -> None:
    names = {split: [row["name"] for row in _subjects(split)[table]] for split in DISJOINT}
    for one, other in combinations(DISJOINT, 2):
        assert not set(names[one]) & set(names[other])
    assert all(len(set(rows)) == len(rows) >= 8 for rows in names.values())


def test_choices_name_subjects_of_their_split_alone(
    asked: dict[str, list[tuple[str, dict[str, Any]]]],
) -> None:
    for split, tasks in asked.items():
        own = _subjects("test" if split == "paraphrase" else split)
        allowed = {row["name"] for rows in own.values() for row in rows}
        assert set().union(*(subjects_in(info) for _, info in tasks)) <= allowed


def test_the_cache_holds_what_is_built_today(tmp_path: Path) -> None:
    """Else a change of the builder, under an old key, would change the tasks of new machines."""
    _build(tmp_path / "fresh")
    kept = database_path().parent
    assert (tmp_path / "fresh" / "agreed.json").read_text() == (kept / "agreed.json").read_text()
    for table in ("countries", "cities"):
        assert rows_of(tmp_path / "fresh", table) == rows_of(kept, table)


def rows_of(folder: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "world.sqlite")) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def test_both_sources_agree_on_about_210_capitals() -> None:
    count = sum(len(_subjects(split)["countries"]) for split in DISJOINT)
    print(f"{count} countries are asked about")
    assert 200 <= count <= 216


@pytest.mark.parametrize(
    ("country", "capital"),
    [("France", "Paris"), ("Japan", "Tokyo"), ("Kenya", "Nairobi"), ("Peru", "Lima")],
)
def test_capitals_are_true(country: str, capital: str) -> None:
    rows = [row for split in DISJOINT for row in _subjects(split)["countries"]]
    assert [row["capital"] for row in rows if row["name"] == country] == [capital]


def test_paraphrases_are_used_by_no_other_split(
    asked: dict[str, list[tuple[str, dict[str, Any]]]],
) -> None:
    phrasings = {}
    for split, tasks in asked.items():
        phrasings[split] = set()
        for question, info in tasks:
            name = max((n for n in subjects_in(info) if n in question), key=len)
            phrasings[split].add((question.replace(name, "N"), info["kind"]))
    assert phrasings["train"] == phrasings["validation"] == phrasings["test"]
    # Nine columns in two phrasings each.
    assert len(phrasings["train"]) == len(phrasings["paraphrase"]) == 18
    plain, paraphrased = ({q for q, _ in phrasings[s]} for s in ("test", "paraphrase"))
    assert not plain & paraphrased


def test_every_kind_is_asked(asked: dict[str, list[tuple[str, dict[str, Any]]]]) -> None:
    for tasks in asked.values():
        kinds = {info["kind"] for _, info in tasks}
        assert len(kinds) == 9
        assert {"countries.capital", "cities.latitude"} <= kinds


def test_a_name_says_whether_a_country_or_a_city_is_meant(
    asked: dict[str, list[tuple[str, dict[str, Any]]]],
) -> None:
    """Population is asked of both in the same words."""
    countries, cities = (
        {row["name"] for split in DISJOINT for row in _subjects(split)[table]}
        for table in ("countries", "cities")
    )
    assert not countries & cities
