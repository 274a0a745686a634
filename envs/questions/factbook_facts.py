"""Single facts of the World Factbook that can be asked for: where they stand, how they read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .factbook_pages import Entry, Path

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_REMARK = r"(?: \([^()]*\))?"
_AFTER_HEIGHT = r"(?: m)?(?: \(.*\))?(?:;? note.*)?"


@dataclass(frozen=True)
class Fact:
    """Something that the factbook says in the same form about many countries."""

    path: Path
    """The field that says it."""
    queries: tuple[str, ...]
    """What to search for beside the name of a country, the plainest first."""
    pattern: str
    """What the field must look like, all of it; the first group is the fact."""

    def of(self, entry: Entry) -> str | None:
        """Return the fact in the factbook's own words, None where it is not told plainly."""
        found = re.fullmatch(self.pattern, entry.fields.get(self.path, ""))
        return found[1] if found else None

    def number_of(self, entry: Entry) -> float | None:
        """Return the fact as a number, which it must be."""
        words = self.of(entry)
        return _number(words) if words else None

    def also(self, entry: Entry) -> list[str]:
        """Return other ways to say the fact, which the factbook gives in brackets behind it."""
        field, words = entry.fields.get(self.path, ""), self.of(entry) or ""
        found = re.search(rf"{re.escape(words)}\W? ?\(([A-Z][^()]*)\)", field)
        return re.split(", |/", found[1]) if words and found else []


# A pattern lets pass only what has one answer: no second capital, no "none", no unnamed hill.
FACTS = {
    "capital": Fact(
        ("Government", "Capital", "name"),
        ("capital", "government capital name"),
        r"(Washington, D\.C\.|[A-Z](?:(?! in )[^;,()])*)(?: \((?!.*capital)[^()]*\))?",
    ),
    "currency": Fact(
        ("Economy", "Exchange rates", "Currency"),
        ("exchange rates currency",),
        r"[^()]*\(([A-Z]{3})\) per US.*",
    ),
    "peak": Fact(
        ("Geography", "Elevation", "highest point"),
        ("highest point", "elevation highest point"),
        # "Fako on Mont Cameroun 4,045 m": the name ends where the place begins.
        r"((?![^(\d]*(?:unnamed| and )|.*unnamed)[A-Z](?:(?! on | at |, )[^()])*?)"
        rf"(?: (?:on|at) [^;]*?)?{_REMARK} [\d,]+{_AFTER_HEIGHT}",
    ),
    "anthem": Fact(
        ("Government", "National anthem(s)", "title"),
        ("national anthem", "national anthem title lyrics"),
        r'["“]([^"“”]+?),?["”](?: ?\([^()]*\)?)?',
    ),
    "independence": Fact(
        ("Government", "Independence"),
        ("independence", "government independence national holiday"),
        rf"(\d{{1,2}} (?:{MONTHS}) \d{{4}}) \(from [^;]*\)",
    ),
    "domain": Fact(
        ("Communications", "Internet country code"), ("internet country code",), r"(\.[a-z]{2})"
    ),
    "area": Fact(
        ("Geography", "Area", "total"),
        ("area", "geography area map references"),
        rf"([1-9][\d,]*) sq km{_REMARK}",
    ),
    "population": Fact(
        ("People and Society", "Population", "total"),
        ("population", "population nationality ethnic groups"),
        rf"([1-9][\d,]*){_REMARK}",
    ),
    "coastline": Fact(
        ("Geography", "Coastline"),
        ("coastline", "geography coastline"),
        rf"([1-9][\d,.]*) km{_REMARK}",
    ),
    "life": Fact(
        ("People and Society", "Life expectancy at birth", "total population"),
        ("life expectancy at birth",),
        rf"([\d.]+) years{_REMARK}",
    ),
    "height": Fact(
        ("Geography", "Elevation", "highest point"),
        ("highest point", "elevation highest lowest point mean"),
        rf"(?!.*unnamed .*unnamed)(?:K2|[^\d;(])*{_REMARK}[^\d;(]*([1-9][\d,]*){_AFTER_HEIGHT}",
    ),
    "airports": Fact(
        ("Transportation", "Airports"),
        ("airports", "transportation airports"),
        r"([1-9][\d,]*) \(\d+\)",
    ),
}
COMPARED = ("area", "population", "coastline", "height", "life", "airports")
"""Numbers by which countries are compared."""
BORDERS = Fact(
    ("Geography", "Land boundaries", "border countries"),
    ("border countries", "land boundaries border countries"),
    "(.+? km).*",
)
_NAME_FORMS = ("conventional long", "conventional short", "local long", "local short")
_BORDER_NAMES = {
    "Czech Republic": "Czechia",
    "Holy See": "Vatican City",
    "Macedonia": "North Macedonia",
    "UAE": "United Arab Emirates",
    "UK": "United Kingdom",
    "US": "United States",
}


def also_called(entry: Entry) -> list[str]:
    """Return the names of a country that are as good as that of its entry."""
    fields = (("Government", "Country name", f"{form} form") for form in _NAME_FORMS)
    names = [entry.fields[path].split(";")[0] for path in fields if path in entry.fields]
    short = [short for short, name in _BORDER_NAMES.items() if name == entry.name]
    return [name for name in (*names, *short) if name != "none"]


def borders(entry: Entry) -> dict[str, float]:
    """Return the length of the border with each neighbour, in kilometres.

    A neighbour goes by the name of its own entry, if it has one.
    """
    lengths: dict[str, float] = {}
    for name, length in _border_lengths(entry.fields.get(BORDERS.path, "")):
        name = _BORDER_NAMES.get(name, name)
        lengths[name] = lengths.get(name, 0.0) + _number(length)
    return lengths


def _border_lengths(text: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r" \([^()]*\)", "", text)
    yield from re.findall(r"([A-Z][^\d;,]*?) ([\d,.]+) km", text)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
