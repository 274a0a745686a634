"""Elements: true facts, and answers that a second computation finds too."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra import assets
from palaestra.envs.elements import Elements, build_elements
from palaestra.envs.questions.sql import Subject, rows_of
from palaestra.envs.scoring import is_same


def test_the_cache_holds_what_is_built_today(tmp_path: Path) -> None:
    """Else a change of the builder, under an old key, would change the tasks of new machines."""
    build_elements(tmp_path / "fresh")
    for table in ("elements", "phases", "isotopes"):
        query = f"SELECT * FROM {table}"
        assert rows_of(tmp_path / "fresh", query) == rows_of(Elements.database_path(), query)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM elements", "118"),
        ("SELECT count(*) FROM isotopes", "3557"),
        ("SELECT symbol FROM elements WHERE name = 'Tungsten'", "W"),
        ("SELECT number FROM elements WHERE name = 'Gold'", "79"),
        ("SELECT weight FROM elements WHERE symbol = 'C'", "12.011"),
        ("SELECT electronegativity FROM elements WHERE name = 'Fluorine'", "3.98"),
        ("SELECT name FROM elements ORDER BY electronegativity DESC LIMIT 1", "Fluorine"),
        ("SELECT discovered FROM elements WHERE name = 'Oxygen'", "1774"),
        ("SELECT discovered FROM elements WHERE name = 'Iron'", "NULL"),
        (
            "SELECT melting_point FROM phases JOIN elements USING (number) WHERE name = 'Mercury'",
            "234.321",
        ),
        (
            "SELECT name FROM phases JOIN elements USING (number) ORDER BY melting_point DESC "
            "LIMIT 1",
            "Tungsten",
        ),
        (
            "SELECT count(*) FROM isotopes JOIN elements USING (number) WHERE name = 'Tin' AND "
            "abundance > 0",
            "10",
        ),
        (
            "SELECT mass_number FROM isotopes JOIN elements USING (number) WHERE name = 'Uranium' "
            "ORDER BY abundance DESC LIMIT 1",
            "238",
        ),
        (
            "SELECT spin FROM isotopes JOIN elements USING (number) WHERE name = 'Uranium' AND "
            "mass_number = 235",
            "7/2",
        ),
        (
            "SELECT mass FROM isotopes JOIN elements USING (number) WHERE name = 'Carbon' AND "
            "mass_number = 12",
            "12.0",
        ),
        ("SELECT count(*) FROM elements WHERE period = 2", "8"),
        ("SELECT count(*) FROM elements WHERE block = 'f'", "28"),
    ],
)
def test_facts_are_true(query: str, answer: str) -> None:
    assert Elements().sql(query) == answer


@pytest.mark.parametrize("name", ["Carbon", "Phosphorus", "Sulfur", "Tin", "Arsenic"])
def test_an_element_of_several_forms_has_no_single_melting_point(name: str) -> None:
    query = f"SELECT * FROM phases JOIN elements USING (number) WHERE name = '{name}'"
    assert Elements().sql(query) == "no rows"


Row = dict[str, Any]


@cache
def source(table: str) -> list[Row]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(assets.MENDELEEV.read("mendeleev/elements.db"))
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def element(s: Subject) -> Row:
    (found,) = (row for row in source("elements") if row["name"] == s["name"])
    return found


def isotopes(s: Subject) -> list[Row]:
    number = element(s)["atomic_number"]
    return [row for row in source("isotopes") if row["atomic_number"] == number]


def isotope(s: Subject) -> Row:
    (found,) = (row for row in isotopes(s) if row["mass_number"] == s["mass_number"])
    return found


def phase(s: Subject, key: str) -> list[float]:
    number = element(s)["atomic_number"]
    rows = [row for row in source("phasetransitions") if row["atomic_number"] == number]
    return known(rows, key) if [row["is_sublimation_point"] for row in rows] == [None] else []


def dense(s: Subject) -> list[Row]:
    period = [row for row in source("elements") if row["period"] == s["period"]]
    return [row for row in period if round(row["density"], 9) > float(s["density"])]


def recent(s: Subject) -> list[Row]:
    block = [row for row in source("elements") if row["block"] == s["block"]]
    return [row for row in block if row["discovery_year"] and row["discovery_year"] > s["year"]]


def known(rows: list[Row], key: str) -> list[Any]:
    return [row[key] for row in rows if row[key] is not None]


def one(which: Callable[[list[Any]], Any], rows: list[Row], key: str) -> list[Any]:
    return [which(known(rows, key))] if known(rows, key) else []


def best(
    rows: list[Row], which: Callable[[list[Any]], Any], key: str, of: str = "name"
) -> list[Any]:
    return [row[of] for row in rows if [row[key]] == one(which, rows, key)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def series(s: Subject) -> str:
    (found,) = (row for row in source("series") if row["id"] == element(s)["series_id"])
    return str(found["name"])


EXPECTED: dict[str, Callable[[Subject], list[Any]]] = {
    "elements.number": lambda s: known([element(s)], "atomic_number"),
    "elements.symbol": lambda s: known([element(s)], "symbol"),
    "elements.period": lambda s: known([element(s)], "period"),
    "elements.block": lambda s: known([element(s)], "block"),
    "elements.series": lambda s: [series(s)],
    "elements.weight": lambda s: known([element(s)], "atomic_weight"),
    "elements.density": lambda s: known([element(s)], "density"),
    "elements.electronegativity": lambda s: known([element(s)], "en_pauling"),
    "elements.discovered": lambda s: known([element(s)], "discovery_year"),
    "isotopes.count": lambda s: [len(isotopes(s))],
    "isotopes.lightest": lambda s: one(min, isotopes(s), "mass_number"),
    "isotopes.heaviest": lambda s: one(max, isotopes(s), "mass_number"),
    "isotopes.commonest": lambda s: best(isotopes(s), max, "abundance", "mass_number"),
    "isotopes.first": lambda s: one(min, isotopes(s), "discovery_year"),
    "isotopes.last": lambda s: one(max, isotopes(s), "discovery_year"),
    "phases.melting_point": lambda s: phase(s, "melting_point"),
    "phases.boiling_point": lambda s: phase(s, "boiling_point"),
    "isotope.mass": lambda s: known([isotope(s)], "mass"),
    "isotope.spin": lambda s: known([isotope(s)], "spin"),
    "isotope.discovered": lambda s: known([isotope(s)], "discovery_year"),
    "isotope.neutrons": lambda s: [int(s["mass_number"]) - element(s)["atomic_number"]],
    "periods.count": lambda s: [len(dense(s))],
    "periods.weight": lambda s: one(mean, dense(s), "atomic_weight"),
    "periods.lightest": lambda s: best(dense(s), min, "density"),
    "periods.electronegative": lambda s: best(dense(s), max, "en_pauling"),
    "periods.electropositive": lambda s: best(dense(s), min, "en_pauling"),
    "periods.last": lambda s: best(dense(s), max, "discovery_year"),
    "blocks.count": lambda s: [len(recent(s))],
    "blocks.first": lambda s: best(recent(s), min, "discovery_year"),
    "blocks.weight": lambda s: one(mean, recent(s), "atomic_weight"),
    "blocks.lightest": lambda s: best(recent(s), min, "density"),
    "blocks.densest": lambda s: best(recent(s), max, "density"),
    "blocks.electronegative": lambda s: best(recent(s), max, "en_pauling"),
    "blocks.numbers": lambda s: one(sum, recent(s), "atomic_number"),
}


@pytest.mark.parametrize("level", Elements.levels)
def test_python_finds_the_same_answers_in_the_source(level: str) -> None:
    env = Elements(level=level)
    rng = np.random.default_rng(0)
    asked: dict[str, int] = {}
    for topic in Elements.topics(level):
        for i in rng.permutation(len(topic.subjects))[:150]:
            for template in topic.templates:
                plan = env._plan(template, topic.subjects[i])
                right = EXPECTED[template.kind](topic.subjects[i])
                assert (plan is None) == (len(right) != 1), (template.kind, topic.subjects[i])
                if plan is not None:
                    assert is_same(plan.answer, str(right[0])), (plan, right)
                    asked[template.kind] = asked.get(template.kind, 0) + 1
    assert set(asked) == {t.kind for topic in Elements.topics(level) for t in topic.templates}
    assert min(asked.values()) >= 30
