"""Capitals: questions about real countries and cities, one read-only SQL tool."""

from pathlib import Path

from .questions import capitals as ask
from .questions.sql import DatabaseEnv, Subject, Topic, rows_of
from .questions.world_database import agreed_countries, world_path

_CITY_THRESHOLDS = (20_000, 50_000, 100_000, 200_000, 500_000)
_COUNTRY_THRESHOLDS = tuple(n * 10**e for e in (5, 6, 7) for n in (1, 2, 3, 4, 5, 7))
_CITIES = """
SELECT name, country FROM cities WHERE population >= 100000 AND country IS NOT NULL
AND name NOT IN (SELECT name FROM countries)
AND name IN (SELECT name FROM cities GROUP BY name HAVING count(*) = 1) ORDER BY name
"""
"""Cities that a name is enough for."""
_CONTINENTS = (
    "SELECT DISTINCT continent FROM countries WHERE continent <> 'Antarctica' ORDER BY continent"
)


class Capitals(DatabaseEnv):
    """Answer questions about real countries and cities from a database, in SQL.

    ## Description
    "What is the capital of France?": find the column that a phrase means, ask for it in SQL,
    report the result. The database has 252 countries and 34,006 cities (GeoNames; capitals
    from The World Factbook). The level `lookup` asks for a column of one table; `join` goes
    from a country to its capital or from a city to its country, through both tables;
    `aggregate` counts, adds, averages or finds the extreme among the cities of a country or the
    countries of a continent with more than so many people.

    Asked about are the countries whose capital both sources agree on, and the cities of 100,000
    inhabitants or more whose name is unique; a question without exactly one answer is not
    asked. The splits share no country, no city, and no continent with the same number of
    people. `paraphrase` asks about those of `test` in phrasings that no other split uses.

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
    Success on `test`, every level: random choices 0.12 (one in eight), oracle 1. On `lookup`, 200
    episodes each: PPO through `AsChoices` and MiniLM 0.96 (0.93 to 0.98; 6,144 steps, one
    training seed); SmolLM2-135M-Instruct, 9 shots, greedy 0.70 (0.64 to 0.77),
    sampled 0.30 (0.24 to 0.37), held to a grammar 0.35 (0.29 to 0.42), and so after 1,536
    messages of PPO by the recipe `language-ppo` 0.51 (0.46 to 0.56; three training seeds), greedy
    0.75. On `join` PPO through `AsChoices` 0.72 (0.66 to 0.79), trained as on `lookup`.

    ## Version History
    v0: first version.
    """

    instructions = (
        "Answer the question from the database. Its tables are countries(name, capital, "
        "continent, population, area, currency, domain) and cities(name, country, population, "
        "latitude, longitude, timezone). Query it with <sql>SELECT ...</sql>. Then reply with "
        "<answer>result</answer>."
    )

    @staticmethod
    def database_path() -> Path:
        """Return the database of countries and cities."""
        return world_path()

    @staticmethod
    def topics(level: str) -> tuple[Topic, ...]:
        """Return what a level asks about."""
        agreed = sorted(agreed_countries())
        countries: list[Subject] = [{"name": name} for name in agreed]
        cities = rows_of(world_path(), _CITIES)
        if level == "lookup":
            return Topic(ask.ABOUT_COUNTRIES, countries), Topic(ask.ABOUT_CITIES, cities)
        if level == "join":
            known = [city for city in cities if city["country"] in agreed]
            return Topic(ask.ABOUT_CAPITALS, countries), Topic(ask.ABOUT_HOME_COUNTRIES, known)
        large: list[Subject] = [
            {"name": n, "threshold": t} for n in agreed for t in _CITY_THRESHOLDS
        ]
        parts = [
            row | {"threshold": t}
            for row in rows_of(world_path(), _CONTINENTS)
            for t in _COUNTRY_THRESHOLDS
        ]
        return (
            Topic(ask.ABOUT_LARGE_CITIES, large),
            Topic(ask.ABOUT_CONTINENTS, parts, "{continent} {threshold}"),
        )
