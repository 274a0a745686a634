"""How Factbook words its questions."""

import re
from collections.abc import Sequence

_Phrasings = tuple[tuple[str, ...], tuple[str, ...]]
"""Phrasings of the other splits, and those of `paraphrase` alone."""

_NEIGHBOUR: _Phrasings = (
    (
        "Which neighbour of {name} has {most}?",
        "Of the countries that border {name}, which has {most}?",
    ),
    (
        "Look at who lies around {name}: whose is {most}?",
        "Find {most} among all that touch {name}. Whose is it?",
    ),
)
PHRASES: dict[str, _Phrasings] = {
    "capital": (
        ("What is the capital of {name}?", "Which city is the capital of {name}?"),
        ("From which city is {name} governed?", "Name the seat of government of {name}."),
    ),
    "currency": (
        (
            "What is the three-letter code of the currency of {name}?",
            "Which currency code does {name} have?",
        ),
        (
            "By which three letters do banks know the money of {name}?",
            "How do exchange offices abbreviate what people pay with in {name}?",
        ),
    ),
    "peak": (
        ("What is the highest point of {name}?", "Which is the highest point of {name}?"),
        ("On which summit is one above all of {name}?", "Name the top of {name}."),
    ),
    "anthem": (
        (
            "What is the title of the national anthem of {name}?",
            "How is the national anthem of {name} called?",
        ),
        ("Which song stands for {name}?", "What is sung when a team of {name} has won?"),
    ),
    "independence": (
        ("When did {name} become independent?", "On which date did {name} gain independence?"),
        ("Since which day does {name} rule itself?", "When did foreign rule of {name} end?"),
    ),
    "domain": (
        ("What is the internet country code of {name}?", "Which internet code does {name} have?"),
        ("In what do web addresses of {name} end?", "Name the top-level domain of {name}."),
    ),
    "area": (
        (
            "What is the total area of {name} in square kilometres?",
            "How large is the total area of {name}?",
        ),
        ("How many square kilometres does {name} cover?", "How big is the territory of {name}?"),
    ),
    "population": (
        ("What is the population of {name}?", "How many people live in {name}?"),
        ("How many inhabitants does {name} have?", "Count the residents of {name}."),
    ),
    "coastline": (
        (
            "How long is the coastline of {name} in kilometres?",
            "What is the length of the coastline of {name}?",
        ),
        (
            "How many kilometres of shore does {name} have?",
            "Over what length is {name} by the sea?",
        ),
    ),
    "life": (
        (
            "What is the life expectancy at birth in {name}?",
            "Which life expectancy in years does {name} have?",
        ),
        ("How old do people get in {name}?", "For how many years do those born in {name} live?"),
    ),
    "borders-both": (
        (
            "Which country borders both {one} and {other}?",
            "Which country has a border with {one} and one with {other}?",
        ),
        ("Who is a neighbour of {one} and of {other}?", "Who lies next to {one} and to {other}?"),
    ),
    "peak-capital": (
        (
            "What is the capital of the country whose highest point is {clue}?",
            "Which city is the capital of the country with {clue} as its highest point?",
        ),
        (
            "{clue} tops a country. From which city is it governed?",
            "Name the seat of government of the country that {clue} is the summit of.",
        ),
    ),
    "anthem-capital": (
        (
            'What is the capital of the country whose national anthem is "{clue}"?',
            'Which city is the capital of the country with the national anthem "{clue}"?',
        ),
        (
            'The song of a country is "{clue}". From which city is it governed?',
            'Name the seat of government of those who sing "{clue}" for their country.',
        ),
    ),
    "anthem-peak": (
        (
            'What is the highest point of the country whose national anthem is "{clue}"?',
            'Which is the highest point of the country with the national anthem "{clue}"?',
        ),
        (
            'The song of a country is "{clue}". On which summit is one above all of it?',
            'Name the top of the country of those who sing "{clue}" for it.',
        ),
    ),
    "anthem-currency": (
        (
            'What is the currency code of the country whose national anthem is "{clue}"?',
            'Which currency code has the country with the national anthem "{clue}"?',
        ),
        (
            'The song of a country is "{clue}". By which three letters do banks know its money?',
            'How do exchange offices abbreviate the money of those who sing "{clue}"?',
        ),
    ),
    "longest-border": (
        (
            "What is the capital of the country with which {name} has its longest border?",
            "Which city is the capital of the country that shares the longest border with {name}?",
        ),
        (
            "From which city is the country governed that {name} touches over most kilometres?",
            "Name the seat of government of who lies along {name} the farthest.",
        ),
    ),
    **{
        f"neighbour-{fact}": _NEIGHBOUR
        for fact in ("area", "population", "coastline", "height", "life", "airports")
    },
    "comparison": (
        ("Which of these has {most}: {names}?", "Of {names}, which has {most}?"),
        ("Rank {names}. Whose is {most}?", "Find {most} among {names}. Whose is it?"),
    ),
}
_SUPERLATIVES = {
    # Fact: (largest, smallest, noun in the other splits, noun in `paraphrase`).
    "area": ("largest", "smallest", "area", "territory"),
    "population": ("largest", "smallest", "population", "number of inhabitants"),
    "coastline": ("longest", "shortest", "coastline", "shore"),
    "height": ("greatest", "smallest", "elevation of its highest point", "altitude at the top"),
    "life": ("highest", "lowest", "life expectancy at birth", "age to which people live"),
    "airports": ("largest", "smallest", "number of airports", "count of airfields"),
}
_WITH_ARTICLE = re.compile(
    r"(?:Democratic |Dominican |Central African |)Republic|United |US |British |Isle |Gaza |West B"
    r"|.*(?:Islands|Lands|Refuges|Territory|Netherlands|Philippines|Maldives|Comoros|Seychelles)$"
)


def superlative(fact: str, rank: str, paraphrased: bool) -> str:
    """Say what is compared: "the second longest coastline"."""
    most, least, *nouns = _SUPERLATIVES[fact]
    words = rank.replace("largest", most).replace("smallest", least)
    return f"the {words} {nouns[paraphrased]}"


def spoken(name: str) -> str:
    """Return a country's name as it stands in a sentence, with an article where one is due."""
    return f"the {name}" if _WITH_ARTICLE.match(name) else name


def listed(names: Sequence[str]) -> str:
    """Return names of countries as a list in a sentence."""
    *most, last = map(spoken, names)
    return f"{', '.join(most)} and {last}"
